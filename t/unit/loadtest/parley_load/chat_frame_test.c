/* chat_frame: frames as the server writes them, and texts that look like members. */
#include "t/unit/unit.h"

#include <stdlib.h>

#include "loadtest/parley_load/chat_frame.c"

static const struct {
	const char *frame;
	enum chat_status status;
	uint64_t seq;
} frames[] = {
    {"{\"status\":\"processing\",\"request_id\":\"r\",\"turn_id\":\"turn_x\",\"seq\":1,\"chunk\":{}"
     "}",
	CHAT_PROCESSING, 1},
    {"{\"status\":\"chunk\",\"seq\":12345,\"chunk\":{\"type\":\"text\",\"data\":\"a\"}}",
	CHAT_CHUNK, 12345},
    {"{\"status\":\"tool_call\",\"seq\":2,\"chunk\":{\"tool_call_id\":\"call_1\"}}", CHAT_TOOL_CALL,
	2},
    {"{\"status\":\"restarted\",\"seq\":3,\"chunk\":{}}", CHAT_RESTARTED, 3},
    {"{\"status\":\"complete\",\"seq\":4}", CHAT_COMPLETE, 4},
    {"{\"status\":\"error\",\"chunk\":{\"code\":\"draining\"}}", CHAT_ERROR, 0},
    {"{\"status\":\"joined\"}", CHAT_JOINED, 0},
    {"{\"status\":\"pong\"}", CHAT_PONG, 0},
    {"{\"status\":\"unheard of\",\"seq\":\"x\"}", CHAT_OTHER, 0},
    {"{\"status\":7,\"seq\":99999999999999999999999}", CHAT_OTHER, 0},
    {"hello", CHAT_OTHER, 0},
    {"", CHAT_OTHER, 0},
};

static void
test_status_and_number(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(frames); i++) {
		struct str frame = str_of(frames[i].frame);

		assert_int_equal(chat_frame_status(frame), frames[i].status);
		assert_int_equal(chat_frame_number(frame, "seq"), frames[i].seq);
	}
}

static void
test_texts(void **state)
{
	struct str frame = str_of(frames[0].frame);

	assert_true(str_eq(chat_frame_text(frame, "turn_id"), STR("turn_x")));
	assert_int_equal(chat_frame_text(frame, "session_id").len, 0);
	assert_int_equal(chat_frame_text(frame, "seq").len, 0);
	assert_true(str_eq(chat_frame_text(str_of(frames[5].frame), "code"), STR("draining")));
}

/* A model may say anything. */
static void
test_a_text_is_no_member(void **state)
{
	struct str frame = STR("{\"status\":\"chunk\",\"chunk\":{\"data\":\"\\\"seq\\\":7,"
			       "\\\"code\\\":\\\"x\\\"\"},\"seq\":9}");

	assert_int_equal(chat_frame_number(frame, "seq"), 9);
	assert_int_equal(chat_frame_text(frame, "code").len, 0);
}

/* Cut anywhere it is read without going beyond. */
static void
test_cut(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(frames); i++) {
		for (size_t len = 0; len <= strlen(frames[i].frame); len++) {
			char *copy = malloc(len + 1);

			memcpy(copy, frames[i].frame, len);
			struct str cut = str_sub(copy, len);
			enum chat_status status = chat_frame_status(cut);
			assert_true(status == CHAT_OTHER || status == frames[i].status);
			assert_int_equal(chat_frame_number(cut, "nothing"), 0);
			assert_true(chat_frame_text(cut, "status").len <= len);
			free(copy);
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_status_and_number),
	    cmocka_unit_test(test_texts),
	    cmocka_unit_test(test_a_text_is_no_member),
	    cmocka_unit_test(test_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
