/*
 * request_fuzz - what clients send to the API's routes: JSON bodies and queries.
 *
 * The first byte chooses the endpoint, the first line is the query (names and
 * values between &, not decoded), the rest is the body. Everything below the API
 * is a stand-in that answers at once. Each request must be answered exactly once.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/metric.h"
#include "worker/api/endpoints.h"
#include "worker/api/key_watch.h"
#include "worker/api/turn_stream.h"
#include "worker/api/turn_wait.h"
#include "worker/sse/sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char session_id[] = "sess_01m7x2gjd8y1r50z4s26qtean5";
static const char turn_id[] = "turn_01m7x2gje4t2s57fnd9m2kryvz";
static const char other_id[] = "msg_01m7x2gje4t2s57fnd9m2kryvz";

/* ---- the request: one at a time ---- */

struct http_req {
	struct arena arena;
	struct str query, body;
	json_t *json;
	int answers;
};

static struct http_req request;

static void
answered(void)
{
	check(++request.answers == 1);
}

struct http_req *
http_find(struct http_server *server, uint64_t handle)
{
	(void)server;
	check(handle == 1);
	return request.answers == 0 ? &request : NULL;
}

struct str
http_method(const struct http_req *r)
{
	return r->query.len % 2 == 0 ? STR("GET") : STR("HEAD");
}

void
http_reply(struct http_req *r, int status, const char *content_type, struct str body)
{
	(void)r, (void)content_type, (void)body;
	check(status == 200);
	answered();
}

void
events_publish(struct events *ev, const struct events_news *news)
{
	(void)ev;
	check(news->topic != NULL && news->name != NULL && news->payload.len > 0);
}

struct str
http_header(const struct http_req *r, const char *name)
{
	return strcmp(name, "last-event-id") == 0 ? r->body : STR_NONE;
}

const char *
http_param(const struct http_req *r, const char *name)
{
	(void)r;
	if (strcmp(name, "key") == 0)
		return "key_01m7x2gjd8y1r50z4s26qtean5";
	return strcmp(name, "session") == 0 ? session_id : turn_id;
}

const char *
http_query(const struct http_req *r, const char *name)
{
	struct str rest = r->query;

	while (rest.len > 0) {
		struct str value = str_split(&rest, '&'), key = str_split(&value, '=');

		if (str_eq(key, str_of(name)) &&
		    memchr(value.p ? value.p : "", 0, value.len) == NULL)
			return arena_strdup(&request.arena, value);
	}
	return NULL;
}

struct str
http_body(const struct http_req *r)
{
	return r->body;
}

const char *
http_request_id(const struct http_req *r)
{
	(void)r;
	return "req_1";
}

const char *
http_client_network(struct http_req *r)
{
	return http_client_address(r);
}

void
http_add_header(struct http_req *r, const char *name, const char *value)
{
	(void)r;
	check(name != NULL && value != NULL);
}

void
http_reply_json(struct http_req *r, int status, json_t *json)
{
	char *text = json_dumps(json, JSON_COMPACT);

	(void)r;
	check(status >= 200 && status < 600 && text != NULL);
	free(text);
	json_decref(json);
	answered();
}

void
http_reply_error(struct http_req *r, int err, const char *param, const char *fmt, ...)
{
	(void)r;
	(void)param;
	(void)fmt;
	check(err_info(err)->status >= 400);
	answered();
}

void
http_reply_retry(struct http_req *r, int err, uint32_t retry_after_s, const char *message)
{
	check(retry_after_s >= 1);
	http_reply_error(r, err, NULL, "%s", message);
}

void
http_on_gone(struct http_req *r, void (*on_gone)(void *), void *arg)
{
	(void)r;
	(void)on_gone;
	(void)arg;
}

void
http_work_passed_on(struct http_req *r)
{
	(void)r;
}

json_t *
http_json(struct http_req *r, bool is_required)
{
	check(is_required);
	r->json = json_loadb(r->body.p, r->body.len, JSON_REJECT_DUPLICATES, NULL);
	if (r->json == NULL)
		answered();
	return r->json;
}

/* Called by routes that are not driven here. */
uint64_t
http_handle(const struct http_req *r)
{
	return r != NULL;
}
const char *
http_client_address(const struct http_req *r)
{
	return r != NULL ? "127.0.0.1" : NULL;
}
const struct conf *
http_conf(const struct http_req *r)
{
	(void)r;
	return NULL;
}
bool
http_is_loopback_peer(const struct http_req *r)
{
	return r != NULL;
}
bool
http_is_secure(const struct http_req *r)
{
	return r != NULL;
}
struct arena *
http_arena(struct http_req *r)
{
	return &r->arena;
}
void
http_server_add_routes(struct http_server *s, const struct http_route *r, size_t n, void *a)
{
	(void)s, (void)r, (void)n, (void)a;
}

/* ---- what is below, each answering at once ---- */

static const struct store_session session = {
    .id = session_id, .app_id = "demo", .status = "active"};

void
store_session_open(
    struct store *s, const struct store_session_open *o, store_on_opened *on, void *arg)
{
	(void)s;
	check(!o->reuse || o->session.device_id != NULL);
	on(arg, 0, &o->session, o->reuse);
}

void
store_session_get(struct store *s, const char *id, store_on_session *on, void *arg)
{
	(void)s;
	check(strcmp(id, session_id) == 0);
	on(arg, 0, &session);
}

void
store_session_list(
    struct store *s, const struct store_session_filter *f, store_on_sessions *on, void *arg)
{
	(void)s;
	check(f->limit >= 1 && f->limit <= 100);
	on(arg, 0, &session, 1, false);
}

void
store_session_close(struct store *s, const char *id, int64_t now, store_on_done *on, void *arg)
{
	(void)s, (void)id, (void)now;
	on(arg, 0);
}

void
store_session_empty(struct store *s, const char *id, uint32_t limit, store_on_count *on, void *arg)
{
	(void)s, (void)id;
	check(limit > 0);
	on(arg, 0, 0);
}

void
store_session_erase(struct store *s, const char *id, int64_t now, store_on_done *on, void *arg)
{
	store_session_close(s, id, now, on, arg);
}

void
store_message_list(struct store *s, const char *id, const char *after, uint32_t limit,
    store_on_messages *on, void *arg)
{
	struct store_message m = {
	    .id = other_id, .role = "user", .body_json = "{\"content\":\"x\"}"};

	(void)s, (void)id, (void)after;
	check(limit >= 1 && limit <= 100);
	on(arg, 0, &m, 1, true);
}

void
store_turn_live(struct store *s, const char *id, store_on_turn *on, void *arg)
{
	(void)s, (void)id;
	on(arg, E_NOT_FOUND, NULL);
}

bool
providers_know_model(const struct providers *p, const char *alias)
{
	(void)p;
	return strcmp(alias, "default") == 0;
}

void
turn_start(struct turns *ts, const struct turn_start *t, turn_on_started *on, void *arg)
{
	(void)ts;
	check(json_is_string(t->input) || json_is_array(t->input));
	on(arg, E_TURN_IN_PROGRESS, NULL, NULL);
}

void
turn_tool_result(
    struct turns *ts, const struct turn_tool_result *r, turn_on_tool_result *on, void *arg)
{
	(void)ts;
	check((r->output == NULL) != (r->error == NULL) && r->tool_call_id != NULL);
	on(arg, r->error != NULL ? E_ALREADY_ANSWERED : 0, true);
}

/* The answer never comes from inside the verb: it comes when the handler has returned. */
static struct {
	turn_on_state *on;
	void *arg;
} asked;

uint64_t
turn_get_state(struct turns *ts, const struct id *s, const struct id *t, uint32_t wait_ms,
    turn_on_state *on, void *arg)
{
	(void)ts, (void)s, (void)t;
	check(wait_ms <= 60000 && asked.on == NULL);
	asked.on = on;
	asked.arg = arg;
	return 1;
}

void
turn_hurry_state(struct turns *ts, uint64_t handle)
{
	(void)ts, (void)handle;
}

void
turn_forget_state(struct turns *ts, uint64_t handle)
{
	(void)ts, (void)handle;
}

static void
answer_asked(void)
{
	json_t *state = json_pack("{s:s}", "state", "completed");
	turn_on_state *on = asked.on;

	asked.on = NULL;
	if (on != NULL)
		on(asked.arg, 0, state);
	json_decref(state);
}

void
turn_cancel(struct turns *ts, const struct id *s, const struct id *t, turn_on_done *on, void *arg)
{
	(void)ts, (void)s, (void)t;
	on(arg, 0);
}

/* Its callbacks never come from inside the verb: the end comes when the handler has returned. */
static struct {
	const struct turn_listener_handlers *handlers;
	void *arg;
} attached;

uint64_t
turn_attach(struct turns *ts, const struct id *s, const struct id *t, uint64_t after,
    uint64_t originator, const struct turn_listener_handlers *h, void *arg)
{
	(void)ts, (void)s, (void)t, (void)originator;
	check(after <= INT64_MAX && attached.handlers == NULL);
	attached.handlers = h;
	attached.arg = arg;
	return 1;
}

static void
end_attached(void)
{
	const struct turn_listener_handlers *h = attached.handlers;

	attached.handlers = NULL;
	if (h != NULL)
		h->on_end(attached.arg, 0);
}

void
turn_detach(struct turns *ts, uint64_t l, bool d)
{
	(void)ts, (void)l, (void)d;
}
struct str
turn_event_name(enum turn_event_type t)
{
	return t < TURN_EVENT_COUNT ? STR("x") : STR_NONE;
}

void
http_doing(struct http_server *s, struct str name, struct str path, struct str bytes)
{
	(void)s, (void)name, (void)path, (void)bytes;
}

bool
http_doing_request(struct http_req *r)
{
	(void)r;
	return false;
}

void
http_done(struct http_server *s)
{
	(void)s;
}

struct sse *
sse_start(struct http_req *r, void (*on_closed)(void *), void *arg)
{
	(void)on_closed, (void)arg;
	answered();
	return (struct sse *)r;
}

bool
sse_send(struct sse *s, struct str i, struct str e, struct str d)
{
	(void)s, (void)i, (void)e, (void)d;
	return true;
}
void
sse_end_with(struct sse *s, struct str event, struct str data)
{
	(void)event, (void)data;
	check(s != NULL);
}

void
sse_end(struct sse *s)
{
	check(s != NULL);
}

void
sse_end_for_now(struct sse *s, uint32_t come_back_ms)
{
	(void)come_back_ms;
	check(s != NULL);
}

void
keys_create(struct keys *k, const struct keys_create *c, keys_on_created *on, void *arg)
{
	struct store_key key = {.id = other_id, .app_id = c->app_id, .device_id = c->device_id};

	(void)k;
	on(arg, 0, &key, "pc_secret");
}

void
keys_check(struct keys *k, struct str s, keys_on_principal *on, void *a)
{
	(void)k, (void)s;
	on(a, E_UNAUTHORIZED, NULL);
}

void
keys_check_hash(struct keys *k, const uint8_t hash[32], keys_on_principal *on, void *a)
{
	(void)k, (void)hash;
	on(a, E_UNAUTHORIZED, NULL);
}

void
keys_on_change(struct keys *k, void (*on_change)(void *arg), void *arg)
{
	(void)k, (void)on_change, (void)arg;
}

void
keys_change(struct keys *k, const char *id, const char *name, const char *limits_json,
    store_on_done *on, void *arg)
{
	json_t *limits = limits_json != NULL ? json_loads(limits_json, 0, NULL) : json_object();

	(void)k, (void)id, (void)name;
	check(json_is_object(limits));
	json_decref(limits);
	on(arg, 0);
}

void
keys_revoke(struct keys *k, const char *id, store_on_done *on, void *arg)
{
	keys_change(k, id, NULL, NULL, on, arg);
}

static const struct store_key stored_key = {.id = other_id,
    .kind = "server",
    .app_id = "demo",
    .limits_json = "{\"rpm\":5,\"models\":[\"m\"]}"};

void
store_key_get(struct store *s, const char *id, store_on_key *on, void *arg)
{
	(void)s, (void)id;
	on(arg, 0, &stored_key);
}

void
store_key_list(struct store *s, const char *app, const char *after, uint32_t limit,
    store_on_keys *on, void *arg)
{
	(void)s, (void)app, (void)after;
	check(limit >= 1 && limit <= 1000);
	on(arg, 0, &stored_key, 1, false);
}

/* ---- the target ---- */

static const struct api_endpoint *
endpoint_at(unsigned n)
{
	static const struct api_endpoint *const tables[] = {sessions_endpoints, turns_endpoints,
	    tool_results_endpoints, client_keys_endpoints, admin_keys_endpoints};
	const struct api_endpoint *all[64];
	unsigned count = 0;

	for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
		for (const struct api_endpoint *e = tables[i]; e->method != NULL; e++)
			all[count++] = e;
	}
	return all[n % count];
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct conf conf = {.tools.max_tools = 128,
	    .sessions.max_metadata_bytes = 16384,
	    .sessions.sweep_batch = 1000,
	    .auth.client_key_max_life_ms = 86400000};
	static struct api api = {.conf = &conf};

	if (size < 2)
		return 0;
	if (api.streams == NULL) {
		api.streams = turn_streams_new(&api);
		api.turn_waits = turn_waits_new(&api);
		api.key_watch = key_watch_new(NULL, NULL, NULL);
	}
	struct str rest = str_sub((const char *)data + 1, size - 1);
	const struct api_endpoint *endpoint = endpoint_at(data[0]);
	struct api_call *call = xcalloc(1, sizeof(*call));
	request = (struct http_req){.arena = ARENA_INIT};
	request.query = str_split(&rest, '\n');
	request.body = rest;
	*call = (struct api_call){.api = &api,
	    .endpoint = endpoint,
	    .http = 1,
	    .app_id = "demo",
	    .key_id = other_id,
	    .kind = endpoint->access & API_CLIENT && data[0] & 0x80 ? KEY_CLIENT : KEY_SERVER};
	endpoint->handler(call, &request);
	answer_asked();
	end_attached();
	check(request.answers == 1);
	json_decref(request.json);
	arena_fini(&request.arena);
	return 0;
}
