/* posted - see posted.h. */
#include "worker/mcp/posted.h"

#include <ctype.h>

#include "common/check.h"
#include "common/crypto.h"

enum { PARAM_NAME_MAX = 64 };

#define PARAM_PREFIX "mcp-param-"

static bool
starts(struct str value, char c)
{
	return value.len > 0 && value.p[0] == c;
}

static void
refuse(struct posted *p, int status, int code, const char *why)
{
	p->kind = POSTED_REFUSED;
	p->status = status;
	p->code = code;
	p->why = why;
}

static bool
is_json_type(struct str type)
{
	return str_ieq(str_trim(str_split(&type, ';')), STR("application/json"));
}

bool
posted_decode(struct str value, struct buf *out)
{
	struct str prefix = STR("=?base64?"), s = str_trim(value);

	if (!str_starts(s, prefix)) {
		buf_add_str(out, s);
		return true;
	}
	if (s.len < prefix.len + 2 || memcmp(s.p + s.len - 2, "?=", 2) != 0)
		return false;
	size_t before = out->len;
	if (!crypto_base64_decode(str_sub(s.p + prefix.len, s.len - prefix.len - 2), out))
		return false;
	return str_is_utf8(str_sub(out->data + before, out->len - before));
}

/* ---- modern ---- */

const char *
posted_name_member(const char *method)
{
	if (strcmp(method, "tools/call") == 0 || strcmp(method, "prompts/get") == 0)
		return "name";
	if (strcmp(method, "resources/read") == 0)
		return "uri";
	return strncmp(method, "tasks/", 6) == 0 ? "taskId" : NULL;
}

static bool
name_agrees(const struct posted *p, struct str header)
{
	const char *member = posted_name_member(p->message.method);
	struct buf said = BUF_INIT, meant = BUF_INIT;
	bool agrees;

	if (member == NULL)
		return true;
	agrees = header.p != NULL && posted_decode(header, &said) &&
		 jsonrpc_text_member(p->message.params, member, &meant) &&
		 str_eq(buf_str(&said), buf_str(&meant));
	buf_fini(&said);
	buf_fini(&meant);
	return agrees;
}

static void
refuse_revision(struct posted *p, struct str revision)
{
	const char *comma = "";

	buf_add_cstr(&p->data, "{\"supported\":[");
	for (enum mcp_revision r = 0; r < MCP_REVISION_COUNT; r++) {
		if (!mcp_revision_info(r)->is_modern)
			continue;
		buf_printf(&p->data, "%s\"%s\"", comma, mcp_revision_info(r)->text);
		comma = ",";
	}
	buf_add_cstr(&p->data, "],\"requested\":");
	buf_add_str(&p->data, revision);
	buf_add_char(&p->data, '}');
	refuse(p, 400, MCP_UNSUPPORTED_REVISION, "Unsupported protocol version");
}

static bool
is_token(struct str token)
{
	int64_t n;

	return token.len <= JSONRPC_ID_MAX && (starts(token, '"') || jsonrpc_int(token, &n));
}

/* `_meta` itself. False: refused. */
static bool
read_meta(struct posted *p)
{
	struct str capabilities, level;

	if (!jsonrpc_member(p->meta, MCP_META_CAPABILITIES, &capabilities) ||
	    !starts(capabilities, '{')) {
		refuse(p, 400, MCP_INVALID_PARAMS,
		    "_meta: " MCP_META_CAPABILITIES " is required, an object");
		return false;
	}
	p->wants_messages = jsonrpc_member(p->meta, MCP_META_LOG_LEVEL, &level);
	if (p->wants_messages && !starts(level, '"')) {
		refuse(p, 400, MCP_INVALID_PARAMS, "_meta: " MCP_META_LOG_LEVEL " is a string");
		return false;
	}
	if (jsonrpc_member(p->meta, "progressToken", &p->progress_token) &&
	    !is_token(p->progress_token)) {
		refuse(
		    p, 400, MCP_INVALID_PARAMS, "_meta: progressToken is a string or an integer");
		return false;
	}
	return true;
}

static void
read_modern(struct posted *p, struct str revision, const struct posted_headers *h)
{
	struct buf plain = BUF_INIT;

	p->kind = POSTED_MODERN;
	if (!json_scan_decode(revision, &plain))
		refuse(p, 400, MCP_INVALID_PARAMS, "_meta: " MCP_META_REVISION " is a string");
	else if (h->revision.p == NULL || !str_eq(str_trim(h->revision), buf_str(&plain)))
		refuse(p, 400, MCP_HEADER_MISMATCH,
		    "MCP-Protocol-Version is missing or differs from _meta");
	else if (!read_meta(p))
		; /* refused */
	else if (mcp_revision_parse(buf_str(&plain)) == MCP_REVISION_NONE ||
		 !mcp_revision_info(mcp_revision_parse(buf_str(&plain)))->is_modern)
		refuse_revision(p, revision);
	else if (h->method.p == NULL || !str_eq(str_trim(h->method), str_of(p->message.method)))
		refuse(p, 400, MCP_HEADER_MISMATCH,
		    "Mcp-Method is missing or differs from the method");
	else if (!name_agrees(p, h->name))
		refuse(p, 400, MCP_HEADER_MISMATCH,
		    "Mcp-Name is missing or differs from what is named in params");
	buf_fini(&plain);
}

/* ---- any ---- */

/* Dates are compared as they are written. */
static bool
is_modern_text(struct str revision)
{
	struct str s = str_trim(revision), first = STR("2026-07-28");

	return s.len == first.len && memcmp(s.p, first.p, s.len) >= 0;
}

static void
read_message(struct posted *p, const struct posted_headers *h)
{
	const struct jsonrpc *m = &p->message;
	struct str revision;

	p->kind = POSTED_LEGACY;
	if (m->kind != JSONRPC_REQUEST && m->kind != JSONRPC_NOTIFICATION)
		return;
	if (!starts(m->params, '{') || !jsonrpc_member(m->params, "_meta", &p->meta))
		p->meta = STR_NONE;
	if (starts(p->meta, '{') && jsonrpc_member(p->meta, MCP_META_REVISION, &revision))
		read_modern(p, revision, h);
	else if (m->kind == JSONRPC_REQUEST && h->revision.p != NULL && is_modern_text(h->revision))
		refuse(p, 400, MCP_INVALID_PARAMS, "_meta: " MCP_META_REVISION " is required");
}

void
posted_read(struct str body, const struct posted_headers *h, struct posted *p)
{
	int err;

	*p = (struct posted){.data = BUF_INIT};
	if (!is_json_type(h->content_type)) {
		refuse(p, 415, MCP_SERVER_ERROR, "The body must be application/json");
		return;
	}
	if (body.len > 0 && jsonrpc_is_batch(body)) {
		p->kind = POSTED_BATCH;
		return;
	}
	err = jsonrpc_parse(body.len > 0 ? body : STR(" "), &p->message);
	if (err != 0)
		refuse(p, 400, err,
		    err == MCP_PARSE_ERROR ? "The body is not JSON"
					   : "The body is no JSON-RPC message");
	else
		read_message(p, h);
}

void
posted_fini(struct posted *p)
{
	buf_fini(&p->data);
}

/* ---- Mcp-Param-* ---- */

static bool
header_name(struct str x, char out[sizeof(PARAM_PREFIX) + PARAM_NAME_MAX])
{
	size_t n = sizeof(PARAM_PREFIX) - 1;

	if (x.len == 0 || x.len > PARAM_NAME_MAX)
		return false;
	memcpy(out, PARAM_PREFIX, n);
	for (size_t i = 0; i < x.len; i++) {
		unsigned char c = (unsigned char)x.p[i];

		if (!isalnum(c) && c != '-' && c != '_')
			return false;
		out[n + i] = (char)tolower(c);
	}
	out[n + x.len] = '\0';
	return true;
}

static bool
value_agrees(struct str value, struct str header)
{
	struct buf said = BUF_INIT, meant = BUF_INIT;
	bool agrees;

	if (value.len == 0 || str_eq(value, STR("null")))
		return header.p == NULL;
	if (starts(value, '{') || starts(value, '['))
		return true; /* cannot stand in a header */
	if (!json_scan_decode(value, &meant))
		buf_add_str(&meant, value);
	agrees = header.p != NULL && posted_decode(header, &said) &&
		 str_eq(buf_str(&said), buf_str(&meant));
	buf_fini(&said);
	buf_fini(&meant);
	return agrees;
}

/* Who reads them may take any of these for it. */
static size_t
count_alike(struct str arguments, struct str name)
{
	struct json_scan s;
	struct str key;
	size_t n = 0;

	json_scan_init(&s, arguments);
	if (json_scan_peek(&s) != '{' || !json_scan_object(&s))
		return 0;
	while (json_scan_member(&s, &key) == 1 && json_scan_skip(&s, NULL))
		n += json_scan_key_resembles(key, name);
	return n;
}

static bool
property_agrees(
    struct str key, struct str schema, struct str arguments, posted_header_of *header_of, void *arg)
{
	char name[sizeof(PARAM_PREFIX) + PARAM_NAME_MAX];
	struct buf x = BUF_INIT, plain = BUF_INIT;
	struct str value = STR_NONE;
	bool agrees = true;

	json_scan_key_decode(key, &plain);
	if (jsonrpc_text_member(schema, "x-mcp-header", &x) && header_name(buf_str(&x), name)) {
		if (arguments.len > 0)
			jsonrpc_member(arguments, plain.data, &value);
		agrees = value_agrees(value, header_of(arg, name)) &&
			 count_alike(arguments, buf_str(&plain)) <= 1;
	}
	buf_fini(&x);
	buf_fini(&plain);
	return agrees;
}

bool
posted_params_agree(struct str tool, struct str arguments, posted_header_of *header_of, void *arg)
{
	struct str schema, properties, key, value;
	struct json_scan s;

	if (!jsonrpc_member(tool, "inputSchema", &schema) ||
	    !jsonrpc_member(schema, "properties", &properties))
		return true;
	json_scan_init(&s, properties);
	if (json_scan_peek(&s) != '{' || !json_scan_object(&s))
		return true;
	while (json_scan_member(&s, &key) == 1 && json_scan_skip(&s, &value)) {
		if (key.len > 0 && !property_agrees(key, value, arguments, header_of, arg))
			return false;
	}
	return true;
}
