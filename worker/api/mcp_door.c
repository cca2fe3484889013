/* mcp_door - see mcp_door.h. */
#include "worker/api/mcp_door.h"

#include "common/check.h"
#include "worker/api/call.h"
#include "worker/api/endpoints.h"

#define DOCUMENT "/.well-known/oauth-protected-resource"

/* ---- names ---- */

/* "[::1]:80" -> "[::1]" */
static struct str
without_port(struct str host)
{
	const char *end = host.len > 0 && host.p[0] == '[' ? memchr(host.p, ']', host.len) : NULL;

	if (end != NULL)
		return str_sub(host.p, (size_t)(end - host.p) + 1);
	return str_split(&host, ':');
}

static bool
is_loopback_name(struct str host)
{
	struct str name = without_port(host);

	if (host.len > 0 && memchr(host.p, '@', host.len) != NULL)
		return false;
	return str_ieq(name, STR("localhost")) || str_eq(name, STR("127.0.0.1")) ||
	       str_eq(name, STR("[::1]"));
}

static bool
is_loopback_origin(struct str origin)
{
	static const struct str schemes[] = {
	    {"http://", sizeof("http://") - 1}, {"https://", sizeof("https://") - 1}};

	for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
		if (str_starts(origin, schemes[i]))
			return is_loopback_name(
			    str_sub(origin.p + schemes[i].len, origin.len - schemes[i].len));
	}
	return false;
}

static bool
has_name(const struct conf_list *list, struct str name)
{
	for (size_t i = 0; i < list->n; i++) {
		if (str_ieq(str_of(list->v[i]), name))
			return true;
	}
	return false;
}

/* ---- who ---- */

static bool
may_origin(const struct http_req *req, struct str origin)
{
	const struct conf_list *allowed = &http_conf(req)->mcp.allow_origins;

	return origin.p == NULL || conf_list_has(allowed, "*") || has_name(allowed, origin) ||
	       (http_is_loopback_peer(req) && is_loopback_origin(origin));
}

static bool
may_host(const struct http_req *req)
{
	struct str host = http_header(req, "host");

	return !http_is_loopback_peer(req) || is_loopback_name(host) ||
	       has_name(&http_conf(req)->mcp.allow_hosts, without_port(host));
}

bool
mcp_door_lets_in(struct http_req *req)
{
	if (!may_origin(req, http_header(req, "origin"))) {
		http_reply_error(req, E_FORBIDDEN, NULL, "mcp.allow_origins has not this origin.");
		return false;
	}
	if (!may_host(req)) {
		http_reply_error(req, E_FORBIDDEN, NULL, "mcp.allow_hosts has not this name.");
		return false;
	}
	return true;
}

bool
mcp_door_needs_no_key(const struct http_req *req)
{
	return strcmp(http_conf(req)->mcp.auth, "none") == 0 && http_is_loopback_peer(req);
}

/* ---- where to ---- */

static bool
is_plain_host(struct str host)
{
	for (size_t i = 0; i < host.len; i++) {
		char c = host.p[i];

		if (!((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
			c == '.' || c == '-' || c == '_' || c == ':' || c == '[' || c == ']'))
			return false;
	}
	return host.len > 0;
}

/* "https://host" and "/mcp" */
static void
own_address(struct http_req *req, struct str *ret_base, struct str *ret_path)
{
	struct str url = str_of(http_conf(req)->mcp.url), host = http_header(req, "host");
	const char *slash;

	*ret_path = STR("/mcp");
	if (url.len > 0) {
		size_t scheme = str_starts(url, STR("https://")) ? 8 : 7;

		slash = memchr(url.p + scheme, '/', url.len - scheme);
		*ret_base = slash != NULL ? str_sub(url.p, (size_t)(slash - url.p)) : url;
		if (slash != NULL)
			*ret_path = str_sub(slash, (size_t)(url.p + url.len - slash));
		return;
	}
	*ret_base = str_of(
	    arena_printf(http_arena(req), "%s://%.*s", http_is_secure(req) ? "https" : "http",
		is_plain_host(host) ? (int)host.len : 0, host.p != NULL ? host.p : ""));
}

const char *
mcp_door_challenge(struct http_req *req, bool has_key)
{
	struct str base, path;

	own_address(req, &base, &path);
	return arena_printf(http_arena(req), "Bearer %sresource_metadata=\"%.*s" DOCUMENT "%.*s\"",
	    has_key ? "error=\"insufficient_scope\", scope=\"mcp\", " : "", (int)base.len, base.p,
	    (int)path.len, path.p);
}

/* RFC 9728, 3.2. */
static void
get_document(struct api_call *call, struct http_req *req)
{
	const struct conf_list *servers = &call->api->conf->mcp.authorization_servers;
	json_t *issuers = json_array();
	struct str base, path;

	own_address(req, &base, &path);
	for (size_t i = 0; i < servers->n; i++)
		json_array_append_new(issuers, json_string(servers->v[i]));
	http_add_header(req, "cache-control", "public, max-age=3600");
	call_reply_json(call, 200,
	    json_pack("{s:s,s:o,s:[s],s:[s],s:s}", "resource",
		arena_printf(
		    &call->arena, "%.*s%.*s", (int)base.len, base.p, (int)path.len, path.p),
		"authorization_servers", issuers, "scopes_supported", "mcp",
		"bearer_methods_supported", "header", "resource_name", "Parley"));
}

const struct api_endpoint mcp_door_endpoints[] = {
    {"GET", DOCUMENT, 0, API_OPEN, get_document},
    {"GET", DOCUMENT "/mcp", 0, API_OPEN, get_document},
    {NULL, NULL, 0, 0, NULL},
};
