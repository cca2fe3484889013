/* http_headers - see http_headers.h. */
#include "worker/mcp/http_headers.h"

#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/crypto.h"
#include "worker/mcp/jsonrpc.h"

enum { PARAM_NAME_MAX = 64 };

void
http_headers_init(struct http_headers *h)
{
	*h = (struct http_headers){.arena = ARENA_INIT};
}

void
http_headers_fini(struct http_headers *h)
{
	arena_fini(&h->arena);
	free(h->v);
}

void
http_headers_add(struct http_headers *h, const char *name, struct str value)
{
	if (h->n == h->cap) {
		h->cap = h->cap * 2 + 16;
		h->v = xrealloc(h->v, h->cap * sizeof(*h->v));
	}
	h->v[h->n++] = (struct client_header){
	    arena_strdup(&h->arena, str_of(name)), arena_strdup(&h->arena, value)};
}

void
http_headers_add_map(struct http_headers *h, const struct conf_map *map)
{
	for (size_t i = 0; i < map->n; i++)
		http_headers_add(h, map->v[i].name, str_of(map->v[i].value));
}

/* Visible ASCII, blanks only inside, and nothing that reads like the encoding itself. */
static bool
is_plain(struct str s)
{
	if (s.len == 0 || s.p[0] == ' ' || s.p[s.len - 1] == ' ' || str_starts(s, STR("=?")))
		return false;
	for (size_t i = 0; i < s.len; i++) {
		if ((unsigned char)s.p[i] < ' ' || (unsigned char)s.p[i] > '~')
			return false;
	}
	return true;
}

void
http_headers_add_encoded(struct http_headers *h, const char *name, struct str value)
{
	struct buf b = BUF_INIT;

	if (is_plain(value)) {
		http_headers_add(h, name, value);
		return;
	}
	buf_add_cstr(&b, "=?base64?");
	crypto_base64(value, &b);
	buf_add_cstr(&b, "?=");
	http_headers_add(h, name, buf_str(&b));
	buf_fini(&b);
}

/* RFC 9110, 5.6.2 */
static bool
is_token(struct str s)
{
	for (size_t i = 0; i < s.len; i++) {
		char c = s.p[i];

		if (!((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
			(c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL)))
			return false;
	}
	return s.len > 0 && s.len <= PARAM_NAME_MAX;
}

static void
add_param(struct http_headers *h, struct str name, struct str value)
{
	struct buf header = BUF_INIT, text = BUF_INIT;

	buf_printf(&header, "Mcp-Param-%.*s", (int)name.len, name.p);
	if (value.p[0] == '"' && json_scan_decode(value, &text))
		http_headers_add_encoded(h, header.data, buf_str(&text));
	else if (value.p[0] != '"' && value.p[0] != '{' && value.p[0] != '[' && value.p[0] != 'n')
		http_headers_add(h, header.data, value);
	buf_fini(&header);
	buf_fini(&text);
}

static void
add_property(struct http_headers *h, struct str key, struct str schema, struct str arguments)
{
	struct buf name = BUF_INIT, plain = BUF_INIT;
	struct str value;

	json_scan_key_decode(key, &plain);
	if (jsonrpc_text_member(schema, "x-mcp-header", &name) && is_token(buf_str(&name)) &&
	    plain.len > 0 && jsonrpc_member(arguments, plain.data, &value))
		add_param(h, buf_str(&name), value);
	buf_fini(&plain);
	buf_fini(&name);
}

/* Into inputSchema.properties. */
static bool
enter_properties(struct str tool, struct json_scan *s)
{
	struct str schema, properties;

	if (!jsonrpc_member(tool, "inputSchema", &schema) ||
	    !jsonrpc_member(schema, "properties", &properties))
		return false;
	json_scan_init(s, properties);
	return json_scan_peek(s) == '{' && json_scan_object(s);
}

void
http_headers_add_params(struct http_headers *h, struct str tool, struct str arguments)
{
	struct str key, value;
	struct json_scan s;

	if (!enter_properties(tool, &s))
		return;
	while (json_scan_member(&s, &key) == 1 && json_scan_skip(&s, &value))
		add_property(h, key, value, arguments);
}

/* names: those that were there before, between blanks, in lower case. */
static bool
is_wrong(struct str schema, struct buf *names)
{
	struct buf name = BUF_INIT;
	struct str header, type = STR_NONE;
	size_t before = names->len;
	bool is_good;

	if (!jsonrpc_member(schema, "x-mcp-header", &header))
		return false;
	jsonrpc_member(schema, "type", &type);
	is_good = json_scan_decode(header, &name) && is_token(buf_str(&name)) &&
		  (str_eq(type, STR("\"string\"")) || str_eq(type, STR("\"integer\"")) ||
		      str_eq(type, STR("\"boolean\"")));
	if (is_good) {
		buf_printf(names, " %s ", name.data);
		for (char *p = names->data + before; *p != '\0'; p++)
			*p = *p >= 'A' && *p <= 'Z' ? (char)(*p | 0x20) : *p;
		char *mine = xstrdup(names->data + before);
		names->data[before] = '\0';
		is_good = strstr(names->data, mine) == NULL;
		names->data[before] = ' ';
		free(mine);
	}
	buf_fini(&name);
	return !is_good;
}

bool
http_headers_are_wrong(struct str tool)
{
	struct buf names = BUF_INIT;
	struct str key, value;
	struct json_scan s;
	bool are_wrong = false;

	if (!enter_properties(tool, &s))
		return false;
	while (!are_wrong && json_scan_member(&s, &key) == 1 && json_scan_skip(&s, &value))
		are_wrong = is_wrong(value, &names);
	buf_fini(&names);
	return are_wrong;
}
