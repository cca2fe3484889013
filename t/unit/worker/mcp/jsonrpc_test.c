/* jsonrpc: which texts are messages and of what kind; ids and values as they were written. */
#include "t/unit/unit.h"

#include <stdio.h>

#include "common/check.h"
#include "worker/mcp/jsonrpc.h"
#include "worker/mcp/revision.h"

static int
parse(const char *text, struct jsonrpc *m)
{
	return jsonrpc_parse(str_of(text), m);
}

#define assert_str(s, expected)                                                                    \
	assert_true(str_eq((s), str_of(expected)) || !printf("# got %.*s\n", (int)(s).len, (s).p))

static void
test_kinds(void **state)
{
	struct jsonrpc m;

	assert_int_equal(
	    parse(" {\"jsonrpc\":\"2.0\",\"id\": \"a\\u0062\",\"method\":\"tools\\/call\","
		  "\"params\":{ \"x\" : 1 }} ",
		&m),
	    0);
	assert_int_equal(m.kind, JSONRPC_REQUEST);
	assert_str(m.id, "\"a\\u0062\"");
	assert_string_equal(m.method, "tools/call");
	assert_str(m.params, "{ \"x\" : 1 }");

	assert_int_equal(parse("{\"jsonrpc\":\"2.0\",\"method\":\"ping\"}", &m), 0);
	assert_int_equal(m.kind, JSONRPC_NOTIFICATION);
	assert_int_equal(m.params.len, 0);

	assert_int_equal(parse("{\"id\":-7,\"result\":{},\"jsonrpc\":\"2.0\",\"more\":[]}", &m), 0);
	assert_int_equal(m.kind, JSONRPC_RESULT);
	assert_str(m.id, "-7");
	assert_str(m.result, "{}");

	assert_int_equal(parse("{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32700,"
			       "\"message\":\"no\",\"data\":[1]}}",
			     &m),
	    0);
	assert_int_equal(m.kind, JSONRPC_ERROR);
	assert_int_equal(m.id.len, 0);
	assert_int_equal(m.code, MCP_PARSE_ERROR);
	assert_str(m.message, "\"no\"");
	assert_str(m.data, "[1]");
}

static void
test_no_messages(void **state)
{
	static const char *const broken[] = {"", "{", "nul", "{\"a\":1,}", "\"\xff\"x",
	    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}", "{}{}", "[1"};
	static const char *const wrong[] = {"1", "[]", "{}", "{\"jsonrpc\":\"2.0\"}",
	    "{\"jsonrpc\":\"1.0\",\"method\":\"a\"}",
	    "{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"a\"}",
	    "{\"jsonrpc\":\"2.0\",\"id\":1.5,\"method\":\"a\"}",
	    "{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"a\"}",
	    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\"}",
	    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\\u0000b\"}",
	    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":2}",
	    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\",\"params\":2}",
	    "{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"a\"}",
	    "{\"jsonrpc\":\"2.0\",\"id\":1,\"\\u006dethod\":\"a\",\"method\":\"b\"}",
	    "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":1,\"error\":{\"code\":1,\"message\":\"\"}}",
	    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\",\"result\":1}",
	    "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"message\":\"\"}}",
	    "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":1,\"message\":2}}",
	    "{\"jsonrpc\":\"2.0\",\"result\":1}"};
	struct jsonrpc m;

	for (size_t i = 0; i < ARRAY_LEN(broken); i++)
		assert_int_equal(parse(broken[i], &m), MCP_PARSE_ERROR);
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		if (parse(wrong[i], &m) != MCP_INVALID_REQUEST)
			fail_msg("%s", wrong[i]);
	/* A good id is there all the same, so that the error can name it. */
	assert_int_equal(parse("{\"id\":3,\"method\":\"a\"}", &m), MCP_INVALID_REQUEST);
	assert_str(m.id, "3");
}

static void
test_limits(void **state)
{
	struct jsonrpc m;
	struct buf b = BUF_INIT;

	buf_printf(
	    &b, "{\"jsonrpc\":\"2.0\",\"id\":\"%0*d\",\"method\":\"a\"}", JSONRPC_ID_MAX - 2, 0);
	assert_int_equal(jsonrpc_parse(buf_str(&b), &m), 0);
	buf_clear(&b);
	buf_printf(
	    &b, "{\"jsonrpc\":\"2.0\",\"id\":\"%0*d\",\"method\":\"a\"}", JSONRPC_ID_MAX - 1, 0);
	assert_int_equal(jsonrpc_parse(buf_str(&b), &m), MCP_INVALID_REQUEST);
	buf_clear(&b);
	buf_printf(&b, "{\"jsonrpc\":\"2.0\",\"method\":\"%0*d\"}", JSONRPC_METHOD_MAX, 0);
	assert_int_equal(jsonrpc_parse(buf_str(&b), &m), 0);
	buf_clear(&b);
	buf_printf(&b, "{\"jsonrpc\":\"2.0\",\"method\":\"%0*d\"}", JSONRPC_METHOD_MAX + 1, 0);
	assert_int_equal(jsonrpc_parse(buf_str(&b), &m), MCP_INVALID_REQUEST);
	buf_fini(&b);
}

static void
test_batches(void **state)
{
	struct jsonrpc_batch batch;
	struct buf b = BUF_INIT;
	struct str one;

	assert_true(jsonrpc_is_batch(STR(" [1]")));
	assert_false(jsonrpc_is_batch(STR(" {}")));
	jsonrpc_batch_init(&batch, STR("[{\"a\":1}, 2]"));
	assert_int_equal(jsonrpc_batch_next(&batch, &one), 1);
	assert_str(one, "{\"a\":1}");
	assert_int_equal(jsonrpc_batch_next(&batch, &one), 1);
	assert_int_equal(jsonrpc_batch_next(&batch, &one), 0);
	jsonrpc_batch_init(&batch, STR("[1,"));
	assert_int_equal(jsonrpc_batch_next(&batch, &one), 1);
	assert_int_equal(jsonrpc_batch_next(&batch, &one), -1);
	for (int i = 0; i <= JSONRPC_BATCH_MAX; i++)
		buf_add_cstr(&b, i == 0 ? "[1" : ",1");
	buf_add_char(&b, ']');
	jsonrpc_batch_init(&batch, buf_str(&b));
	for (int i = 0; i < JSONRPC_BATCH_MAX; i++)
		assert_int_equal(jsonrpc_batch_next(&batch, &one), 1);
	assert_int_equal(jsonrpc_batch_next(&batch, &one), -1);
	buf_fini(&b);
}

static void
test_members(void **state)
{
	struct str object = STR("{\"a\":{\"b\":\"x\\n\"},\"n\":-5,\"t\":true,\"b\":1}"), value;
	struct buf b = BUF_INIT;
	int64_t n;
	bool is;

	assert_true(jsonrpc_member(object, "a", &value));
	assert_true(jsonrpc_text_member(value, "b", &b));
	assert_string_equal(b.data, "x\n");
	assert_true(jsonrpc_int_member(object, "n", &n) && n == -5);
	assert_true(jsonrpc_bool_member(object, "t", &is) && is);
	assert_false(jsonrpc_bool_member(object, "n", &is));
	assert_false(jsonrpc_member(object, "c", &value));
	assert_false(jsonrpc_member(STR("[]"), "a", &value));
	buf_clear(&b);
	jsonrpc_without(&b, object, "a");
	assert_string_equal(b.data, "{\"n\":-5,\"t\":true,\"b\":1}");
	buf_clear(&b);
	jsonrpc_without(&b, STR("{ \"a\" : 1 }"), "a");
	assert_string_equal(b.data, "{}");
	assert_false(jsonrpc_int(STR("1e3"), &n) || jsonrpc_int(STR("-"), &n) ||
		     jsonrpc_int(STR("9223372036854775808"), &n));
	buf_fini(&b);
}

/* Who reads the params behind us finds the same in them. */
static void
test_twice(void **state)
{
	static const char *const twice[] = {"{\"a\":1,\"a\":1}", "{\"a\":1,\"\\u0061\":1}",
	    "{\"\\u0061\":1,\"b\":2,\"a\":1}", "{\"a\":1,\"A\":1}", "{\"a\":1,\"\\u0041\":1}",
	    "{\"uris\":1,\"uri\xc5\xbf\":1}", "{\"\":1,\"\":1}"};
	struct buf b = BUF_INIT;
	struct jsonrpc m;
	struct str value;

	for (size_t i = 0; i < ARRAY_LEN(twice); i++) {
		assert_false(jsonrpc_is_clear(str_of(twice[i])));
		buf_clear(&b);
		buf_printf(
		    &b, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"m\",\"params\":%s}", twice[i]);
		assert_int_equal(parse(b.data, &m), MCP_INVALID_REQUEST);
		assert_str(m.id, "1");
	}
	assert_true(jsonrpc_is_clear(STR("{\"a\":{\"b\":1,\"b\":2},\"b\":1,\"ab\":1,\"\":1}")));
	assert_true(jsonrpc_is_clear(STR("{}")) && jsonrpc_is_clear(STR("[1,1]")));
	for (int n = JSONRPC_PARAMS_MAX; n <= JSONRPC_PARAMS_MAX + 1; n++) {
		buf_clear(&b);
		for (int i = 0; i < n; i++)
			buf_printf(&b, "%c\"%d\":1", i == 0 ? '{' : ',', i);
		buf_add_char(&b, '}');
		assert_int_equal(jsonrpc_is_clear(buf_str(&b)), n == JSONRPC_PARAMS_MAX);
	}
	assert_true(jsonrpc_member(STR("{\"\\u0061\":1,\"a\":2}"), "a", &value));
	assert_str(value, "1");
	assert_false(jsonrpc_member(STR("{\"A\":1}"), "a", &value));
	buf_clear(&b);
	jsonrpc_without(
	    &b, STR("{\"a\":1,\"\\u0061\":2,\"A\":3,\"b\\u0062\":4,\"\\u0041\":5}"), "a");
	assert_string_equal(b.data, "{\"b\\u0062\":4}");
	buf_fini(&b);
}

static void
test_format(void **state)
{
	struct buf b = BUF_INIT;

	jsonrpc_add_request(&b, STR("\"x\""), "tools/list", STR_NONE);
	assert_string_equal(b.data, "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"tools/list\"}");
	buf_clear(&b);
	jsonrpc_add_notification(&b, "n", STR("{}"));
	assert_string_equal(b.data, "{\"jsonrpc\":\"2.0\",\"method\":\"n\",\"params\":{}}");
	buf_clear(&b);
	jsonrpc_add_result(&b, STR("1"), STR("{\n \"a\": 1\r\n}"));
	jsonrpc_flatten(&b, 0);
	assert_string_equal(b.data, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{  \"a\": 1  }}");
	buf_clear(&b);
	jsonrpc_add_error(&b, STR_NONE, -32600, STR("a \"b\""), STR("{}"));
	assert_string_equal(b.data, "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32600,"
				    "\"message\":\"a \\\"b\\\"\",\"data\":{}}}");
	buf_fini(&b);
}

static void
test_revisions(void **state)
{
	assert_int_equal(mcp_revision_parse(STR("2026-07-28")), MCP_REVISION_MODERN);
	assert_int_equal(mcp_revision_parse(STR("2025-03-26")), MCP_2025_03_26);
	assert_int_equal(mcp_revision_parse(STR("2025-03-27")), MCP_REVISION_NONE);
	assert_int_equal(mcp_revision_parse(STR_NONE), MCP_REVISION_NONE);
	assert_true(mcp_revision_info(MCP_2026_07_28)->is_modern);
	assert_true(mcp_revision_info(MCP_2025_03_26)->has_batches);
	assert_string_equal(mcp_revision_info(MCP_REVISION_LEGACY)->text, "2025-11-25");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_kinds),
	    cmocka_unit_test(test_no_messages),
	    cmocka_unit_test(test_limits),
	    cmocka_unit_test(test_batches),
	    cmocka_unit_test(test_members),
	    cmocka_unit_test(test_twice),
	    cmocka_unit_test(test_format),
	    cmocka_unit_test(test_revisions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
