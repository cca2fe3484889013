/* call - who is asking, how often, and about which session. */
#include "worker/api/call.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "worker/api/mcp_door.h"
#include "worker/api/rate.h"
#include "worker/api/rate_warn.h"
#include "worker/usage/refusal.h"

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
	if (call->on_error != NULL) {
		call->on_error(call, err, param, message);
		return;
	}
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
call_reply_error_with(
    struct api_call *call, int err, const char *message, const char *member, json_t *value)
{
	struct http_req *req = call_req(call);
	const struct err_info *info = err_info(err);
	json_t *json = json_pack("{s:{s:s,s:s,s:s,s:n},s:s,s:o}", "error", "message",
	    message != NULL ? message : info->text, "type", info->type, "code", info->code, "param",
	    "request_id", req != NULL ? http_request_id(req) : "", member, value);

	call_reply_json(call, info->status, json);
}

/* ---- authentication ---- */

struct str
call_secret(const struct http_req *req, bool by_query)
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
	if (by_query && (token = http_query(req, "access_token")) != NULL)
		return str_of(token);
	return STR_NONE;
}

void
call_add_limit(struct http_req *req, const struct limiter_verdict *v)
{
	char text[24];

	if (v->limit == 0)
		return;
	snprintf(text, sizeof(text), "%u", v->limit);
	http_add_header(req, "X-RateLimit-Limit", text);
	snprintf(text, sizeof(text), "%u", v->remaining);
	http_add_header(req, "X-RateLimit-Remaining", text);
	snprintf(text, sizeof(text), "%u", (v->reset_ms + 999) / 1000);
	http_add_header(req, "X-RateLimit-Reset", text);
}

void
call_add_retry_after(struct http_req *req, uint32_t seconds)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", seconds > 0 ? seconds : 1);
	http_add_header(req, "Retry-After", text);
}

void
call_reply_limit(struct api_call *call, const struct limiter_verdict *v, const char *unit)
{
	struct http_req *req = call_req(call);
	struct buf message = BUF_INIT, limit = BUF_INIT;

	if (req != NULL) {
		call_add_limit(req, v);
		call_add_retry_after(req, rate_retry_after_s(v));
	}
	refusal_message(v, unit, &message);
	refusal_of_limit(v, unit, &limit);
	call_reply_error_with(call, E_RATE_LIMITED, message.data, "limit",
	    json_loadb(limit.data, limit.len, 0, NULL));
	buf_fini(&message);
	buf_fini(&limit);
}

void
call_refuse_limit(
    struct api *api, struct http_req *req, const struct limiter_verdict *v, const char *unit)
{
	struct api_call *call = call_new(api, NULL);

	call->http = http_handle(req);
	call_reply_limit(call, v, unit);
}

static void
refuse_rate(struct http_req *req, const struct limiter_verdict *v, const char *message)
{
	call_add_limit(req, v);
	http_reply_retry(req, E_RATE_LIMITED, rate_retry_after_s(v), message);
}

static void
refuse_key(struct api *api, struct http_req *req, const char *challenge)
{
	struct limiter_verdict v;

	if (!rate_take_address(api->shm, api->conf, http_client_network(req), &v)) {
		refuse_rate(req, &v, "Too many requests without a valid key.");
		return;
	}
	http_add_header(req, "WWW-Authenticate", challenge);
	http_reply_error(req, E_UNAUTHORIZED, NULL, NULL);
}

void
call_refuse_key(struct api *api, struct http_req *req)
{
	refuse_key(api, req, "Bearer");
}

static void
refuse_unknown(struct api_call *call, struct http_req *req)
{
	refuse_key(call->api, req,
	    call->endpoint->access & API_MCP ? mcp_door_challenge(req, false) : "Bearer");
	call_end(call);
}

static void
adopt(struct api_call *call, const struct principal *who)
{
	call->kind = who->kind;
	call->key_id = arena_strdup(&call->arena, str_of(who->key_id));
	call->app = who->app;
	call->budget = who->budget;
	memcpy(call->key_hash, who->hash, sizeof(call->key_hash));
	call->key_expires_at = who->expires_at;
	call->tools = who->tools;
	call->models = who->models; /* as long as the handler runs: the principal is borrowed */
	if (who->app_id != NULL)
		call->app_id = arena_strdup(&call->arena, str_of(who->app_id));
	if (who->device_id != NULL && *who->device_id != '\0')
		call->device_id = arena_strdup(&call->arena, str_of(who->device_id));
}

struct api_call *
call_new(struct api *api, const struct principal *who)
{
	struct api_call *call = xcalloc(1, sizeof(*call));

	call->api = api;
	call->kind = KEY_SERVER;
	if (who != NULL) {
		adopt(call, who);
		call->rate = rate_of_key(who, "");
	}
	return call;
}

/* The windows have been asked. */
static void
enter_route(struct api_call *call, struct http_req *req)
{
	const struct rate_ask *r = &call->rate_ask;
	struct http_server *http = call->api->http;

	rate_warn(call->api->rate_warns, call->app_id, call->key_id, r);
	if (!r->verdict.is_allowed) {
		call_reply_limit(call, &r->verdict, r->unit);
		return;
	}
	call_add_limit(req, &r->verdict);
	bool is_later = http_doing_request(req);
	call->endpoint->handler(call, req);
	if (is_later)
		http_done(http);
}

static void
on_rate_decided(struct rate_ask *r)
{
	struct api_call *call = container_of(r, struct api_call, rate_ask);
	struct http_req *req = call_req(call);

	if (req != NULL)
		enter_route(call, req);
	else
		call_end(call);
}

/* The principal is borrowed, and other hosts may have to be asked. */
static void
keep_names(struct api_call *call, struct conf_list *names)
{
	const char **texts;

	if (names->n == 0)
		return;
	texts = arena_alloc(&call->arena, names->n * sizeof(*texts));
	for (size_t i = 0; i < names->n; i++)
		texts[i] = arena_strdup(&call->arena, str_of(names->v[i]));
	names->v = texts;
}

static void
keep_lists(struct api_call *call)
{
	keep_names(call, &call->models);
	keep_names(call, &call->tools.allowed);
	keep_names(call, &call->tools.denied);
}

static void
ask_rate(struct api_call *call, struct http_req *req, const struct principal *who)
{
	call->rate = rate_of_key(who, http_client_network(req));
	call->rate_ask.on_decided = on_rate_decided;
	if (rate_take(call->api->limits, &call->rate, &call->rate_ask))
		enter_route(call, req);
	else
		keep_lists(call);
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
		if (call->endpoint->access & API_MCP)
			http_add_header(req, "WWW-Authenticate", mcp_door_challenge(req, true));
		call_reply_error(
		    call, E_FORBIDDEN, NULL, "This kind of key may not use this route.");
		return;
	}
	adopt(call, who);
	ask_rate(call, req, who);
}

void
call_start(struct api *api, const struct api_endpoint *endpoint, struct http_req *req)
{
	struct str secret = call_secret(req, (endpoint->access & API_BY_QUERY) != 0);
	bool is_mcp = (endpoint->access & API_MCP) != 0;

	if (is_mcp && !mcp_door_lets_in(req))
		return;
	struct api_call *call = xcalloc(1, sizeof(*call));
	call->api = api;
	call->endpoint = endpoint;
	call->http = http_handle(req);
	if ((endpoint->access & API_OPEN) != 0 ||
	    (is_mcp && secret.len == 0 && mcp_door_needs_no_key(req))) {
		call->kind = KEY_SERVER;
		endpoint->handler(call, req);
		return;
	}
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
	struct http_server *http = call->api->http;
	bool is_later = http_doing_request(req);
	call->on_session(call, req, session);
	if (is_later)
		http_done(http);
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
