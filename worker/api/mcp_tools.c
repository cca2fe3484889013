/*
 * mcp_tools - the tools of all servers that the key's app may use, in one list.
 *
 * The list's text is made once for each app, and again when a server's list has changed; for a key
 * that may not use all of them, with each request.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "common/check.h"
#include "worker/api/mcp_impl.h"

/* How long a client may believe it, and while a server has not been reached yet. */
enum { LIST_TTL_MS = 300000, YOUNG_LIST_TTL_MS = 1000 };

struct menu {
	struct list node;
	const struct conf_app *app; /* NULL: who is bound to none */
	struct buf tools;           /* [..] */
};

void
mcp_tools_changed(struct mcp_front *front)
{
	list_for_safe (node, &front->menus) {
		struct menu *m = list_entry(node, struct menu, node);

		list_del(&m->node);
		buf_fini(&m->tools);
		free(m);
	}
}

static bool
may_use(const struct mcp_front *front, const struct conf_app *app, size_t server)
{
	const char *name = front->api->conf->mcp.servers.v[server].name;

	return app == NULL || conf_list_has(&app->mcp_servers, "*") ||
	       conf_list_has(&app->mcp_servers, name);
}

static bool
may_call(const struct api_call *call, const struct mcp_entry *e)
{
	char name[MCP_PREFIX_MAX + MCP_NAME_MAX + 1];

	if (!may_use(call->api->mcp, call->app, e->source))
		return false;
	if (keys_allow_all_tools(&call->tools))
		return true;
	if (e->name.len >= sizeof(name))
		return false; /* nobody can name it */
	memcpy(name, e->name.p, e->name.len);
	name[e->name.len] = '\0';
	return keys_allow_tool(&call->tools, name, e->item->is_read_only);
}

static void
add_tools(struct buf *b, const struct api_call *call)
{
	const struct mcp_view *view = mcp_upstreams_view(call->api->upstreams, MCP_TOOLS);
	size_t from = b->len;

	buf_add_char(b, '[');
	for (size_t i = 0; i < mcp_view_count(view); i++) {
		const struct mcp_entry *e = mcp_view_at(view, i);

		if (!may_call(call, e))
			continue;
		if (b->len > from + 1)
			buf_add_char(b, ',');
		mcp_entry_format(e, b);
	}
	buf_add_char(b, ']');
}

/* For a key that may use all of its app's tools. */
static const struct menu *
find_menu(struct mcp_front *front, const struct api_call *call)
{
	const struct conf_app *app = call->app;

	list_for (node, &front->menus) {
		struct menu *m = list_entry(node, struct menu, node);

		if (m->app == app)
			return m;
	}
	struct menu *m = xcalloc(1, sizeof(*m));
	m->app = app;
	add_tools(&m->tools, call);
	list_add_tail(&front->menus, &m->node);
	return m;
}

/* A server that is on its way may bring more. */
static bool
is_young(const struct mcp_upstreams *upstreams)
{
	struct mcp_upstream_info info;

	for (size_t i = 0; i < mcp_upstreams_count(upstreams); i++) {
		mcp_upstream_get(upstreams, i, &info);
		if ((info.state == MCP_UPSTREAM_CONNECTING || info.state == MCP_UPSTREAM_AWAY) &&
		    mcp_upstream_list(upstreams, i, MCP_TOOLS) == NULL)
			return true;
	}
	return false;
}

void
mcp_tools_list(struct mcp_ask *a)
{
	struct mcp_front *front = a->front;
	struct buf b = BUF_INIT;
	struct str cursor;

	if (a->params.len > 0 && jsonrpc_member(a->params, "cursor", &cursor)) {
		/* All of it is one page. */
		mcp_ask_refuse(a, 200, MCP_INVALID_PARAMS, "Unknown cursor", STR_NONE);
		return;
	}
	buf_add_cstr(&b, "{\"tools\":");
	if (keys_allow_all_tools(&a->call->tools))
		buf_add_str(&b, buf_str(&find_menu(front, a->call)->tools));
	else
		add_tools(&b, a->call);
	buf_printf(&b, ",\"ttlMs\":%d,\"cacheScope\":\"private\"}",
	    is_young(front->api->upstreams) ? YOUNG_LIST_TTL_MS : LIST_TTL_MS);
	mcp_ask_reply(a, buf_str(&b));
	buf_fini(&b);
}

static struct str
header_of(void *arg, const char *lower_case_name)
{
	return http_header(arg, lower_case_name);
}

static bool
params_agree(struct mcp_ask *a, const struct mcp_entry *e, struct str arguments)
{
	struct http_req *req = call_req(a->call);

	return !mcp_revision_info(a->revision)->is_modern || req == NULL ||
	       posted_params_agree(e->item->json, arguments, header_of, req);
}

static void
call_entry(struct mcp_ask *a, const struct mcp_entry *e)
{
	struct str arguments = STR_NONE;

	if (jsonrpc_member(a->params, "arguments", &arguments) && arguments.p[0] != '{')
		mcp_ask_refuse(a, 200, MCP_INVALID_PARAMS, "arguments is an object", STR_NONE);
	else if (!params_agree(a, e, arguments))
		mcp_ask_refuse(a, 400, MCP_HEADER_MISMATCH,
		    "An Mcp-Param header is missing or differs from its argument", STR_NONE);
	else
		mcp_ask_forward(a, e->source, "tools/call", "name", e->item->key);
}

void
mcp_tools_call(struct mcp_ask *a)
{
	const struct mcp_view *view = mcp_upstreams_view(a->front->api->upstreams, MCP_TOOLS);
	const struct mcp_entry *e = NULL;
	struct buf name = BUF_INIT, why = BUF_INIT;

	if (a->params.len == 0 || !jsonrpc_text_member(a->params, "name", &name)) {
		mcp_ask_refuse(a, 200, MCP_INVALID_PARAMS, "name is required", STR_NONE);
	} else if (name.len > 0 && (e = mcp_view_find(view, buf_str(&name))) != NULL &&
		   may_call(a->call, e)) {
		call_entry(a, e);
	} else {
		buf_add_cstr(&why, "Unknown tool: ");
		buf_add_str(&why, str_sub(name.data, name.len < 200 ? name.len : 200));
		mcp_ask_refuse(a, 200, MCP_INVALID_PARAMS,
		    name.len <= 200 ? why.data : "Unknown tool", STR_NONE);
	}
	buf_fini(&name);
	buf_fini(&why);
}
