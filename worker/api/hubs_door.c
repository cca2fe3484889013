/*
 * hubs_door - a request of /hubs becomes a connection, or goes to the one that it is of: here, or
 * at the worker that has it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/crypto.h"
#include "common/metric.h"
#include "worker/api/call.h"
#include "worker/api/hubs_impl.h"

/* A token is younger than that when its connection begins: hosts' clocks may differ. */
enum { TOKEN_AGE_MAX_MS = 60000, ANSWER_MORE_MS = 5000 };

/* LEAVE: the client of a poll has gone; nobody waits for an answer. A worker of a version that does
 * not know it finds no connection, and what it is called in the body of a poll is passed over. */
enum errand_kind { ERRAND_POST, ERRAND_DELETE, ERRAND_POLL, ERRAND_LEAVE };

/* A request whose connection is looked for. */
struct errand {
	struct hubs *hubs;
	enum errand_kind kind;
	enum hub hub;
	uint64_t http;
	struct id id;
	struct backplane_addr owner; /* of a poll that was sent to it */
	struct principal who;        /* only what connections keep of it */
	char *app_id;
	struct buf body;
	struct toll toll; /* of a POST */
};

static void
errand_free(struct errand *e)
{
	toll_end(&e->toll);
	buf_fini(&e->body);
	free(e->app_id);
	free(e);
}

static void
answer_text(struct http_req *req, int status, struct str text)
{
	http_add_header(req, "cache-control", "no-store");
	http_reply(req, status, status == 204 ? NULL : "text/plain; charset=utf-8", text);
}

static void
answer_unknown(struct http_req *req)
{
	http_reply_error(req, E_NOT_FOUND, "id", "No connection with that id.");
}

/* ---- at the owner ---- */

void
hub_poll_answer(struct hubs *hubs, const struct hub_poll *poll, int status, struct str records)
{
	struct http_req *req;

	if (poll->call_id != 0) {
		backplane_reply(hubs->api->backplane, poll->from, poll->call_id, 0, records);
		return;
	}
	req = http_find(hubs->api->http, poll->http);
	if (req == NULL)
		return;
	http_on_gone(req, NULL, NULL);
	answer_text(req, status, records);
}

static struct hub_conn *
find_of_key(struct hubs *hubs, const struct id *id, const uint8_t hash[SHA256_LEN])
{
	struct hub_conn *c = hub_conn_find(hubs, id_str(id));

	return c != NULL && crypto_equal(c->key.hash, SHA256_LEN, hash, SHA256_LEN) ? c : NULL;
}

/* False: it is answered later (a poll). */
static bool
run(struct hubs *hubs, enum errand_kind kind, struct hub_conn *c, struct str body,
    struct hub_poll poll)
{
	if (kind == ERRAND_POLL) {
		if (c->carrier == HUB_BY_POLL) {
			hub_conn_poll(c, poll);
			return false;
		}
		return true;
	}
	(void)hubs;
	if (kind == ERRAND_POST)
		hub_conn_hear(c, body);
	else if (kind == ERRAND_LEAVE)
		hub_conn_left(c, poll.from, poll.number);
	else
		hub_conn_delete(c);
	return true;
}

static void
on_peer_errand(void *arg, const struct backplane_call *call)
{
	struct hubs *hubs = arg;
	struct str rest = call->payload, id_text, hash, body;
	struct hub_conn *c = NULL;
	uint64_t kind = 0;
	struct id id;

	if (backplane_take_u64(&rest, &kind) && backplane_take_str(&rest, &id_text) &&
	    backplane_take_str(&rest, &hash) && backplane_take_str(&rest, &body) &&
	    kind <= ERRAND_LEAVE && hash.len == SHA256_LEN && id_parse(id_text, "hub", &id))
		c = find_of_key(hubs, &id, (const uint8_t *)hash.p);
	if (c == NULL) {
		backplane_reply(
		    hubs->api->backplane, call->from, call->call_id, E_NOT_FOUND, STR_NONE);
		return;
	}
	struct hub_poll poll = {true, 0, call->from, call->call_id, 0};
	if (kind == ERRAND_POLL || kind == ERRAND_LEAVE)
		backplane_take_u64(&body, &poll.number);
	if (run(hubs, (enum errand_kind)kind, c, body, poll))
		backplane_reply(hubs->api->backplane, call->from, call->call_id, 0, STR_NONE);
}

/* ---- to the owner ---- */

static void
on_errand_done(void *arg, int err, struct str payload)
{
	struct errand *e = arg;
	struct http_req *req = http_find(e->hubs->api->http, e->http);

	if (req != NULL) {
		http_on_gone(req, NULL, NULL);
		if (err == E_BUSY || err == E_OWNER_UNAVAILABLE)
			http_reply_retry(req, E_OWNER_UNAVAILABLE, 1, NULL);
		else if (err != 0)
			answer_unknown(req);
		else
			answer_text(req, e->kind == ERRAND_DELETE ? 202 : 200, payload);
	}
	errand_free(e);
}

static void
put_errand(const struct errand *e, enum errand_kind kind, struct buf *out)
{
	struct buf number = BUF_INIT;

	backplane_put_u64(&number, e->http);
	backplane_put_u64(out, kind);
	backplane_put_str(out, id_str(&e->id));
	backplane_put_str(out, str_sub((const char *)e->who.hash, SHA256_LEN));
	backplane_put_str(out, e->kind == ERRAND_POLL ? buf_str(&number) : buf_str(&e->body));
	buf_fini(&number);
}

/* The owner answers the poll, which ends the errand; if it does not hear of it, a little later. */
static void
on_client_gone(void *arg)
{
	const struct errand *e = arg;
	struct buf b = BUF_INIT;

	put_errand(e, ERRAND_LEAVE, &b);
	(void)backplane_cast(e->hubs->api->backplane, e->owner, BACKPLANE_HUB_POST, buf_str(&b));
	buf_fini(&b);
}

static void
send_errand(struct errand *e, struct http_req *req, struct backplane_addr owner)
{
	const struct conf *conf = e->hubs->api->conf;
	uint64_t timeout_ms = conf->backplane.call_timeout_ms;
	struct buf b = BUF_INIT;

	e->owner = owner;
	put_errand(e, e->kind, &b);
	if (e->kind == ERRAND_POLL) {
		timeout_ms = conf->events.poll_timeout_ms + ANSWER_MORE_MS;
		http_on_gone(req, on_client_gone, e);
	}
	backplane_send_call(e->hubs->api->backplane, owner, BACKPLANE_HUB_POST, buf_str(&b),
	    (uint32_t)timeout_ms, on_errand_done, e);
	buf_fini(&b);
}

/* Of an id, which begins with it. */
static int64_t
made_at_ms(const struct id *id)
{
	uint8_t bits[16];
	int64_t at = 0;

	id_bits(id, bits);
	for (int i = 0; i < 6; i++)
		at = at << 8 | bits[i];
	return at;
}

static bool
is_new(const struct id *id)
{
	int64_t age_ms = clock_wall_ms() - made_at_ms(id);

	return age_ms < TOKEN_AGE_MAX_MS && age_ms > -TOKEN_AGE_MAX_MS;
}

/* The first poll is answered at once. */
static void
begin_polling(struct errand *e, struct http_req *req)
{
	const struct hub_conn_of of = {e->hub, HUB_BY_POLL, &e->who, e->id.s, NULL};

	if (e->hubs->polls >= http_server_places(e->hubs->api->http)) {
		metric_add(METRIC_CONNECTIONS_REJECTED, REJECT_CAPACITY, 0, 1);
		http_reply_capacity(req);
		return;
	}
	hub_conn_new(e->hubs, &of);
	answer_text(req, 200, STR_NONE);
}

static void
on_owner(void *arg, int err, struct backplane_addr owner)
{
	struct errand *e = arg;
	struct http_req *req = http_find(e->hubs->api->http, e->http);
	struct backplane_addr self = backplane_self(e->hubs->api->backplane);
	bool is_ours = err == 0 && owner.host == self.host && owner.who.number == self.who.number;

	if (req != NULL && err == 0 && !is_ours) {
		send_errand(e, req, owner);
		return;
	}
	if (req != NULL && e->kind == ERRAND_POLL && err == E_NOT_FOUND && is_new(&e->id) &&
	    hub_conn_find(e->hubs, id_str(&e->id)) == NULL && !e->hubs->door.is_draining)
		begin_polling(e, req);
	else if (req != NULL)
		answer_unknown(req);
	errand_free(e);
}

static void
run_errand(struct errand *e)
{
	struct hubs *hubs = e->hubs;
	struct hub_conn *c = find_of_key(hubs, &e->id, e->who.hash);
	struct http_req *req = http_find(hubs->api->http, e->http);

	if (c == NULL) {
		backplane_find_owner(hubs->api->backplane, &e->id, on_owner, e);
		return;
	}
	const struct hub_poll poll = {true, e->http, {0, {0, 0}}, 0, 0};
	if (run(hubs, e->kind, c, buf_str(&e->body), poll) && req != NULL)
		answer_text(req, e->kind == ERRAND_DELETE ? 202 : 200, STR_NONE);
	errand_free(e);
}

/* ---- a POST counts, wherever its connection is ---- */

static uint32_t
count_records(struct str body)
{
	struct str record;
	uint32_t count = 0;

	while (signalr_next(&body, &record))
		count++;
	return count;
}

static void
on_paid(struct toll *t)
{
	struct errand *e = container_of(t, struct errand, toll);
	struct http_req *req = http_find(e->hubs->api->http, e->http);
	const struct limiter_verdict *v = &t->ask.verdict;

	toll_end(t);
	if (req != NULL && v->is_allowed) {
		call_add_limit(req, v);
		run_errand(e);
		return;
	}
	if (req != NULL)
		call_refuse_limit(e->hubs->api, req, v, t->ask.unit);
	errand_free(e);
}

static void
on_abandoned(struct toll *t)
{
	errand_free(container_of(t, struct errand, toll));
}

static void
pay(struct errand *e, struct http_req *req, const struct principal *who)
{
	struct rate_of of = rate_of_key(who, http_client_network(req));

	e->toll.ask.cost = count_records(buf_str(&e->body));
	toll_begin(&e->hubs->tolls, &e->toll, on_paid, on_abandoned);
	toll_take(&e->toll, who, &of);
}

/* ---- requests ---- */

static void
start_errand(struct hubs *hubs, struct http_req *req, const struct principal *who, enum hub hub,
    enum errand_kind kind)
{
	const char *token = http_query(req, "id");
	struct id id;

	if (token == NULL || !id_parse(str_of(token), "hub", &id)) {
		answer_unknown(req);
		return;
	}
	struct errand *e = xcalloc(1, sizeof(*e));
	e->hubs = hubs;
	e->kind = kind;
	e->hub = hub;
	e->http = http_handle(req);
	e->id = id;
	e->who = *who;
	e->app_id = who->app_id != NULL ? xstrdup(who->app_id) : NULL;
	e->who.app_id = e->app_id;
	if (kind == ERRAND_POST) {
		buf_add_str(&e->body, http_body(req));
		pay(e, req, who);
	} else {
		run_errand(e);
	}
}

static void
open_stream(struct hubs *hubs, struct http_req *req, const struct principal *who, enum hub hub)
{
	const char *token = http_query(req, "id");
	struct id id;

	if (token == NULL || !id_parse(str_of(token), "hub", &id) || !is_new(&id) ||
	    hub_conn_find(hubs, id_str(&id)) != NULL) {
		answer_unknown(req);
		return;
	}
	if (hubs->door.is_draining) {
		http_reply_retry(req, E_DRAINING, 1, NULL);
		return;
	}
	const struct hub_conn_of of = {hub, HUB_BY_STREAM, who, id.s, NULL};
	hub_conn_open_stream(hub_conn_new(hubs, &of), req);
}

static void
open_socket(struct hubs *hubs, struct http_req *req, const struct principal *who, enum hub hub)
{
	const struct hub_conn_of of = {hub, HUB_BY_SOCKET, who, NULL, http_client_network(req)};
	char accept[WS_ACCEPT_LEN + 1];
	const char *protocol;

	if (ws_door_admit(&hubs->door, req, accept, &protocol))
		hub_conn_open_socket(hub_conn_new(hubs, &of), req, accept, protocol);
}

static void
negotiate(struct hubs *hubs, struct http_req *req)
{
	static const char transports[] =
	    "\"availableTransports\":[{\"transport\":\"WebSockets\",\"transferFormats\":[\"Text\"]}"
	    ","
	    "{\"transport\":\"ServerSentEvents\",\"transferFormats\":[\"Text\"]},"
	    "{\"transport\":\"LongPolling\",\"transferFormats\":[\"Text\"]}]";
	const char *version = http_query(req, "negotiateVersion");
	struct id token = id_new("hub"), id = id_new("conn");
	struct buf b = BUF_INIT;

	if (hubs->door.is_draining) {
		http_reply_retry(req, E_DRAINING, 1, NULL);
		return;
	}
	/* Clients of version 0 know one id, which is then the token. */
	if (version != NULL && strcmp(version, "0") != 0)
		buf_printf(&b,
		    "{\"connectionId\":\"%s\",\"connectionToken\":\"%s\",\"negotiateVersion\":1,%"
		    "s}",
		    id.s, token.s, transports);
	else
		buf_printf(
		    &b, "{\"connectionId\":\"%s\",\"negotiateVersion\":0,%s}", token.s, transports);
	http_add_header(req, "cache-control", "no-store");
	http_reply(req, 200, "application/json", buf_str(&b));
	buf_fini(&b);
}

enum ask { NEGOTIATE, GET, POST, DELETE_IT };

static bool
accepts_stream(struct http_req *req)
{
	struct str accept = http_header(req, "accept");

	return accept.p != NULL && memmem(accept.p, accept.len, "text/event-stream",
				       strlen("text/event-stream")) != NULL;
}

static void
get(struct hubs *hubs, struct http_req *req, const struct principal *who, enum hub hub)
{
	if (http_header(req, "upgrade").p != NULL)
		open_socket(hubs, req, who, hub);
	else if (!http_take_place(req))
		http_reply_capacity(req);
	else if (accepts_stream(req))
		open_stream(hubs, req, who, hub);
	else
		start_errand(hubs, req, who, hub, ERRAND_POLL);
}

static bool
may_use(enum hub hub, enum key_kind kind)
{
	switch (hub) {
	case HUB_SPEND:
	case HUB_WEBHOOKS:
		return kind == KEY_SERVER;
	case HUB_NAVIGATION:
	case HUB_NOTIFICATIONS:
		return true;
	default:
		return kind != KEY_ADMIN;
	}
}

static void
on_known(void *arg, struct http_req *req, int err, const struct principal *who, uint64_t mark)
{
	struct hubs *hubs = arg;
	enum hub hub;

	if (err != 0) {
		ws_door_refuse_key(&hubs->door, req, err);
		return;
	}
	if (!hub_find(http_param(req, "hub"), &hub)) {
		http_reply_error(req, E_NOT_FOUND, NULL, "There is no such hub.");
		return;
	}
	if (!may_use(hub, who->kind)) {
		http_reply_error(req, E_FORBIDDEN, NULL, "This kind of key may not use this hub.");
		return;
	}
	switch ((enum ask)mark) {
	case NEGOTIATE:
		negotiate(hubs, req);
		break;
	case GET:
		get(hubs, req, who, hub);
		break;
	case POST:
		start_errand(hubs, req, who, hub, ERRAND_POST);
		break;
	case DELETE_IT:
		start_errand(hubs, req, who, hub, ERRAND_DELETE);
	}
}

static void
on_negotiate(struct http_req *req, void *arg)
{
	ws_door_ask_key(&((struct hubs *)arg)->door, req, on_known, arg, NEGOTIATE);
}

static void
on_get(struct http_req *req, void *arg)
{
	ws_door_ask_key(&((struct hubs *)arg)->door, req, on_known, arg, GET);
}

static void
on_post(struct http_req *req, void *arg)
{
	ws_door_ask_key(&((struct hubs *)arg)->door, req, on_known, arg, POST);
}

static void
on_delete(struct http_req *req, void *arg)
{
	ws_door_ask_key(&((struct hubs *)arg)->door, req, on_known, arg, DELETE_IT);
}

static const struct http_route routes[] = {
    {"POST", "/hubs/{hub}/negotiate", HTTP_ANY_BODY, on_negotiate},
    {"GET", "/hubs/{hub}", HTTP_UPGRADE | HTTP_LONG | HTTP_WORK, on_get},
    {"POST", "/hubs/{hub}", HTTP_ANY_BODY, on_post},
    {"DELETE", "/hubs/{hub}", HTTP_ANY_BODY, on_delete},
};

void
hubs_door_init(struct hubs *hubs)
{
	http_server_add_routes(hubs->api->http, routes, ARRAY_LEN(routes), hubs);
	backplane_serve(hubs->api->backplane, BACKPLANE_HUB_POST, on_peer_errand, hubs);
}
