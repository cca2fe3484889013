/* anthropic: requests there, answers back, wherever the bytes were split. */
#include "t/unit/unit.h"

#include <jansson.h>

#include "common/check.h"
#include "worker/provider/anthropic.h"
#include "worker/provider/openai.h"

/* ---- the request ---- */

static void
assert_request(const char *openai, const char *expected)
{
	struct buf out = BUF_INIT;
	const char *why = NULL;

	assert_true(anthropic_request(str_of(openai), &out, &why));
	json_t *is = json_loads(out.data, 0, NULL), *should = json_loads(expected, 0, NULL);
	assert_non_null(should);
	if (!json_equal(is, should))
		assert_string_equal(out.data, expected);
	json_decref(is);
	json_decref(should);
	buf_fini(&out);
}

static void
test_request(void **state)
{
	assert_request(
	    "{\"model\":\"m\",\"stream\":true,\"stream_options\":{\"include_usage\":true},"
	    "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}",
	    "{\"model\":\"m\",\"stream\":true,\"max_tokens\":4096,\"messages\":[{\"role\":\"user\","
	    "\"content\":[{\"type\":\"text\",\"text\":\"hi\"}]}]}");
	/* Two system messages, an empty text, an answer that is to be continued. */
	assert_request(
	    "{\"model\":\"m\",\"max_tokens\":5,\"messages\":[{\"role\":\"system\",\"content\":"
	    "\"a\"},"
	    "{\"role\":\"developer\",\"content\":[{\"type\":\"text\",\"text\":\"b\"}]},"
	    "{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"assistant\",\"content\":\"\"},"
	    "{\"role\":\"user\",\"content\":\"y\"},{\"role\":\"assistant\",\"content\":\"so "
	    "\\n\"}]}",
	    "{\"model\":\"m\",\"max_tokens\":5,\"system\":[{\"type\":\"text\",\"text\":\"a\"},"
	    "{\"type\":\"text\",\"text\":\"b\"}],\"messages\":[{\"role\":\"user\",\"content\":[{"
	    "\"type\":"
	    "\"text\",\"text\":\"x\"},{\"type\":\"text\",\"text\":\"y\"}]},{\"role\":\"assistant\","
	    "\"content\":[{\"type\":\"text\",\"text\":\"so\"}]}]}");
	/* Arguments that are no JSON; a choice by name; a tool without parameters. */
	assert_request(
	    "{\"model\":\"m\",\"max_tokens\":5,\"tools\":[{\"type\":\"function\",\"function\":{"
	    "\"name\":"
	    "\"f\"}}],\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"f\"}},"
	    "\"messages\":["
	    "{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":"
	    "\"https://x/"
	    "y\"}}]},{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"c\",\"function\":{"
	    "\"name\":\"f\",\"arguments\":\"{\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"c\","
	    "\"content\":\"r\"}]}",
	    "{\"model\":\"m\",\"max_tokens\":5,\"tools\":[{\"name\":\"f\",\"input_schema\":{"
	    "\"type\":"
	    "\"object\",\"properties\":{}}}],\"tool_choice\":{\"type\":\"tool\",\"name\":\"f\"},"
	    "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"source\":{"
	    "\"type\":"
	    "\"url\",\"url\":\"https://x/y\"}}]},{\"role\":\"assistant\",\"content\":[{\"type\":"
	    "\"tool_use\",\"id\":\"c\",\"name\":\"f\",\"input\":{}}]},{\"role\":\"user\","
	    "\"content\":[{"
	    "\"type\":\"tool_result\",\"tool_use_id\":\"c\",\"content\":[{\"type\":\"text\","
	    "\"text\":"
	    "\"r\"}]}]}]}");
}

/* What was thought goes back before what was said, whole or in the pieces of a stream. */
static void
test_thinking_goes_back(void **state)
{
	assert_request(
	    "{\"model\":\"m\",\"max_tokens\":5,\"stop\":[\"A\",\"B\"],\"messages\":[{\"role\":"
	    "\"user\",\"content\":\"x\"},{\"role\":\"assistant\",\"content\":\"so\","
	    "\"reasoning_content\":\"hm, ah\",\"thinking_blocks\":[{\"type\":\"thinking\","
	    "\"thinking\":\"hm\"},{\"type\":\"thinking\",\"thinking\":\", ah\"},{\"type\":"
	    "\"thinking\",\"signature\":\"s1\"},{\"type\":\"redacted_thinking\",\"data\":\"d\"},"
	    "{\"type\":\"thinking\",\"thinking\":\"\\u00fc\",\"signature\":\"s2\"},"
	    "{\"type\":\"thinking\",\"thinking\":\"unsigned\"}]},{\"role\":\"user\","
	    "\"content\":\"y\"}]}",
	    "{\"model\":\"m\",\"max_tokens\":5,\"stop_sequences\":[\"A\",\"B\"],\"messages\":["
	    "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]},"
	    "{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":"
	    "\"hm, ah\",\"signature\":\"s1\"},{\"type\":\"redacted_thinking\",\"data\":\"d\"},"
	    "{\"type\":\"thinking\",\"thinking\":\"\\u00fc\",\"signature\":\"s2\"},"
	    "{\"type\":\"text\",\"text\":\"so\"}]},"
	    "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"y\"}]}]}");
}

static void
test_tool_choice(void **state)
{
	static const struct {
		const char *ours, *theirs;
	} choices[] = {
	    {"\"tool_choice\":\"none\",\"parallel_tool_calls\":false",
		",\"tool_choice\":{\"type\":\"none\"}"},
	    {"\"tool_choice\":\"auto\"", ""},
	    {"\"parallel_tool_calls\":false",
		",\"tool_choice\":{\"type\":\"auto\",\"disable_parallel_tool_use\":true}"},
	    {"\"tool_choice\":\"required\",\"parallel_tool_calls\":true",
		",\"tool_choice\":{\"type\":\"any\"}"},
	    {"\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"f\"}},"
	     "\"parallel_tool_calls\":false",
		",\"tool_choice\":{\"type\":\"tool\",\"name\":\"f\","
		"\"disable_parallel_tool_use\":true}"},
	};

	for (size_t i = 0; i < ARRAY_LEN(choices); i++) {
		struct buf ours = BUF_INIT, theirs = BUF_INIT;

		buf_printf(&ours,
		    "{\"model\":\"m\",\"max_tokens\":5,\"tools\":[{\"type\":\"function\","
		    "\"function\":{\"name\":\"f\",\"parameters\":{}}}],%s,\"messages\":[]}",
		    choices[i].ours);
		buf_printf(&theirs,
		    "{\"model\":\"m\",\"max_tokens\":5,\"tools\":[{\"name\":\"f\","
		    "\"input_schema\":{}}],\"messages\":[]%s}",
		    choices[i].theirs);
		assert_request(ours.data, theirs.data);
		buf_fini(&ours);
		buf_fini(&theirs);
	}
}

static void
test_refused(void **state)
{
	static const char *const bad[] = {"", "[]", "{\"n\":2,\"messages\":[]}",
	    "{\"response_format\":{\"type\":\"json_schema\"}}",
	    "{\"messages\":[{\"role\":\"nobody\",\"content\":\"x\"}]}",
	    "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"file\"}]}]}",
	    "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":"
	    "{\"url\":\"file:///etc/passwd\"}}]}]}"};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct buf out = BUF_INIT;
		const char *why = NULL;

		assert_false(anthropic_request(str_of(bad[i]), &out, &why));
		assert_non_null(why);
		assert_int_equal(out.len, 0);
	}
}

/* ---- a stream ---- */

static const char stream[] =
    "event: message_start\ndata: "
    "{\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":"
    "\"message\",\"role\":\"assistant\",\"content\":[],\"model\":\"claude\",\"usage\":{"
    "\"input_tokens\":25,\"cache_read_input_tokens\":10,\"cache_creation_input_tokens\":5,"
    "\"output_tokens\":1}}}\n\n"
    "event: ping\ndata: {\"type\": \"ping\"}\n\n"
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,"
    "\"content_block\":{\"type\":\"thinking\",\"thinking\":\"\"}}\n\n"
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{"
    "\"type\":\"thinking_delta\",\"thinking\":\"hm\"}}\n\n"
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{"
    "\"type\":\"signature_delta\",\"signature\":\"EqQB\"}}\n\n"
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":1,"
    "\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n"
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{"
    "\"type\":\"text_delta\",\"text\":\"Gr\\u00fc\\u00dfe \\\"x\\\"\"}}\n\n"
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":1}\n\n"
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":2,"
    "\"content_block\":{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"look\",\"input\":{}}}"
    "\n\n"
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":2,\"delta\":{"
    "\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"at\\\":\"}}\n\n"
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":3,"
    "\"content_block\":{\"type\":\"tool_use\",\"id\":\"toolu_2\",\"name\":\"go\",\"input\":{}}}\n\n"
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":2,\"delta\":{"
    "\"type\":\"input_json_delta\",\"partial_json\":\"1}\"}}\n\n"
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":"
    "\"tool_use\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":15}}\n\n"
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

static void
on_text(void *arg, struct str text)
{
	buf_add_str(arg, text);
	buf_add_char(arg, '|');
}

static void
test_stream_at_every_split(void **state)
{
	for (size_t step = 1; step < sizeof(stream); step += step < 64 ? 1 : 97) {
		struct translation *t = anthropic_begin(true);
		struct buf ours = BUF_INIT, said = BUF_INIT;
		struct openai_answer *a =
		    openai_answer_new(&(struct openai_handlers){on_text, on_text}, &said);
		struct provider_result r = {0};

		for (size_t at = 0; at < sizeof(stream) - 1; at += step) {
			size_t left = sizeof(stream) - 1 - at;

			assert_true(anthropic_feed(
			    t, str_sub(stream + at, left < step ? left : step), &ours));
		}
		assert_true(anthropic_finish(t, &ours));
		assert_int_equal(openai_answer_feed(a, buf_str(&ours)), 0);
		assert_true(openai_answer_is_done(a));
		assert_int_equal(openai_answer_end(a), 0);
		openai_answer_result(a, &r);
		assert_string_equal(said.data, "hm|Gr\xc3\xbc\xc3\x9f"
					       "e \"x\"|");
		assert_int_equal(r.finish, PROVIDER_FINISH_TOOL_CALLS);
		assert_int_equal(r.tool_call_count, 2);
		assert_string_equal(r.tool_calls[0].id, "toolu_1");
		assert_string_equal(r.tool_calls[0].arguments, "{\"at\":1}");
		assert_string_equal(r.tool_calls[1].name, "go");
		assert_int_equal(r.usage.input_tokens, 40);
		assert_int_equal(r.usage.cached_tokens, 10);
		assert_int_equal(r.usage.output_tokens, 15);
		openai_answer_free(&a);
		anthropic_end(&t);
		buf_fini(&ours);
		buf_fini(&said);
	}
}

static void
assert_stream(const char *theirs, const char *ours)
{
	struct translation *t = anthropic_begin(true);
	struct buf out = BUF_INIT;

	assert_true(anthropic_feed(t, str_of(theirs), &out));
	assert_non_null(out.data != NULL ? strstr(out.data, ours) : NULL);
	anthropic_end(&t);
	buf_fini(&out);
}

static void
test_thinking_is_signed(void **state)
{
	assert_stream("data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
		      "\"thinking_delta\",\"thinking\":\"h\\\"m\"}}\n\n",
	    "\"delta\":{\"reasoning_content\":\"h\\\"m\",\"thinking_blocks\":[{\"type\":"
	    "\"thinking\",\"thinking\":\"h\\\"m\"}]},\"finish_reason\":null");
	assert_stream("data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
		      "\"signature_delta\",\"signature\":\"EqQB\"}}\n\n",
	    "\"delta\":{\"thinking_blocks\":[{\"type\":\"thinking\",\"signature\":\"EqQB\"}]}");
	assert_stream("data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{"
		      "\"type\":\"redacted_thinking\",\"data\":\"xyz\"}}\n\n",
	    "\"delta\":{\"thinking_blocks\":[{\"type\":\"redacted_thinking\",\"data\":\"xyz\"}]}");
}

/* Of a tool without parameters an empty piece comes, or none. */
static void
test_a_call_without_arguments(void **state)
{
	assert_stream(
	    "data: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":"
	    "\"tool_use\",\"id\":\"a\",\"name\":\"f\",\"input\":{}}}\n\n"
	    "data: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":"
	    "\"input_json_delta\",\"partial_json\":\"\"}}\n\n"
	    "data: {\"type\":\"content_block_stop\",\"index\":1}\n\n",
	    "{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{}\"}}]}");
}

/* Any beginning of a stream has no end. */
static void
test_cut(void **state)
{
	for (size_t len = 0; len < sizeof(stream) - 200; len += 13) {
		struct translation *t = anthropic_begin(true);
		struct buf ours = BUF_INIT;

		assert_true(anthropic_feed(t, str_sub(stream, len), &ours));
		assert_true(anthropic_finish(t, &ours));
		assert_null(ours.data != NULL ? strstr(ours.data, "[DONE]") : NULL);
		assert_null(ours.data != NULL ? strstr(ours.data, "\"finish_reason\":\"") : NULL);
		anthropic_end(&t);
		buf_fini(&ours);
	}
}

static void
test_error_and_malformed(void **state)
{
	struct translation *t = anthropic_begin(true);
	struct buf ours = BUF_INIT;

	assert_true(anthropic_feed(t,
	    STR("event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\","
		"\"message\":\"Overloaded\"}}\n\n"),
	    &ours));
	assert_string_equal(ours.data, "data: {\"error\":{\"message\":\"Overloaded\",\"type\":"
				       "\"overloaded_error\",\"code\":\"overloaded_error\","
				       "\"param\":null}}\n\n");
	assert_false(anthropic_feed(t, STR("data: {\"type\":\n\n"), &ours));
	anthropic_end(&t);
	buf_fini(&ours);
}

/* ---- a whole answer ---- */

static void
test_whole(void **state)
{
	struct translation *t = anthropic_begin(false);
	struct buf ours = BUF_INIT;

	assert_true(anthropic_feed(t,
	    STR("{\"id\":\"msg_1\",\"type\":\"message\",\"model\":\"claude\",\"stop_reason\":"),
	    &ours));
	assert_true(anthropic_feed(t,
	    STR("\"max_tokens\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"hm\","
		"\"signature\":\"s\"},{\"type\":\"redacted_thinking\",\"data\":\"d\"},"
		"{\"type\":\"text\",\"text\":\"Hi\"},{\"type\":\"tool_"
		"use\","
		"\"id\":\"a\",\"name\":\"f\",\"input\":{\"x\":[1]}}],\"usage\":{\"input_tokens\":3,"
		"\"cache_read_input_tokens\":10,\"cache_creation_input_tokens\":5,"
		"\"output_tokens\":4}}"),
	    &ours));
	assert_int_equal(ours.len, 0);
	assert_true(anthropic_finish(t, &ours));
	json_t *answer = json_loads(ours.data, 0, NULL);
	json_t *choice = json_array_get(json_object_get(answer, "choices"), 0);
	json_t *message = json_object_get(choice, "message");
	json_t *call = json_array_get(json_object_get(message, "tool_calls"), 0);
	assert_string_equal(json_string_value(json_object_get(message, "content")), "Hi");
	assert_string_equal(
	    json_string_value(json_object_get(json_object_get(call, "function"), "arguments")),
	    "{\"x\":[1]}");
	assert_string_equal(json_string_value(json_object_get(choice, "finish_reason")), "length");
	assert_int_equal(
	    json_integer_value(json_object_get(json_object_get(answer, "usage"), "total_tokens")),
	    22);
	assert_int_equal(
	    json_integer_value(json_object_get(
		json_object_get(json_object_get(answer, "usage"), "prompt_tokens_details"),
		"cached_tokens")),
	    10);
	assert_string_equal(json_string_value(json_object_get(message, "reasoning_content")), "hm");
	const json_t *thoughts = json_object_get(message, "thinking_blocks");
	assert_int_equal(json_array_size(thoughts), 2);
	assert_string_equal(
	    json_string_value(json_object_get(json_array_get(thoughts, 0), "signature")), "s");
	json_decref(answer);
	anthropic_end(&t);
	buf_clear(&ours);
	t = anthropic_begin(false);
	assert_true(anthropic_feed(
	    t, STR("{\"content\":[{\"type\":\"tool_use\"}],\"stop_reason\":\"x\"}"), &ours));
	assert_false(anthropic_finish(t, &ours));
	anthropic_end(&t);
	buf_fini(&ours);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_request),
	    cmocka_unit_test(test_thinking_goes_back),
	    cmocka_unit_test(test_tool_choice),
	    cmocka_unit_test(test_refused),
	    cmocka_unit_test(test_stream_at_every_split),
	    cmocka_unit_test(test_thinking_is_signed),
	    cmocka_unit_test(test_a_call_without_arguments),
	    cmocka_unit_test(test_cut),
	    cmocka_unit_test(test_error_and_malformed),
	    cmocka_unit_test(test_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
