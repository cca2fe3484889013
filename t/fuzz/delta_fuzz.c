/*
 * delta_fuzz - what delta_read() says it knows is JSON, has nothing in it that the
 * dialect would have looked at, and the text is the one that jansson finds.
 */
#include <jansson.h>

#include "common/check.h"
#include "worker/provider/delta.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool
is_nothing(const json_t *value)
{
	return value == NULL || json_is_null(value);
}

static const json_t *
content_of(const json_t *root)
{
	static const char *const others[] = {
	    "reasoning_content", "reasoning", "refusal", "tool_calls"};
	const json_t *choices = json_object_get(root, "choices");
	const json_t *choice = json_array_get(choices, 0);
	const json_t *delta = json_object_get(choice, "delta");

	check(json_is_object(root) && is_nothing(json_object_get(root, "error")));
	check(is_nothing(json_object_get(root, "usage")));
	check(is_nothing(json_object_get(root, "x_groq")));
	check(json_array_size(choices) <= 1);
	check(json_integer_value(json_object_get(choice, "index")) == 0);
	check(is_nothing(json_object_get(choice, "finish_reason")));
	for (size_t i = 0; i < ARRAY_LEN(others); i++)
		check(is_nothing(json_object_get(delta, others[i])));
	return json_object_get(delta, "content");
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf scratch = BUF_INIT;
	struct str text;

	if (delta_read(str_sub((const char *)data, size), &scratch, &text)) {
		json_t *root = json_loadb((const char *)data, size, 0, NULL);
		const json_t *content = content_of(root);
		struct str want = STR_NONE;

		if (json_is_string(content))
			want = str_sub(json_string_value(content), json_string_length(content));
		check(str_eq(text, want));
		json_decref(root);
	}
	buf_fini(&scratch);
	return 0;
}
