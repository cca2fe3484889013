/* reply - see reply.h. */
#include "worker/mcp/reply.h"

#include "worker/mcp/jsonrpc.h"

static void
add_key(struct buf *b, struct str key)
{
	buf_add_cstr(b, b->data[b->len - 1] == '{' ? "\"" : ",\"");
	buf_add_str(b, key);
	buf_add_cstr(b, "\":");
}

static bool
is_of_modern(struct str key)
{
	return json_scan_key_is(key, STR("resultType")) || json_scan_key_is(key, STR("ttlMs")) ||
	       json_scan_key_is(key, STR("cacheScope"));
}

/* Ours in the place of the upstream's; with none of them for older clients. */
static void
add_meta(struct buf *b, bool is_modern, struct str given)
{
	struct str key, value;
	struct json_scan s;

	buf_add_char(b, '{');
	if (is_modern) {
		add_key(b, STR(MCP_META_SERVER));
		buf_add_cstr(b, MCP_SERVER_INFO);
	}
	json_scan_init(&s, given);
	if (given.len > 0 && json_scan_object(&s)) {
		while (json_scan_member(&s, &key) == 1 && json_scan_skip(&s, &value)) {
			if (json_scan_key_is(key, STR(MCP_META_SERVER)))
				continue;
			add_key(b, key);
			buf_add_str(b, value);
		}
	}
	buf_add_char(b, '}');
}

bool
mcp_reply_add_result(struct buf *b, enum mcp_revision revision, struct str result)
{
	bool is_modern = mcp_revision_info(revision)->is_modern;
	struct str key, value, meta = STR_NONE, type;
	struct buf ours = BUF_INIT;
	struct json_scan s;

	json_scan_init(&s, result);
	if (result.len == 0 || json_scan_peek(&s) != '{' || !json_scan_object(&s))
		return false;
	buf_add_char(b, '{');
	if (is_modern && !jsonrpc_member(result, "resultType", &type)) {
		add_key(b, STR("resultType"));
		buf_add_cstr(b, "\"complete\"");
	}
	while (json_scan_member(&s, &key) == 1 && json_scan_skip(&s, &value)) {
		if (json_scan_key_is(key, STR("_meta"))) {
			meta = value;
			continue;
		}
		if (!is_modern && is_of_modern(key))
			continue;
		add_key(b, key);
		buf_add_str(b, value);
	}
	add_meta(&ours, is_modern, meta);
	if (ours.len > 2) {
		add_key(b, STR("_meta"));
		buf_add_str(b, buf_str(&ours));
	}
	buf_fini(&ours);
	buf_add_char(b, '}');
	return true;
}

void
mcp_reply_replace(struct buf *b, struct str params, const char *member, struct str value)
{
	struct buf rest = BUF_INIT;

	jsonrpc_without(&rest, params, member);
	buf_add_char(b, '{');
	add_key(b, str_of(member));
	buf_add_str(b, value);
	if (rest.len > 2)
		buf_add_char(b, ',');
	buf_add(b, rest.data + 1, rest.len - 1);
	buf_fini(&rest);
}

void
mcp_reply_add_progress(struct buf *b, struct str params, struct str token)
{
	mcp_reply_replace(b, params, "progressToken", token);
}
