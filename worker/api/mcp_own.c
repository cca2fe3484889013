/*
 * mcp_own - see mcp_impl.h: the tools of Parley itself, behind those of the tool servers, for keys
 * that belong to an app. What they fail at the model is told, as of any tool.
 */
#include "common/check.h"
#include "worker/api/mcp_impl.h"

#define TEXT(what) "{\"type\":\"string\",\"description\":\"" what "\"}"

static const struct own_tool {
	const char *name, *json; /* all but the name */
	bool is_read_only;
	void (*run)(struct mcp_ask *, struct str arguments);
} tools[] = {
    {MCP_OWN_PREFIX "ask_model",
	"\"description\":\"Asks a language model and gives its answer\","
	"\"inputSchema\":{\"type\":\"object\",\"properties\":{"
	"\"prompt\":" TEXT(
	    "What the model is asked") ","
				       "\"system\":" TEXT(
					   "What it is told before") ","
								     "\"model\":" TEXT(
									 "Which model; without: "
									 "the first that may be "
									 "used") ","
										 "\"max_tokens\":{"
										 "\"type\":"
										 "\"integer\","
										 "\"minimum\":1,"
										 "\"description\":"
										 "\"Of the "
										 "answer\"}},"
										 "\"required\":["
										 "\"prompt\"],"
										 "\"additionalPrope"
										 "rties\":false},"
										 "\"annotations\":{"
										 "\"readOnlyHint\":"
										 "false,"
										 "\"destructiveHint"
										 "\":false,"
										 "\"openWorldHint\""
										 ":true}",
	false, mcp_own_ask_model},
    {MCP_OWN_PREFIX "search_session",
	"\"description\":\"Finds messages of a session in which a text occurs\","
	"\"inputSchema\":{\"type\":\"object\",\"properties\":{"
	"\"session_id\":" TEXT(
	    "Of the session: sess_..") ","
				       "\"query\":" TEXT(
					   "The text, in upper or lower case") ","
									       "\"limit\":{"
									       "\"type\":"
									       "\"integer\","
									       "\"minimum\":1,"
									       "\"maximum\":50,"
									       "\"description\":"
									       "\"Messages; 10\"}},"
									       "\"required\":["
									       "\"session_id\","
									       "\"query\"],"
									       "\"additionalPropert"
									       "ies\":false},"
									       "\"annotations\":{"
									       "\"readOnlyHint\":"
									       "true,"
									       "\"openWorldHint\":"
									       "false}",
	true, mcp_own_search_session},
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
reply(struct mcp_ask *a, struct str text, bool is_error)
{
	struct buf b = BUF_INIT;

	buf_add_cstr(&b, "{\"content\":[{\"type\":\"text\",\"text\":");
	jsonrpc_add_string(&b, text);
	buf_printf(&b, "}]%s}", is_error ? ",\"isError\":true" : "");
	mcp_ask_reply(a, buf_str(&b));
	buf_fini(&b);
}

void
mcp_own_reply(struct mcp_ask *a, struct str text)
{
	reply(a, text, false);
}

void
mcp_own_fail(struct mcp_ask *a, const char *why)
{
	reply(a, str_of(why), true);
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
