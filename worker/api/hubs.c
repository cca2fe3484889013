/*
 * hubs - see hubs.h.
 *
 *   NEW --handshake--> SHAKEN --event, completion, ping--> said
 *    |  not in time, or another protocol        |  silent for events.client_timeout, too slow,
 * missed
 *    +--------------> Close, ENDING <-----------+  something, key revoked, drained
 */
#include "worker/api/hubs_impl.h"

#include <stdlib.h>

#include "common/metric.h"
#include "worker/api/event_text.h"
#include "worker/api/farewell.h"

/* ---- what a client is told ---- */

static uint64_t
now_of(const struct hub_conn *c)
{
	return loop_now_ms(c->hubs->api->loop);
}

static void
answer_poll(struct hub_conn *c, int status)
{
	struct hub_poll poll = c->by.lp.poll;

	c->by.lp.poll.is_there = false;
	c->by.lp.since_ms = now_of(c);
	hub_poll_answer(c->hubs, &poll, status, buf_str(&c->by.lp.out));
	buf_fini(&c->by.lp.out);
}

static void
say_by_poll(struct hub_conn *c, struct str records)
{
	buf_add_str(&c->by.lp.out, records);
	if (c->by.lp.poll.is_there)
		answer_poll(c, 200);
}

static bool
send_out(struct hub_conn *c, struct ws_out *out)
{
	enum ws_sent sent = ws_socket_send(&c->by.ws, out);

	c->is_slow = c->is_slow || sent == WS_SLOW || sent == WS_FULL;
	return sent != WS_FULL;
}

static bool
say(struct hub_conn *c, struct str records)
{
	struct ws_out *out;
	bool is_taken;

	c->said_ms = now_of(c);
	switch ((enum hub_carrier)c->carrier) {
	case HUB_BY_SOCKET:
		out = ws_out_new(WS_OP_TEXT, records);
		is_taken = send_out(c, out);
		ws_out_unref(&out);
		return is_taken;
	case HUB_BY_STREAM:
		return sse_send(c->by.sse, STR_NONE, STR_NONE, records);
	case HUB_BY_POLL:
		is_taken = c->by.lp.out.len < c->hubs->api->conf->events.max_queue_bytes;
		if (is_taken)
			say_by_poll(c, records);
		return is_taken;
	}
	return false;
}

void
hub_conn_say(struct hub_conn *c, struct str records)
{
	if (!c->is_ending && !say(c, records))
		hub_conn_end(c, "The client is too slow.", true);
}

void
hub_complete(struct hub_conn *c, const char *invocation_id, const char *error, struct str result)
{
	struct buf b = BUF_INIT;

	if (invocation_id == NULL)
		return;
	signalr_add_completion(&b, invocation_id, error, result);
	hub_conn_say(c, buf_str(&b));
	buf_fini(&b);
}

/* ---- a poll's client may go while it waits ---- */

static void
on_poll_gone(void *arg)
{
	struct hub_conn *c = arg;

	c->by.lp.poll.is_there = false;
	c->by.lp.since_ms = now_of(c);
}

/* One of another worker is watched there. */
static void
watch_poll(struct hub_conn *c, bool is_watched)
{
	struct http_req *req = NULL;

	if (c->by.lp.poll.is_there && c->by.lp.poll.call_id == 0)
		req = http_find(c->hubs->api->http, c->by.lp.poll.http);
	if (req != NULL)
		http_on_gone(req, is_watched ? on_poll_gone : NULL, c);
}

void
hub_conn_left(struct hub_conn *c, struct backplane_addr from, uint64_t number)
{
	const struct hub_poll *p = &c->by.lp.poll;

	if (c->carrier == HUB_BY_POLL && p->is_there && p->call_id != 0 && p->number == number &&
	    p->from.host == from.host && p->from.who.number == from.who.number)
		answer_poll(c, 200); /* nobody reads it; there is nothing in it */
}

/* ---- its end ---- */

static void
conn_free(struct hub_conn *c)
{
	struct hubs *hubs = c->hubs;

	wheel_stop(http_server_wheel(hubs->api->http), &c->beat);
	list_for_safe (node, &c->subs)
		hub_sub_free(list_entry(node, struct hub_sub, node));
	list_for_safe (node, &c->waits)
		list_del(node);
	key_release(&c->key);
	idmap_remove(hubs->conns, c->handle);
	if (c->token != NULL && c->carrier != HUB_BY_SOCKET) {
		struct id id;

		strmap_del(hubs->ids, str_of(c->token));
		if (id_parse(str_of(c->token), "hub", &id))
			backplane_disown(hubs->api->backplane, &id);
	}
	if (c->carrier == HUB_BY_POLL) {
		watch_poll(c, false);
		buf_fini(&c->by.lp.out);
	}
	list_del(&c->node);
	hubs->count--;
	hubs->polls -= c->carrier == HUB_BY_POLL;
	buf_fini(&c->partial);
	free(c->token);
	free(c->app_id);
	free(c);
}

/* What was said before gets out with the answer to the poll that waits, or to the next. */
static void
end_poll(struct hub_conn *c, struct str close)
{
	buf_add_str(&c->by.lp.out, close);
	if (!c->by.lp.poll.is_there)
		return; /* on_beat() ends it if nobody asks any more */
	answer_poll(c, 200);
	conn_free(c);
}

void
hub_conn_end(struct hub_conn *c, const char *error, bool may_reconnect)
{
	struct buf b = BUF_INIT;

	if (c->is_ending)
		return;
	c->is_ending = true;
	list_for_safe (node, &c->subs)
		hub_sub_free(list_entry(node, struct hub_sub, node));
	signalr_add_close(&b, error, may_reconnect);
	if (c->carrier == HUB_BY_SOCKET) {
		say(c, buf_str(&b));
		ws_socket_close(&c->by.ws, may_reconnect ? WS_CLOSE_GOING_AWAY : WS_CLOSE_NORMAL,
		    str_of(error != NULL ? error : "draining"));
	} else if (c->carrier == HUB_BY_STREAM) {
		sse_send(c->by.sse, STR_NONE, STR_NONE, buf_str(&b));
		sse_end(c->by.sse);
		conn_free(c);
	} else {
		end_poll(c, buf_str(&b));
	}
	buf_fini(&b);
}

void
hub_conn_delete(struct hub_conn *c)
{
	uint64_t handle = c->handle;
	struct hubs *hubs = c->hubs;

	hub_conn_end(c, NULL, false);
	if (idmap_get(hubs->conns, handle) == c && c->carrier == HUB_BY_POLL)
		conn_free(c);
}

/* ---- subscriptions ---- */

static const struct hub_record *
record_of(struct hubs *hubs, enum hub hub, const struct event *e)
{
	struct hub_record *r = &hubs->record;

	if (r->host == e->host && r->number == e->number && r->hub == hub)
		return r;
	r->host = e->host;
	r->number = e->number;
	r->hub = hub;
	buf_clear(&r->bytes);
	ws_out_unref(&r->out);
	if (hub_shape(hub, e, &r->bytes))
		r->out = ws_out_new(WS_OP_TEXT, buf_str(&r->bytes));
	return r;
}

static void
tell_event(struct hub_conn *c, const struct event *e)
{
	const struct hub_record *r = record_of(c->hubs, (enum hub)c->hub, e);

	if (r->out == NULL)
		return;
	if (c->carrier != HUB_BY_SOCKET) {
		hub_conn_say(c, buf_str(&r->bytes));
		return;
	}
	c->said_ms = now_of(c);
	if (!send_out(c, r->out))
		hub_conn_end(c, "The client is too slow.", true);
}

static void
tell_stream(struct hub_sub *s, const struct event *e)
{
	struct hub_conn *c = s->conn;
	uint64_t handle = c->handle, sub = s->handle;
	struct hubs *hubs = c->hubs;
	struct buf item = BUF_INIT, b = BUF_INIT;

	buf_add_cstr(&item, "{\"event\":\"");
	buf_add_json_escaped(&item, e->name);
	buf_add_cstr(&item, "\",");
	event_text_members(e, &item);
	buf_add_char(&item, '}');
	signalr_add_item(&b, s->invocation_id, buf_str(&item));
	hub_conn_say(c, buf_str(&b));
	buf_fini(&b);
	buf_fini(&item);
	if (!hub_is_last(e) || idmap_get(hubs->conns, handle) != c ||
	    idmap_get(hubs->subs, sub) != s)
		return;
	char *invocation_id = s->invocation_id;
	s->invocation_id = NULL;
	hub_sub_free(s);
	hub_complete(c, invocation_id, NULL, STR_NONE);
	free(invocation_id);
}

static void
on_event(struct events_sub *sub, struct event *e, struct str id)
{
	struct hub_sub *s = container_of(sub, struct hub_sub, sub);

	(void)id;
	if (s->conn->is_ending || (s->conn->is_slow && (e->flags & EVENTS_PROGRESS) != 0))
		return;
	if (s->is_stream)
		tell_stream(s, e);
	else
		tell_event(s->conn, e);
}

static void
on_ready(struct events_sub *sub, struct str id, bool is_gap)
{
	struct hub_sub *s = container_of(sub, struct hub_sub, sub);
	char *invocation_id = s->invocation_id;

	(void)id;
	(void)is_gap;
	if (s->is_stream || invocation_id == NULL)
		return;
	s->invocation_id = NULL;
	hub_complete(s->conn, invocation_id, NULL, STR_NONE);
	free(invocation_id);
}

static void
on_lost(struct events_sub *sub)
{
	hub_conn_end(container_of(sub, struct hub_sub, sub)->conn, "Events were missed.", true);
}

static const struct events_sub_handlers sub_handlers = {on_event, on_ready, on_lost};

void
hub_sub_new(struct hub_conn *c, const char *topic, const char *invocation_id, bool is_stream)
{
	struct hub_sub *s = xcalloc(1, sizeof(*s));
	struct str name;

	s->conn = c;
	s->topic = xstrdup(topic);
	s->invocation_id = invocation_id != NULL ? xstrdup(invocation_id) : NULL;
	s->is_stream = is_stream;
	s->handle = idmap_add(c->hubs->subs, s);
	list_add_tail(&c->subs, &s->node);
	c->sub_count++;
	c->stream_count += is_stream ? 1 : 0;
	name = str_of(s->topic);
	const struct events_sub_of of = {
	    .app_id = c->app_id, .topics = &name, .topic_count = 1, .wants_final = true};
	events_subscribe(c->hubs->api->events, &s->sub, &of, &sub_handlers);
}

void
hub_sub_free(struct hub_sub *s)
{
	events_unsubscribe(&s->sub);
	idmap_remove(s->conn->hubs->subs, s->handle);
	list_del(&s->node);
	s->conn->sub_count--;
	s->conn->stream_count -= s->is_stream ? 1 : 0;
	free(s->topic);
	free(s->invocation_id);
	free(s);
}

struct hub_sub *
hub_sub_find(struct hub_conn *c, const char *topic)
{
	list_for (node, &c->subs) {
		struct hub_sub *s = list_entry(node, struct hub_sub, node);

		if (!s->is_stream && strcmp(s->topic, topic) == 0)
			return s;
	}
	return NULL;
}

struct hub_sub *
hub_stream_find(struct hub_conn *c, const char *invocation_id)
{
	list_for (node, &c->subs) {
		struct hub_sub *s = list_entry(node, struct hub_sub, node);

		if (s->is_stream && strcmp(s->invocation_id, invocation_id) == 0)
			return s;
	}
	return NULL;
}

/* ---- what a client says ---- */

static void
shake_hands(struct hub_conn *c, struct str record)
{
	struct buf b = BUF_INIT;

	if (!signalr_is_handshake(record)) {
		signalr_add_handshake(&b, "The protocol is json, version 1.");
		hub_conn_say(c, buf_str(&b));
		buf_fini(&b);
		hub_conn_end(c, NULL, false);
		return;
	}
	c->has_shaken = true;
	signalr_add_handshake(&b, NULL);
	uint64_t handle = c->handle;
	struct hubs *hubs = c->hubs;
	hub_conn_say(c, buf_str(&b));
	buf_fini(&b);
	for (const char *const *t = hub_topics((enum hub)c->hub); *t != NULL; t++)
		if (idmap_get(hubs->conns, handle) == c && !c->is_ending)
			hub_sub_new(c, *t, NULL, false);
}

static void
hear_record(struct hub_conn *c, struct str record)
{
	struct signalr_message m;

	if (!c->has_shaken) {
		shake_hands(c, record);
		return;
	}
	if (!signalr_parse(record, &m)) {
		hub_conn_end(c, "A record was not understood.", false);
		return;
	}
	if (m.type == SIGNALR_CLOSE)
		hub_conn_end(c, NULL, false);
	else
		hub_call(c, &m);
	signalr_fini(&m);
}

void
hub_conn_hear(struct hub_conn *c, struct str bytes)
{
	struct hubs *hubs = c->hubs;
	size_t max = hubs->api->conf->events.max_message_bytes;
	uint64_t handle = c->handle;
	struct buf all = c->partial;
	struct str rest, record;

	c->heard_ms = now_of(c);
	c->partial = BUF_INIT;
	buf_add_str(&all, bytes);
	rest = buf_str(&all);
	while (
	    idmap_get(hubs->conns, handle) == c && !c->is_ending && signalr_next(&rest, &record)) {
		if (record.len > max)
			hub_conn_end(c, "A message is larger than events.max_message.", false);
		else
			hear_record(c, record);
	}
	if (idmap_get(hubs->conns, handle) == c && !c->is_ending) {
		if (rest.len > max)
			hub_conn_end(c, "A message is larger than events.max_message.", false);
		else if (rest.len > 0)
			buf_add_str(&c->partial, rest);
	}
	buf_fini(&all);
}

/* ---- its carriers ---- */

static struct hub_conn *
conn_of(struct ws_socket *ws)
{
	return container_of(ws, struct hub_conn, by.ws);
}

static void
on_message(struct ws_socket *ws, struct str data, bool is_text)
{
	struct hub_conn *c = conn_of(ws);

	(void)is_text;
	http_doing(c->hubs->api->http, STR("message of a hub"), STR(""), data);
	hub_conn_hear(c, data);
	http_done(c->hubs->api->http);
}

static void
on_open(struct ws_socket *ws)
{
	(void)ws;
}

static void
on_writable(struct ws_socket *ws)
{
	conn_of(ws)->is_slow = false;
}

static void
on_closed(struct ws_socket *ws)
{
	conn_free(conn_of(ws));
}

static const struct ws_handlers socket_handlers = {on_open, on_message, on_writable, on_closed};

void
hub_conn_open_socket(
    struct hub_conn *c, struct http_req *req, const char *accept, const char *protocol)
{
	ws_socket_open(&c->by.ws, req, accept, protocol, &socket_handlers);
}

static void
on_stream_gone(void *arg)
{
	conn_free(arg);
}

void
hub_conn_open_stream(struct hub_conn *c, struct http_req *req)
{
	c->by.sse = sse_start(req, on_stream_gone, c);
}

void
hub_conn_poll(struct hub_conn *c, struct hub_poll poll)
{
	if (c->by.lp.poll.is_there)
		answer_poll(c, 200);
	c->by.lp.poll = poll;
	c->by.lp.since_ms = now_of(c);
	if (c->by.lp.out.len == 0) {
		watch_poll(c, true);
		return;
	}
	answer_poll(c, 200);
	if (c->is_ending)
		conn_free(c);
}

/* ---- time ---- */

static void
ping(struct hub_conn *c)
{
	struct buf b = BUF_INIT;

	signalr_add_ping(&b);
	hub_conn_say(c, buf_str(&b));
	buf_fini(&b);
}

/* False: it is gone. */
static bool
beat_poll(struct hub_conn *c)
{
	const struct conf_events *conf = &c->hubs->api->conf->events;
	uint64_t waited_ms = now_of(c) - c->by.lp.since_ms;

	if (c->by.lp.poll.is_there) {
		c->heard_ms = now_of(c);
		if (waited_ms >= conf->poll_timeout_ms)
			answer_poll(c, 200);
		return true;
	}
	if (waited_ms < conf->connect_timeout_ms)
		return true;
	conn_free(c); /* nobody asks any more */
	return false;
}

static void
on_beat(struct wheel_entry *e)
{
	struct hub_conn *c = container_of(e, struct hub_conn, beat);
	const struct conf_events *conf = &c->hubs->api->conf->events;
	uint64_t step_ms = conf->keepalive_interval_ms / 2, now_ms = now_of(c);
	uint64_t handle = c->handle;
	struct hubs *hubs = c->hubs;

	if (c->carrier == HUB_BY_POLL && !beat_poll(c))
		return;
	/* Who polls with the id of a connection that died with its worker looks like a new one, and
	   believes that it is connected: it begins anew. */
	if (!c->has_shaken && now_ms - c->made_ms >= conf->connect_timeout_ms)
		hub_conn_end(c, "The handshake did not come.", c->carrier == HUB_BY_POLL);
	else if (now_ms - c->heard_ms >= conf->client_timeout_ms)
		hub_conn_end(c, "The client has been silent for too long.", true);
	else if (c->has_shaken && now_ms - c->said_ms >= step_ms)
		ping(c);
	if (idmap_get(hubs->conns, handle) != c)
		return;
	if (c->carrier == HUB_BY_POLL || !c->has_shaken)
		step_ms = step_ms < 1000 ? step_ms : 1000;
	wheel_set(http_server_wheel(hubs->api->http), e, step_ms);
}

static void
on_key_void(struct key_hold *key)
{
	hub_conn_end(
	    container_of(key, struct hub_conn, key), "The key does not hold any more.", false);
}

/* ---- its beginning ---- */

struct hub_conn *
hub_conn_new(struct hubs *hubs, const struct hub_conn_of *of)
{
	/* Of a socket the union is all used; of the others a part. */
	struct hub_conn *c = xcalloc(1, sizeof(*c));
	struct id id;

	c->hubs = hubs;
	c->hub = (uint8_t)of->hub;
	c->carrier = (uint8_t)of->carrier;
	c->kind = (uint8_t)of->who->kind;
	c->app_id = of->who->app_id != NULL ? xstrdup(of->who->app_id) : NULL;
	if (of->carrier == HUB_BY_SOCKET)
		c->rate_own = rate_of_key(of->who, of->network).own;
	c->made_ms = c->heard_ms = c->said_ms = now_of(c);
	if (of->carrier == HUB_BY_POLL)
		c->by.lp.since_ms = now_of(c);
	list_init(&c->subs);
	list_init(&c->waits);
	c->handle = idmap_add(hubs->conns, c);
	list_add_tail(&hubs->all, &c->node);
	hubs->count++;
	hubs->polls += of->carrier == HUB_BY_POLL;
	key_hold(hubs->api->key_watch, &c->key, of->who->hash, of->who->expires_at, on_key_void);
	if (of->carrier != HUB_BY_SOCKET) {
		c->token = xstrdup(of->token);
		strmap_set(hubs->ids, str_of(c->token), c);
		if (id_parse(str_of(c->token), "hub", &id))
			backplane_own(hubs->api->backplane, &id);
	}
	c->beat.on_fire = on_beat;
	wheel_set(http_server_wheel(hubs->api->http), &c->beat, 1000);
	return c;
}

struct hub_conn *
hub_conn_find(struct hubs *hubs, struct str token)
{
	return strmap_get(hubs->ids, token);
}

/* ---- all of them ---- */

static void
on_drain_step(struct loop_timer *t)
{
	struct hubs *hubs = container_of(t, struct hubs, drain_step);
	uint32_t n = farewell_batch(hubs->api->conf, hubs->count);

	list_for_safe (node, &hubs->all) {
		struct hub_conn *c = list_entry(node, struct hub_conn, node);

		if (n == 0)
			break;
		if (c->is_ending)
			continue;
		hub_conn_end(c, NULL, true);
		n--;
	}
	if (hubs->count > 0)
		loop_timer_set(hubs->api->loop, t, FAREWELL_STEP_MS);
}

void
hubs_drain(struct hubs *hubs)
{
	hubs->door.is_draining = true;
	on_drain_step(&hubs->drain_step);
}

struct hubs *
hubs_new(struct api *api)
{
	struct hubs *hubs = xcalloc(1, sizeof(*hubs));

	hubs->api = api;
	hubs->door.api = api;
	list_init(&hubs->all);
	tolls_init(&hubs->tolls, api);
	hubs->conns = idmap_new();
	hubs->subs = idmap_new();
	hubs->ids = strmap_new();
	hubs->drain_step.on_fire = on_drain_step;
	hubs_door_init(hubs);
	return hubs;
}

void
hubs_free(struct hubs **ref)
{
	struct hubs *hubs = *ref;
	struct hub_conn *c;

	if (hubs == NULL)
		return;
	*ref = NULL;
	tolls_abandon(&hubs->tolls);
	while ((c = list_first(&hubs->all, struct hub_conn, node)) != NULL) {
		check(c->carrier == HUB_BY_POLL);
		conn_free(c);
	}
	loop_timer_stop(hubs->api->loop, &hubs->drain_step);
	buf_fini(&hubs->record.bytes);
	ws_out_unref(&hubs->record.out);
	idmap_free(&hubs->conns);
	idmap_free(&hubs->subs);
	strmap_free(&hubs->ids);
	free(hubs);
}
