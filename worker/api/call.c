/* call - who is asking, how often, and about which session. */
#include "worker/api/call.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/metric.h"

struct http_req *
call_req(const struct api_call *call)
{
	return http_find(call->api->http, call->http);
}

void
call_end(struct api_call *call)
{
	json_decref(call->body);
	arena_fini(&call->arena);
	free(call);
}

void
call_reply_json(struct api_call *call, int status, json_t *json)
{
	struct http_req *req = call_req(call);

	check(json != NULL);
	if (req != NULL)
		http_reply_json(req, status, json);
	else
		json_decref(json);
	call_end(call);
}

void
call_reply_error(struct api_call *call, int err, const char *param, const char *message)
{
	struct http_req *req = call_req(call);
	const struct err_info *info = err_info(err);

	if (message == NULL)
		message = info->text;
	if (req != NULL && (info->status == 503 || info->status == 429))
		http_reply_retry(req, err, 1, message);
	else if (req != NULL)
		http_reply_error(req, err, param, "%s", message);
	call_end(call);
}

void
call_reply_retry(struct api_call *call, int err, uint32_t retry_after_s, const char *message)
{
	struct http_req *req = call_req(call);

	if (req != NULL)
		http_reply_retry(req, err, retry_after_s, message);
	call_end(call);
}

void
call_reply_error_with(struct api_call *call, int err, const char *member, json_t *value)
{
	struct http_req *req = call_req(call);
	const struct err_info *info = err_info(err);
	json_t *json = json_pack("{s:{s:s,s:s,s:s,s:n},s:s,s:o}", "error", "message", info->text,
	    "type", info->type, "code", info->code, "param", "request_id",
	    req != NULL ? http_request_id(req) : "", member, value);

	call_reply_json(call, info->status, json);
}

/* ---- authentication ---- */

static struct str
secret_of(const struct http_req *req, unsigned access)
{
	struct str auth = http_header(req, "authorization");
	struct str key = http_header(req, "x-api-key");
	const char *token;

	if (auth.p != NULL) {
		struct str scheme = str_split(&auth, ' ');

		return str_ieq(scheme, STR("bearer")) ? str_trim(auth) : STR_NONE;
	}
	if (key.p != NULL)
		return str_trim(key);
	if ((access & API_BY_QUERY) && (token = http_query(req, "access_token")) != NULL)
		return str_of(token);
	return STR_NONE;
}

static void
add_rate_headers(struct http_req *req, const struct limiter_verdict *v)
{
	char text[24];

	snprintf(text, sizeof(text), "%u", v->limit);
	http_add_header(req, "X-RateLimit-Limit", text);
	snprintf(text, sizeof(text), "%u", v->remaining);
	http_add_header(req, "X-RateLimit-Remaining", text);
	snprintf(text, sizeof(text), "%u", (v->reset_ms + 999) / 1000);
	http_add_header(req, "X-RateLimit-Reset", text);
}

/* False: over the limit, the request was answered. */
static bool
answer_verdict(
    struct http_req *req, const struct limiter_verdict *v, unsigned kind, const char *message)
{
	uint32_t wait_s = (v->retry_after_ms + 999) / 1000;

	add_rate_headers(req, v);
	if (v->is_allowed)
		return true;
	metric_add(METRIC_RATE_LIMITED, kind, 0, 1);
	http_reply_retry(req, E_RATE_LIMITED, wait_s > 0 ? wait_s : 1, message);
	return false;
}

enum { MINUTE_MS = 60 * 1000, DAY_MS = 24 * 60 * MINUTE_MS };

struct limit {
	const char *kind, *name;
	struct limiter_rule rule;
};

/*
 * The client is told of the limit that refuses it, or else of the one that is nearest. The time is
 * asked for anew: the loop's may be old when much is to be done, and units would expire too early.
 */
static bool
within_limits(struct api_call *call, struct http_req *req, const struct limit *limits, size_t count)
{
	struct limiter_verdict nearest = {.is_allowed = true, .remaining = UINT32_MAX};

	for (size_t i = 0; i < count && nearest.is_allowed; i++) {
		const struct limit *l = &limits[i];
		struct limiter_verdict v;

		if (l->rule.limit == 0)
			continue;
		v = limiter_take(call->api->shm, limiter_key_of(l->kind, str_of(l->name)), l->rule,
		    1, clock_mono_ms());
		if (!v.is_allowed || v.remaining < nearest.remaining)
			nearest = v;
	}
	return nearest.limit == 0 ||
	       answer_verdict(req, &nearest,
		   call->kind == KEY_CLIENT ? LIMITED_CLIENT_KEY : LIMITED_SERVER_KEY,
		   "Too many requests with this key.");
}

/* A client key's limit holds per key and device where it is bound, else per key and client address.
 */
static bool
passes_limits(struct api_call *call, struct http_req *req, const struct principal *who)
{
	const char *whose = call->device_id != NULL ? call->device_id : http_client_network(req);
	const char *id = call->key_id;
	const struct limit client = {
	    "key", arena_printf(&call->arena, "%s/%s", id, whose), who->rate};
	const struct limit server[] = {{"rpm", id, {who->rpm, MINUTE_MS}},
	    {"rpd", id, {who->rpd, DAY_MS}}, {"key", id, who->rate}};

	if (call->kind == KEY_CLIENT)
		return within_limits(call, req, &client, 1);
	return within_limits(call, req, server, ARRAY_LEN(server));
}

/* 401, as long as the address does not ask too often. */
static void
refuse_unknown(struct api_call *call, struct http_req *req)
{
	const struct conf *conf = call->api->conf;
	const struct limiter_rule rule = {
	    (uint32_t)conf->limits.address_limit, (uint32_t)conf->limits.address_window_ms};

	if (rule.limit > 0) {
		struct limiter_verdict v = limiter_take(call->api->shm,
		    limiter_key_of("address", str_of(http_client_network(req))), rule, 1,
		    clock_mono_ms());

		if (!v.is_allowed) {
			answer_verdict(
			    req, &v, LIMITED_ADDRESS, "Too many requests without a valid key.");
			call_end(call);
			return;
		}
	}
	http_add_header(req, "WWW-Authenticate", "Bearer");
	call_reply_error(call, E_UNAUTHORIZED, NULL, NULL);
}

static void
adopt(struct api_call *call, const struct principal *who)
{
	call->kind = who->kind;
	call->key_id = arena_strdup(&call->arena, str_of(who->key_id));
	call->app = who->app;
	if (who->app_id != NULL)
		call->app_id = arena_strdup(&call->arena, str_of(who->app_id));
	if (who->device_id != NULL && *who->device_id != '\0')
		call->device_id = arena_strdup(&call->arena, str_of(who->device_id));
}

static void
on_principal(void *arg, int err, const struct principal *who)
{
	struct api_call *call = arg;
	struct http_req *req = call_req(call);

	if (req == NULL) {
		call_end(call);
		return;
	}
	if (err == E_UNAUTHORIZED) {
		refuse_unknown(call, req);
		return;
	}
	if (err != 0) {
		call_reply_error(call, err, NULL, NULL);
		return;
	}
	if (!(call->endpoint->access & 1u << who->kind)) {
		call_reply_error(
		    call, E_FORBIDDEN, NULL, "This kind of key may not use this route.");
		return;
	}
	adopt(call, who);
	if (!passes_limits(call, req, who)) {
		call_end(call);
		return;
	}
	call->endpoint->handler(call, req);
}

void
call_start(struct api *api, const struct api_endpoint *endpoint, struct http_req *req)
{
	struct api_call *call = xcalloc(1, sizeof(*call));
	struct str secret = secret_of(req, endpoint->access);

	call->api = api;
	call->endpoint = endpoint;
	call->http = http_handle(req);
	if (secret.len == 0) {
		refuse_unknown(call, req);
		return;
	}
	keys_check(api->keys, secret, on_principal, call);
}

/* ---- the session of the path ---- */

static void
on_session_loaded(void *arg, int err, const struct store_session *session)
{
	struct api_call *call = arg;
	struct http_req *req = call_req(call);

	if (req == NULL) {
		call_end(call);
		return;
	}
	if (err == 0 && strcmp(session->app_id, call->app_id) != 0)
		err = E_NOT_FOUND;
	if (err != 0) {
		call_reply_error(call, err, NULL, err == E_NOT_FOUND ? "No such session." : NULL);
		return;
	}
	/* A turn's owner keeps its events for a while: nobody is shown them. */
	if (session->is_erased && call->turn_id.s[0] != '\0') {
		call_reply_error(call, E_NOT_FOUND, NULL, "The session's content was erased.");
		return;
	}
	call->on_session(call, req, session);
}

void
call_with_session(struct api_call *call, struct http_req *req, api_on_session *on_session)
{
	const char *session = http_param(req, "session"), *turn = http_param(req, "turn");

	if (!id_parse(str_of(session), "sess", &call->session_id)) {
		call_reply_error(call, E_NOT_FOUND, NULL, "No such session.");
		return;
	}
	if (turn != NULL && !id_parse(str_of(turn), "turn", &call->turn_id)) {
		call_reply_error(call, E_NOT_FOUND, NULL, "No such turn.");
		return;
	}
	call->on_session = on_session;
	store_session_get(call->api->store, call->session_id.s, on_session_loaded, call);
}
