/* mcp - see mcp.h. */
#include "worker/api/mcp.h"

#include <stdlib.h>

#include "common/check.h"
#include "worker/api/endpoints.h"
#include "worker/api/mcp_impl.h"

/* ---- methods ---- */

/* What is named here is answered. */
static void
discover(struct mcp_ask *a)
{
	mcp_ask_reply(
	    a, STR("{\"supportedVersions\":[\"2026-07-28\"],\"capabilities\":{\"tools\":{}},"
		   "\"ttlMs\":3600000,\"cacheScope\":\"public\"}"));
}

static const struct method {
	const char *name;
	void (*run)(struct mcp_ask *);
} modern_methods[] = {
    {"server/discover", discover},
    {"tools/list", mcp_tools_list},
    {"tools/call", mcp_tools_call},
};

static void
run(struct mcp_ask *a, const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(modern_methods); i++) {
		if (strcmp(modern_methods[i].name, name) == 0) {
			modern_methods[i].run(a);
			return;
		}
	}
	mcp_ask_refuse(a, 404, MCP_METHOD_NOT_FOUND, "Method not found", STR_NONE);
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
	a->wants_messages = p->wants_messages;
	run(a, m->method);
}

/* Of an era that is not served here: how this one is spoken. */
static void
refuse_legacy(struct api_call *call, struct http_req *req, struct posted *p)
{
	p->status = 400;
	p->code = p->kind == POSTED_BATCH ? MCP_INVALID_REQUEST : MCP_UNSUPPORTED_REVISION;
	p->why =
	    p->kind == POSTED_BATCH ? "Batches are not supported" : "Unsupported protocol version";
	if (p->kind == POSTED_LEGACY)
		buf_add_cstr(&p->data, "{\"supported\":[\"2026-07-28\"]}");
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
	else
		refuse_legacy(call, req, &p);
	posted_fini(&p);
}

/* ---- life ---- */

static void
on_changed(void *arg, size_t server, enum mcp_kind kind)
{
	(void)server;
	if (kind == MCP_TOOLS)
		mcp_tools_changed(arg);
}

struct mcp_front *
mcp_front_new(struct api *api)
{
	struct mcp_front *front = xcalloc(1, sizeof(*front));

	front->api = api;
	list_init(&front->asks);
	list_init(&front->menus);
	mcp_upstreams_on_changed(api->upstreams, on_changed, front);
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
	while ((a = list_first(&front->asks, struct mcp_ask, node)) != NULL)
		mcp_ask_drop(a);
	mcp_tools_changed(front);
	free(front);
}

const struct api_endpoint mcp_endpoints[] = {
    {"POST", "/mcp", HTTP_LONG | HTTP_ANY_BODY | HTTP_GATEWAY | HTTP_SAME_ORIGIN,
	API_SERVER | API_ADMIN | API_MCP, post_mcp},
    {NULL, NULL, 0, 0, NULL},
};
