/*
 * mcp_items - the tools, prompts and resources of all servers that the key's app may use: each
 * kind in one list, and what is asked of one of them goes to its server.
 *
 * The list's text is made once for each app, and again when a server's list has changed; for a key
 * that may not use all of them, with each request.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "common/check.h"
#include "worker/api/mcp_impl.h"
#include "worker/mcp/reply.h"

/* How long a client may believe it, and while a server has not been reached yet. */
enum { LIST_TTL_MS = 300000, YOUNG_LIST_TTL_MS = 1000 };

struct menu {
	struct list node;
	enum mcp_kind kind;
	const struct conf_app *app; /* NULL: who is bound to none */
	struct buf items;           /* [..] */
};

void
mcp_items_changed(struct mcp_front *front)
{
	list_for_safe (node, &front->menus) {
		struct menu *m = list_entry(node, struct menu, node);

		list_del(&m->node);
		buf_fini(&m->items);
		free(m);
	}
}

bool
mcp_may_use(const struct mcp_front *front, const struct conf_app *app, size_t server)
{
	const char *name = front->api->conf->mcp.servers.v[server].name;

	return app == NULL || conf_list_has(&app->mcp_servers, "*") ||
	       conf_list_has(&app->mcp_servers, name);
}

/* Of a key's tools. */
static bool
is_restricted(const struct api_call *call, enum mcp_kind kind)
{
	return kind == MCP_TOOLS && !keys_allow_all_tools(&call->tools);
}

static bool
may_call(const struct api_call *call, enum mcp_kind kind, const struct mcp_entry *e)
{
	char name[MCP_PREFIX_MAX + MCP_NAME_MAX + 1];

	if (!mcp_may_use(call->api->mcp, call->app, e->source))
		return false;
	if (!is_restricted(call, kind))
		return true;
	if (e->name.len >= sizeof(name))
		return false; /* nobody can name it */
	memcpy(name, e->name.p, e->name.len);
	name[e->name.len] = '\0';
	return keys_allow_tool(&call->tools, name, e->item->is_read_only);
}

static void
add_items(struct buf *b, const struct api_call *call, enum mcp_kind kind)
{
	const struct mcp_view *view = mcp_upstreams_view(call->api->upstreams, kind);
	size_t from = b->len;

	buf_add_char(b, '[');
	for (size_t i = 0; i < mcp_view_count(view); i++) {
		const struct mcp_entry *e = mcp_view_at(view, i);

		if (!may_call(call, kind, e))
			continue;
		if (b->len > from + 1)
			buf_add_char(b, ',');
		mcp_entry_format(e, b);
	}
	if (kind == MCP_TOOLS)
		mcp_own_add(b, call);
	buf_add_char(b, ']');
}

/* For a key that may use all of its app's. */
static const struct menu *
find_menu(struct mcp_front *front, const struct api_call *call, enum mcp_kind kind)
{
	const struct conf_app *app = call->app;

	list_for (node, &front->menus) {
		struct menu *m = list_entry(node, struct menu, node);

		if (m->app == app && m->kind == kind)
			return m;
	}
	struct menu *m = xcalloc(1, sizeof(*m));
	m->app = app;
	m->kind = kind;
	add_items(&m->items, call, kind);
	list_add_tail(&front->menus, &m->node);
	return m;
}

/* A server that is on its way may bring more. */
static bool
is_young(const struct mcp_upstreams *upstreams, enum mcp_kind kind)
{
	struct mcp_upstream_info info;

	for (size_t i = 0; i < mcp_upstreams_count(upstreams); i++) {
		mcp_upstream_get(upstreams, i, &info);
		if ((info.state == MCP_UPSTREAM_CONNECTING || info.state == MCP_UPSTREAM_AWAY) &&
		    mcp_upstream_list(upstreams, i, kind) == NULL)
			return true;
	}
	return false;
}

static void
list_items(struct mcp_ask *a, enum mcp_kind kind)
{
	struct mcp_front *front = a->front;
	struct buf b = BUF_INIT;
	struct str cursor;

	if (a->params.len > 0 && jsonrpc_member(a->params, "cursor", &cursor)) {
		/* All of it is one page. */
		mcp_ask_refuse(a, 200, MCP_INVALID_PARAMS, "Unknown cursor", STR_NONE);
		return;
	}
	buf_printf(&b, "{\"%s\":", mcp_kind_info(kind)->member);
	if (is_restricted(a->call, kind))
		add_items(&b, a->call, kind);
	else
		buf_add_str(&b, buf_str(&find_menu(front, a->call, kind)->items));
	buf_printf(&b, ",\"ttlMs\":%d,\"cacheScope\":\"private\"}",
	    is_young(front->api->upstreams, kind) ? YOUNG_LIST_TTL_MS : LIST_TTL_MS);
	mcp_ask_reply(a, buf_str(&b));
	buf_fini(&b);
}

void
mcp_tools_list(struct mcp_ask *a)
{
	list_items(a, MCP_TOOLS);
}

void
mcp_prompts_list(struct mcp_ask *a)
{
	list_items(a, MCP_PROMPTS);
}

void
mcp_resources_list(struct mcp_ask *a)
{
	list_items(a, MCP_RESOURCES);
}

void
mcp_templates_list(struct mcp_ask *a)
{
	list_items(a, MCP_TEMPLATES);
}

/* ---- calls of tools ---- */

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
	else {
		a->is_tool = true;
		mcp_ask_forward(a, e->source, "tools/call", "name", e->item->key);
	}
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
		   may_call(a->call, MCP_TOOLS, e)) {
		call_entry(a, e);
	} else if (!mcp_own_call(a, buf_str(&name))) {
		buf_add_cstr(&why, "Unknown tool: ");
		buf_add_str(&why, str_sub(name.data, name.len < 200 ? name.len : 200));
		mcp_ask_refuse(a, 200, MCP_INVALID_PARAMS,
		    name.len <= 200 ? why.data : "Unknown tool", STR_NONE);
	}
	buf_fini(&name);
	buf_fini(&why);
}

/* ---- prompts and resources ---- */

void
mcp_prompts_get(struct mcp_ask *a)
{
	const struct mcp_view *view = mcp_upstreams_view(a->front->api->upstreams, MCP_PROMPTS);
	const struct mcp_entry *e = NULL;
	struct buf name = BUF_INIT;

	if (a->params.len > 0 && jsonrpc_text_member(a->params, "name", &name) && name.len > 0)
		e = mcp_view_find(view, buf_str(&name));
	buf_fini(&name);
	if (e != NULL && may_call(a->call, MCP_PROMPTS, e))
		mcp_ask_forward(a, e->source, "prompts/get", "name", e->item->key);
	else
		mcp_ask_refuse(a, 200, MCP_INVALID_PARAMS, "Unknown prompt", STR_NONE);
}

/* What stands before the first { and after the last } of a URI template (RFC 6570). 0: no match,
 * else how long the part is that stands before. */
static size_t
match_template(struct str template, struct str uri)
{
	const char *open = memchr(template.p, '{', template.len);
	const char *close =
	    open != NULL ? memrchr(open, '}', template.len - (size_t)(open - template.p)) : NULL;

	if (close == NULL)
		return 0;
	size_t head = (size_t)(open - template.p);
	struct str tail = str_sub(close + 1, (size_t)(template.p + template.len - close - 1));
	if (uri.len < head + tail.len || memcmp(uri.p, template.p, head) != 0 ||
	    memcmp(uri.p + uri.len - tail.len, tail.p, tail.len) != 0)
		return 0;
	return head;
}

static const struct mcp_entry *
find_template(const struct api_call *call, struct str uri)
{
	const struct mcp_view *view = mcp_upstreams_view(call->api->upstreams, MCP_TEMPLATES);
	const struct mcp_entry *best = NULL;
	size_t best_len = 0;

	for (size_t i = 0; i < mcp_view_count(view); i++) {
		const struct mcp_entry *e = mcp_view_at(view, i);
		size_t len = match_template(e->item->key, uri);

		if (len > best_len && may_call(call, MCP_TEMPLATES, e)) {
			best = e;
			best_len = len;
		}
	}
	return best;
}

void
mcp_refuse_resource(struct mcp_ask *a, struct str uri)
{
	bool is_modern = mcp_revision_info(a->revision)->is_modern;
	struct buf data = BUF_INIT;

	buf_add_cstr(&data, "{\"uri\":");
	jsonrpc_add_string(&data, uri);
	buf_add_char(&data, '}');
	mcp_ask_refuse(a, 200, is_modern ? MCP_INVALID_PARAMS : MCP_RESOURCE_NOT_FOUND,
	    "Resource not found", buf_str(&data));
	buf_fini(&data);
}

bool
mcp_find_resource(const struct api_call *call, struct str uri, size_t *ret_server)
{
	const struct mcp_entry *e =
	    mcp_view_find(mcp_upstreams_view(call->api->upstreams, MCP_RESOURCES), uri);

	if (e == NULL || !may_call(call, MCP_RESOURCES, e))
		e = find_template(call, uri);
	if (e != NULL)
		*ret_server = e->source;
	return e != NULL;
}

void
mcp_resources_read(struct mcp_ask *a)
{
	struct buf uri = BUF_INIT;
	size_t server;

	if (a->params.len == 0 || !jsonrpc_text_member(a->params, "uri", &uri) || uri.len == 0 ||
	    uri.len > MCP_URI_MAX) {
		mcp_ask_refuse(a, 200, MCP_INVALID_PARAMS, "uri is required", STR_NONE);
	} else if (mcp_find_resource(a->call, buf_str(&uri), &server)) {
		a->is_cacheable = true;
		mcp_ask_forward(a, server, "resources/read", "uri", buf_str(&uri));
	} else {
		mcp_refuse_resource(a, buf_str(&uri));
	}
	buf_fini(&uri);
}

/* ---- completion ---- */

static const struct mcp_entry *
find_ref(const struct mcp_ask *a, struct str ref, const char **ret_member)
{
	struct mcp_upstreams *upstreams = a->front->api->upstreams;
	const struct mcp_entry *e = NULL;
	enum mcp_kind kind = MCP_PROMPTS;
	struct buf type = BUF_INIT, key = BUF_INIT;

	*ret_member = "name";
	jsonrpc_text_member(ref, "type", &type);
	if (str_eq(buf_str(&type), STR("ref/resource"))) {
		*ret_member = "uri";
		kind = MCP_TEMPLATES;
	}
	if (jsonrpc_text_member(ref, *ret_member, &key) && key.len > 0)
		e = mcp_view_find(mcp_upstreams_view(upstreams, kind), buf_str(&key));
	if (e == NULL && kind == MCP_TEMPLATES && key.len > 0) {
		kind = MCP_RESOURCES;
		e = mcp_view_find(mcp_upstreams_view(upstreams, kind), buf_str(&key));
	}
	buf_fini(&type);
	buf_fini(&key);
	return e != NULL && may_call(a->call, kind, e) ? e : NULL;
}

/* A server that completes nothing is not asked. */
void
mcp_complete(struct mcp_ask *a)
{
	const struct mcp_entry *e = NULL;
	struct mcp_upstream_info info;
	const char *member;
	struct buf named = BUF_INIT;
	struct str ref, unused;

	if (a->params.len > 0 && jsonrpc_member(a->params, "ref", &ref) && ref.p[0] == '{')
		e = find_ref(a, ref, &member);
	if (e == NULL) {
		mcp_ask_refuse(a, 200, MCP_INVALID_PARAMS, "Unknown ref", STR_NONE);
		return;
	}
	mcp_upstream_get(a->front->api->upstreams, e->source, &info);
	if (info.capabilities.len == 0 ||
	    !jsonrpc_member(info.capabilities, "completions", &unused)) {
		mcp_ask_reply(a, STR("{\"completion\":{\"values\":[],\"hasMore\":false}}"));
		return;
	}
	/* What was looked up, and nothing else that the server might take for it. */
	buf_printf(&named,
	    "{\"type\":\"ref/%s\",\"%s\":", strcmp(member, "uri") == 0 ? "resource" : "prompt",
	    member);
	jsonrpc_add_string(&named, e->item->key);
	buf_add_char(&named, '}');
	mcp_ask_forward_with(a, e->source, "completion/complete", "ref", buf_str(&named));
	buf_fini(&named);
}
