/* call - our ids, the provider's, and the one answer that counts. */
#include "t/unit/unit.h"

#include "common/err.h"
#include "worker/tool/call.h"

static struct tool_calls *calls;
static struct id session;

static int
setup(void **state)
{
	calls = tool_calls_new();
	session = id_new("sess");
	return 0;
}

static int
teardown(void **state)
{
	tool_calls_free(&calls); /* checks that nothing is left */
	assert_null(calls);
	return 0;
}

static struct tool_call *
make(const char *wire_id, const char *arguments)
{
	struct tool_call_asked asked = {.session_id = &session,
	    .turn = 7,
	    .wire_id = wire_id,
	    .name = "weather",
	    .arguments = arguments};
	struct tool_call *c = tool_call_new(calls, &asked);

	c->is_told = true;
	return c;
}

static int
answer(struct tool_call *c, const char *output, const char *error, bool *same)
{
	json_t *v = output != NULL ? json_loads(output, JSON_DECODE_ANY, NULL) : NULL;
	int err = tool_call_answer(c, v, error, same);

	json_decref(v);
	return err;
}

static void
test_only_its_own_session_finds_it(void **state)
{
	struct tool_call *c = make("abc", "{}");
	struct id id = c->id, other = id_new("sess"), unknown = id_new("call");

	assert_ptr_equal(tool_call_find(calls, &session, &id), c);
	assert_null(tool_call_find(calls, &other, &id));
	assert_null(tool_call_find(calls, &session, &unknown));
	c->is_told = false; /* nobody can know its id */
	assert_null(tool_call_find(calls, &session, &id));
	tool_call_free(calls, &c);
	assert_null(c);
	assert_null(tool_call_find(calls, &session, &id));
}

static void
test_arguments(void **state)
{
	static const struct {
		const char *text;
		bool is_good;
	} cases[] = {{"{}", true}, {"", true}, {" {\"a\":[1,2]} ", true}, {"[]", false},
	    {"7", false}, {"null", false}, {"{", false}, {"{\"a\":1}x", false},
	    {"{\"a\":1,\"a\":2}", false}, {"\"{}\"", false}, {"{\"[[{\":\"\\\"[{\"}", true}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct tool_call *c = make("x", cases[i].text);

		assert_int_equal(c->arguments != NULL, cases[i].is_good);
		tool_call_free(calls, &c);
	}
}

static void
test_deep_arguments(void **state)
{
	for (size_t depth = 1; depth <= 3000; depth += depth < 300 ? 1 : 500) {
		char text[3000 * 6 + 3002], *at = text;

		for (size_t i = 0; i < depth; i++)
			at = stpcpy(at, "{\"a\":");
		*at++ = '1';
		memset(at, '}', depth);
		at[depth] = '\0';
		struct tool_call *c = make("x", text);
		assert_int_equal(c->arguments != NULL, depth <= 256);
		tool_call_free(calls, &c);
	}
}

static void
test_the_providers_id(void **state)
{
	struct tool_call *a = make("abc", "{}"), *b = make("", "{}");

	assert_string_equal(a->wire_id, "abc");
	assert_string_equal(b->wire_id, b->id.s);
	tool_call_free(calls, &a);
	tool_call_free(calls, &b);
}

static void
test_the_same_answer_again(void **state)
{
	struct tool_call *c = make("abc", "{}");
	bool same = false;

	assert_int_equal(answer(c, "{\"a\":1,\"b\":[2]}", NULL, &same), 0);
	assert_int_equal(c->state, TOOL_ANSWERED);
	assert_string_equal(c->content, "{\"a\":1,\"b\":[2]}");
	assert_int_equal(answer(c, "{\"b\":[2],\"a\":1}", NULL, &same), E_ALREADY_ANSWERED);
	assert_true(same);
	assert_int_equal(answer(c, "{\"b\":[3],\"a\":1}", NULL, &same), E_ALREADY_ANSWERED);
	assert_false(same);
	assert_int_equal(answer(c, NULL, "x", &same), E_ALREADY_ANSWERED);
	assert_false(same);
	tool_call_free(calls, &c);
}

static void
test_an_error_is_not_the_output_that_looks_like_it(void **state)
{
	struct tool_call *c = make("abc", "{}");
	bool same = true;

	assert_int_equal(answer(c, NULL, "no \"city\"", &same), 0);
	assert_true(c->is_error);
	assert_string_equal(c->content, "{\"error\":\"no \\\"city\\\"\"}");
	assert_int_equal(
	    answer(c, "{\"error\":\"no \\\"city\\\"\"}", NULL, &same), E_ALREADY_ANSWERED);
	assert_false(same);
	assert_int_equal(answer(c, NULL, "no \"city\"", &same), E_ALREADY_ANSWERED);
	assert_true(same);
	tool_call_free(calls, &c);
}

static void
test_any_json_is_an_output(void **state)
{
	static const char *const outputs[][2] = {{"null", "null"}, {"true", "true"}, {"\"\"", ""},
	    {"\"a b\"", "a b"}, {"1.5", "1.5"}, {"[]", "[]"}};

	for (size_t i = 0; i < sizeof(outputs) / sizeof(outputs[0]); i++) {
		struct tool_call *c = make("abc", "{}");
		bool same;

		assert_int_equal(answer(c, outputs[i][0], NULL, &same), 0);
		assert_string_equal(c->content, outputs[i][1]);
		assert_int_equal(answer(c, outputs[i][0], NULL, &same), E_ALREADY_ANSWERED);
		assert_true(same);
		tool_call_free(calls, &c);
	}
}

static void
test_too_late(void **state)
{
	struct tool_call *c = make("abc", "{}");
	bool same = true;

	tool_call_fail(c, "late");
	assert_string_equal(c->content, "{\"error\":\"late\"}");
	assert_int_equal(answer(c, NULL, "late", &same), E_ALREADY_ANSWERED);
	assert_false(same); /* that was ours, not the client's */
	tool_call_free(calls, &c);
}

static void
test_described(void **state)
{
	struct tool_call *c = make("abc", "{\"a\":1}");
	json_t *v = tool_call_describe(c);

	assert_string_equal(json_string_value(json_object_get(v, "tool_call_id")), c->id.s);
	assert_string_equal(json_string_value(json_object_get(v, "name")), "weather");
	assert_string_equal(json_string_value(json_object_get(v, "run_by")), "client");
	assert_int_equal(
	    json_integer_value(json_object_get(json_object_get(v, "arguments"), "a")), 1);
	json_decref(v);
	tool_call_free(calls, &c);
}

static void
test_which_tools_there_are(void **state)
{
	json_t *tools =
	    json_loads("[{\"type\":\"function\",\"function\":{\"name\":\"a\"}},"
		       "7,{},{\"function\":{\"name\":7}},{\"function\":{\"name\":\"b\"}}]",
		0, NULL);

	assert_true(tool_is_listed(tools, "a"));
	assert_true(tool_is_listed(tools, "b"));
	assert_false(tool_is_listed(tools, "c"));
	assert_false(tool_is_listed(tools, ""));
	assert_false(tool_is_listed(NULL, "a"));
	json_decref(tools);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_only_its_own_session_finds_it),
	    TEST(test_arguments),
	    TEST(test_deep_arguments),
	    TEST(test_the_providers_id),
	    TEST(test_the_same_answer_again),
	    TEST(test_an_error_is_not_the_output_that_looks_like_it),
	    TEST(test_any_json_is_an_output),
	    TEST(test_too_late),
	    TEST(test_described),
	    TEST(test_which_tools_there_are),
	};

	return cmocka_run_group_tests_name("worker/tool/call", tests, NULL, NULL);
}
