/*
 * webhooks - what the admin, and the owner of an app, see of webhooks and do about them.
 *
 *   GET  /admin/v1/webhooks/endpoints ?after=&limit=             their breakers and figures
 *   POST /admin/v1/webhooks/endpoints/{endpoint}/enable          its breaker closes; /disable
 *   POST /admin/v1/webhooks/endpoints/{endpoint}/resend          its dead letters, 1000 at most
 *   GET  /admin/v1/webhooks/deliveries ?state=&endpoint=&app=&about=&after=&limit=   newest first
 *   GET  /admin/v1/webhooks/deliveries/{webhook}                 with its payload
 *   POST /admin/v1/webhooks/deliveries/{webhook}/resend          again, as new, under the same id
 *   POST /admin/v1/webhooks/test {endpoint | url, secret, headers, app_id, batch; count, streams}
 *   GET  /v1/webhooks/deliveries[/{webhook}]                     a server key's app's own
 *
 * Secrets and headers of endpoints are shown to nobody.
 */
#include "common/check.h"
#include "common/clock.h"
#include "worker/api/endpoints.h"
#include "worker/api/fields.h"
#include "worker/api/shapes.h"

enum {
	ROWS_DEFAULT = 100,
	ROWS_MAX = 1000,
	RESEND_MAX = 1000,
	COUNT_MAX = 1000,
	ID_TEXT_MAX = 128,
};

/* ---- as JSON ---- */

static json_t *
format_endpoint(const struct store_webhook_endpoint *e)
{
	bool is_conf = str_starts(str_of(e->id), STR(ENDPOINT_CONF_PREFIX));

	return json_pack("{s:s, s:s, s:o, s:s, s:I, s:{s:s, s:I, s:o}, s:o, s:{s:I, s:I, s:I},"
			 " s:{s:o, s:o, s:o}, s:o}",
	    "id", e->id, "from", is_conf ? "config" : "task", "app_id", shape_text(e->app_id),
	    "url", e->url, "batch", (json_int_t)e->batch, "breaker", "state",
	    e->probe_at != 0 ? "open" : "closed", "failures", (json_int_t)e->failures, "probe_at",
	    shape_time(e->probe_at), "disabled_at", shape_time(e->disabled_at), "statistics",
	    "delivered", (json_int_t)e->delivered, "failed_attempts", (json_int_t)e->failed, "dead",
	    (json_int_t)e->dead, "last", "status",
	    e->last_status != 0 ? json_integer(e->last_status) : json_null(), "error",
	    shape_text(e->last_error), "at", shape_time(e->last_at), "created_at",
	    shape_time(e->created_at));
}

static json_t *
format_webhook(const struct store_webhook *w, bool with_payload)
{
	bool is_pending = strcmp(w->state, "pending") == 0;
	bool is_ordered = strcmp(w->order_key, w->id) != 0;
	json_t *json = json_pack("{s:s, s:s, s:o, s:o, s:s, s:s, s:I, s:o, s:o, s:o,"
				 " s:{s:o, s:o, s:o, s:I, s:I}}",
	    "id", w->id, "endpoint", w->endpoint_id, "app_id", shape_text(w->app_id), "about",
	    is_ordered ? json_string(w->order_key) : json_null(), "event", w->event, "state",
	    w->state, "attempts", (json_int_t)w->attempts, "created_at", shape_time(w->created_at),
	    "due_at", shape_time(is_pending ? w->due_at : 0), "ended_at", shape_time(w->ended_at),
	    "last", "status", w->status != 0 ? json_integer(w->status) : json_null(), "error",
	    shape_text(w->error), "response", shape_text(w->response), "first_byte_ms",
	    (json_int_t)w->first_ms, "total_ms", (json_int_t)w->total_ms);

	if (with_payload)
		json_object_set_new(json, "payload", shape_stored(w->body));
	return json;
}

static void
reply(struct api_call *call, int err, json_t *json, const char *missing)
{
	if (err == 0) {
		call_reply_json(call, 200, json);
		return;
	}
	json_decref(json);
	call_reply_error(call, err, NULL, err == E_NOT_FOUND ? missing : NULL);
}

/* ---- endpoints ---- */

static void
on_endpoints(
    void *arg, int err, const struct store_webhook_endpoint *list, size_t count, bool has_more)
{
	json_t *data = json_array();

	for (size_t i = 0; i < count; i++)
		json_array_append_new(data, format_endpoint(&list[i]));
	reply(arg, err, shape_list(data, has_more), NULL);
}

static void
list_endpoints(struct api_call *call, struct http_req *req)
{
	uint64_t limit = ROWS_DEFAULT;

	if (query_count(call, req, "limit", 1, ROWS_MAX, &limit))
		store_webhook_endpoint_list(call->api->store, http_query(req, "after"),
		    (uint32_t)limit, on_endpoints, call);
}

static void
on_enabled(void *arg, int err)
{
	struct api_call *call = arg;

	webhooks_wake(call->api->webhooks);
	reply(call, err, json_object(), "No such endpoint.");
}

static void
enable_endpoint(struct api_call *call, struct http_req *req)
{
	store_webhook_endpoint_enable(
	    call->api->store, http_param(req, "endpoint"), true, on_enabled, call);
}

static void
disable_endpoint(struct api_call *call, struct http_req *req)
{
	store_webhook_endpoint_enable(
	    call->api->store, http_param(req, "endpoint"), false, on_enabled, call);
}

static void
on_resent(void *arg, int err, uint64_t count)
{
	struct api_call *call = arg;

	webhooks_wake(call->api->webhooks);
	reply(call, err, json_pack("{s:I}", "resent", (json_int_t)count), NULL);
}

static void
resend_dead(struct api_call *call, struct http_req *req)
{
	store_webhook_resend(
	    call->api->store, NULL, http_param(req, "endpoint"), RESEND_MAX, on_resent, call);
}

/* ---- deliveries ---- */

static void
on_webhooks(void *arg, int err, const struct store_webhook *rows, size_t count, bool has_more)
{
	json_t *data = json_array();

	for (size_t i = 0; i < count; i++)
		json_array_append_new(data, format_webhook(&rows[i], false));
	reply(arg, err, shape_list(data, has_more), NULL);
}

static bool
is_state(const char *state)
{
	return state == NULL || strcmp(state, "pending") == 0 || strcmp(state, "delivered") == 0 ||
	       strcmp(state, "dead") == 0;
}

static void
list_deliveries(struct api_call *call, struct http_req *req)
{
	uint64_t limit = ROWS_DEFAULT;
	struct store_webhook_filter filter = {
	    .app_id = call->kind == KEY_ADMIN ? http_query(req, "app") : call->app_id,
	    .endpoint_id = http_query(req, "endpoint"),
	    .state = http_query(req, "state"),
	    .order_key = http_query(req, "about"),
	    .after = http_query(req, "after"),
	};

	if (!query_count(call, req, "limit", 1, ROWS_MAX, &limit))
		return;
	if (!is_state(filter.state)) {
		call_reply_error(
		    call, E_INVALID_VALUE, "state", "state must be pending, delivered or dead.");
		return;
	}
	filter.limit = (uint32_t)limit;
	store_webhook_list(call->api->store, &filter, on_webhooks, call);
}

/* Another app's does not exist. */
static void
on_webhook(void *arg, int err, const struct store_webhook *w)
{
	struct api_call *call = arg;
	bool is_theirs =
	    err == 0 && (call->kind == KEY_ADMIN ||
			    (w->app_id != NULL && strcmp(w->app_id, call->app_id) == 0));

	if (err == 0 && !is_theirs)
		err = E_NOT_FOUND;
	reply(call, err, err == 0 ? format_webhook(w, true) : NULL, "No such webhook.");
}

static void
show_delivery(struct api_call *call, struct http_req *req)
{
	store_webhook_get(call->api->store, http_param(req, "webhook"), on_webhook, call);
}

static void
on_resent_one(void *arg, int err, uint64_t count)
{
	struct api_call *call = arg;

	if (err != 0 || count == 0) {
		reply(call, err != 0 ? err : E_NOT_FOUND, NULL,
		    "No such webhook, or it is still pending.");
		return;
	}
	webhooks_wake(call->api->webhooks);
	store_webhook_get(call->api->store, call->object_id.s, on_webhook, call);
}

static void
resend_one(struct api_call *call, struct http_req *req)
{
	if (!id_parse(str_of(http_param(req, "webhook")), "wh", &call->object_id)) {
		call_reply_error(call, E_NOT_FOUND, NULL, "No such webhook.");
		return;
	}
	store_webhook_resend(call->api->store, call->object_id.s, NULL, 0, on_resent_one, call);
}

/* ---- tests ---- */

static void
on_tested(void *arg, int err)
{
	struct api_call *call = arg;
	const char *first = json_string_value(json_object_get(call->body, "first"));
	json_t *json;

	if (err != 0) {
		reply(call, err, NULL, NULL);
		return;
	}
	webhooks_wake(call->api->webhooks);
	json = json_pack("{s:s, s:O, s:I}", "id", first, "endpoint",
	    json_object_get(call->body, "endpoint"), "count", (json_int_t)call->limit);
	call_reply_json(call, 202, json);
}

static bool
read_headers(struct api_call *call, struct endpoint_named *n, struct client_header *headers)
{
	const json_t *map = NULL;
	const char *name;
	json_t *value;

	if (!field_json(call, "headers", JSON_OBJECT, &map))
		return false;
	n->headers = headers;
	json_object_foreach((json_t *)map, name, value)
	{
		if (!json_is_string(value) || n->header_count == ENDPOINT_HEADERS_MAX) {
			call_reply_error(call, E_INVALID_VALUE, "headers",
			    "headers must be at most 16 names with strings.");
			return false;
		}
		headers[n->header_count++] = (struct client_header){name, json_string_value(value)};
	}
	return true;
}

/* As a task would name it. */
static bool
read_named(struct api_call *call, struct store_webhook_endpoint *ret)
{
	struct client_header headers[ENDPOINT_HEADERS_MAX];
	struct endpoint_named n = {.app_id = NULL, .batch = 1};
	const struct conf_webhooks *conf = &call->api->conf->webhooks;
	const char *wrong, *field = NULL;

	if (!field_text(call, "url", ENDPOINT_URL_MAX, &n.url) ||
	    !field_text(call, "secret", ENDPOINT_SECRET_MAX, &n.secret) ||
	    !field_text(call, "app_id", ID_TEXT_MAX, &n.app_id) ||
	    !field_count(call, "batch", 1, ENDPOINT_BATCH_MAX, &n.batch) ||
	    !read_headers(call, &n, headers))
		return false;
	if (n.url == NULL || n.app_id == NULL) {
		call_reply_error(call, E_INVALID_VALUE, n.url == NULL ? "endpoint" : "app_id",
		    "Give endpoint, or url and app_id.");
		return false;
	}
	if ((wrong = endpoint_check(&n, conf, &field)) != NULL) {
		call_reply_error(call, E_INVALID_VALUE, field, wrong);
		return false;
	}
	endpoint_format(&n, conf, &call->arena, ret);
	return true;
}

static bool
read_target(struct api_call *call, struct store_webhook_endpoint *ret)
{
	const struct conf_webhook *c;
	const char *id = NULL;

	if (!field_text(call, "endpoint", ID_TEXT_MAX, &id))
		return false;
	if (id == NULL)
		return read_named(call, ret);
	c = endpoint_conf(&call->api->conf->webhooks, id);
	if (c == NULL) {
		call_reply_error(call, E_NOT_FOUND, "endpoint",
		    "No endpoint of the configuration has that name (conf:NAME).");
		return false;
	}
	endpoint_of_conf(c, &call->arena, ret);
	return true;
}

static void
fill_tests(struct api_call *call, const struct store_webhook_endpoint *e,
    struct store_webhook *rows, uint64_t count, uint64_t streams, const char *run)
{
	int64_t now = clock_wall_ms();
	char at[CLOCK_RFC3339_LEN + 1];

	clock_format(now, at);
	for (uint64_t i = 0; i < count; i++) {
		struct id id = id_new("wh");
		uint64_t stream = streams > 0 ? i % streams : 0;

		rows[i] = (struct store_webhook){
		    .id = arena_strdup(&call->arena, id_str(&id)),
		    .endpoint_id = e->id,
		    .app_id = e->app_id,
		    .order_key = streams == 0 ? NULL
					      : arena_printf(&call->arena, "%s:%llu", run,
						    (unsigned long long)stream),
		    .event = "webhook.test",
		    .body = arena_printf(&call->arena,
			"{\"type\":\"webhook.test\",\"timestamp\":\"%s\",\"data\":{\"run\":"
			"\"%s\",\"number\":%llu,\"stream\":%llu}}",
			at, run, (unsigned long long)i, (unsigned long long)stream),
		    .created_at = now,
		};
	}
}

static void
test_endpoint(struct api_call *call, struct http_req *req)
{
	struct store_webhook_endpoint endpoint;
	uint64_t count = 1, streams = 0;
	struct store_webhook *rows;

	if (!fields_body(call, req, true) || !read_target(call, &endpoint) ||
	    !field_count(call, "count", 1, COUNT_MAX, &count) ||
	    !field_count(call, "streams", 0, COUNT_MAX, &streams))
		return;
	struct id run = id_new("run");
	rows = arena_alloc(&call->arena, count * sizeof(*rows));
	fill_tests(call, &endpoint, rows, count, streams, run.s);
	call->limit = (uint32_t)count;
	json_object_set_new(call->body, "first", json_string(rows[0].id));
	json_object_set_new(call->body, "endpoint", json_string(endpoint.id));
	store_webhook_add(call->api->store, rows, count, &endpoint, 1, on_tested, call);
}

#define ADMIN "/admin/v1/webhooks"

const struct api_endpoint webhooks_endpoints[] = {
    {"GET", ADMIN "/endpoints", HTTP_SAME_ORIGIN, API_ADMIN, list_endpoints},
    {"POST", ADMIN "/endpoints/{endpoint}/enable", HTTP_SAME_ORIGIN, API_ADMIN, enable_endpoint},
    {"POST", ADMIN "/endpoints/{endpoint}/disable", HTTP_SAME_ORIGIN, API_ADMIN, disable_endpoint},
    {"POST", ADMIN "/endpoints/{endpoint}/resend", HTTP_SAME_ORIGIN, API_ADMIN, resend_dead},
    {"GET", ADMIN "/deliveries", HTTP_SAME_ORIGIN, API_ADMIN, list_deliveries},
    {"GET", ADMIN "/deliveries/{webhook}", HTTP_SAME_ORIGIN, API_ADMIN, show_delivery},
    {"POST", ADMIN "/deliveries/{webhook}/resend", HTTP_SAME_ORIGIN, API_ADMIN, resend_one},
    {"POST", ADMIN "/test", HTTP_SAME_ORIGIN, API_ADMIN, test_endpoint},
    {"GET", "/v1/webhooks/deliveries", 0, API_SERVER, list_deliveries},
    {"GET", "/v1/webhooks/deliveries/{webhook}", 0, API_SERVER, show_delivery},
    {NULL, NULL, 0, 0, NULL},
};
