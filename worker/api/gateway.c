/*
 * gateway - see gateway.h.
 *
 *   refused | asked --begins--> stream --+--> ended: one report of what it was
 *                  \--whole or failed----/
 *
 * A client that goes stops the provider at once, unless it said X-Parley-On-Disconnect:
 * continue; then the answer is read to its end, and kept (gateway_keep.h).
 */
#include "worker/api/gateway.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/metric.h"
#include "worker/api/endpoints.h"
#include "worker/api/farewell.h"
#include "worker/api/gateway_keep.h"
#include "worker/api/gateway_money.h"
#include "worker/http/stream.h"
#include "worker/provider/relay.h"

struct gateways {
	struct api *api;
	struct loop_timer drain_end;
	struct list calls;
	struct answer_sweeper *sweeper;
};

struct gateway {
	struct list node;
	struct api_call *call;
	enum relay_kind kind;
	const char *alias;
	struct relay *relay;
	struct http_stream *stream; /* NULL: the answer has not begun, or nobody reads it */
	bool is_stream;             /* of events */
	struct gateway_keep *keep;  /* NULL: it ends with its client */
	uint32_t reserved_tokens;
	struct gateway_money money;
	bool is_accounted;
	struct body body; /* the request's, until it is asked */
};

/* ---- the end ---- */

/* Every call of a model through these routes ends here, once: answered, failed, given up. Who has
 * the end of an answer may ask at once whether what he reserved is his again, and any worker. */
static void
account(struct gateway *g)
{
	struct relay_report r;
	uint64_t tokens = 0;

	if (g->is_accounted)
		return;
	g->is_accounted = true;
	if (g->relay != NULL) {
		relay_report(g->relay, &r);
		tokens = gateway_money_settle(&g->money, g->call, g->alias, &r);
	} else
		hold_release(g->call->api->holds, g->money.hold);
	tokens_settle(g->call->api->limits, &g->call->rate.tpm, g->reserved_tokens, tokens);
}

static void
gateway_free(struct gateway *g)
{
	account(g);
	relay_free(&g->relay);
	gateway_keep_free(&g->keep);
	list_del(&g->node);
	free(g);
}

static void
gateway_end(struct gateway *g)
{
	struct api_call *call = g->call;

	gateway_free(g);
	call_end(call);
}

static void
on_client_gone(void *arg)
{
	struct gateway *g = arg;

	g->stream = NULL;
	if (g->keep == NULL || g->relay == NULL)
		gateway_end(g);
	else
		relay_resume(g->relay); /* it may have waited for the client */
}

/* ---- the answer ---- */

static void
add_headers(const struct gateway *g, struct http_req *req)
{
	struct relay_report r;
	char attempts[16];

	if (g->relay == NULL)
		return;
	relay_report(g->relay, &r);
	if (r.attempts == 0)
		return;
	snprintf(attempts, sizeof(attempts), "%u", r.attempts);
	http_add_header(req, "X-Parley-Provider", r.provider);
	http_add_header(req, "X-Parley-Model", r.model);
	http_add_header(req, "X-Parley-Attempts", attempts);
}

static void
on_room(void *arg)
{
	relay_resume(((struct gateway *)arg)->relay);
}

static void
on_begin(void *arg, struct str content_type, bool is_stream)
{
	struct gateway *g = arg;
	struct http_req *req = call_req(g->call);

	g->is_stream = is_stream;
	gateway_keep_begin(g->keep, content_type);
	if (req == NULL)
		return;
	add_headers(g, req);
	if (is_stream) {
		http_add_header(req, "cache-control", "no-cache, no-transform");
		http_add_header(req, "x-accel-buffering", "no");
	}
	g->stream = http_stream_start(req,
	    is_stream ? "text/event-stream; charset=utf-8"
		      : arena_strdup(&g->call->arena, content_type),
	    is_stream ? KIND_SSE : KIND_HTTP, g->call->api->conf->gateway.max_queue_bytes,
	    on_client_gone, g);
	http_stream_on_room(g->stream, on_room);
}

static bool
on_bytes(void *arg, struct str bytes)
{
	struct gateway *g = arg;

	gateway_keep_add(g->keep, bytes);
	if (g->stream == NULL)
		return true;
	http_stream_send(g->stream, bytes);
	return http_stream_has_room(g->stream);
}

static void
send_error(struct gateway *g, const struct relay_result *r)
{
	const struct err_info *info = err_info(r->err);
	struct buf b = BUF_INIT;

	if (r->is_in_event)
		buf_add_cstr(&b, "\n\n");
	if (g->kind == RELAY_RESPONSES) /* whose events have names, in the data, too */
		buf_add_cstr(&b, "event: error\ndata: {\"type\":\"error\",");
	else
		buf_add_cstr(&b, "data: {");
	buf_add_cstr(&b, "\"error\":{\"message\":\"");
	buf_add_json_escaped(&b, str_of(r->message));
	buf_printf(
	    &b, "\",\"type\":\"%s\",\"code\":\"%s\",\"param\":null}}\n\n", info->type, info->code);
	http_stream_send(g->stream, buf_str(&b));
	buf_fini(&b);
}

/* The answer had begun. What is no stream of events cannot say that it is not whole: it is cut. */
static void
end_stream(struct gateway *g, const struct relay_result *r)
{
	struct http_stream *stream = g->stream;

	g->stream = NULL;
	if (r->err != 0 && !g->is_stream) {
		http_stream_abort(stream);
		return;
	}
	g->stream = stream;
	if (r->err != 0 && !r->is_told)
		send_error(g, r);
	g->stream = NULL;
	http_stream_end(stream);
}

static void
reply(struct gateway *g, struct http_req *req, const struct relay_result *r)
{
	int status = r->status != 0 ? r->status : err_info(r->err)->status;
	uint32_t retry_s = (r->retry_after_ms + 999) / 1000;

	http_on_gone(req, NULL, NULL);
	add_headers(g, req);
	if (r->status != 0)
		http_reply(req, status, arena_strdup(&g->call->arena, r->content_type), r->body);
	else if (status == 429 || status == 503)
		http_reply_retry(req, r->err, retry_s > 0 ? retry_s : 1, r->message);
	else
		http_reply_error(req, r->err, NULL, "%s", r->message);
}

static void
on_done(void *arg, const struct relay_result *r)
{
	struct gateway *g = arg;
	struct http_req *req = call_req(g->call);

	account(g);
	if (r->status != 0)
		gateway_keep_store_whole(g->keep, r->status, r->content_type, r->body);
	else
		gateway_keep_store(g->keep, r->err, r->message, r->is_told);
	if (g->stream != NULL)
		end_stream(g, r);
	else if (req != NULL)
		reply(g, req, r);
	gateway_end(g);
}

/* ---- the end of this worker ---- */

static void
end_drained(struct gateway *g)
{
	struct relay_result cut = {.err = E_DRAINING, .message = err_info(E_DRAINING)->text};

	cut.is_in_event = g->relay != NULL && relay_stop(g->relay, E_DRAINING);
	on_done(g, &cut);
}

static void
on_drain_end(struct loop_timer *t)
{
	struct gateways *gs = container_of(t, struct gateways, drain_end);

	list_for_safe (node, &gs->calls)
		end_drained(list_entry(node, struct gateway, node));
}

void
gateways_drain(struct gateways *gs)
{
	loop_timer_set(gs->api->loop, &gs->drain_end, farewell_end_ms(gs->api->conf));
}

/* ---- the request ---- */

/* The alias that is asked for, known and allowed; NULL: it was answered. */
static const char *
choose_alias(struct api_call *call, struct str model)
{
	const struct conf *conf = call->api->conf;
	const char *alias = model.len > 0 || conf->models.n == 0 ? arena_strdup(&call->arena, model)
								 : conf->models.v[0].name;

	if (strlen(alias) < model.len || !providers_know_model(call->api->providers, alias)) {
		call_reply_error(call, E_NOT_FOUND, "model", "There is no such model.");
		return NULL;
	}
	if (!keys_allow_model(&call->models, alias)) {
		call_reply_error(call, E_FORBIDDEN, "model", "This key may not use this model.");
		return NULL;
	}
	return alias;
}

static const char *
header_text(struct api_call *call, struct http_req *req, const char *name)
{
	struct str value = http_header(req, name);

	return value.p != NULL ? arena_strdup(&call->arena, value) : NULL;
}

static void
ask(struct gateway *g, struct http_req *req)
{
	static const struct relay_handlers handlers = {on_begin, on_bytes, on_done};
	struct api_call *call = g->call;
	const struct relay_question question = {.kind = g->kind,
	    .alias = g->alias,
	    .body = &g->body,
	    .event_bytes_max = call->api->conf->http.max_incomplete_bytes,
	    .request_id = http_request_id(req),
	    .traceparent = header_text(call, req, "traceparent")};

	g->relay = relay_start(call->api->providers, &question, &handlers, g);
}

/* The budgets have answered. */
static void
on_held(void *arg, int err, const struct hold_refusal *refusal)
{
	struct gateway *g = arg;
	struct api_call *call = g->call;
	struct http_req *req = call_req(call);

	if (err == 0 && req != NULL) {
		ask(g, req);
		return;
	}
	if (err != 0)
		g->money.hold = 0;
	gateway_free(g);
	if (req != NULL)
		gateway_money_refuse(call, err, refusal);
	else
		call_end(call);
}

static void
begin_call(struct api_call *call, struct http_req *req, enum relay_kind kind,
    const struct body *body, const char *alias, uint32_t reserved_tokens)
{
	struct gateway *g = xcalloc(1, sizeof(*g));

	g->call = call;
	g->kind = kind;
	g->alias = alias;
	g->body = *body;
	g->reserved_tokens = reserved_tokens;
	if (str_ieq(http_header(req, "x-parley-on-disconnect"), STR("continue")))
		g->keep = gateway_keep_new(call, http_request_id(req));
	gateway_money_init(&g->money);
	list_add_tail(&call->api->gateways->calls, &g->node);
	http_on_gone(req, on_client_gone, g);
	struct hold_question q =
	    gateway_money_question(&g->money, call, g->alias, g->kind, &g->body);
	if (hold_is_needed(&q))
		g->money.hold = hold_ask(call->api->holds, &q, on_held, g);
	else
		ask(g, req);
}

/* A request whose tokens are being reserved. */
struct reservation { /* in the call's arena */
	struct api_call *call;
	enum relay_kind kind;
	struct body body; /* borrowed from the request */
	const char *alias;
	struct token_ask tokens;
};

/* Over the limit, or on to the provider. */
static void
reserved(struct reservation *r)
{
	struct api_call *call = r->call;
	struct http_req *req = call_req(call);

	if (!r->tokens.verdict.is_allowed) {
		call_reply_limit(call, &r->tokens.verdict, TOKENS_UNIT);
	} else if (req != NULL) {
		begin_call(call, req, r->kind, &r->body, r->alias, r->tokens.tokens);
	} else {
		tokens_settle(call->api->limits, &call->rate.tpm, r->tokens.tokens, 0);
		call_end(call);
	}
}

static void
on_reserved(struct token_ask *tokens)
{
	reserved(container_of(tokens, struct reservation, tokens));
}

static void
reserve(struct api_call *call, enum relay_kind kind, const struct body *body, const char *alias)
{
	struct reservation *r = arena_calloc(&call->arena, sizeof(*r));

	r->call = call;
	r->kind = kind;
	r->body = *body;
	r->alias = alias;
	r->tokens.on_decided = on_reserved;
	if (tokens_reserve(call->api->limits, &call->rate.tpm,
		(body->text.len + 3) / 4 + body->output_tokens_max, &r->tokens))
		reserved(r);
}

static void
gateway_post(struct api_call *call, struct http_req *req, enum relay_kind kind)
{
	struct buf model = BUF_INIT;
	struct body body;
	const char *param = NULL, *why = NULL, *alias;
	int rc = body_read(http_body(req), &body, &model, &param, &why);

	if (rc != 0) {
		call_reply_error(call, rc, param, why);
	} else if (!usages_have_room(call->api->usages)) {
		call_reply_error(call, E_STORE_UNAVAILABLE, NULL, NULL);
	} else if ((alias = choose_alias(call, buf_str(&model))) != NULL) {
		if (kind == RELAY_EMBEDDINGS) /* there is no such thing as a stream of them */
			body.is_streamed = false;
		reserve(call, kind, &body, alias);
	}
	buf_fini(&model);
}

static void
post_chat(struct api_call *call, struct http_req *req)
{
	gateway_post(call, req, RELAY_CHAT);
}

static void
post_embeddings(struct api_call *call, struct http_req *req)
{
	gateway_post(call, req, RELAY_EMBEDDINGS);
}

static void
post_images(struct api_call *call, struct http_req *req)
{
	gateway_post(call, req, RELAY_IMAGES);
}

static void
post_responses(struct api_call *call, struct http_req *req)
{
	gateway_post(call, req, RELAY_RESPONSES);
}

/* ---- models ---- */

static json_t *
model_object(const struct conf_model *m)
{
	return json_pack("{s:s,s:s,s:i,s:s}", "id", m->name, "object", "model", "created", 0,
	    "owned_by", m->targets.n > 0 ? m->targets.v[0].provider : "");
}

static void
get_models(struct api_call *call, struct http_req *req)
{
	const struct conf *conf = call->api->conf;
	json_t *data = json_array();

	(void)req;
	for (size_t i = 0; i < conf->models.n; i++) {
		if (keys_allow_model(&call->models, conf->models.v[i].name))
			json_array_append_new(data, model_object(&conf->models.v[i]));
	}
	call_reply_json(call, 200, json_pack("{s:s,s:o}", "object", "list", "data", data));
}

static void
get_model(struct api_call *call, struct http_req *req)
{
	const struct conf *conf = call->api->conf;
	const char *name = http_param(req, "model");

	for (size_t i = 0; i < conf->models.n; i++) {
		const struct conf_model *m = &conf->models.v[i];

		if (strcmp(m->name, name) == 0 && keys_allow_model(&call->models, name)) {
			call_reply_json(call, 200, model_object(m));
			return;
		}
	}
	call_reply_error(call, E_NOT_FOUND, "model", "There is no such model.");
}

/* ---- all of them ---- */

struct gateways *
gateways_new(struct api *api)
{
	struct gateways *gs = xcalloc(1, sizeof(*gs));

	gs->api = api;
	gs->drain_end.on_fire = on_drain_end;
	list_init(&gs->calls);
	gs->sweeper = answer_sweeper_new(api);
	return gs;
}

bool
gateways_are_idle(const struct gateways *gs)
{
	return list_empty(&gs->calls);
}

void
gateways_free(struct gateways **gsp)
{
	struct gateways *gs = *gsp;
	struct gateway *g;

	if (gs == NULL)
		return;
	*gsp = NULL;
	loop_timer_stop(gs->api->loop, &gs->drain_end);
	while ((g = list_first(&gs->calls, struct gateway, node)) != NULL)
		gateway_end(g);
	answer_sweeper_free(&gs->sweeper);
	free(gs);
}

#define GATEWAY (HTTP_LONG | HTTP_GATEWAY | HTTP_WORK)

const struct api_endpoint gateway_endpoints[] = {
    {"POST", "/v1/chat/completions", GATEWAY, API_SERVER, post_chat},
    {"POST", "/v1/embeddings", GATEWAY, API_SERVER, post_embeddings},
    {"POST", "/v1/images/generations", GATEWAY, API_SERVER, post_images},
    {"POST", "/v1/responses", GATEWAY, API_SERVER, post_responses},
    {"GET", "/v1/models", 0, API_SERVER, get_models},
    {"GET", "/v1/models/{model}", 0, API_SERVER, get_model},
    {NULL, NULL, 0, 0, NULL},
};
