/* passages - what a knowledge base may answer, well and badly. */
#include "t/unit/unit.h"

#include "common/buf.h"
#include "worker/knowledge/knowledge.h"

static json_t *sources;
static struct buf prompt;

static bool
read_text(const char *text, uint32_t top_k, size_t max)
{
	json_decref(sources);
	sources = NULL;
	buf_clear(&prompt);
	return knowledge_read(str_of(text), top_k, max, &sources, &prompt);
}

static int
teardown(void **state)
{
	json_decref(sources);
	sources = NULL;
	buf_fini(&prompt);
	return 0;
}

static void
passages_become_sources_and_a_text(void **state)
{
	assert_true(read_text(
	    "{\"results\":[{\"text\":\"Sky is blue.\",\"source\":\"a.md\",\"title\":\"Sky\","
	    "\"url\":\"http://x/a\",\"score\":0.5,\"secret\":1},{\"text\":\"Sea\"}]}",
	    5, 4096));
	assert_int_equal(json_array_size(sources), 2);
	const json_t *first = json_array_get(sources, 0);
	assert_int_equal(json_integer_value(json_object_get(first, "number")), 1);
	assert_string_equal(json_string_value(json_object_get(first, "source")), "a.md");
	assert_string_equal(json_string_value(json_object_get(first, "url")), "http://x/a");
	assert_null(json_object_get(first, "secret"));
	assert_null(json_object_get(first, "text"));
	assert_non_null(strstr(prompt.data, "\n\n[1] Sky, a.md\nSky is blue."));
	assert_non_null(strstr(prompt.data, "\n\n[2] \nSea"));
}

static void
no_more_than_asked_for_and_no_more_than_fits(void **state)
{
	const char *three =
	    "{\"results\":[{\"text\":\"one\"},{\"text\":\"two\"},{\"text\":\"three\"}]}";

	assert_true(read_text(three, 2, 4096));
	assert_int_equal(json_array_size(sources), 2);
	assert_null(strstr(prompt.data, "three"));
	assert_true(read_text(three, 3, 10));
	assert_int_equal(json_array_size(sources), 0);
	assert_int_equal(prompt.len, 0);
	for (size_t max = 0; max < 600; max++) {
		assert_true(read_text(three, 3, max));
		assert_true(prompt.len <= max);
	}
}

static void
nothing_found_is_no_error_and_nonsense_is(void **state)
{
	static const char *const bad[] = {
	    "", "{", "[]", "{\"results\":{}}", "{\"results\":[}", "null", "{\"result\":[]}"};
	static const char *const empty[] = {"{\"results\":[]}", "{\"results\":[1,null,{},\"x\"]}",
	    "{\"results\":[{\"text\":5}]}", "{\"results\":[{\"text\":\"\"}]}"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_false(read_text(bad[i], 5, 4096));
		assert_null(sources);
	}
	for (size_t i = 0; i < sizeof(empty) / sizeof(empty[0]); i++) {
		assert_true(read_text(empty[i], 5, 4096));
		assert_int_equal(json_array_size(sources), 0);
		assert_int_equal(prompt.len, 0);
	}
}

#define T(name) cmocka_unit_test_teardown(name, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    T(passages_become_sources_and_a_text),
	    T(no_more_than_asked_for_and_no_more_than_fits),
	    T(nothing_found_is_no_error_and_nonsense_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
