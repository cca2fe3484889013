/*
 * openai_test - requests and streamed answers of the chat-completions dialect,
 * split at every byte.
 */
#include "t/unit/unit.h"

#include "common/check.h"
#include "common/err.h"
#include "worker/provider/openai.h"

struct heard {
	struct buf text, reasoning;
};

static void
on_text(void *arg, struct str s)
{
	assert_true(str_is_utf8(s));
	buf_add_str(&((struct heard *)arg)->text, s);
}

static void
on_reasoning(void *arg, struct str s)
{
	buf_add_str(&((struct heard *)arg)->reasoning, s);
}

#define DELTA(json)                                                                                \
	"data: {\"choices\":[{\"index\":0,\"delta\":" json ",\"finish_reason\":null}]}\n\n"
#define TEXT(text) DELTA("{\"content\":\"" text "\"}")
#define FINISH(word)                                                                               \
	"data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"" word "\"}]}\n\n"
#define DONE "data: [DONE]\n\n"
#define USAGE                                                                                      \
	"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,"           \
	"\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n"

/* The result as one line: text/reasoning/finish/calls/usage, or the error. */
static void
describe(struct openai_answer *a, int err, const struct heard *h, struct buf *out)
{
	struct provider_result r = {0};

	buf_clear(out);
	if (err != 0) {
		buf_printf(out, "%s: %s", err_info(err)->name, openai_answer_message(a));
		return;
	}
	openai_answer_result(a, &r);
	buf_add_str(out, buf_str(&h->text));
	buf_add_char(out, '/');
	buf_add_str(out, buf_str(&h->reasoning));
	buf_printf(out, "/%d/", r.finish);
	for (uint32_t i = 0; i < r.tool_call_count; i++)
		buf_printf(out, "%s:%s(%s)", r.tool_calls[i].id, r.tool_calls[i].name,
		    r.tool_calls[i].arguments);
	if (!r.usage.is_estimated)
		buf_printf(out, "/%ju,%ju,%ju", (uintmax_t)r.usage.input_tokens,
		    (uintmax_t)r.usage.output_tokens, (uintmax_t)r.usage.cached_tokens);
}

static void
run(const char *stream, size_t len, size_t first, size_t step, struct buf *out)
{
	struct heard h = {BUF_INIT, BUF_INIT};
	struct openai_answer *a =
	    openai_answer_new(&(struct openai_handlers){on_text, on_reasoning}, &h);
	int err = openai_answer_feed(a, str_sub(stream, first));

	for (size_t at = first; at < len && err == 0; at += step)
		err =
		    openai_answer_feed(a, str_sub(stream + at, len - at < step ? len - at : step));
	if (err == 0)
		err = openai_answer_end(a);
	assert_int_equal(openai_answer_end(a), err); /* it says the same again */
	describe(a, err, &h, out);
	openai_answer_free(&a);
	assert_null(a);
	buf_fini(&h.text);
	buf_fini(&h.reasoning);
}

static void
expect(const char *stream, const char *result)
{
	size_t len = strlen(stream);
	struct buf out = BUF_INIT;

	for (size_t first = 0; first <= len; first++) {
		run(stream, len, first, len, &out);
		assert_string_equal(out.data, result);
	}
	run(stream, len, 0, 1, &out);
	assert_string_equal(out.data, result);
	buf_fini(&out);
}

static void
test_text(void **state)
{
	expect(DELTA("{\"role\":\"assistant\",\"content\":\"\"}") TEXT("Hel")
		   TEXT("lo \xf0\x9f\x98\x80") FINISH("stop") USAGE DONE,
	    "Hello \xf0\x9f\x98\x80//0//10,5,4");
	expect(TEXT("a") TEXT("\\u00f6\\n\\\"") FINISH("stop") DONE, "a\xc3\xb6\n\"//0/");
	expect(": hi\r\n\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\r\n\r\n" FINISH(
		   "stop"),
	    "a//0/");
	expect(FINISH("stop") DONE, "//0/");
}

static void
test_finish_words(void **state)
{
	expect(TEXT("a") FINISH("length") DONE, "a//1/");
	expect(TEXT("a") FINISH("content_filter") DONE, "a//3/");
	expect(TEXT("a") FINISH("eos") DONE, "a//0/");
	expect(TEXT("a") FINISH("stop") FINISH("stop") DONE, "a//0/");
	expect(
	    TEXT("a") FINISH("error") DONE, "E_PROVIDER: The model provider broke the answer off.");
}

static void
test_reasoning_and_refusal(void **state)
{
	expect(DELTA("{\"reasoning_content\":\"why\"}") DELTA("{\"reasoning\":\" not\"}") TEXT("a")
		   FINISH("stop"),
	    "a/why not/0/");
	expect(DELTA("{\"reasoning_content\":null,\"reasoning\":\"r\",\"content\":null}")
		   FINISH("stop"),
	    "/r/0/");
	expect(DELTA("{\"content\":[{\"type\":\"thinking\",\"thinking\":[{\"type\":\"text\","
		     "\"text\":\"t\"}]},"
		     "{\"type\":\"text\",\"text\":\"x\"}]}") FINISH("stop"),
	    "x/t/0/");
	expect(DELTA("{\"refusal\":\"I will not.\"}") FINISH("stop") DONE, "I will not.//3/");
}

#define CALL(index, rest) DELTA("{\"tool_calls\":[{\"index\":" #index "," rest "}]}")
#define CALL_HEAD(index, id, name)                                                                 \
	CALL(index, "\"id\":\"" id "\",\"type\":\"function\",\"function\":{\"name\":\"" name       \
		    "\",\"arguments\":\"\"}")
#define CALL_ARGS(index, text) CALL(index, "\"function\":{\"arguments\":\"" text "\"}")

static void
test_tool_calls(void **state)
{
	expect(CALL_HEAD(0, "c0", "a") CALL_HEAD(1, "c1", "b") CALL_ARGS(0, "{\\\"x\\\":")
		   CALL_ARGS(1, "{") CALL_ARGS(0, "1}") CALL_ARGS(1, "}") FINISH("tool_calls") DONE,
	    "//2/c0:a({\"x\":1})c1:b({})");
	/* no arguments at all; a finish that says stop; two in one delta */
	expect(CALL_HEAD(0, "c0", "a") FINISH("stop"), "//2/c0:a({})");
	expect(DELTA("{\"tool_calls\":[{\"index\":0,\"id\":\"i\",\"function\":{\"name\":\"a\","
		     "\"arguments\":"
		     "\"{}\"}},{\"index\":1,\"id\":\"i\",\"function\":{\"name\":\"b\","
		     "\"arguments\":\"{}\"}}]}") FINISH("tool_calls"),
	    "//2/i:a({})i:b({})");
	/* an index that is always 0, or none: a new id is a new call */
	expect(CALL_HEAD(0, "c0", "a") CALL_ARGS(0, "1") CALL_HEAD(0, "c1", "b") CALL_ARGS(0, "2")
		   FINISH("tool_calls"),
	    "//2/c0:a(1)c1:b(2)");
	expect(DELTA("{\"tool_calls\":[{\"id\":\"p\",\"function\":{\"name\":\"a\",\"arguments\":{"
		     "\"k\":1}}}]}")
		   DELTA("{\"tool_calls\":[{\"id\":\"q\",\"function\":{\"name\":\"b\"}}]}")
		       FINISH("tool_calls"),
	    "//2/p:a({\"k\":1})q:b({})");
	/* the name and id repeated with every piece */
	expect(CALL_HEAD(0, "c0", "abc") CALL(0, "\"id\":\"c0\",\"function\":{\"name\":\"abc\","
						 "\"arguments\":\"{}\"}") FINISH("tool_calls"),
	    "//2/c0:abc({})");
}

static void
test_broken_tool_calls(void **state)
{
	static const char malformed[] = "E_PROVIDER: The model provider's answer was malformed.";

	expect(CALL_ARGS(0, "{}") FINISH("tool_calls"), malformed); /* no name */
	expect(TEXT("a") FINISH("tool_calls"), malformed);          /* no call */
	expect(DELTA("{\"tool_calls\":[3]}") FINISH("tool_calls"), malformed);
	expect(
	    CALL_HEAD(0, "c0", "a") CALL_ARGS(0, "{") FINISH("length"), "//1/"); /* cut: unusable */
}

static void
test_incomplete(void **state)
{
	static const char ended[] =
	    "E_PROVIDER: The model provider's answer ended before it was complete.";

	expect("", ended);
	expect(TEXT("a"), ended);
	expect(TEXT("a") DONE, ended);
	expect(TEXT("a") USAGE DONE, ended);
	expect(TEXT("a") "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}", ended);
	/* [DONE] missing is fine, what follows it is not looked at */
	expect(TEXT("a") FINISH("stop"), "a//0/");
	expect(TEXT("a") FINISH("stop") DONE TEXT("b") "data: {\n\n", "a//0/");
}

static void
test_malformed(void **state)
{
	static const char malformed[] = "E_PROVIDER: The model provider's answer was malformed.";

	expect(TEXT("a") "data: {\"choices\":[{\"del\n\n" FINISH("stop") DONE, malformed);
	expect(TEXT("a") "data: 3\n\n" FINISH("stop") DONE, malformed);
	expect(TEXT("a") "data: []\n\n" FINISH("stop") DONE, malformed);
	expect(TEXT("a\xff") FINISH("stop") DONE, malformed);
	expect(TEXT("a\xc3") TEXT("\xb6") FINISH("stop") DONE, malformed);
	expect("data: <html>\n\n", malformed);
}

static void
test_odd_but_fine(void **state)
{
	expect("data: {}\n\ndata: {\"choices\":null}\n\ndata: "
	       "{\"choices\":[{\"index\":1,\"delta\":{\"content\":"
	       "\"no\"}}]}\n\ndata: {\"choices\":[{\"delta\":null}]}\n\ndata:\n\n" TEXT("a")
		   FINISH("stop"),
	    "a//0/");
	expect(TEXT("a") "data: {\"error\":null,\"choices\":[],\"usage\":null}\n\n" FINISH("stop"),
	    "a//0/");
	expect(TEXT("a") FINISH("stop") "data: {\"x_groq\":{\"usage\":{\"prompt_tokens\":3,"
					"\"completion_tokens\":2}}}\n\n",
	    "a//0//3,2,0");
}

static void
test_error_events(void **state)
{
	expect(TEXT("a") "data: "
			 "{\"error\":{\"message\":\"over\\nloaded\",\"code\":\"busy\"}}\n\n" FINISH(
			     "stop"),
	    "E_PROVIDER: over loaded (busy)");
	expect("event: error\ndata: {\"error\":\"plain\"}\n\n", "E_PROVIDER: plain");
	expect("data: {\"error\":{\"message\":\"slow down\",\"type\":\"rate_limit_error\"}}\n\n",
	    "E_RATE_LIMITED: slow down");
	expect("data: {\"error\":{\"message\":\"slow down\",\"code\":429}}\n\n",
	    "E_RATE_LIMITED: slow down");
	expect(
	    "data: {\"error\":{\"message\":\"bad key sk-123\",\"code\":\"invalid_api_key\"}}\n\n",
	    "E_PROVIDER: The model provider failed.");
	expect("data: {\"error\":{\"message\":\"bad key sk-123\",\"code\":401}}\n\n",
	    "E_PROVIDER: The model provider failed.");
	expect("data: {\"error\":{}}\n\n", "E_PROVIDER: The model provider failed.");
}

static void
test_limits(void **state)
{
	struct buf stream = BUF_INIT, out = BUF_INIT;
	size_t piece = 1 << 19;
	char *x = xmalloc(OPENAI_EVENT_BYTES_MAX + 1);

	memset(x, 'x', OPENAI_EVENT_BYTES_MAX + 1);
	for (size_t i = 0; i <= OPENAI_ANSWER_BYTES_MAX / piece; i++) {
		buf_add_cstr(&stream, "data: {\"choices\":[{\"delta\":{\"content\":\"");
		buf_add(&stream, x, piece);
		buf_add_cstr(&stream, "\"}}]}\n\n");
	}
	run(stream.data, stream.len, 0, 4096, &out);
	assert_string_equal(out.data, "E_PROVIDER: The model's answer was too large.");
	buf_clear(&stream);
	buf_add_cstr(&stream, "data: ");
	buf_add(&stream, x, OPENAI_EVENT_BYTES_MAX + 1);
	run(stream.data, stream.len, 0, 4096, &out);
	assert_string_equal(out.data, "E_PROVIDER: An event of the model provider was too large.");
	buf_clear(&stream);
	for (int i = 0; i <= OPENAI_TOOL_CALLS_MAX; i++)
		buf_printf(&stream,
		    "data: "
		    "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":%d,\"id\":\"c\"}]}}]}"
		    "\n\n",
		    i);
	run(stream.data, stream.len, 0, 4096, &out);
	assert_string_equal(out.data, "E_PROVIDER: The model provider's answer was malformed.");
	free(x);
	buf_fini(&stream);
	buf_fini(&out);
}

static void
test_estimated_usage(void **state)
{
	struct heard h = {BUF_INIT, BUF_INIT};
	struct openai_answer *a =
	    openai_answer_new(&(struct openai_handlers){on_text, on_reasoning}, &h);
	struct provider_result r = {0};

	assert_int_equal(openai_answer_feed(a, STR(TEXT("12345") FINISH("stop"))), 0);
	assert_false(openai_answer_is_done(a));
	assert_int_equal(openai_answer_feed(a, STR(DONE)), 0);
	assert_true(openai_answer_is_done(a));
	assert_int_equal(openai_answer_end(a), 0);
	openai_answer_result(a, &r);
	assert_true(r.usage.is_estimated);
	assert_int_equal(r.usage.output_tokens, 2);
	openai_answer_free(&a);
	buf_fini(&h.text);
	buf_fini(&h.reasoning);
}

static void
expect_error(const char *body, const char *message)
{
	struct buf out = BUF_INIT;

	buf_add_cstr(&out, "");
	openai_error_message(str_of(body), &out);
	assert_string_equal(out.data, message);
	buf_fini(&out);
}

static void
test_error_bodies(void **state)
{
	expect_error("{\"error\":{\"message\":\"too long\",\"code\":\"context_length_exceeded\"}}",
	    "too long (context_length_exceeded)");
	expect_error("{\"error\":{\"message\":\"m\",\"code\":null}}", "m");
	expect_error("{\"error\":\"plain\"}", "plain");
	expect_error("[{\"error\":{\"message\":\"listed\",\"code\":400}}]", "listed");
	expect_error("{\"message\":\"bare\"}", "bare");
	expect_error("{\"detail\":\"fast\"}", "fast");
	expect_error("<html>", "");
	expect_error("", "");
	expect_error("{\"error\":{\"message\":", "");
}

static void
test_long_error_is_cut_at_a_character(void **state)
{
	struct buf body = BUF_INIT, out = BUF_INIT;

	buf_add_cstr(&body, "{\"error\":\"x");
	for (int i = 0; i < 500; i++)
		buf_add_cstr(&body, "\xc3\xb6");
	buf_add_cstr(&body, "\"}");
	openai_error_message(buf_str(&body), &out);
	assert_true(out.len <= 500 && out.len > 490);
	assert_true(str_is_utf8(buf_str(&out)));
	buf_fini(&body);
	buf_fini(&out);
}

static void
test_request(void **state)
{
	json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", "h\xc3\xb6 \"x\"");
	json_t *tools = json_pack("[{s:s}]", "type", "function"), *none = json_array();
	struct provider_request r = {.messages = messages, .tools = tools};
	struct buf out = BUF_INIT;

	openai_request(&r, "gpt-\"4\"", &out);
	assert_string_equal(out.data,
	    "{\"model\":\"gpt-\\\"4\\\"\",\"stream\":true,\"stream_options\":{\"include_usage\":"
	    "true},"
	    "\"messages\":[{\"role\":\"user\",\"content\":\"h\xc3\xb6 \\\"x\\\"\"}],"
	    "\"tools\":[{\"type\":\"function\"}]}");
	buf_clear(&out);
	r.tools = none;
	openai_request(&r, "m", &out);
	assert_null(strstr(out.data, "tools"));
	r.history =
	    STR("{\"role\":\"user\",\"content\":\"1\"},{\"role\":\"assistant\",\"content\":\"2\"}");
	buf_clear(&out);
	openai_request(&r, "m", &out);
	assert_non_null(
	    strstr(out.data, "\"messages\":[{\"role\":\"user\",\"content\":\"1\"},"
			     "{\"role\":\"assistant\",\"content\":\"2\"},{\"role\":\"user\","));
	json_array_clear(messages);
	buf_clear(&out);
	openai_request(&r, "m", &out);
	assert_non_null(strstr(out.data, "\"content\":\"2\"}]"));
	buf_fini(&out);
	json_decref(messages);
	json_decref(tools);
	json_decref(none);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_text),
	    cmocka_unit_test(test_finish_words),
	    cmocka_unit_test(test_reasoning_and_refusal),
	    cmocka_unit_test(test_tool_calls),
	    cmocka_unit_test(test_broken_tool_calls),
	    cmocka_unit_test(test_incomplete),
	    cmocka_unit_test(test_malformed),
	    cmocka_unit_test(test_odd_but_fine),
	    cmocka_unit_test(test_error_events),
	    cmocka_unit_test(test_limits),
	    cmocka_unit_test(test_estimated_usage),
	    cmocka_unit_test(test_error_bodies),
	    cmocka_unit_test(test_long_error_is_cut_at_a_character),
	    cmocka_unit_test(test_request),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
