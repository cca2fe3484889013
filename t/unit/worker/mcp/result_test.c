/* result: what clients, the model and the record get of a tool's answer. */
#include "t/unit/unit.h"

#include <string.h>

#include "common/check.h"
#include "worker/mcp/result.h"

static struct mcp_result
read_result(const char *json, size_t max)
{
	struct mcp_result r;

	assert_true(mcp_result_read(str_of(json), max, &r));
	return r;
}

static void
test_parts(void **state)
{
	struct mcp_result r = read_result(
	    "{\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]}",
	    1000);

	assert_string_equal(r.text.data, "a\n\nb");
	assert_string_equal(json_string_value(r.output), "a\n\nb");
	assert_false(r.is_error);
	assert_null(r.images);
	mcp_result_fini(&r);

	r = read_result(
	    "{\"content\":[{\"type\":\"image\",\"data\":\"QQ==\",\"mimeType\":\"image/png\"},"
	    "{\"type\":\"audio\",\"data\":\"QQ==\",\"mimeType\":\"audio/wav\"},"
	    "{\"type\":\"resource\",\"resource\":{\"uri\":\"u\",\"text\":\"T\"}},"
	    "{\"type\":\"resource\",\"resource\":{\"uri\":\"u\",\"blob\":\"QQ==\"}},"
	    "{\"type\":\"resource_link\",\"uri\":\"l\"},7],\"isError\":true}",
	    1000);
	assert_string_equal(r.text.data,
	    "[image: image/png]\n\n[audio: audio/wav]\n\nT\n\n[resource: u]\n\n[resource: l]\n\n"
	    "[unknown content]");
	assert_true(r.is_error && json_is_array(r.output));
	assert_string_equal(json_string_value(json_object_get(
				json_object_get(json_array_get(r.images, 0), "image_url"), "url")),
	    "data:image/png;base64,QQ==");
	mcp_result_fini(&r);
}

static void
test_structured(void **state)
{
	struct mcp_result r = read_result("{\"structuredContent\":{\"n\":1},\"content\":[]}", 1000);

	assert_string_equal(r.text.data, "{\"n\":1}");
	assert_true(json_is_object(r.output));
	mcp_result_fini(&r);
	r = read_result("{\"structuredContent\":{\"n\":1}}", 1000);
	assert_string_equal(r.text.data, "{\"n\":1}");
	mcp_result_fini(&r);
}

static void
test_limits(void **state)
{
	struct mcp_result r = read_result("{\"content\":[{\"type\":\"text\",\"text\":"
					  "\"aaaa\xc3\xa4\xc3\xa4\xc3\xa4\"},{\"type\":\"image\","
					  "\"data\":\"QUFBQUFBQUFB\",\"mimeType\":\"image/png\"}]}",
	    5);

	assert_null(r.images);
	assert_string_equal(r.text.data, "aaaa\n[cut: the result was larger than this]");
	assert_true(json_is_string(r.output));
	mcp_result_fini(&r);
}

static void
test_no_results(void **state)
{
	static const char *const bad[] = {"", "[]", "{}", "{\"content\":{}}", "{\"content\":7}"};
	struct mcp_result r;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(mcp_result_read(str_of(bad[i]), 1000, &r));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_parts),
	    cmocka_unit_test(test_structured),
	    cmocka_unit_test(test_limits),
	    cmocka_unit_test(test_no_results),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
