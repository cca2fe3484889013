/* sampling - what tools ask of models, and how they are answered. */
#include "t/unit/unit.h"

#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "worker/mcp/sampling.h"

static void
expect(const char *params, const char *messages, uint32_t max_tokens)
{
	uint32_t max;
	json_t *read = mcp_sampling_read(str_of(params), &max);

	if (messages == NULL) {
		assert_null(read);
		return;
	}
	assert_non_null(read);
	char *text = json_dumps(read, JSON_COMPACT | JSON_SORT_KEYS);
	assert_string_equal(text, messages);
	assert_int_equal(max, max_tokens);
	free(text);
	json_decref(read);
}

static void
test_messages(void **state)
{
	expect(
	    "{\"messages\":[{\"role\":\"user\",\"content\":{\"type\":\"text\",\"text\":\"hi\"}}],"
	    "\"maxTokens\":5}",
	    "[{\"content\":\"hi\",\"role\":\"user\"}]", 5);
	expect("{\"systemPrompt\":\"be\",\"messages\":[{\"role\":\"assistant\",\"content\":["
	       "{\"type\":\"text\",\"text\":\"a\"},"
	       "{\"type\":\"image\",\"data\":\"AAA=\",\"mimeType\":\"image/png\"}]}]}",
	    "[{\"content\":\"be\",\"role\":\"system\"},{\"content\":[{\"text\":\"a\",\"type\":"
	    "\"text\"},{\"image_url\":{\"url\":\"data:image/png;base64,AAA=\"},\"type\":\"image_"
	    "url\"}],\"role\":\"assistant\"}]",
	    0);
}

static void
test_what_cannot_be_asked(void **state)
{
	static const char *const bad[] = {"", "[]", "{", "{}", "{\"messages\":[]}",
	    "{\"messages\":{}}", "{\"messages\":[1]}",
	    "{\"messages\":[{\"role\":\"system\",\"content\":{\"type\":\"text\",\"text\":\"x\"}}]}",
	    "{\"messages\":[{\"role\":\"user\",\"content\":{\"type\":\"audio\",\"data\":\"x\"}}]}",
	    "{\"messages\":[{\"role\":\"user\",\"content\":{\"type\":\"text\"}}]}",
	    "{\"messages\":[{\"role\":\"user\",\"content\":\"plain\"}]}",
	    "{\"messages\":[{\"role\":\"user\"}]}",
	    "{\"tools\":[{}],\"messages\":[{\"role\":\"user\",\"content\":{\"type\":\"text\","
	    "\"text\":\"x\"}}]}"};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		expect(bad[i], NULL, 0);
}

static void
test_result(void **state)
{
	struct buf b = BUF_INIT;

	mcp_sampling_add_result(&b, STR("a \"cat\"\n"), "gpt", true);
	assert_string_equal(b.data,
	    "{\"role\":\"assistant\",\"content\":{\"type\":\"text\",\"text\":\"a "
	    "\\\"cat\\\"\\n\"},\"model\":\"gpt\",\"stopReason\":\"maxTokens\"}");
	buf_fini(&b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_messages),
	    cmocka_unit_test(test_what_cannot_be_asked),
	    cmocka_unit_test(test_result),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
