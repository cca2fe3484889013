/*
 * mcp_upstream_test - one tool server over HTTP, with the clock and the server in the test's hand:
 * which era it is found to be of, when it is tried again, calls with progress, late, cancelled.
 */
#include "t/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/err.h"
#include "common/log.h"
#include "t/replay/fake_client.h"
#include "t/replay/fake_loop.h"
#include "worker/mcp/upstream.h"

#define CAPABILITIES "\"capabilities\":{\"tools\":{\"listChanged\":true}}"
#define DISCOVERED                                                                                 \
	"{\"resultType\":\"complete\",\"supportedVersions\":[\"2026-07-28\"]," CAPABILITIES        \
	",\"instructions\":\"be kind\"}"
#define INITIALIZED                                                                                \
	"{\"protocolVersion\":\"2025-06-18\"," CAPABILITIES                                        \
	",\"serverInfo\":{\"name\":\"s\",\"version\":\"1\"}}"
#define INITIALIZED_LOGS                                                                           \
	"{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{\"tools\":{\"listChanged\":true},"  \
	"\"logging\":{}}}"
#define TOOLS(name) "{\"tools\":[{\"name\":\"" name "\",\"inputSchema\":{}}]}"

static struct loop *loop;
static struct client *client;
static struct mcp_upstreams *upstreams;
static struct conf conf;
static struct conf_mcp_server server;
static unsigned changes;
static const char *initialized;

static struct heard {
	unsigned answers, notes, questions, withdrawn;
	uint64_t question;
	struct mcp_answer answer;
	char result[64], message[64], progress[64];
} heard;

static void
on_changed(void *arg, size_t index, enum mcp_kind kind)
{
	changes += index == 0 && kind == MCP_TOOLS;
}

static int
setup(void **state)
{
	memset(&conf, 0, sizeof(conf));
	memset(&heard, 0, sizeof(heard));
	changes = 0;
	initialized = INITIALIZED;
	server = (struct conf_mcp_server){.name = "web",
	    .url = "http://tools/mcp",
	    .command = "",
	    .enabled = true,
	    .prefix = "auto",
	    .era = "auto",
	    .per = "host",
	    .probe_timeout_ms = 10000,
	    .connect_timeout_ms = 30000,
	    .max_connections = 10};
	conf.mcp.servers.v = &server;
	conf.mcp.servers.n = 1;
	conf.mcp.prefix = true;
	conf.mcp.max_message_bytes = 1 << 20;
	conf.mcp.max_items = 100;
	conf.mcp.max_calls = 3;
	conf.mcp.backoff_ms = 1000;
	conf.mcp.backoff_max_ms = 30000;
	conf.mcp.verdict_age_ms = 3600 * 1000;
	conf.mcp.refresh_ms = 300 * 1000;
	conf.tools.server_timeout_ms = 60000;
	loop = loop_new();
	client = client_new(loop);
	upstreams = mcp_upstreams_new(&(struct mcp_upstreams_of){
	    .loop = loop, .client = client, .conf = &conf, .who = {0, 1}});
	mcp_upstreams_on_changed(upstreams, on_changed, NULL);
	mcp_upstreams_start(upstreams);
	fake_loop_settle();
	return 0;
}

static int
teardown(void **state)
{
	mcp_upstreams_free(&upstreams);
	assert_int_equal(fake_client_open(), 0);
	assert_int_equal(fake_loop_timers(), 0);
	fake_client_forget();
	client_free(&client);
	loop_free(&loop);
	return 0;
}

/* ---- the server's side ---- */

static unsigned
last(void)
{
	return fake_client_requests() - 1;
}

static bool
asks(unsigned i, const char *method)
{
	char text[100];

	snprintf(text, sizeof(text), "\"method\":\"%s\"", method);
	return strcmp(fake_client_method(i), "POST") == 0 &&
	       strstr(fake_client_body(i), text) != NULL;
}

static void
format(unsigned i, const char *member, const char *value, char out[4096])
{
	struct jsonrpc m;

	assert_int_equal(jsonrpc_parse(str_of(fake_client_body(i)), &m), 0);
	snprintf(out, 4096, "{\"jsonrpc\":\"2.0\",\"id\":%.*s,\"%s\":%s}", (int)m.id.len, m.id.p,
	    member, value);
}

static void
reply(unsigned i, const char *result)
{
	char text[4096];

	format(i, "result", result, text);
	fake_client_refuse(i, 200, text, "");
	fake_loop_settle();
}

static void
refuse(unsigned i, int status, const char *error)
{
	char text[4096];

	format(i, "error", error, text);
	fake_client_refuse(i, status, text, "");
	fake_loop_settle();
}

static enum mcp_upstream_state
state_now(void)
{
	struct mcp_upstream_info info;

	mcp_upstream_get(upstreams, 0, &info);
	return info.state;
}

/* Its tools were asked for by the last request but the listening, which is returned. */
static unsigned
become_modern(void)
{
	assert_true(asks(last(), "server/discover"));
	reply(last(), DISCOVERED);
	assert_true(asks(last(), "tools/list"));
	reply(last(), TOOLS("a"));
	assert_int_equal(state_now(), MCP_UPSTREAM_READY);
	assert_true(asks(last(), "subscriptions/listen"));
	return last();
}

/* Up to its first list. */
static void
greet_legacy(void)
{
	char text[4096];
	unsigned i = last();

	assert_true(asks(i, "initialize"));
	assert_null(fake_client_header(i, "MCP-Protocol-Version"));
	format(i, "result", initialized, text);
	fake_client_head_kept(i, 200, "application/json", "session-1");
	fake_client_say(i, text);
	fake_client_end(i, CLIENT_OK);
	fake_loop_settle();
	assert_true(asks(last(), "notifications/initialized"));
	assert_string_equal(fake_client_header(last(), "Mcp-Session-Id"), "session-1");
	assert_string_equal(fake_client_header(last(), "MCP-Protocol-Version"), "2025-06-18");
	fake_client_refuse(last(), 202, "", "");
	fake_loop_settle();
	assert_true(asks(last(), "tools/list"));
	assert_null(strstr(fake_client_body(last()), "_meta"));
}

/* .. the stream that it may speak on. */
static unsigned
become_legacy(void)
{
	unsigned i;

	greet_legacy();
	reply(last(), TOOLS("a"));
	assert_int_equal(state_now(), MCP_UPSTREAM_READY);
	for (i = last(); strcmp(fake_client_method(i), "GET") != 0; i--)
		assert_true(asks(i, "tools/call")); /* what has waited for this */
	assert_true(fake_client_is_open(i));
	return i;
}

static const char *
tool(size_t i)
{
	const struct mcp_view *v = mcp_upstreams_view(upstreams, MCP_TOOLS);

	return i < mcp_view_count(v) ? mcp_view_at(v, i)->name.p : "-";
}

/* ---- who asks ---- */

static void
on_notification(void *arg, const struct jsonrpc *m)
{
	struct str progress = STR("?");

	heard.notes++;
	jsonrpc_member(m->params, "progress", &progress);
	snprintf(heard.progress, sizeof(heard.progress), "%.*s", (int)progress.len, progress.p);
}

static void
on_answer(void *arg, const struct mcp_answer *a)
{
	heard.answers++;
	heard.answer = *a;
	snprintf(heard.result, sizeof(heard.result), "%.*s", (int)a->result.len, a->result.p);
	snprintf(heard.message, sizeof(heard.message), "%.*s", (int)a->message.len, a->message.p);
}

static uint64_t
call(void)
{
	static const struct mcp_handlers handlers = {
	    .on_notification = on_notification, .on_answer = on_answer};
	uint64_t handle = mcp_call(upstreams, 0,
	    &(struct mcp_request){.method = "tools/call",
		.params =
		    STR("{\"name\":\"a\",\"arguments\":{},\"_meta\":{\"x\":1,\"progressToken\":9,"
			"\"io.modelcontextprotocol/protocolVersion\":\"1\"}}"),
		.wants_progress = true},
	    &handlers, NULL);

	fake_loop_settle();
	return handle;
}

/* ---- tests ---- */

static void
test_modern(void **state)
{
	struct mcp_upstream_info info;

	assert_string_equal(fake_client_header(0, "MCP-Protocol-Version"), "2026-07-28");
	assert_string_equal(fake_client_header(0, "Mcp-Method"), "server/discover");
	assert_non_null(strstr(fake_client_body(0),
	    "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\""));
	reply(0, DISCOVERED);
	reply(1, "{\"tools\":[{\"name\":\"b\"}],\"nextCursor\":\"p 2\"}");
	assert_non_null(strstr(fake_client_body(2), "\"cursor\":\"p 2\""));
	assert_int_equal(state_now(), MCP_UPSTREAM_CONNECTING);
	reply(2, TOOLS("a"));
	assert_int_equal(state_now(), MCP_UPSTREAM_READY);
	assert_string_equal(tool(0), "web__a");
	assert_string_equal(tool(1), "web__b");
	assert_int_equal(changes, 1);
	mcp_upstream_get(upstreams, 0, &info);
	assert_int_equal(info.revision, MCP_REVISION_MODERN);
	assert_true(str_eq(info.instructions, STR("be kind")));
}

static void
test_legacy(void **state)
{
	refuse(0, 404, "{\"code\":-32601,\"message\":\"no such method\"}");
	become_legacy();
	/* What it asks on its stream is answered. */
	fake_client_stream(last());
	fake_client_say(last(), "data: {\"jsonrpc\":\"2.0\",\"id\":\"p\",\"method\":\"ping\"}\n\n");
	fake_loop_settle();
	assert_string_equal(
	    fake_client_body(last()), "{\"jsonrpc\":\"2.0\",\"id\":\"p\",\"result\":{}}");
	fake_client_refuse(last(), 202, "", "");
}

static void
test_not_ours_to_know(void **state)
{
	/* A page of a proxy, or an old server's words: all lead to initialize. */
	fake_client_refuse(0, 200, "<html>", "");
	fake_loop_settle();
	become_legacy();
}

static void
test_other_revisions(void **state)
{
	refuse(0, 400,
	    "{\"code\":-32022,\"message\":\"\",\"data\":{\"supported\":[\"2025-06-18\",\"x\"]}}");
	assert_true(asks(1, "initialize"));
	refuse(1, 400, "{\"code\":-32600,\"message\":\"\"}");
	/* Neither: perhaps it has the stream of the first revision. */
	assert_string_equal(fake_client_method(2), "GET");
	fake_client_refuse(2, 404, "", "");
	fake_loop_settle();
	assert_int_equal(state_now(), MCP_UPSTREAM_AWAY);
}

static void
test_back_off(void **state)
{
	static const uint64_t pauses_ms[] = {1000, 2000, 4000, 8000, 16000, 30000, 30000};
	static const int statuses[] = {401, 403, 500, 503};

	for (size_t i = 0; i < 7; i++) {
		fake_client_refuse((unsigned)i, statuses[i % 4], "", "");
		fake_loop_settle();
		assert_int_equal(state_now(), MCP_UPSTREAM_AWAY);
		fake_loop_advance(pauses_ms[i] - 1);
		assert_int_equal(fake_client_requests(), i + 1);
		fake_loop_advance(1);
		assert_int_equal(fake_client_requests(), i + 2);
		assert_true(asks(last(), "server/discover"));
	}
	/* When it has been ready it begins with a second again. */
	unsigned listen = become_modern();
	call();
	fake_client_end(last(), CLIENT_CONNECT_FAILED);
	fake_loop_settle();
	assert_int_equal(heard.answer.err, E_UNAVAILABLE);
	assert_false(fake_client_is_open(listen));
	fake_loop_advance(999);
	assert_int_equal(state_now(), MCP_UPSTREAM_AWAY);
	fake_loop_advance(1);
	assert_true(asks(last(), "server/discover"));
}

static void
test_silence(void **state)
{
	fake_loop_advance(9999);
	assert_int_equal(state_now(), MCP_UPSTREAM_CONNECTING);
	assert_int_equal(fake_client_requests(), 1);
	call();
	assert_int_equal(heard.answers, 0);
	fake_loop_advance(1);
	assert_int_equal(state_now(), MCP_UPSTREAM_AWAY);
	assert_int_equal(heard.answer.err, E_UNAVAILABLE);
	call();
	assert_int_equal(heard.answers, 2);
}

static void
test_call(void **state)
{
	char text[4096], event[4200];
	unsigned i;

	become_modern();
	call();
	i = last();
	assert_string_equal(fake_client_header(i, "Mcp-Name"), "a");
	assert_non_null(strstr(fake_client_body(i), ",\"x\":1}"));
	assert_null(strstr(fake_client_body(i), "\"progressToken\":9"));
	fake_client_stream(i);
	fake_client_say(i,
	    "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{"
	    "\"progressToken\":\"other\",\"progress\":1}}\n\n: keep-alive\n\n");
	assert_int_equal(heard.notes, 0);
	const char *token = strstr(fake_client_body(i), "\"progressToken\":");
	snprintf(event, sizeof(event),
	    "event: message\ndata: "
	    "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":"
	    "{\"progressToken\":%.*s,\"progress\":50}}\n\n",
	    (int)strcspn(token + 16, ",}"), token + 16);
	fake_client_say(i, event);
	assert_int_equal(heard.notes, 1);
	assert_string_equal(heard.progress, "50");
	format(i, "result", "{\"content\": []}", text);
	snprintf(event, sizeof(event), "data: %s\n\n", text);
	fake_client_say(i, event);
	assert_int_equal(heard.answers, 1);
	assert_string_equal(heard.result, "{\"content\": []}");
	assert_true(mcp_upstreams_are_idle(upstreams));
	/* The connection may end by itself, but not for ever. */
	assert_true(fake_client_is_open(i));
	fake_loop_advance(1000);
	assert_false(fake_client_is_open(i));
}

static void
test_errors(void **state)
{
	become_modern();
	call();
	refuse(last(), 200, "{\"code\":-32602,\"message\":\"Unknown tool\",\"data\":[1]}");
	assert_int_equal(heard.answer.code, MCP_INVALID_PARAMS);
	assert_string_equal(heard.message, "\"Unknown tool\"");
	call();
	refuse(last(), 400, "{\"code\":-32021,\"message\":\"m\",\"data\":{}}");
	assert_int_equal(heard.answer.code, MCP_INTERNAL_ERROR);
	assert_int_equal(heard.answer.upstream_code, MCP_CAPABILITY_MISSING);
	assert_int_equal(heard.answer.data.len, 2); /* it says which */
	call();
	refuse(last(), 400, "{\"code\":-32020,\"message\":\"m\",\"data\":{}}");
	assert_int_equal(heard.answer.code, MCP_INTERNAL_ERROR);
	assert_int_equal(heard.answer.upstream_code, -32020);
	assert_int_equal(heard.answer.data.len, 0);
	call();
	fake_client_refuse(last(), 502, "bad gateway", "");
	assert_int_equal(heard.answer.err, E_UNAVAILABLE);
	call();
	fake_client_refuse(last(), 200, "{\"jsonrpc\":\"2.0\",\"id\":12345,\"result\":{}}", "");
	assert_int_equal(heard.answer.err, E_PROVIDER);
	call();
	fake_client_stream(last());
	fake_client_end(last(), CLIENT_BROKEN);
	assert_int_equal(heard.answer.err, E_GONE);
	assert_int_equal(heard.answers, 6);
	assert_int_equal(state_now(), MCP_UPSTREAM_READY);
}

static void
test_limits(void **state)
{
	char *large = xcalloc(1, (1 << 20) + 2);

	become_modern();
	call();
	fake_client_head(last(), 200, "application/json", "");
	memset(large, ' ', (1 << 20) + 1);
	fake_client_say(last(), large);
	assert_int_equal(heard.answer.err, E_PAYLOAD_TOO_LARGE);
	assert_false(fake_client_is_open(last()));
	free(large);
	/* The listening counts, too. */
	call();
	call();
	call();
	assert_int_equal(heard.answers, 2);
	assert_int_equal(heard.answer.err, E_BUSY);
	fake_loop_advance(60000);
	assert_int_equal(heard.answers, 4);
	assert_int_equal(heard.answer.err, E_TIMEOUT);
}

static void
test_cancel(void **state)
{
	unsigned i;

	become_modern();
	uint64_t handle = call();
	i = last();
	mcp_cancel(upstreams, handle);
	fake_loop_settle();
	assert_false(fake_client_is_open(i));
	assert_int_equal(last(), i); /* that was all */
	mcp_cancel(upstreams, handle);
	assert_int_equal(heard.answers, 0);
}

static void
test_cancel_legacy(void **state)
{
	unsigned i;

	refuse(0, 404, "{\"code\":-32601,\"message\":\"\"}");
	become_legacy();
	uint64_t handle = call();
	i = last();
	mcp_cancel(upstreams, handle);
	fake_loop_settle();
	assert_false(fake_client_is_open(i));
	assert_true(asks(last(), "notifications/cancelled"));
	assert_string_equal(fake_client_header(last(), "Mcp-Session-Id"), "session-1");
	fake_client_refuse(last(), 202, "", "");
	assert_int_equal(heard.answers, 0);
}

/* It is greeted at once without being asked what it is; when that is long ago, it is asked. */
static void
test_verdict(void **state)
{
	refuse(0, 404, "{\"code\":-32601,\"message\":\"\"}");
	become_legacy();
	call();
	fake_client_end(last(), CLIENT_CONNECT_FAILED);
	fake_loop_advance(1000);
	become_legacy();
	fake_loop_advance(3600 * 1000 + 1);
	call();
	fake_client_end(last(), CLIENT_CONNECT_TIMEOUT);
	fake_loop_advance(1000);
	assert_true(asks(last(), "server/discover"));
}

static void
test_session_gone(void **state)
{
	unsigned first;

	refuse(0, 404, "{\"code\":-32601,\"message\":\"\"}");
	become_legacy();
	call();
	first = last();
	call();
	fake_client_refuse(first, 404, "", "");
	fake_loop_settle();
	assert_true(asks(last(), "initialize"));
	fake_client_refuse(first + 1, 404, "", ""); /* of the same session: not once more */
	fake_loop_settle();
	assert_int_equal(heard.answers, 0);
	become_legacy();
	/* Both were sent again, with the new session. */
	unsigned again = 0;
	for (unsigned i = first + 2; i <= last(); i++) {
		if (fake_client_is_open(i) && asks(i, "tools/call")) {
			again++;
			reply(i, "{}");
		}
	}
	assert_int_equal(again, 2);
	assert_int_equal(heard.answers, 2);
	assert_int_equal(heard.answer.err, 0);
}

/* One that gives sessions and knows none of them is asked more and more seldom. */
static void
test_session_never_there(void **state)
{
	refuse(0, 404, "{\"code\":-32601,\"message\":\"\"}");
	for (uint64_t pause_ms = 1000; pause_ms <= 4000; pause_ms *= 2) {
		greet_legacy();
		fake_client_refuse(last(), 404, "", "");
		fake_loop_settle();
		assert_int_equal(state_now(), MCP_UPSTREAM_AWAY);
		unsigned before = fake_client_requests();
		fake_loop_advance(pause_ms - 1);
		assert_int_equal(fake_client_requests(), before);
		fake_loop_advance(1);
	}
	greet_legacy();
	reply(last(), TOOLS("a"));
	assert_int_equal(state_now(), MCP_UPSTREAM_READY);
}

/* The next request comes when so much time has gone by, and not before. */
static void
comes_after(uint64_t ms)
{
	unsigned before = fake_client_requests();

	fake_loop_advance(ms - 1);
	assert_int_equal(fake_client_requests(), before);
	fake_loop_advance(1);
	assert_true(fake_client_requests() > before);
}

/* One that gives its list and has forgotten the session then: what nobody but us asks it for does
 * not make us greet it again and again. */
static void
test_session_does_not_last(void **state)
{
	initialized = INITIALIZED_LOGS;
	mcp_set_log_level(upstreams, "debug");
	refuse(0, 404, "{\"code\":-32601,\"message\":\"\"}");
	for (uint64_t pause_ms = 1000; pause_ms <= 4000; pause_ms *= 2) {
		greet_legacy();
		reply(last(), TOOLS("a"));
		assert_int_equal(state_now(), MCP_UPSTREAM_READY);
		assert_true(asks(last(), "logging/setLevel"));
		fake_client_refuse(last(), 404, "", "");
		fake_loop_settle();
		assert_int_equal(state_now(), MCP_UPSTREAM_AWAY);
		comes_after(pause_ms);
	}
	greet_legacy();
	reply(last(), TOOLS("a"));
	reply(last(), "{}");
	/* Nothing of what was refused is still waited for. */
	for (unsigned i = 0; i < 3; i++)
		call();
	assert_int_equal(heard.answers, 0);
	/* One that has lasted is made anew at once. */
	fake_loop_advance(30000);
	mcp_set_log_level(upstreams, "info");
	fake_client_refuse(last(), 404, "", "");
	fake_loop_settle();
	assert_true(asks(last(), "initialize"));
}

/* Some say 400 of a session that they do not know. What it refuses so a client is told; but then it
 * is asked for what it has given before. */
static void
test_session_gone_otherwise(void **state)
{
	static const char no_session[] = "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":"
					 "-32000,\"message\":\"No valid session\"}}";

	refuse(0, 404, "{\"code\":-32601,\"message\":\"\"}");
	become_legacy();
	fake_loop_advance(30000);
	call();
	fake_client_refuse(last(), 400, no_session, "");
	fake_loop_settle();
	assert_int_equal(heard.answer.code, -32000);
	comes_after(50);
	assert_true(asks(last(), "tools/list"));
	/* It is about that request, then. */
	reply(last(), TOOLS("a"));
	assert_int_equal(state_now(), MCP_UPSTREAM_READY);
	fake_loop_advance(1000);
	call();
	fake_client_refuse(last(), 400, no_session, "");
	comes_after(50);
	fake_client_refuse(last(), 400, no_session, "");
	fake_loop_settle();
	become_legacy();
	call();
	reply(last(), "{}");
	assert_int_equal(heard.answer.err, 0);
	assert_int_equal(heard.answers, 3);
}

/* ---- lists and streams ---- */

static const char changed[] =
    "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n";

/* What could not be read is asked for again, without being told that it has changed. */
static void
test_list_again(void **state)
{
	unsigned listen = become_modern(), before;

	fake_client_stream(listen);
	fake_client_say(listen, changed);
	fake_loop_advance(50);
	refuse(last(), 200, "{\"code\":-32603,\"message\":\"not now\"}");
	assert_string_equal(tool(0), "web__a");
	comes_after(1000);
	assert_true(asks(last(), "tools/list"));
	fake_loop_advance(10000); /* it says nothing */
	comes_after(2000);
	assert_true(asks(last(), "tools/list"));
	reply(last(), TOOLS("b"));
	assert_string_equal(tool(0), "web__b");
	before = fake_client_requests();
	fake_loop_advance(60000);
	assert_int_equal(fake_client_requests(), before);
}

/* The stream on which changes of resources are told ends: soon there is another one, and sooner
 * when somebody wants more. */
static void
test_watch_again(void **state)
{
	become_modern();
	mcp_watch(upstreams, 0, STR("x://a"));
	comes_after(10);
	fake_client_stream(last());
	fake_client_end(last(), CLIENT_OK);
	comes_after(1000);
	assert_true(asks(last(), "subscriptions/listen"));
	fake_client_stream(last());
	fake_client_end(last(), CLIENT_BROKEN);
	mcp_watch(upstreams, 0, STR("x://b"));
	comes_after(10);
	assert_non_null(strstr(fake_client_body(last()), "[\"x://a\",\"x://b\"]"));
	fake_client_stream(last());
	fake_client_end(last(), CLIENT_BROKEN);
	comes_after(4000);
	/* One that has lasted. */
	fake_client_stream(last());
	fake_loop_advance(30000);
	fake_client_end(last(), CLIENT_BROKEN);
	comes_after(1000);
}

static void
test_changes(void **state)
{
	unsigned listen = become_modern(), before = fake_client_requests();

	assert_int_equal(changes, 1);
	fake_client_stream(listen);
	for (int i = 0; i < 5; i++)
		fake_client_say(listen, changed);
	fake_loop_advance(50);
	assert_int_equal(fake_client_requests(), before + 1);
	reply(last(), TOOLS("a"));
	assert_int_equal(changes, 1); /* it was the same */
	fake_client_say(listen, changed);
	fake_loop_advance(50);
	reply(last(), TOOLS("b"));
	assert_int_equal(changes, 2);
	assert_string_equal(tool(0), "web__b");
	/* What cannot be read leaves what was there. */
	fake_client_say(listen, changed);
	fake_loop_advance(50);
	reply(last(), "{\"tools\":7}");
	assert_string_equal(tool(0), "web__b");
	/* The stream ends: another one, and the list anew. */
	fake_client_end(listen, CLIENT_BROKEN);
	fake_loop_advance(1000);
	assert_true(asks(last() - 1, "subscriptions/listen"));
	assert_true(asks(last(), "tools/list"));
	/* Once more, and later; then one that has lasted. */
	reply(last(), TOOLS("b"));
	listen = last() - 1;
	fake_client_stream(listen);
	fake_client_end(listen, CLIENT_BROKEN);
	comes_after(2000);
	reply(last(), TOOLS("b"));
	listen = last() - 1;
	fake_client_stream(listen);
	fake_loop_advance(30000);
	fake_client_end(listen, CLIENT_BROKEN);
	comes_after(1000);
	assert_true(asks(last() - 1, "subscriptions/listen"));
}

static void
test_fallback(void **state)
{
	char text[4096], event[4200];

	fake_client_refuse(0, 404, "", "");
	fake_loop_settle();
	fake_client_refuse(1, 405, "", "");
	fake_loop_settle();
	assert_string_equal(fake_client_method(2), "GET");
	fake_client_stream(2);
	fake_client_say(2, "event: endpoint\ndata: /messages?s=1\n\n");
	fake_loop_settle();
	assert_string_equal(fake_client_url(3), "http://tools/messages?s=1");
	assert_non_null(strstr(fake_client_body(3), "\"protocolVersion\":\"2024-11-05\""));
	format(3, "result", "{\"protocolVersion\":\"2024-11-05\"," CAPABILITIES "}", text);
	fake_client_refuse(3, 202, "", "");
	snprintf(event, sizeof(event), "data: %s\n\n", text);
	fake_client_say(2, event);
	fake_loop_settle();
	fake_client_refuse(4, 202, "", "");
	fake_loop_settle();
	format(5, "result", TOOLS("a"), text);
	fake_client_refuse(5, 202, "", "");
	snprintf(event, sizeof(event), "data: %s\n\n", text);
	fake_client_say(2, event);
	fake_loop_settle();
	assert_int_equal(state_now(), MCP_UPSTREAM_READY);
	call();
	fake_client_refuse(6, 202, "", "");
	assert_int_equal(heard.answers, 0);
	/* The stream is the connection. */
	fake_client_end(2, CLIENT_OK);
	fake_loop_settle();
	assert_int_equal(heard.answer.err, E_GONE);
	assert_int_equal(state_now(), MCP_UPSTREAM_AWAY);
	fake_loop_advance(1000);
	assert_string_equal(fake_client_method(last()), "GET");
}

/* The stream ends before the answer, twice: the rest is asked for, when the server says. */
static void
test_resume(void **state)
{
	char text[4096], event[4200];
	unsigned i;

	refuse(0, 404, "{\"code\":-32601,\"message\":\"\"}");
	become_legacy();
	call();
	i = last();
	fake_client_stream(i);
	fake_client_say(i, "id: e-1\nretry: 300\ndata: \n\n");
	fake_client_end(i, CLIENT_OK);
	fake_loop_advance(299);
	assert_int_equal(last(), i);
	fake_loop_advance(1);
	assert_string_equal(fake_client_method(i + 1), "GET");
	assert_string_equal(fake_client_header(i + 1, "Last-Event-ID"), "e-1");
	assert_string_equal(fake_client_header(i + 1, "Mcp-Session-Id"), "session-1");
	fake_client_stream(i + 1);
	fake_client_say(i + 1, "id: e-2\ndata: \n\ndata: cut");
	fake_client_end(i + 1, CLIENT_BROKEN);
	fake_loop_advance(300);
	assert_string_equal(fake_client_header(i + 2, "Last-Event-ID"), "e-2");
	format(i, "result", "{}", text);
	snprintf(event, sizeof(event), "data: %s\n\n", text);
	fake_client_stream(i + 2);
	fake_client_say(i + 2, event);
	assert_int_equal(heard.answers, 1);
	assert_int_equal(heard.answer.err, 0);
	fake_client_end(i + 2, CLIENT_OK);
	/* One that is given up is not asked for. */
	uint64_t handle = call();
	i = last();
	fake_client_stream(i);
	fake_client_say(i, "id: e-3\ndata: \n\n");
	fake_client_end(i, CLIENT_OK);
	mcp_cancel(upstreams, handle);
	fake_client_refuse(last(), 202, "", "");
	i = last();
	fake_loop_advance(5000);
	assert_int_equal(last(), i);
}

/* The server is another one when the rest is asked for: what it had begun is not done twice. */
static void
test_resume_of_nothing(void **state)
{
	unsigned i, calls = 0;

	refuse(0, 404, "{\"code\":-32601,\"message\":\"\"}");
	become_legacy();
	call();
	i = last();
	fake_client_stream(i);
	fake_client_say(i, "id: e-1\nretry: 300\ndata: \n\n");
	fake_client_end(i, CLIENT_BROKEN);
	comes_after(300);
	assert_string_equal(fake_client_method(i + 1), "GET");
	fake_client_refuse(i + 1, 404, "", "");
	fake_loop_settle();
	assert_int_equal(heard.answers, 1);
	assert_int_equal(heard.answer.err, E_GONE);
	become_legacy();
	for (i = 0; i <= last(); i++)
		calls += asks(i, "tools/call");
	assert_int_equal(calls, 1);
}

/* ---- questions ---- */

static uint64_t asking;
static bool is_refusing;

static void
on_question(void *arg, const struct jsonrpc *m, uint64_t question)
{
	const struct jsonrpc refusal = {.kind = JSONRPC_ERROR, .code = MCP_METHOD_NOT_FOUND};

	heard.questions++;
	heard.question = question;
	if (is_refusing)
		mcp_answer(upstreams, asking, question, &refusal);
}

static void
on_withdrawn(void *arg, uint64_t question)
{
	assert_int_equal(question, heard.question);
	heard.withdrawn++;
}

/* The number of the request, whose stream has begun. */
static unsigned
call_that_asks(void)
{
	static const char *may_ask[] = {"elicitation"};
	static const struct mcp_handlers handlers = {
	    .on_answer = on_answer, .on_question = on_question, .on_withdrawn = on_withdrawn};

	server.may_ask.v = may_ask;
	server.may_ask.n = 1;
	conf.mcp.client_timeout_ms = 300000;
	refuse(0, 404, "{\"code\":-32601,\"message\":\"\"}");
	become_legacy();
	asking = mcp_call(upstreams, 0,
	    &(struct mcp_request){.method = "tools/call", .params = STR("{\"name\":\"a\"}")},
	    &handlers, NULL);
	fake_loop_settle();
	fake_client_stream(last());
	return last();
}

static void
ask(unsigned i)
{
	fake_client_say(i, "data: {\"jsonrpc\":\"2.0\",\"id\":\"q\",\"method\":"
			   "\"elicitation/create\",\"params\":{}}\n\n");
	fake_loop_settle();
}

static void
accept_posted(unsigned i)
{
	for (; i <= last(); i++) {
		if (fake_client_is_open(i) && strcmp(fake_client_method(i), "POST") == 0)
			fake_client_refuse(i, 202, "", "");
	}
	fake_loop_settle();
}

/* Who asks what is refused has not got more time by it. */
static void
test_asks_for_ever(void **state)
{
	unsigned i = call_that_asks();

	is_refusing = true;
	for (unsigned n = 0; n < 5; n++) {
		fake_loop_advance(10000);
		ask(i);
		accept_posted(i + 1);
	}
	assert_int_equal(heard.questions, 5);
	fake_loop_advance(9999);
	assert_int_equal(heard.answers, 0);
	fake_loop_advance(1);
	assert_int_equal(heard.answers, 1);
	assert_int_equal(heard.answer.err, E_TIMEOUT);
	accept_posted(i + 1);
}

/* Its time stands still while the client thinks, who has not for ever either. */
static void
test_asks(void **state)
{
	const struct jsonrpc result = {.kind = JSONRPC_RESULT, .result = STR("{}")};
	unsigned i = call_that_asks();

	is_refusing = false;
	fake_loop_advance(20000);
	ask(i);
	fake_loop_advance(299999);
	mcp_answer(upstreams, asking, heard.question, &result);
	accept_posted(i + 1);
	fake_loop_advance(10000);
	ask(i);
	fake_loop_advance(200000);
	fake_client_say(i, "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\","
			   "\"params\":{\"requestId\":\"other\"}}\n\n");
	assert_int_equal(heard.withdrawn, 0);
	fake_client_say(i, "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\","
			   "\"params\":{\"requestId\":\"q\"}}\n\n");
	assert_int_equal(heard.withdrawn, 1);
	mcp_answer(upstreams, asking, heard.question, &result); /* too late */
	fake_loop_advance(29999);
	assert_int_equal(heard.answers, 0);
	fake_loop_advance(1);
	assert_int_equal(heard.answers, 1);
	assert_int_equal(heard.answer.err, E_TIMEOUT);
	accept_posted(i + 1);
}

/* ---- the start ---- */

static void
on_settled(void *arg)
{
	++*(unsigned *)arg;
}

static void
test_settled_when_listed(void **state)
{
	unsigned told = 0;

	mcp_upstreams_on_settled(upstreams, on_settled, &told);
	reply(0, DISCOVERED);
	assert_false(mcp_upstreams_are_settled(upstreams));
	assert_int_equal(told, 0);
	reply(1, TOOLS("a"));
	assert_true(mcp_upstreams_are_settled(upstreams));
	assert_int_equal(told, 1);
	assert_string_equal(tool(0), "web__a");
	/* It goes and comes: that is nobody's start. */
	call();
	fake_client_end(last(), CLIENT_CONNECT_FAILED);
	fake_loop_advance(1000);
	assert_int_equal(state_now(), MCP_UPSTREAM_CONNECTING);
	assert_true(mcp_upstreams_are_settled(upstreams));
	become_modern();
	assert_int_equal(told, 1);
}

static void
test_settled_when_away(void **state)
{
	unsigned told = 0;

	mcp_upstreams_on_settled(upstreams, on_settled, &told);
	fake_client_refuse(0, 503, "", "");
	fake_loop_settle();
	assert_true(mcp_upstreams_are_settled(upstreams));
	assert_int_equal(told, 1);
	fake_loop_advance(1000);
	become_modern();
	assert_int_equal(told, 1);
}

static void
test_settled_too_late(void **state)
{
	unsigned told = 0;

	mcp_upstreams_on_settled(upstreams, on_settled, &told);
	fake_loop_advance(9000);
	assert_false(mcp_upstreams_are_settled(upstreams));
	mcp_upstreams_on_settled(upstreams, NULL, NULL);
	become_modern();
	assert_int_equal(told, 0);
}

/* One that is not used is not waited for. */
static void
test_settled_without(void **state)
{
	struct conf none = conf;
	struct conf_mcp_server off = server;

	off.enabled = false;
	none.mcp.servers.v = &off;
	struct mcp_upstreams *all = mcp_upstreams_new(&(struct mcp_upstreams_of){
	    .loop = loop, .client = client, .conf = &none, .who = {0, 1}});
	mcp_upstreams_start(all);
	assert_true(mcp_upstreams_are_settled(all));
	mcp_upstreams_free(&all);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_modern),
	    TEST(test_legacy),
	    TEST(test_not_ours_to_know),
	    TEST(test_other_revisions),
	    TEST(test_back_off),
	    TEST(test_silence),
	    TEST(test_call),
	    TEST(test_errors),
	    TEST(test_limits),
	    TEST(test_cancel),
	    TEST(test_cancel_legacy),
	    TEST(test_verdict),
	    TEST(test_session_gone),
	    TEST(test_session_never_there),
	    TEST(test_session_does_not_last),
	    TEST(test_session_gone_otherwise),
	    TEST(test_list_again),
	    TEST(test_watch_again),
	    TEST(test_changes),
	    TEST(test_fallback),
	    TEST(test_resume),
	    TEST(test_resume_of_nothing),
	    TEST(test_asks_for_ever),
	    TEST(test_asks),
	    TEST(test_settled_when_listed),
	    TEST(test_settled_when_away),
	    TEST(test_settled_too_late),
	    TEST(test_settled_without),
	};

	log_open(&(struct log_conf){.level = LOG_ERROR});
	return cmocka_run_group_tests(tests, NULL, NULL);
}
