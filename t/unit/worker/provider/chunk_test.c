/* chunk and body_watch: usage, ends and errors of every shape, whole and in pieces. */
#include "t/unit/unit.h"

#include "common/check.h"
#include "worker/provider/body_watch.h"
#include "worker/provider/chunk.h"

static struct chunk chunk;

static bool
read_text(const char *text)
{
	return chunk_read(str_of(text), &chunk);
}

static void
test_delta(void **state)
{
	assert_true(
	    read_text("{\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"abc\","
		      "\"reasoning_content\":\"de\",\"role\":\"assistant\"},\"logprobs\":null,"
		      "\"finish_reason\":null}],\"usage\":null}"));
	assert_true(chunk.has_choices && !chunk.has_finish && !chunk.has_usage && !chunk.has_error);
	assert_int_equal(chunk.output_bytes, 5);
	assert_true(read_text(
	    "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"c1\",\"function\":"
	    "{\"name\":\"fn\",\"arguments\":\"{}\"}}]}},{\"delta\":{\"content\":\"1\"},"
	    "\"finish_reason\":\"stop\"}]}"));
	assert_int_equal(chunk.output_bytes, 7);
	assert_true(chunk.has_finish && !chunk.is_broken_off);
	assert_int_equal(chunk.finished, 1);
	assert_true(
	    read_text("{\"choices\":[{\"finish_reason\":\"stop\",\"index\":2},{\"index\":1},"
		      "{\"index\":9999,\"finish_reason\":\"stop\"}]}"));
	assert_int_equal(chunk.finished, UINT64_C(1) << 63 | 4);
	assert_true(read_text("{\"choices\":[{\"delta\":{},\"finish_reason\":\"error\"}]}"));
	assert_true(chunk.is_broken_off);
	assert_true(read_text("{\"choices\":[{\"delta\":{},\"finish_reason\":\"\"}]}"));
	assert_false(chunk.has_finish);
}

static void
assert_usage(const char *text, uint64_t input, uint64_t output, uint64_t cached)
{
	assert_true(read_text(text));
	assert_true(chunk.has_usage);
	assert_int_equal(chunk.usage.input_tokens, input);
	assert_int_equal(chunk.usage.output_tokens, output);
	assert_int_equal(chunk.usage.cached_tokens, cached);
}

static void
test_usage(void **state)
{
	assert_usage(
	    "{\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2,"
	    "\"total_tokens\":9,\"prompt_tokens_details\":{\"audio\":1,\"cached_tokens\":3}}}",
	    7, 2, 3);
	assert_false(chunk.has_choices);
	assert_usage("{\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"usage\":{"
		     "\"input_tokens\":5,\"output_tokens\":6,\"input_tokens_details\":{\"cached_"
		     "tokens\":9}}}}",
	    5, 6, 5);
	assert_true(str_eq(chunk.type, STR("response.completed")));
	assert_usage(
	    "{\"x_groq\":{\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}}", 1, 2, 0);
	assert_usage("{\"usage\":{\"prompt_tokens\":4,\"prompt_cache_hit_tokens\":2}}", 4, 0, 2);
	assert_usage("{\"usage\":{\"prompt_tokens\":9223372036854775807,"
		     "\"completion_tokens\":18446744073709551615}}",
	    PROVIDER_TOKENS_MAX, PROVIDER_TOKENS_MAX, 0);
	assert_usage("{\"usage\":{\"prompt_tokens\":-4,\"completion_tokens\":1.5}}", 0, 0, 0);
}

static void
test_error(void **state)
{
	assert_true(read_text("{\"error\":{\"message\":\"m\"}}"));
	assert_true(chunk.has_error && str_eq(chunk.error, STR("{\"message\":\"m\"}")));
	assert_true(read_text("{\"error\":null,\"choices\":[]}"));
	assert_false(chunk.has_error);
}

static void
test_malformed(void **state)
{
	static const char *const bad[] = {"", "[]", "null", "{",
	    "{\"choices\":[{\"delta\":{\"content\":", "{\"usage\":{\"prompt_tokens\":}}",
	    "{\"choices\":[{]}", "{}x", "{\"a\":\"\xff\"}",
	    "{\"choices\":[{\"delta\":{\"tool_calls\":[{]}}]}"};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(read_text(bad[i]));
	/* Other types than expected are no fault of the JSON. */
	assert_true(read_text("{\"choices\":7,\"usage\":\"x\",\"response\":[]}"));
	assert_true(read_text("{\"choices\":[7,{\"delta\":null}]}"));
}

/* ---- body_watch ---- */

static void
assert_watched_at(unsigned depth, const char *text, bool is_whole, const char *usage)
{
	size_t len = strlen(text);

	for (size_t step = 1; step <= len; step++) {
		struct body_watch w;
		bool ok = true;

		body_watch_init(&w, depth);
		for (size_t at = 0; at < len && ok; at += step)
			ok = body_watch_feed(
			    &w, str_sub(text + at, len - at < step ? len - at : step));
		assert_int_equal(ok && body_watch_is_whole(&w), is_whole);
		if (is_whole)
			assert_true(str_eq(body_watch_usage(&w), str_of(usage)));
		body_watch_fini(&w);
	}
}

static void
assert_watched(const char *text, bool is_whole, const char *usage)
{
	assert_watched_at(1, text, is_whole, usage);
}

static void
test_watch(void **state)
{
	assert_watched_at(2,
	    "{\"type\":\"x\",\"usage\":1,\"response\":{\"output\":[{\"usage\":2}],"
	    "\"usage\":{\"a\":[3]}},\"n\":{\"usages\":4}}",
	    true, "{\"a\":[3]}");
	assert_watched_at(2, "{\"response\":{\"usage\":{\"a\":1},\"b\":\"\"}}", true, "{\"a\":1}");
	assert_watched_at(2, "{\"list\":[\"usage\",1],\"usage\":5}", true, "");
	assert_watched(
	    "{\"data\":[{\"b64\":\"aGk=\\\"}\",\"usage\":{\"no\":1}}],\"usage\": {\"a\":\"}\"} ,"
	    "\"x\":\"usage\"}",
	    true, "{\"a\":\"}\"}");
	assert_watched(" {\"usage\":null} \n", true, "null");
	assert_watched("{\"usages\":1,\"usag\":{\"usage\":2},\"x\":\"usage\"}", true, "");
	assert_watched("{\"usage\":1,\"usage\":[2]}", true, "[2]");
	assert_watched("{\"a\":\"\\\\\"}", true, "");
	assert_watched("{\"a\":[1,2}", false, "");
	assert_watched("{\"a\":\"}", false, "");
	assert_watched("{}}", false, "");
	assert_watched("{} 1", false, "");
	assert_watched("[]", false, "");
	assert_watched("<html>", false, "");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_delta),
	    cmocka_unit_test(test_usage),
	    cmocka_unit_test(test_error),
	    cmocka_unit_test(test_malformed),
	    cmocka_unit_test(test_watch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
