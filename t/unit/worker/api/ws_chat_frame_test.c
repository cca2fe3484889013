/* ws_chat_frame: each event's frame, word for word. */
#include "worker/api/ws_chat_frame.h"

#include "common/err.h"
#include "t/unit/unit.h"

static const struct chat_frame_of whole = {"r1", "turn_x", "sess_x", "00ff"};
static const struct chat_frame_of plain = {NULL, "turn_x", "sess_x", NULL};

static void
expect(
    const struct chat_frame_of *of, enum turn_event_type type, const char *data, const char *want)
{
	struct turn_event event = {type, 7, str_of(data)};
	struct buf out = BUF_INIT;

	assert_int_equal(chat_frame_of_event(&out, of, &event), want != NULL);
	if (want != NULL)
		assert_string_equal(out.data, want);
	else
		assert_int_equal(out.len, 0);
	buf_fini(&out);
}

#define HEAD(status)                                                                               \
	"{\"status\":\"" status "\",\"request_id\":\"r1\",\"turn_id\":\"turn_x\",\"seq\":7,"

static void
test_text(void **state)
{
	(void)state;
	expect(&whole, TURN_STARTED,
	    "{\"turn_id\":\"turn_x\",\"session_id\":\"sess_x\",\"model\":\"m\"}",
	    HEAD("processing") "\"chunk\":{\"metadata\":{\"processing\":true,\"session_id\":\"sess_"
			       "x\","
			       "\"connection\":\"00ff\"}}}");
	expect(&plain, TURN_STARTED, "{\"turn_id\":\"turn_x\",\"session_id\":\"sess_x\"}",
	    "{\"status\":\"processing\",\"turn_id\":\"turn_x\",\"seq\":7,\"chunk\":{\"metadata\":{"
	    "\"processing\":true,\"session_id\":\"sess_x\"}}}");
	expect(&whole, TURN_TEXT_DELTA,
	    "{\"text\":\"a \\\"b\\\"\\u0000\\u20ac\",\"offset\":3,\"hop\":1}",
	    HEAD(
		"chunk") "\"chunk\":{\"type\":\"text\",\"data\":\"a \\\"b\\\"\\u0000\xe2\x82\xac\","
			 "\"metadata\":{\"type\":\"delta\",\"hop\":1,\"offset\":3}}}");
	expect(&whole, TURN_REASONING_DELTA, "{\"text\":\"why\",\"hop\":0}",
	    HEAD("chunk") "\"chunk\":{\"type\":\"reasoning\",\"data\":\"why\"}}");
	expect(&whole, TURN_KNOWLEDGE, "{\"sources\":[1]}",
	    HEAD("chunk") "\"chunk\":{\"type\":\"knowledge\",\"data\":{\"sources\":[1]}}}");
	expect(&whole, TURN_SNAPSHOT, "{\"seq\":7,\"text\":\"all\",\"tool_calls\":[]}",
	    HEAD(
		"chunk") "\"chunk\":{\"type\":\"snapshot\",\"data\":\"all\",\"metadata\":{\"type\":"
			 "\"snapshot\",\"tool_calls\":[]}}}");
}

static void
test_tools(void **state)
{
	(void)state;
	expect(&whole, TURN_TOOL_CALL,
	    "{\"tool_call_id\":\"call_1\",\"name\":\"f\",\"run_by\":\"client\",\"arguments\":{"
	    "\"a\":1},"
	    "\"claimed_by\":\"00ff\",\"hop\":0}",
	    HEAD(
		"tool_call") "\"chunk\":{\"tool_call_id\":\"call_1\",\"name\":\"f\",\"arguments\":{"
			     "\"a\":1},\"claimed_by\":\"00ff\"}}");
	expect(&whole, TURN_TOOL_CALL,
	    "{\"tool_call_id\":\"call_1\",\"name\":\"f\",\"run_by\":\"server\",\"arguments\":{},"
	    "\"hop\":2}",
	    HEAD(
		"processing") "\"chunk\":{\"type\":\"tool_execution\",\"data\":\"f\",\"metadata\":{"
			      "\"tool_count\":1,\"hop\":2}}}");
	expect(&whole, TURN_TOOL_RESULT, "{\"tool_call_id\":\"call_1\",\"output\":null}",
	    HEAD("chunk") "\"chunk\":{\"type\":\"tool_result\",\"data\":{\"tool_call_id\":\"call_"
			  "1\","
			  "\"output\":null}}}");
}

static void
test_ends(void **state)
{
	(void)state;
	expect(&whole, TURN_RESTARTED, "{}", HEAD("restarted") "\"chunk\":{}}");
	expect(&whole, TURN_USAGE, "{\"input_tokens\":1}", NULL);
	expect(&whole, TURN_COMPLETED,
	    "{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\",\"usage\":{\"input_"
	    "tokens\":1}}",
	    HEAD("complete") "\"chunk\":{},\"finish_reason\":\"stop\",\"usage\":{\"input_tokens\":"
			     "1}}");
	expect(&whole, TURN_FAILED,
	    "{\"error\":{\"message\":\"no\",\"type\":\"t\",\"code\":\"c\"}}",
	    HEAD("error") "\"chunk\":{\"error\":\"no\",\"code\":\"c\"}}");
	expect(&whole, TURN_FAILED,
	    "{\"error\":{\"message\":\"no\",\"type\":\"t\",\"code\":\"c\",\"retry_after\":3}}",
	    HEAD("error") "\"chunk\":{\"error\":\"no\",\"code\":\"c\",\"retry_after\":3}}");
	expect(&whole, TURN_CANCELLED, "{\"usage\":{}}",
	    HEAD("error") "\"chunk\":{\"error\":\"Cancelled.\",\"code\":\"cancelled\"}}");
}

/* Every event but usage has a frame, whatever its data lack. */
static void
test_all_events(void **state)
{
	(void)state;
	for (int type = 0; type < TURN_EVENT_COUNT; type++) {
		struct turn_event event = {(enum turn_event_type)type, 1, STR("{}")};
		struct buf out = BUF_INIT;

		assert_int_equal(chat_frame_of_event(&out, &plain, &event), type != TURN_USAGE);
		buf_fini(&out);
	}
}

static void
test_answer(void **state)
{
	struct turn_event event = {TURN_COMPLETED, 7,
	    STR("{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}")};
	struct buf out = BUF_INIT;

	(void)state;
	assert_true(chat_frame_of_answer(&out, &plain, &event));
	assert_string_equal(out.data,
	    "{\"status\":\"chunk\",\"turn_id\":\"turn_x\",\"seq\":6,\"chunk\":{\"type\":\"text\","
	    "\"data\":\"hi\",\"metadata\":{\"type\":\"full\"}}}");
	buf_clear(&out);
	event.data = STR("{\"message\":{\"content\":\"\"}}");
	assert_false(chat_frame_of_answer(&out, &plain, &event));
	event.data = STR("{}");
	assert_false(chat_frame_of_answer(&out, &plain, &event));
	buf_fini(&out);
}

static void
expect_error(const struct chat_error *e, const char *want)
{
	struct buf out = BUF_INIT;

	chat_frame_of_error(&out, e);
	assert_string_equal(out.data, want);
	buf_fini(&out);
}

static void
test_errors(void **state)
{
	(void)state;
	expect_error(&(struct chat_error){.err = E_INVALID_JSON},
	    "{\"status\":\"error\",\"request_id\":\"unknown\",\"chunk\":{\"error\":"
	    "\"The body is not valid JSON.\",\"code\":\"invalid_json\"}}");
	expect_error(
	    &(struct chat_error){
		.err = E_INVALID_VALUE, .request_id = "r", .param = "text", .message = "m"},
	    "{\"status\":\"error\",\"request_id\":\"r\",\"chunk\":{\"error\":\"m\",\"code\":"
	    "\"invalid_value\",\"param\":\"text\"}}");
	expect_error(
	    &(struct chat_error){.err = E_ALREADY_ANSWERED, .turn_id = "turn_x", .message = "m"},
	    "{\"status\":\"error\",\"request_id\":\"unknown\",\"turn_id\":\"turn_x\",\"chunk\":{"
	    "\"error\":\"m\",\"code\":\"already_answered\",\"same_output\":false}}");
	expect_error(
	    &(struct chat_error){.err = E_RATE_LIMITED, .message = "m", .retry_after_s = 9},
	    "{\"status\":\"error\",\"request_id\":\"unknown\",\"chunk\":{\"error\":\"m\",\"code\":"
	    "\"rate_limited\",\"retry_after\":9}}");
}

static void
test_answers(void **state)
{
	struct buf out = BUF_INIT;

	(void)state;
	chat_frame_pong(&out, NULL);
	assert_string_equal(out.data, "{\"status\":\"pong\"}");
	buf_clear(&out);
	chat_frame_pong(&out, "r");
	assert_string_equal(out.data, "{\"status\":\"pong\",\"request_id\":\"r\"}");
	buf_clear(&out);
	chat_frame_joined(&out, NULL, "sess_x", NULL);
	assert_string_equal(out.data,
	    "{\"status\":\"joined\",\"chunk\":{\"metadata\":{\"session_id\":\"sess_x\"}}}");
	buf_clear(&out);
	chat_frame_joined(&out, "r", "sess_x", "turn_x");
	assert_string_equal(out.data,
	    "{\"status\":\"joined\",\"request_id\":\"r\",\"turn_id\":\"turn_x\","
	    "\"chunk\":{\"metadata\":{\"session_id\":\"sess_x\"}}}");
	buf_fini(&out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_text),
	    cmocka_unit_test(test_tools),
	    cmocka_unit_test(test_ends),
	    cmocka_unit_test(test_all_events),
	    cmocka_unit_test(test_answer),
	    cmocka_unit_test(test_errors),
	    cmocka_unit_test(test_answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
