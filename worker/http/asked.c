/*
 * asked - what a request says, and who says it: line, headers, parameters, body, and
 * the client behind the proxies that are trusted.
 *
 * Nothing here changes what becomes of the request, but that http_json() answers one
 * whose body is none.
 */
#include "worker/http/forwarded.h"
#include "worker/http/server.h"

/* ---- what was asked ---- */

struct str
http_method(const struct http_req *r)
{
	return str_sub(r->h2o->input.method.base, r->h2o->input.method.len);
}

struct str
http_path(const struct http_req *r)
{
	return r->path;
}

struct str
http_header(const struct http_req *r, const char *name)
{
	const h2o_req_t *h = r->h2o;
	size_t len = strlen(name);
	const h2o_token_t *token = h2o_lookup_token(name, len);
	ssize_t i;

	if (token == H2O_TOKEN_HOST)
		return str_sub(h->input.authority.base, h->input.authority.len);
	if (token == H2O_TOKEN_UPGRADE)
		return str_sub(h->upgrade.base, h->upgrade.len);
	i = token != NULL ? h2o_find_header(&h->headers, token, -1)
			  : h2o_find_header_by_str(&h->headers, name, len, -1);
	if (i < 0)
		return STR_NONE;
	return str_sub(h->headers.entries[i].value.base, h->headers.entries[i].value.len);
}

struct str
http_header_list(struct http_req *r, const char *name)
{
	const h2o_headers_t *headers = &r->h2o->headers;
	struct buf joined = BUF_INIT;

	for (size_t i = 0; i < headers->size; i++) {
		const h2o_header_t *h = &headers->entries[i];

		if (!h2o_memis(h->name->base, h->name->len, name, strlen(name)))
			continue;
		if (joined.len > 0)
			buf_add_char(&joined, ',');
		buf_add(&joined, h->value.base, h->value.len);
	}
	struct str list =
	    joined.data != NULL ? str_of(arena_strdup(&r->arena, buf_str(&joined))) : STR_NONE;
	buf_fini(&joined);
	return list;
}

const char *
http_param(const struct http_req *r, const char *name)
{
	for (unsigned i = 0; i < r->match.param_count; i++) {
		if (str_eq(r->match.params[i].name, str_of(name)))
			return r->params[i];
	}
	return NULL;
}

char *
asked_decode(const struct http_req *r, struct str text, bool is_query)
{
	char *out = h2o_mem_alloc_pool(&r->h2o->pool, text.len + 1);
	size_t len;

	return route_decode(text, is_query, out, &len) ? out : NULL;
}

const char *
http_query(const struct http_req *r, const char *name)
{
	struct str rest = r->query;

	while (rest.len > 0) {
		struct str value = str_split(&rest, '&');
		struct str key = str_split(&value, '=');

		if (str_eq(key, str_of(name)))
			return asked_decode(r, value, true);
	}
	return NULL;
}

struct str
http_body(const struct http_req *r)
{
	return str_sub(r->h2o->entity.base, r->h2o->entity.len);
}

const char *
http_request_id(const struct http_req *r)
{
	return r->id;
}

struct arena *
http_arena(struct http_req *r)
{
	return &r->arena;
}

struct http_server *
http_server_of(const struct http_req *r)
{
	return r->server;
}

const struct conf *
http_conf(const struct http_req *r)
{
	return r->server->conf;
}

bool
http_is_on_metrics_listener(const struct http_req *r)
{
	return r->conn->listener->from->is_metrics;
}

json_t *
http_json(struct http_req *r, bool is_required)
{
	struct str body = http_body(r);
	json_error_t error;

	if (r->json != NULL)
		return r->json;
	if (body.len == 0) {
		if (is_required)
			http_reply_error(r, E_INVALID_JSON, NULL, "A JSON body is required.");
		return NULL;
	}
	r->json = json_loadb(body.p, body.len, JSON_REJECT_DUPLICATES, &error);
	if (r->json == NULL)
		http_reply_error(r, E_INVALID_JSON, NULL,
		    "The body is not valid JSON: line %d, column %d: %s", error.line, error.column,
		    error.text);
	return r->json;
}

/* ---- who asks ---- */

/* Each header may be there several times; the last was added by the nearest proxy. */
static bool
walk_headers(const struct http_req *r, const char *name,
    bool (*walk)(struct str, const struct addr_nets *, struct addr *), struct addr *client)
{
	const h2o_headers_t *headers = &r->h2o->headers;
	bool is_there = false;

	for (size_t i = headers->size; i-- > 0;) {
		const h2o_header_t *h = &headers->entries[i];

		if (!h2o_memis(h->name->base, h->name->len, name, strlen(name)))
			continue;
		is_there = true;
		if (!walk(str_sub(h->value.base, h->value.len), &r->server->trusted, client))
			break;
	}
	return is_there;
}

struct addr
asked_client(const struct http_req *r)
{
	struct addr peer = *conn_peer(r->conn);
	struct addr client = r->conn->client.kind != ADDR_NONE ? r->conn->client : peer;

	/* A PROXY header was only read from a trusted peer; who it names may be a proxy, too. */
	if (r->server->trusted.n == 0 || !addr_nets_have(&r->server->trusted, &client))
		return client;
	if (!walk_headers(r, "x-forwarded-for", forwarded_walk_for, &client))
		walk_headers(r, "forwarded", forwarded_walk, &client);
	return client;
}

const char *
http_client_address(const struct http_req *cr)
{
	struct http_req *r = (struct http_req *)cr;
	struct addr client;

	if (r->client_text[0] == '\0') {
		client = asked_client(r);
		addr_format(&client, r->client_text);
	}
	return r->client_text;
}

const char *
http_client_network(struct http_req *r)
{
	struct addr client = asked_client(r);
	char *text = arena_alloc(&r->arena, ADDR_TEXT_MAX);

	addr_format_network(&client, text);
	return text;
}

bool
http_is_secure(const struct http_req *r)
{
	return r->conn->listener->from->is_tls;
}

/* Somebody on this machine, not a proxy on this machine for somebody else. */
bool
http_is_loopback_peer(const struct http_req *r)
{
	static const char *const forwarding[] = {
	    "x-forwarded-for", "forwarded", "x-real-ip", "x-forwarded-host", "via"};

	for (size_t i = 0; i < ARRAY_LEN(forwarding); i++) {
		if (http_header(r, forwarding[i]).p != NULL)
			return false;
	}
	return addr_is_loopback(conn_peer(r->conn)) &&
	       (r->conn->client.kind == ADDR_NONE || addr_is_loopback(&r->conn->client));
}
