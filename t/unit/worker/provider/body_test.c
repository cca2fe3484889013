/* body: what a request says of itself, and the same with another model: nothing else changes. */
#include "t/unit/unit.h"

#include "common/check.h"
#include "common/err.h"
#include "worker/provider/body.h"

static struct body body;
static struct buf model;
static const char *param, *why;

static int
read_text(const char *text)
{
	buf_clear(&model);
	param = why = NULL;
	return body_read(str_of(text), &body, &model, &param, &why);
}

static void
assert_written(const char *text, bool asks_usage, const char *expected)
{
	struct buf out = BUF_INIT;

	assert_int_equal(read_text(text), 0);
	body_write(&body, "m", asks_usage, &out);
	assert_string_equal(out.data, expected);
	buf_fini(&out);
}

static void
test_model(void **state)
{
	assert_written("{\"model\":\"a\"}", true, "{\"model\":\"m\"}");
	assert_written(" {\n\"x\" : [1, 2 ],\t\"model\" :\"\\u0061\" , \"y\":{\"model\":\"z\"} } ",
	    true, " {\n\"x\" : [1, 2 ],\t\"model\" :\"m\" , \"y\":{\"model\":\"z\"} } ");
	assert_string_equal(model.data, "a");
	assert_written("{}", true, "{\"model\":\"m\"}");
	assert_written("{ }", true, "{\"model\":\"m\" }");
	assert_written("{\"a\":1.0e+0}", true, "{\"model\":\"m\",\"a\":1.0e+0}");
	assert_int_equal(model.len, 0);
	assert_written("{\"model\":null}", true, "{\"model\":\"m\"}");
	assert_written("{\"mod\\u0065l\":\"b\"}", true, "{\"mod\\u0065l\":\"m\"}");
	assert_string_equal(model.data, "b");
}

static void
test_quoted_model(void **state)
{
	struct buf out = BUF_INIT;

	assert_int_equal(read_text("{\"model\":\"a\"}"), 0);
	body_write(&body, "a\"b\\", true, &out);
	assert_string_equal(out.data, "{\"model\":\"a\\\"b\\\\\"}");
	buf_fini(&out);
}

static void
test_usage(void **state)
{
	assert_written("{\"stream\":true,\"model\":\"a\"}", true,
	    "{\"stream\":true,\"stream_options\":{\"include_usage\":true},\"model\":\"m\"}");
	assert_true(body.is_streamed && !body.wants_usage);
	assert_written("{\"model\":\"a\",\"stream\":true,\"stream_options\":{}}", true,
	    "{\"model\":\"m\",\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
	assert_written("{\"stream_options\":{\"x\":1},\"model\":\"a\",\"stream\":true}", true,
	    "{\"stream_options\":{\"include_usage\":true,\"x\":1},\"model\":\"m\",\"stream\":"
	    "true}");
	assert_written("{\"stream_options\":null,\"model\":\"a\",\"stream\":true}", true,
	    "{\"stream_options\":{\"include_usage\":true},\"model\":\"m\",\"stream\":true}");
	assert_written(
	    "{\"stream_options\":{\"include_usage\":false },\"model\":\"a\",\"stream\":true}", true,
	    "{\"stream_options\":{\"include_usage\":true },\"model\":\"m\",\"stream\":true}");
	assert_false(body.wants_usage);
	assert_written(
	    "{\"stream_options\":{\"include_usage\":true},\"model\":\"m\",\"stream\":true}", true,
	    "{\"stream_options\":{\"include_usage\":true},\"model\":\"m\",\"stream\":true}");
	assert_true(body.wants_usage);
	/* Left alone: no stream, not asked for, and what only the provider can refuse. */
	assert_written(
	    "{\"model\":\"a\",\"stream\":false}", true, "{\"model\":\"m\",\"stream\":false}");
	assert_written(
	    "{\"model\":\"a\",\"stream\":true}", false, "{\"model\":\"m\",\"stream\":true}");
	assert_written("{\"stream_options\":7,\"model\":\"a\",\"stream\":true}", true,
	    "{\"stream_options\":7,\"model\":\"m\",\"stream\":true}");
}

static void
test_limits(void **state)
{
	assert_int_equal(read_text("{\"max_tokens\":10}"), 0);
	assert_int_equal(body.output_tokens_max, 10);
	assert_int_equal(body.choices, 1);
	assert_int_equal(read_text("{\"max_tokens\":10,\"max_completion_tokens\":20,\"n\":3}"), 0);
	assert_int_equal(body.output_tokens_max, 60);
	assert_int_equal(body.choices, 3);
	assert_int_equal(
	    read_text("{\"max_tokens\":18446744073709551615,\"n\":18446744073709551615}"), 0);
	assert_int_equal(body.output_tokens_max, UINT32_MAX);
	assert_int_equal(read_text("{\"max_tokens\":18446744073709551615}"), 0);
	assert_int_equal(body.output_tokens_max, UINT32_MAX);
	assert_int_equal(read_text("{\"max_tokens\":null,\"n\":0}"), 0);
	assert_int_equal(body.output_tokens_max, 0);
	assert_int_equal(body.choices, 1);
}

static void
test_refused(void **state)
{
	static const struct {
		const char *text, *param;
		int err;
	} cases[] = {
	    {"", NULL, E_INVALID_JSON},
	    {"[]", NULL, E_INVALID_JSON},
	    {"{", NULL, E_INVALID_JSON},
	    {"{\"a\":\"\xff\"}", NULL, E_INVALID_JSON},
	    {"{} x", NULL, E_INVALID_JSON},
	    {"{\"model\":\"a\",\"model\":\"b\"}", "model", E_INVALID_REQUEST},
	    {"{\"model\":\"a\",\"\\u006dodel\":\"b\"}", "model", E_INVALID_REQUEST},
	    {"{\"model\":\"a\",\"Model\":\"b\"}", "model", E_INVALID_REQUEST},
	    {"{\"\\u004dODEL\":\"b\",\"model\":\"a\"}", "model", E_INVALID_REQUEST},
	    {"{\"max_to\xe2\x84\xaa"
	     "en\\u017f\":100}",
		"max_tokens", E_INVALID_REQUEST},
	    {"{\"N\":100}", "n", E_INVALID_REQUEST},
	    {"{\"Stream\":true}", "stream", E_INVALID_REQUEST},
	    {"{\"stream_options\":{\"include_usage\":true,\"Include_Usage\":false}}",
		"stream_options.include_usage", E_INVALID_REQUEST},
	    {"{\"stream\":true,\"stream\":false}", "stream", E_INVALID_REQUEST},
	    {"{\"stream_options\":{},\"stream_options\":{}}", "stream_options", E_INVALID_REQUEST},
	    {"{\"stream_options\":{\"include_usage\":true,\"include_usage\":false}}",
		"stream_options.include_usage", E_INVALID_REQUEST},
	    {"{\"n\":1,\"n\":100}", "n", E_INVALID_REQUEST},
	    {"{\"max_tokens\":1,\"max_tokens\":100}", "max_tokens", E_INVALID_REQUEST},
	    {"{\"max_tokens\":1e6}", "max_tokens", E_INVALID_VALUE},
	    {"{\"max_completion_tokens\":\"100\"}", "max_completion_tokens", E_INVALID_VALUE},
	    {"{\"n\":128.0}", "n", E_INVALID_VALUE},
	    {"{\"n\":18446744073709551616}", "n", E_INVALID_VALUE},
	    {"{\"model\":5}", "model", E_INVALID_VALUE},
	    {"{\"stream\":\"yes\"}", "stream", E_INVALID_VALUE},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		assert_int_equal(read_text(cases[i].text), cases[i].err);
		assert_non_null(why);
		if (cases[i].param == NULL)
			assert_null(param);
		else
			assert_string_equal(param, cases[i].param);
	}
}

static void
test_copy(void **state)
{
	static const char text[] = "{\"a\":1,\"model\":\"x\",\"stream\":true}";
	char copy[sizeof(text)];
	struct body other;
	struct buf out = BUF_INIT;

	assert_int_equal(read_text(text), 0);
	memcpy(copy, text, sizeof(text));
	body_copy(&other, &body, str_of(copy));
	body_write(&other, "m", false, &out);
	assert_string_equal(out.data, "{\"a\":1,\"model\":\"m\",\"stream\":true}");
	assert_ptr_equal(other.marks[BODY_MODEL].p, copy + 15);
	buf_fini(&out);
}

static int
teardown(void **state)
{
	buf_fini(&model);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_model),
	    cmocka_unit_test(test_quoted_model),
	    cmocka_unit_test(test_usage),
	    cmocka_unit_test(test_limits),
	    cmocka_unit_test(test_refused),
	    cmocka_unit_test(test_copy),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
