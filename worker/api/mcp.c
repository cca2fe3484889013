/* mcp - see mcp.h. */
#include "worker/api/mcp.h"

#include <stdlib.h>

#include "common/check.h"
#include "worker/api/endpoints.h"
#include "worker/api/farewell.h"
#include "worker/api/mcp_impl.h"
#include "worker/mcp/reply.h"

/* ---- methods ---- */

#define CHANGES "{\"listChanged\":true}"
#define CAPABILITIES                                                                               \
	"\"tools\":" CHANGES ",\"prompts\":" CHANGES                                               \
	",\"resources\":{\"listChanged\":true,\"subscribe\":true},\"completions\":{}"

/* What is named here is answered. */
static void
discover(struct mcp_ask *a)
{
	mcp_ask_reply(
	    a, STR("{\"supportedVersions\":[\"2026-07-28\"],\"capabilities\":{" CAPABILITIES "},"
		   "\"ttlMs\":3600000,\"cacheScope\":\"public\"}"));
}

/* The newest of the older revisions, where the client's is none of them. */
static enum mcp_revision
agreed_revision(struct str params)
{
	struct buf wanted = BUF_INIT;
	enum mcp_revision r = MCP_REVISION_NONE;

	if (jsonrpc_text_member(params, "protocolVersion", &wanted))
		r = mcp_revision_parse(buf_str(&wanted));
	buf_fini(&wanted);
	return r == MCP_REVISION_NONE || mcp_revision_info(r)->is_modern ? MCP_REVISION_LEGACY : r;
}

static void
initialize(struct mcp_ask *a)
{
	struct http_req *req = call_req(a->call);
	struct buf b = BUF_INIT;

	if (a->batch != NULL || (req == NULL && !a->is_paired) || a->params.len == 0 ||
	    a->params.p[0] != '{') {
		mcp_ask_refuse(
		    a, 200, MCP_INVALID_PARAMS, "initialize stands alone and has params", STR_NONE);
		return;
	}
	a->revision = agreed_revision(a->params);
	uint8_t caps = mcp_question_caps(a->params);
	if (a->is_paired) {
		struct mcp_feed *f = mcp_pair_find(a->front, a->session);

		f->revision = a->revision;
		f->caps = caps;
	} else {
		http_add_header(
		    req, "Mcp-Session-Id", mcp_life_begin(a->front, a->call, a->revision, caps));
	}
	buf_printf(&b,
	    "{\"protocolVersion\":\"%s\",\"capabilities\":{" CAPABILITIES ",\"logging\":{}},"
	    "\"serverInfo\":" MCP_SERVER_INFO "}",
	    mcp_revision_info(a->revision)->text);
	mcp_ask_reply(a, buf_str(&b));
	buf_fini(&b);
}

static void
reply_nothing(struct mcp_ask *a)
{
	mcp_ask_reply(a, STR("{}"));
}

enum { MODERN = 1, LEGACY = 2, BOTH = MODERN | LEGACY };

static const struct method {
	const char *name;
	unsigned eras;
	void (*run)(struct mcp_ask *);
} methods[] = {
    {"server/discover", MODERN, discover},
    {"subscriptions/listen", MODERN, mcp_feed_listen},
    {"initialize", LEGACY, initialize},
    {"ping", LEGACY, reply_nothing},
    {"logging/setLevel", LEGACY, mcp_set_level},
    {"resources/subscribe", LEGACY, mcp_subscribe},
    {"resources/unsubscribe", LEGACY, mcp_unsubscribe},
    {"tools/list", BOTH, mcp_tools_list},
    {"tools/call", BOTH, mcp_tools_call},
    {"prompts/list", BOTH, mcp_prompts_list},
    {"prompts/get", BOTH, mcp_prompts_get},
    {"resources/list", BOTH, mcp_resources_list},
    {"resources/templates/list", BOTH, mcp_templates_list},
    {"resources/read", BOTH, mcp_resources_read},
    {"completion/complete", BOTH, mcp_complete},
};

static void
run(struct mcp_ask *a, const char *name, unsigned era)
{
	for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
		if ((methods[i].eras & era) != 0 && strcmp(methods[i].name, name) == 0) {
			methods[i].run(a);
			return;
		}
	}
	mcp_ask_refuse(a, 404, MCP_METHOD_NOT_FOUND, "Method not found", STR_NONE);
}

void
mcp_run_legacy(struct mcp_ask *a, const char *method)
{
	run(a, method, LEGACY);
}

void
mcp_hear_legacy(struct mcp_front *front, const struct mcp_ticket *t, const struct jsonrpc *m)
{
	struct str id;

	if (m->kind == JSONRPC_NOTIFICATION && strcmp(m->method, "notifications/cancelled") == 0 &&
	    m->params.len > 0 && jsonrpc_member(m->params, "requestId", &id) &&
	    id.len <= JSONRPC_ID_MAX)
		mcp_life_take_back(front, t, id);
	else if (m->kind == JSONRPC_RESULT || m->kind == JSONRPC_ERROR)
		mcp_question_answer(front, t->nonce, m);
}

/* ---- what is posted ---- */

static void
refuse(struct api_call *call, struct http_req *req, const struct posted *p)
{
	struct buf b = BUF_INIT;

	jsonrpc_add_error(&b, p->message.id, p->code, str_of(p->why), buf_str(&p->data));
	http_reply(req, p->status, "application/json", buf_str(&b));
	buf_fini(&b);
	call_end(call);
}

static int
level_of(struct str meta)
{
	struct buf name = BUF_INIT;
	int level = MCP_LEVEL_NONE;

	if (jsonrpc_text_member(meta, MCP_META_LOG_LEVEL, &name))
		level = mcp_level_parse(buf_str(&name));
	buf_fini(&name);
	return level;
}

static void
serve(struct api_call *call, struct http_req *req, const struct posted *p)
{
	const struct jsonrpc *m = &p->message;

	if (m->kind != JSONRPC_REQUEST) {
		http_reply(req, 202, NULL, STR_NONE);
		call_end(call);
		return;
	}
	struct mcp_ask *a = mcp_ask_new(call->api->mcp, call, req, MCP_REVISION_MODERN, m);
	a->level = p->wants_messages ? level_of(p->meta) : MCP_LEVEL_NONE;
	run(a, m->method, MODERN);
}

static void
serve_legacy(struct api_call *call, struct http_req *req, const struct jsonrpc *m)
{
	struct mcp_front *front = call->api->mcp;
	bool is_first = m->kind == JSONRPC_REQUEST && strcmp(m->method, "initialize") == 0;
	struct mcp_ticket t = {.revision = MCP_REVISION_LEGACY};

	if (!is_first && !mcp_life_check(call, req, &t))
		return;
	if (m->kind != JSONRPC_REQUEST) {
		mcp_hear_legacy(front, &t, m);
		http_reply(req, 202, NULL, STR_NONE);
		call_end(call);
		return;
	}
	struct mcp_ask *a = mcp_ask_new(front, call, req, t.revision, m);
	a->session = t.nonce;
	a->caps = t.caps;
	a->until_ms = mcp_life_until_ms(front, &t);
	mcp_run_legacy(a, m->method);
}

static void
serve_batch(struct api_call *call, struct http_req *req, struct posted *p)
{
	struct mcp_ticket t;

	if (!mcp_life_check(call, req, &t))
		return;
	if (mcp_revision_info(t.revision)->has_batches) {
		mcp_batch_start(call->api->mcp, call, req, &t);
		return;
	}
	p->status = 400;
	p->code = MCP_INVALID_REQUEST;
	p->why = "The session's protocol version has no batches";
	refuse(call, req, p);
}

static void
post_mcp(struct api_call *call, struct http_req *req)
{
	const struct posted_headers headers = {
	    .content_type = http_header(req, "content-type"),
	    .revision = http_header(req, "mcp-protocol-version"),
	    .method = http_header(req, "mcp-method"),
	    .name = http_header(req, "mcp-name"),
	};
	struct posted p;

	posted_read(http_body(req), &headers, &p);
	if (p.kind == POSTED_REFUSED)
		refuse(call, req, &p);
	else if (p.kind == POSTED_MODERN)
		serve(call, req, &p);
	else if (p.kind == POSTED_BATCH)
		serve_batch(call, req, &p);
	else
		serve_legacy(call, req, &p.message);
	posted_fini(&p);
}

/* The server's stream. */
static void
get_mcp(struct api_call *call, struct http_req *req)
{
	struct mcp_ticket t;

	if (str_eq(http_method(req), STR("HEAD"))) {
		http_add_header(req, "allow", "GET, POST, DELETE");
		call_reply_error(call, E_METHOD_NOT_ALLOWED, NULL, NULL);
	} else if (mcp_life_check(call, req, &t)) {
		mcp_feed_start(call->api->mcp, call, req, &t);
	}
}

static void
delete_mcp(struct api_call *call, struct http_req *req)
{
	struct mcp_ticket t;

	if (!mcp_life_check(call, req, &t))
		return;
	mcp_life_end(call->api->mcp, &t);
	http_reply(req, 204, NULL, STR_NONE);
	call_end(call);
}

/* ---- life ---- */

static void
on_changed(void *arg, size_t server, enum mcp_kind kind)
{
	(void)server;
	mcp_items_changed(arg);
	mcp_feeds_tell(arg, kind);
}

static void
on_news(void *arg, size_t server, const struct jsonrpc *m)
{
	mcp_feeds_pass_on(arg, server, m);
}

static void
on_drain_end(struct loop_timer *t)
{
	mcp_asks_end(container_of(t, struct mcp_front, drain_end));
}

/* Before the streams end that carry answers. */
void
mcp_front_drain(struct mcp_front *front)
{
	uint64_t end_ms = farewell_end_ms(front->api->conf);

	front->drain_end.on_fire = on_drain_end;
	loop_timer_set(front->api->loop, &front->drain_end,
	    end_ms > FAREWELL_STEP_MS ? end_ms - FAREWELL_STEP_MS : 0);
	mcp_feeds_drain(front);
}

struct mcp_front *
mcp_front_new(struct api *api)
{
	struct mcp_front *front = xcalloc(1, sizeof(*front));

	front->api = api;
	list_init(&front->asks);
	list_init(&front->menus);
	mcp_questions_init(front);
	front->notes = mcp_notes_new(front);
	front->leads = mcp_leads_new(front);
	front->feeds = mcp_feeds_new(front);
	front->pairs = mcp_pairs_new(front);
	front->life = mcp_life_new(front);
	mcp_upstreams_on_changed(api->upstreams, on_changed, front);
	mcp_upstreams_on_news(api->upstreams, on_news, front);
	return front;
}

void
mcp_front_free(struct mcp_front **ref)
{
	struct mcp_front *front = *ref;
	struct mcp_ask *a;

	if (front == NULL)
		return;
	*ref = NULL;
	loop_timer_stop(front->api->loop, &front->drain_end);
	while ((a = list_first(&front->asks, struct mcp_ask, node)) != NULL)
		mcp_ask_drop(a);
	mcp_items_changed(front);
	mcp_feeds_free(&front->feeds);
	mcp_leads_free(&front->leads);
	mcp_pairs_free(&front->pairs);
	mcp_questions_fini(front);
	mcp_notes_free(&front->notes);
	mcp_life_free(&front->life);
	free(front);
}

#define WHO (API_SERVER | API_ADMIN | API_MCP)

const struct api_endpoint mcp_endpoints[] = {
    {"POST", "/mcp", HTTP_LONG | HTTP_ANY_BODY | HTTP_GATEWAY | HTTP_SAME_ORIGIN, WHO, post_mcp},
    {"GET", "/mcp", HTTP_LONG | HTTP_SAME_ORIGIN, WHO, get_mcp},
    {"DELETE", "/mcp", HTTP_ANY_BODY | HTTP_SAME_ORIGIN, WHO, delete_mcp},
    {NULL, NULL, 0, 0, NULL},
};
