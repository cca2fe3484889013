/* delta: the texts it knows, the many it does not, and no part of a text is one. */
#include "t/unit/unit.h"

#include <jansson.h>
#include <stdlib.h>

#include "common/check.h"
#include "worker/provider/delta.h"

static const struct {
	const char *json, *content;
} known[] = {
    {"{\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}", "Hi"},
    {"{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
     "\"model\":\"m\",\"system_fingerprint\":null,\"choices\":[{\"index\":0,\"delta\":"
     "{\"content\":\" there\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}",
	" there"},
    {" {\"choices\" : [ {\"delta\" :\t{\"content\": \"a\", \"role\": \"assistant\"} } ] } ", "a"},
    {"{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}}]}", ""},
    {"{\"choices\":[{\"delta\":{\"content\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\xc3\xa4\"}}]}",
	"\"\\/\b\f\n\r\t\xc3\xa4"},
    {"{\"choices\":[{\"delta\":{}}]}", ""},
    {"{}", ""},
    {"{\"comment\":\"alive\",\"is\":true,\"not\":false,\"n\":0}", ""},
};

static const char *const unknown[] = {
    "",
    "[]",
    "null",
    "{} {}",
    "{\"choices\":[]}",
    "{\"choices\":[{\"delta\":{\"content\":\"\\u00e4\"}}]}",
    "{\"choices\":[{\"delta\":{\"content\":\"\\x\"}}]}",
    "{\"choices\":[{\"delta\":{\"content\":\"\xff\"}}]}",
    "{\"choices\":[{\"delta\":{\"content\":\"a\xff\\n\"}}]}",
    "{\"choices\":[{\"delta\":{\"content\":\"a\nb\"}}]}",
    "{\"choices\":[{\"delta\":{\"content\":[]}}]}",
    "{\"choices\":[{\"delta\":{\"content\":\"a\",\"content\":\"b\"}}]}",
    "{\"choices\":[{\"delta\":{\"content\":\"a\"},\"delta\":{}}]}",
    "{\"choices\":[{\"delta\":{\"content\":\"a\"}},{\"delta\":{\"content\":\"b\"}}]}",
    "{\"choices\":[{\"index\":1,\"delta\":{\"content\":\"a\"}}]}",
    "{\"choices\":[{\"index\":00,\"delta\":{\"content\":\"a\"}}]}",
    "{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}",
    "{\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}",
    "{\"choices\":[{\"delta\":{\"refusal\":\"no\"}}]}",
    "{\"choices\":[{\"delta\":{\"tool_calls\":[]}}]}",
    "{\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":{}}",
    "{\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"x_groq\":{}}",
    "{\"error\":\"a\"}",
    "{\"created\":12.5}",
    "{\"created\":012}",
    "{\"created\":1234567890123456}",
    "{\"a\":1,}",
    "{\"a\":nul}",
    "{\"\\u0063hoices\":1}",
};

static void
test_known(void **state)
{
	struct buf scratch = BUF_INIT;
	struct str content;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		assert_true(delta_read(str_of(known[i].json), &scratch, &content));
		assert_true(str_eq(content, str_of(known[i].content)));
		json_t *root = json_loads(known[i].json, 0, NULL);
		assert_true(json_is_object(root));
		json_decref(root);
	}
	buf_fini(&scratch);
}

static void
test_unknown(void **state)
{
	struct buf scratch = BUF_INIT;
	struct str content;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(unknown); i++)
		assert_false(delta_read(str_of(unknown[i]), &scratch, &content));
	assert_false(delta_read(str_sub("{}\0", 3), &scratch, &content));
	buf_fini(&scratch);
}

/* The piece is in memory of its own size: a byte too far is seen by the sanitizer. */
static void
test_every_cut(void **state)
{
	struct buf scratch = BUF_INIT;
	struct str content;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		size_t whole = str_trim(str_of(known[i].json)).len;

		for (size_t n = 1; n < whole; n++) {
			char *piece = xmalloc(n);

			memcpy(piece, known[i].json, n);
			assert_false(delta_read(str_sub(piece, n), &scratch, &content));
			free(piece);
		}
	}
	buf_fini(&scratch);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_known),
	    cmocka_unit_test(test_unknown),
	    cmocka_unit_test(test_every_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
