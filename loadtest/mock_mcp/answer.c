/* answer - see answer.h. */
#include "loadtest/mock_mcp/answer.h"

#include <stdio.h>

#include "common/check.h"
#include "common/json_scan.h"

#define SERVER "{\"name\":\"mock_mcp\",\"version\":\"1\"}"

struct asked {
	struct str id, method, params;
	struct str name, text; /* as written */
	bool is_modern;
};

/* ---- what is asked ---- */

static void
read_text(struct str arguments, struct asked *a)
{
	struct json_scan s;
	struct str key, value;

	json_scan_init(&s, arguments);
	if (!json_scan_object(&s))
		return;
	while (json_scan_member(&s, &key) == 1 && json_scan_skip(&s, &value)) {
		if (str_eq(key, STR("text")))
			a->text = value;
	}
}

static void
read_params(struct asked *a)
{
	struct json_scan s;
	struct str key, value;

	json_scan_init(&s, a->params);
	if (a->params.len == 0 || !json_scan_object(&s))
		return;
	while (json_scan_member(&s, &key) == 1 && json_scan_skip(&s, &value)) {
		if (str_eq(key, STR("name")))
			a->name = value;
		else if (str_eq(key, STR("arguments")))
			read_text(value, a);
		else if (str_eq(key, STR("_meta")))
			a->is_modern = memmem(value.p, value.len, "/protocolVersion\"", 17) != NULL;
	}
}

static bool
read_message(struct str message, struct asked *a)
{
	struct json_scan s;
	struct str key, value;

	*a = (struct asked){.text = STR("\"\"")};
	json_scan_init(&s, message);
	if (!json_scan_object(&s))
		return false;
	while (json_scan_member(&s, &key) == 1 && json_scan_skip(&s, &value)) {
		if (str_eq(key, STR("id")))
			a->id = value;
		else if (str_eq(key, STR("method")))
			a->method = value;
		else if (str_eq(key, STR("params")))
			a->params = value;
	}
	read_params(a);
	return a->method.len > 0;
}

/* ---- what is answered ---- */

static void
begin(struct buf *out, const struct asked *a)
{
	buf_add_cstr(out, "{\"jsonrpc\":\"2.0\",\"id\":");
	buf_add_str(out, a->id);
	buf_add_cstr(out, ",\"result\":{");
	if (a->is_modern)
		buf_add_cstr(out, "\"resultType\":\"complete\",");
}

static void
refuse(struct buf *out, const struct asked *a, int code, const char *why)
{
	buf_add_cstr(out, "{\"jsonrpc\":\"2.0\",\"id\":");
	buf_add_str(out, a->id.len > 0 ? a->id : STR("null"));
	buf_printf(out, ",\"error\":{\"code\":%d,\"message\":\"%s\"}}", code, why);
}

static void
initialize(struct buf *out, const struct asked *a)
{
	begin(out, a);
	buf_add_cstr(out, "\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"tools\":{}},"
			  "\"serverInfo\":" SERVER "}}");
}

static void
discover(struct buf *out, const struct asked *a)
{
	begin(out, a);
	buf_add_cstr(out, "\"supportedVersions\":[\"2026-07-28\"],\"capabilities\":{\"tools\":{}},"
			  "\"ttlMs\":3600000,\"cacheScope\":\"public\","
			  "\"_meta\":{\"io.modelcontextprotocol/serverInfo\":" SERVER "}}}");
}

static void
list_tools(const struct answer_conf *c, struct buf *out, const struct asked *a)
{
	begin(out, a);
	buf_add_str(out, buf_str(&c->tools));
	if (a->is_modern)
		buf_add_cstr(out, ",\"ttlMs\":3600000,\"cacheScope\":\"public\"");
	buf_add_cstr(out, "}}");
}

static void
call_tool(struct buf *out, const struct asked *a)
{
	if (!str_eq(a->name, STR("\"echo\""))) {
		refuse(out, a, -32602, "Unknown tool");
		return;
	}
	begin(out, a);
	buf_add_cstr(out, "\"content\":[{\"type\":\"text\",\"text\":");
	buf_add_str(out, a->text);
	buf_add_cstr(out, "}]}}");
}

bool
answer(const struct answer_conf *c, struct str message, struct buf *out)
{
	struct asked a;

	if (!read_message(message, &a)) {
		refuse(out, &a, -32600, "Invalid Request");
		return true;
	}
	if (a.id.len == 0)
		return false;
	if (str_eq(a.method, STR("\"tools/call\"")))
		call_tool(out, &a);
	else if (str_eq(a.method, STR("\"tools/list\"")))
		list_tools(c, out, &a);
	else if (str_eq(a.method, STR("\"initialize\"")) && !a.is_modern)
		initialize(out, &a);
	else if (str_eq(a.method, STR("\"server/discover\"")) && !c->is_legacy)
		discover(out, &a);
	else if (str_eq(a.method, STR("\"ping\""))) {
		begin(out, &a);
		buf_add_cstr(out, "}}");
	} else {
		refuse(out, &a, -32601, "Method not found");
	}
	return true;
}

/* ---- life ---- */

static void
add_tool(struct buf *b, unsigned number)
{
	char name[24] = "echo";

	if (number > 0)
		snprintf(name, sizeof(name), "tool_%03u", number);
	buf_printf(b,
	    "%s{\"name\":\"%s\",\"description\":\"Gives back what it is given, and does it at "
	    "once. Nothing is kept of it.\",\"inputSchema\":{\"type\":\"object\","
	    "\"properties\":{\"text\":{\"type\":\"string\",\"description\":\"what is given back\"},"
	    "\"count\":{\"type\":\"integer\",\"minimum\":1}},\"required\":[\"text\"]}}",
	    number > 0 ? "," : "", name);
}

void
answer_init(struct answer_conf *c, unsigned tools, bool is_legacy)
{
	check(tools > 0);
	*c = (struct answer_conf){.is_legacy = is_legacy};
	buf_add_cstr(&c->tools, "\"tools\":[");
	for (unsigned i = 0; i < tools; i++)
		add_tool(&c->tools, i);
	buf_add_char(&c->tools, ']');
}

void
answer_fini(struct answer_conf *c)
{
	buf_fini(&c->tools);
}
