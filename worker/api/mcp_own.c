/*
 * mcp_own - see mcp_impl.h: the tools of Parley itself, behind those of the tool servers, for keys
 * that belong to an app. What they fail at the model is told, as of any tool.
 */
#include "common/check.h"
#include "worker/api/mcp_impl.h"

/* All of a tool's entry in the list but its name. */

static const char ask_model[] =
    "\"description\":\"Asks a language model and gives its answer\","
    "\"inputSchema\":{\"type\":\"object\",\"properties\":{"
    "\"prompt\":{\"type\":\"string\",\"description\":\"What the model is asked\"},"
    "\"system\":{\"type\":\"string\",\"description\":\"What it is told before\"},"
    "\"model\":{\"type\":\"string\","
    "\"description\":\"Which model; without: the first that may be used\"},"
    "\"max_tokens\":{\"type\":\"integer\",\"minimum\":1,\"description\":\"Of the answer\"}},"
    "\"required\":[\"prompt\"],\"additionalProperties\":false},"
    "\"annotations\":{\"readOnlyHint\":false,\"destructiveHint\":false,\"openWorldHint\":true}";

static const char search_session[] =
    "\"description\":\"Finds messages of a session in which a text occurs\","
    "\"inputSchema\":{\"type\":\"object\",\"properties\":{"
    "\"session_id\":{\"type\":\"string\",\"description\":\"Of the session: sess_..\"},"
    "\"query\":{\"type\":\"string\",\"description\":\"The text, in upper or lower case\"},"
    "\"limit\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":50,"
    "\"description\":\"Messages; 10\"}},"
    "\"required\":[\"session_id\",\"query\"],\"additionalProperties\":false},"
    "\"annotations\":{\"readOnlyHint\":true,\"openWorldHint\":false}";

/* What comes out is shape_task() with its result. */
static const char task_status[] =
    "\"description\":\"Tells how a task is, and what came out of it when it has ended\","
    "\"inputSchema\":{\"type\":\"object\",\"properties\":{"
    "\"id\":{\"type\":\"string\",\"description\":\"Of the task: task_..\"},"
    "\"wait\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":60,"
    "\"description\":\"Seconds to wait for its end; 0\"}},"
    "\"required\":[\"id\"],\"additionalProperties\":false},"
    "\"outputSchema\":{\"type\":\"object\",\"properties\":{"
    "\"id\":{\"type\":\"string\"},\"type\":{\"type\":\"string\"},"
    "\"status\":{\"type\":\"string\",\"enum\":"
    "[\"queued\",\"running\",\"succeeded\",\"failed\",\"cancelled\",\"timed_out\"]},"
    "\"progress\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":100},"
    "\"message\":{\"type\":[\"string\",\"null\"]},\"model\":{\"type\":[\"string\",\"null\"]},"
    "\"partition_key\":{\"type\":[\"string\",\"null\"]},\"attempts\":{\"type\":\"integer\"},"
    "\"created_at\":{\"type\":\"string\"},\"updated_at\":{\"type\":\"string\"},"
    "\"started_at\":{\"type\":[\"string\",\"null\"]},\"ended_at\":{\"type\":[\"string\",\"null\"]},"
    "\"result\":{\"description\":\"Of one that succeeded; else null\"},"
    "\"error\":{\"type\":[\"object\",\"null\"],\"properties\":{\"code\":{\"type\":\"string\"},"
    "\"message\":{\"type\":[\"string\",\"null\"]},\"retryable\":{\"type\":\"boolean\"}}}},"
    "\"required\":[\"id\",\"type\",\"status\",\"progress\",\"result\",\"error\"]},"
    "\"annotations\":{\"readOnlyHint\":true,\"openWorldHint\":false}";

static const struct own_tool {
	const char *name, *json;
	bool is_read_only;
	void (*run)(struct mcp_ask *, struct str arguments);
} tools[] = {
    {MCP_OWN_PREFIX "ask_model", ask_model, false, mcp_own_ask_model},
    {MCP_OWN_PREFIX "search_session", search_session, true, mcp_own_search_session},
    {MCP_OWN_PREFIX "task_status", task_status, true, mcp_own_task_status},
};

static bool
may_call(const struct api_call *call, const struct own_tool *t)
{
	return call->api->conf->mcp.own_tools && call->app != NULL && call->key_id != NULL &&
	       keys_allow_tool(&call->tools, t->name, t->is_read_only);
}

void
mcp_own_add(struct buf *b, const struct api_call *call)
{
	for (size_t i = 0; i < ARRAY_LEN(tools); i++) {
		if (!may_call(call, &tools[i]))
			continue;
		buf_add_cstr(b, b->data[b->len - 1] == '[' ? "" : ",");
		buf_printf(b, "{\"name\":\"%s\",%s}", tools[i].name, tools[i].json);
	}
}

bool
mcp_own_call(struct mcp_ask *a, struct str name)
{
	struct str arguments = STR("{}");

	for (size_t i = 0; i < ARRAY_LEN(tools); i++) {
		if (!str_eq(name, str_of(tools[i].name)) || !may_call(a->call, &tools[i]))
			continue;
		jsonrpc_member(a->params, "arguments", &arguments);
		if (arguments.p[0] != '{')
			mcp_ask_refuse(
			    a, 200, MCP_INVALID_PARAMS, "arguments is an object", STR_NONE);
		else
			tools[i].run(a, arguments);
		return true;
	}
	return false;
}

static void
reply(struct mcp_ask *a, struct str text, const char *member, struct str value)
{
	struct buf b = BUF_INIT;

	buf_add_cstr(&b, "{\"content\":[{\"type\":\"text\",\"text\":");
	jsonrpc_add_string(&b, text);
	buf_printf(&b, "}]%s", member);
	buf_add_str(&b, value);
	buf_add_char(&b, '}');
	mcp_ask_reply(a, buf_str(&b));
	buf_fini(&b);
}

void
mcp_own_reply(struct mcp_ask *a, struct str text)
{
	reply(a, text, "", STR_NONE);
}

void
mcp_own_reply_structured(struct mcp_ask *a, struct str object)
{
	reply(a, object, ",\"structuredContent\":", object);
}

void
mcp_own_fail(struct mcp_ask *a, const char *why)
{
	reply(a, str_of(why), ",\"isError\":", STR("true"));
}

void
mcp_own_begin(struct mcp_ask *a, struct mcp_own *own, void (*drop)(struct mcp_own *))
{
	check(a->own == NULL);
	own->ask = a;
	own->drop = drop;
	a->own = own;
	a->params = STR_NONE;
	mcp_ask_keep_alive(a);
}
