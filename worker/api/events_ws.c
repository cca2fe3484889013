/* events_ws - see events_ws.h. */
#include "worker/api/events_ws.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/idmap.h"
#include "common/metric.h"
#include "worker/api/event_text.h"
#include "worker/api/farewell.h"
#include "worker/api/key_watch.h"
#include "worker/api/toll.h"
#include "worker/api/topic_access.h"
#include "worker/api/ws_door.h"
#include "worker/usage/refusal.h"

enum { REQUEST_ID_MAX = 128 };

struct events_sockets {
	struct ws_door door;
	struct api *api;
	struct list all;
	size_t count;
	struct idmap *streams; /* struct events_stream */
	struct tolls tolls;
	struct list asking; /* struct checking, whose key is looked up */
	struct event_text text;
	struct loop_timer drain_step;
};

struct events_socket {
	struct ws_socket ws;
	struct list node;
	struct events_sockets *all;
	struct key_hold key;
	struct list streams;
	struct limiter_key rate_own; /* as rate_of_key() says for its address */
	char *app_id;                /* NULL: an admin's */
	enum key_kind kind;
	uint16_t stream_count, topic_count;
	bool is_slow;
};

/*
 * From its subscribe to its end:
 *
 *   PAYING --its key allows it--> CHECKING --its topics may be heard--> subscribed
 *
 * One that is unsubscribed before that keeps its place until it is known: so what is asked of the
 * record for a socket is bounded by its streams.
 */
struct events_stream {
	struct list node;
	struct events_socket *socket;
	struct events_sub sub;
	bool is_there, is_left; /* subscribed; unsubscribed before it was */
	uint64_t handle;
	char *name, *after;
	struct arena arena; /* of the topics, until they are subscribed to */
	struct str *topics;
	size_t topic_count;
};

/* ---- what a socket is told ---- */

static void
close_with(struct events_socket *s, uint16_t code, const char *why)
{
	char reason[WS_REASON_MAX];

	if (!ws_socket_is_open(&s->ws))
		return;
	snprintf(reason, sizeof(reason), "%s; retry_after_ms=%u", why,
	    farewell_come_back_ms(s->all->api->conf));
	ws_socket_close(&s->ws, code, str_of(reason));
}

static void
close_slow(struct events_socket *s)
{
	metric_add(METRIC_WEBSOCKET_CLOSED, WS_CLOSED_SLOW, 0, 1);
	close_with(s, WS_CLOSE_POLICY, "reader is too slow");
}

static void
tell(struct events_socket *s, const struct buf *frame)
{
	struct ws_out *out = ws_out_new(WS_OP_TEXT, buf_str(frame));
	enum ws_sent sent = ws_socket_send(&s->ws, out);

	s->is_slow = s->is_slow || sent == WS_SLOW;
	if (sent == WS_FULL)
		close_slow(s);
	ws_out_unref(&out);
}

static void
add_request_id(struct buf *b, const char *request_id)
{
	buf_add_cstr(b, ",\"request_id\":\"");
	buf_add_json_escaped(b, str_of(request_id));
	buf_add_char(b, '"');
}

static void
tell_error(struct events_socket *s, const char *request_id, int err, const char *message)
{
	struct buf b = BUF_INIT;

	buf_add_cstr(&b, "{\"status\":\"error\"");
	add_request_id(&b, request_id);
	buf_printf(&b, ",\"error\":{\"code\":\"%s\",\"message\":\"", err_info(err)->code);
	buf_add_json_escaped(&b, str_of(message != NULL ? message : err_info(err)->text));
	buf_add_cstr(&b, "\"}}");
	tell(s, &b);
	buf_fini(&b);
}

static void
tell_status(struct events_socket *s, const char *status, const char *request_id, const char *stream)
{
	struct buf b = BUF_INIT;

	buf_printf(&b, "{\"status\":\"%s\"", status);
	if (request_id != NULL)
		add_request_id(&b, request_id);
	if (stream != NULL) {
		buf_add_cstr(&b, ",\"stream\":\"");
		buf_add_json_escaped(&b, str_of(stream));
		buf_add_char(&b, '"');
	}
	buf_add_char(&b, '}');
	tell(s, &b);
	buf_fini(&b);
}

/* ---- a stream ---- */

static void
stream_free(struct events_stream *st)
{
	events_unsubscribe(&st->sub);
	idmap_remove(st->socket->all->streams, st->handle);
	list_del(&st->node);
	st->socket->stream_count--;
	st->socket->topic_count -= (uint16_t)st->topic_count;
	arena_fini(&st->arena);
	free(st->name);
	free(st->after);
	free(st);
}

static void
on_event(struct events_sub *sub, struct event *e, struct str id)
{
	struct events_stream *st = container_of(sub, struct events_stream, sub);
	struct events_socket *s = st->socket;
	struct buf b = BUF_INIT;

	if (s->is_slow && (e->flags & EVENTS_PROGRESS) != 0)
		return; /* the next one says more */
	buf_add_cstr(&b, "{\"status\":\"event\",\"stream\":\"");
	buf_add_json_escaped(&b, str_of(st->name));
	buf_add_cstr(&b, "\",\"event_id\":\"");
	buf_add_str(&b, id);
	buf_add_cstr(&b, "\",\"event\":\"");
	buf_add_json_escaped(&b, e->name);
	buf_add_cstr(&b, "\",");
	buf_add_str(&b, event_text_of(&s->all->text, e));
	buf_add_char(&b, '}');
	tell(s, &b);
	buf_fini(&b);
}

static void
on_ready(struct events_sub *sub, struct str id, bool is_gap)
{
	struct events_stream *st = container_of(sub, struct events_stream, sub);
	struct buf b = BUF_INIT;

	buf_add_cstr(&b, "{\"status\":\"subscribed\"");
	add_request_id(&b, st->name);
	buf_add_cstr(&b, ",\"stream\":\"");
	buf_add_json_escaped(&b, str_of(st->name));
	buf_add_cstr(&b, "\",\"topics\":[");
	for (size_t i = 0; i < st->topic_count; i++) {
		buf_add_cstr(&b, i > 0 ? ",\"" : "\"");
		buf_add_json_escaped(&b, st->topics[i]);
		buf_add_char(&b, '"');
	}
	buf_add_cstr(&b, "],\"event_id\":\"");
	buf_add_str(&b, id);
	buf_printf(&b, "\",\"gap\":%s}", is_gap ? "true" : "false");
	tell(st->socket, &b);
	buf_fini(&b);
}

static void
on_lost(struct events_sub *sub)
{
	close_with(container_of(sub, struct events_stream, sub)->socket, WS_CLOSE_TRY_LATER,
	    "events were missed");
}

static const struct events_sub_handlers stream_handlers = {on_event, on_ready, on_lost};

/* What is asked about a stream before it is there; the stream may be gone when it is answered. */
struct checking {
	struct list node; /* in asking; later in no list */
	struct events_sockets *all;
	uint64_t stream;
	struct toll toll;
};

static void
checking_free(struct checking *c)
{
	toll_end(&c->toll);
	list_del(&c->node);
	free(c);
}

/* NULL: nobody wants the stream any more. */
static struct events_stream *
wanted_stream(const struct checking *c)
{
	struct events_stream *st = idmap_get(c->all->streams, c->stream);

	if (st == NULL || !st->is_left)
		return st;
	stream_free(st);
	return NULL;
}

static void
refuse_stream(struct events_stream *st, int err, const char *message)
{
	tell_error(st->socket, st->name, err, message);
	stream_free(st);
}

static void
on_checked(void *arg, int err, struct str bad)
{
	struct events_stream *st = wanted_stream(arg);
	struct buf message = BUF_INIT;

	checking_free(arg);
	if (st == NULL)
		return;
	if (err == 0) {
		st->is_there = true;
		const struct events_sub_of of = {
		    .app_id = st->socket->app_id,
		    .topics = st->topics,
		    .topic_count = st->topic_count,
		    .after = str_of(st->after),
		    .wants_final = true,
		};
		events_subscribe(st->socket->all->api->events, &st->sub, &of, &stream_handlers);
		return;
	}
	if (err == E_NOT_FOUND || err == E_FORBIDDEN)
		buf_printf(&message,
		    err == E_NOT_FOUND ? "No such topic: %.*s." : "Not for this key: %.*s.",
		    (int)bad.len, bad.p);
	refuse_stream(st, err, message.data);
	buf_fini(&message);
}

/* ---- .. and are paid for before ---- */

static void
on_paid(struct toll *t)
{
	struct checking *c = container_of(t, struct checking, toll);
	const struct limiter_verdict *v = &t->ask.verdict;
	struct events_stream *st = wanted_stream(c);
	struct buf why = BUF_INIT;

	toll_end(t);
	if (st != NULL && v->is_allowed) {
		const struct events_socket *s = st->socket;

		topics_check(
		    s->all->api, s->kind, s->app_id, st->topics, st->topic_count, on_checked, c);
		return;
	}
	if (st != NULL) {
		refusal_message(v, t->ask.unit, &why);
		refuse_stream(st, E_RATE_LIMITED, why.data);
	}
	buf_fini(&why);
	checking_free(c);
}

static void
on_abandoned(struct toll *t)
{
	checking_free(container_of(t, struct checking, toll));
}

static void
on_principal(void *arg, int err, const struct principal *who)
{
	struct checking *c = arg;
	struct events_stream *st = wanted_stream(c);

	if (st == NULL || err != 0) {
		if (st != NULL)
			refuse_stream(st, err, NULL);
		checking_free(c);
		return;
	}
	struct rate_of of = rate_of_key(who, "");
	of.own = st->socket->rate_own;
	list_del(&c->node);
	toll_begin(&c->all->tolls, &c->toll, on_paid, on_abandoned);
	toll_take(&c->toll, who, &of);
}

/* What the key was when the socket opened it may be not any more. */
static void
pay(struct events_stream *st)
{
	struct events_sockets *all = st->socket->all;
	struct checking *c = xcalloc(1, sizeof(*c));

	c->all = all;
	c->stream = st->handle;
	list_add_tail(&all->asking, &c->node);
	keys_check_hash(all->api->keys, st->socket->key.hash, on_principal, c);
}

/* ---- what a client may ask for ---- */

static struct events_stream *
stream_find(struct events_socket *s, const char *name)
{
	list_for (node, &s->streams) {
		struct events_stream *st = list_entry(node, struct events_stream, node);

		if (!st->is_left && strcmp(st->name, name) == 0)
			return st;
	}
	return NULL;
}

static bool
take_topics(struct events_stream *st, const json_t *topics, size_t max)
{
	size_t count = json_array_size(topics);

	if (count == 0 || count > max || count > TOPIC_ACCESS_MAX)
		return false;
	st->topics = arena_alloc(&st->arena, count * sizeof(st->topics[0]));
	for (size_t i = 0; i < count; i++) {
		const json_t *topic = json_array_get(topics, i);
		struct str text = str_sub(json_string_value(topic), json_string_length(topic));

		if (text.p == NULL || text.len == 0 || text.len > EVENTS_TOPIC_MAX ||
		    memchr(text.p, '\n', text.len) != NULL)
			return false;
		st->topics[i] = str_of(arena_strdup(&st->arena, text));
	}
	st->topic_count = count;
	return true;
}

static void
subscribe(struct events_socket *s, const char *request_id, const json_t *payload)
{
	const struct conf *conf = s->all->api->conf;
	const json_t *after = json_object_get(payload, "last_event_id");
	size_t room = (size_t)conf->events.max_topics;

	if (s->stream_count >= conf->events.max_streams) {
		tell_error(s, request_id, E_CONFLICT, "This connection has events.max_streams.");
		return;
	}
	if (stream_find(s, request_id) != NULL) {
		tell_error(
		    s, request_id, E_INVALID_REQUEST, "There is a stream of this request_id.");
		return;
	}
	struct events_stream *st = xcalloc(1, sizeof(*st));
	st->socket = s;
	st->name = xstrdup(request_id);
	st->after = json_is_string(after) ? xstrdup(json_string_value(after)) : NULL;
	st->handle = idmap_add(s->all->streams, st);
	list_add_tail(&s->streams, &st->node);
	s->stream_count++;
	room = room > s->topic_count ? room - s->topic_count : 0;
	if (!take_topics(st, json_object_get(payload, "topics"), room)) {
		st->topic_count = 0;
		stream_free(st);
		tell_error(s, request_id, E_INVALID_REQUEST,
		    "topics is a list of names, events.max_topics of a connection at most.");
		return;
	}
	s->topic_count += (uint16_t)st->topic_count;
	pay(st);
}

static void
unsubscribe(struct events_socket *s, const char *request_id, const json_t *payload)
{
	const char *name = json_string_value(json_object_get(payload, "stream"));
	struct events_stream *st = name != NULL ? stream_find(s, name) : NULL;

	if (st == NULL) {
		tell_error(s, request_id, E_NOT_FOUND, "There is no such stream.");
		return;
	}
	tell_status(s, "unsubscribed", request_id, name);
	if (st->is_there)
		stream_free(st);
	else
		st->is_left = true;
}

static void
act(struct events_socket *s, const json_t *message)
{
	const char *action = json_string_value(json_object_get(message, "action"));
	const char *request_id = json_string_value(json_object_get(message, "request_id"));
	const json_t *payload = json_object_get(message, "payload");

	if (action != NULL && strcmp(action, "ping") == 0)
		tell_status(s, "pong", request_id, NULL);
	else if (action == NULL || request_id == NULL || request_id[0] == '\0' ||
		 strlen(request_id) > REQUEST_ID_MAX)
		tell_error(s, request_id != NULL ? request_id : "unknown", E_INVALID_REQUEST,
		    "A message is {\"action\",\"request_id\",\"payload\"}.");
	else if (strcmp(action, "subscribe") == 0)
		subscribe(s, request_id, payload);
	else if (strcmp(action, "unsubscribe") == 0)
		unsubscribe(s, request_id, payload);
	else
		tell_error(s, request_id, E_INVALID_REQUEST, "There is no such action.");
}

/* ---- the socket ---- */

static struct events_socket *
socket_of(struct ws_socket *ws)
{
	return container_of(ws, struct events_socket, ws);
}

static void
on_message(struct ws_socket *ws, struct str data, bool is_text)
{
	struct events_socket *s = socket_of(ws);
	json_t *message;

	if (data.len > s->all->api->conf->events.max_message_bytes) {
		ws_socket_close(ws, WS_CLOSE_TOO_BIG, STR("message is too large"));
		return;
	}
	http_doing(s->all->api->http, STR("message of /ws/events"), STR(""), data);
	message = is_text ? json_loadb(data.p, data.len, JSON_REJECT_DUPLICATES, NULL) : NULL;
	if (message == NULL)
		tell_error(s, "unknown", E_INVALID_REQUEST, "A message is JSON.");
	else
		act(s, message);
	json_decref(message);
	http_done(s->all->api->http);
}

static void
on_open(struct ws_socket *ws)
{
	if (socket_of(ws)->all->door.is_draining)
		close_with(socket_of(ws), WS_CLOSE_GOING_AWAY, "draining");
}

static void
on_writable(struct ws_socket *ws)
{
	socket_of(ws)->is_slow = false;
}

static void
on_closed(struct ws_socket *ws)
{
	struct events_socket *s = socket_of(ws);

	list_for_safe (node, &s->streams)
		stream_free(list_entry(node, struct events_stream, node));
	key_release(&s->key);
	list_del(&s->node);
	s->all->count--;
	free(s->app_id);
	free(s);
}

static const struct ws_handlers socket_handlers = {on_open, on_message, on_writable, on_closed};

static void
on_key_void(struct key_hold *key)
{
	struct events_socket *s = container_of(key, struct events_socket, key);

	if (!ws_socket_is_open(&s->ws))
		return;
	metric_add(METRIC_WEBSOCKET_CLOSED, WS_CLOSED_REVOKED, 0, 1);
	ws_socket_close(&s->ws, WS_CLOSE_POLICY, STR("the key does not hold any more"));
}

static void
on_known(void *arg, struct http_req *req, int err, const struct principal *who, uint64_t mark)
{
	struct events_sockets *all = arg;
	char accept[WS_ACCEPT_LEN + 1];
	const char *protocol;

	(void)mark;
	if (err != 0) {
		ws_door_refuse_key(&all->door, req, err);
		return;
	}
	if (!ws_door_admit(&all->door, req, accept, &protocol))
		return;
	struct events_socket *s = xcalloc(1, sizeof(*s));
	s->all = all;
	s->kind = who->kind;
	s->app_id = who->app_id != NULL ? xstrdup(who->app_id) : NULL;
	s->rate_own = rate_of_key(who, http_client_network(req)).own;
	list_init(&s->streams);
	list_add_tail(&all->all, &s->node);
	all->count++;
	key_hold(all->api->key_watch, &s->key, who->hash, who->expires_at, on_key_void);
	ws_socket_open(&s->ws, req, accept, protocol, &socket_handlers);
}

static void
on_request(struct http_req *req, void *arg)
{
	struct events_sockets *all = arg;

	ws_door_ask_key(&all->door, req, on_known, all, 0);
}

static const struct http_route route = {"GET", "/ws/events", HTTP_UPGRADE | HTTP_WORK, on_request};

/* ---- all of them ---- */

/* The first of the list has been told longest ago: it goes to the end. */
static void
on_drain_step(struct loop_timer *t)
{
	struct events_sockets *all = container_of(t, struct events_sockets, drain_step);
	uint32_t n = farewell_batch(all->api->conf, all->count);

	list_for_safe (node, &all->all) {
		struct events_socket *s = list_entry(node, struct events_socket, node);

		if (n == 0)
			break;
		if (!ws_socket_is_open(&s->ws))
			continue;
		metric_add(METRIC_WEBSOCKET_CLOSED, WS_CLOSED_DRAINING, 0, 1);
		close_with(s, WS_CLOSE_GOING_AWAY, "draining");
		n--;
	}
	if (all->count > 0)
		loop_timer_set(all->api->loop, t, FAREWELL_STEP_MS);
}

void
events_sockets_drain(struct events_sockets *all)
{
	all->door.is_draining = true;
	on_drain_step(&all->drain_step);
}

struct events_sockets *
events_sockets_new(struct api *api)
{
	struct events_sockets *all = xcalloc(1, sizeof(*all));

	all->api = api;
	all->door.api = api;
	all->streams = idmap_new();
	list_init(&all->all);
	list_init(&all->asking);
	tolls_init(&all->tolls, api);
	all->drain_step.on_fire = on_drain_step;
	http_server_add_routes(api->http, &route, 1, all);
	return all;
}

void
events_sockets_free(struct events_sockets **ref)
{
	struct events_sockets *all = *ref;

	if (all == NULL)
		return;
	*ref = NULL;
	check(list_empty(&all->all));
	tolls_abandon(&all->tolls);
	/* The keys, which are freed later, drop what waits for them without a word. */
	list_for_safe (node, &all->asking)
		checking_free(list_entry(node, struct checking, node));
	loop_timer_stop(all->api->loop, &all->drain_step);
	idmap_free(&all->streams);
	event_text_fini(&all->text);
	free(all);
}
