/* turn_plain - one answer from its request to its record, and everything that can fail on the way.
 */
#include "t/unit/unit.h"

#include "common/err.h"
#include "t/replay/turn_world.h"

static const char *
error_code(const struct client *c)
{
	const json_t *error = json_object_get(client_last(c, TURN_FAILED), "error");
	const char *code = json_string_value(json_object_get(error, "code"));

	assert_non_null(code);
	return code;
}

static const char *
body_text(size_t index, const char *member)
{
	static char text[512];
	json_t *body = json_loads(fake_store_message(world.store, index)->body_json, 0, NULL);
	const char *s = json_string_value(json_object_get(body, member));

	snprintf(text, sizeof(text), "%s", s != NULL ? s : "(none)");
	json_decref(body);
	return text;
}

static void
test_a_plain_turn(void **state)
{
	struct id turn = world_begin(0, "Hello");
	struct client c;

	client_attach(&c, 0, &turn, 0);
	client_expect(&c, "turn.started");
	assert_string_equal(client_last_text(&c, TURN_STARTED, "turn_id"), turn.s);
	assert_string_equal(client_last_text(&c, TURN_STARTED, "session_id"), world.session.s);
	assert_int_equal(turns_live(world.workers[0].turns), 1);
	fake_provider_say(world.model, "Good ");
	fake_provider_say(world.model, "morn");
	world_run(0);
	fake_provider_say(world.model, "ing");
	world_run(0);
	fake_provider_end(world.model);
	world_run(0);
	/* What came together is one event. */
	client_expect(&c, "turn.started text.delta text.delta usage turn.completed");
	client_expect_text(&c, "Good morning");
	client_expect_seqs(&c, 1);
	assert_int_equal(c.ends, 1);
	assert_int_equal(c.end_err, 0);
	const json_t *done = client_last(&c, TURN_COMPLETED);
	assert_string_equal(json_string_value(json_object_get(done, "finish_reason")), "stop");
	assert_string_equal(
	    json_string_value(json_object_get(json_object_get(done, "message"), "content")),
	    "Good morning");
	assert_int_equal(json_array_size(json_object_get(done, "tool_calls")), 0);
	assert_float_equal(
	    json_number_value(json_object_get(client_last(&c, TURN_USAGE), "cost")), 20e-6, 1e-9);
	const struct store_turn *r = fake_store_turn(world.store, turn.s);
	assert_string_equal(r->state, "completed");
	assert_string_equal(r->text, "Good morning");
	assert_int_equal(r->last_seq, 5);
	assert_int_equal(fake_store_message_count(world.store), 2);
	assert_string_equal(body_text(0, "content"), "Hello");
	assert_string_equal(body_text(1, "content"), "Good morning");
	assert_string_equal(fake_store_message(world.store, 1)->id,
	    json_string_value(json_object_get(json_object_get(done, "message"), "id")));
	assert_int_equal(fake_store_usage(world.store, 0)->cost_micros, 20);
	assert_int_equal(turns_live(world.workers[0].turns), 0);
	client_forget(&c);
}

static void
test_what_the_model_is_given(void **state)
{
	const json_t *m;

	world.session = id_new("sess");
	fake_store_add_session(world.store, world.session.s, "free", "Be kind.",
	    "[{\"type\":\"function\",\"function\":{\"name\":\"clock\"}}]");
	fake_store_add_message(
	    world.store, world.session.s, "user", "{\"role\":\"user\",\"content\":\"One\"}");
	fake_store_add_message(world.store, world.session.s, "assistant",
	    "{\"role\":\"assistant\",\"content\":\"Two\"}");
	world_begin(0, "Three");
	m = fake_provider_messages(world.model);
	assert_int_equal(json_array_size(m), 4);
	assert_string_equal(
	    json_string_value(json_object_get(json_array_get(m, 0), "role")), "system");
	assert_string_equal(
	    json_string_value(json_object_get(json_array_get(m, 0), "content")), "Be kind.");
	assert_string_equal(
	    json_string_value(json_object_get(json_array_get(m, 3), "content")), "Three");
	assert_int_equal(json_array_size(fake_provider_tools(world.model)), 1);
	assert_int_equal(fake_provider_timeout(world.model), 600000);
	fake_provider_end(world.model);
	world_run(0);
	/* No price, no cost. */
	assert_int_equal(fake_store_usage(world.store, 0)->cost_micros, -1);
}

static void
test_tools_of_the_request_take_the_place_of_the_sessions(void **state)
{
	struct request r;

	world.session = id_new("sess");
	fake_store_add_session(world.store, world.session.s, NULL, NULL,
	    "[{\"type\":\"function\",\"function\":{\"name\":\"clock\"}}]");
	request_init(&r, "x");
	r.tools = json_array();
	r.start.tools = r.tools;
	request_send(&r, 0);
	world_run(0);
	assert_int_equal(r.err, 0);
	assert_null(fake_provider_tools(world.model));
	fake_provider_end(world.model);
	world_run(0);
}

static void
test_reasoning_is_told_and_not_kept(void **state)
{
	struct id turn = world_begin(0, "Hello");
	struct client c;

	client_attach(&c, 0, &turn, 1);
	fake_provider_think(world.model, "Hm");
	fake_provider_say(world.model, "Hi");
	fake_provider_think(world.model, "m");
	world_run(0);
	fake_provider_end(world.model);
	world_run(0);
	client_expect(&c, "reasoning.delta text.delta reasoning.delta usage turn.completed");
	client_expect_seqs(&c, 2);
	assert_string_equal(fake_store_turn(world.store, turn.s)->text, "Hi");
	client_forget(&c);
}

static void
test_the_model_fails_before_the_first_word(void **state)
{
	struct id turn = world_begin(0, "Hello");
	struct client c;

	client_attach(&c, 0, &turn, 0);
	fake_provider_fail(world.model, E_PROVIDER_TIMEOUT, "It sleeps.");
	world_run(0);
	client_expect(&c, "turn.started turn.failed");
	assert_string_equal(error_code(&c), "provider_timeout");
	assert_string_equal(fake_store_turn(world.store, turn.s)->state, "failed");
	assert_string_equal(fake_store_turn(world.store, turn.s)->error_code, "provider_timeout");
	assert_string_equal(fake_store_turn(world.store, turn.s)->error_message, "It sleeps.");
	assert_int_equal(fake_store_message_count(world.store), 1);
	client_forget(&c);
}

static void
test_a_broken_answer_is_kept_as_a_part(void **state)
{
	struct id turn = world_begin(0, "Hello");
	struct client c;

	client_attach(&c, 1, &turn, 0);
	fake_provider_say(world.model, "Once upon");
	fake_provider_fail(world.model, E_PROVIDER, NULL);
	world_run(0);
	client_expect(&c, "turn.started text.delta turn.failed");
	assert_string_equal(error_code(&c), "provider_error");
	assert_int_equal(fake_store_message_count(world.store), 2);
	assert_true(fake_store_message(world.store, 1)->is_partial);
	assert_string_equal(body_text(1, "content"), "Once upon");
	assert_string_equal(fake_store_turn(world.store, turn.s)->text, "Once upon");
	client_forget(&c);
}

static void
test_bad_utf8_in_a_reason_is_not_passed_on(void **state)
{
	struct id turn = world_begin(0, "Hello");
	struct client c;

	client_attach(&c, 0, &turn, 0);
	fake_provider_fail(world.model, E_PROVIDER, "\xff\xfe");
	world_run(0);
	client_expect(&c, "turn.started turn.failed");
	client_forget(&c);
}

static void
test_an_answer_without_end_is_cut(void **state)
{
	struct id turn;
	struct client c;

	world.conf.turns.max_answer_bytes = 8;
	turn = world_begin(0, "Hello");
	client_attach(&c, 0, &turn, 0);
	fake_provider_say(world.model, "12345678");
	fake_provider_say(world.model, "9");
	world_run(0);
	client_expect(&c, "turn.started text.delta usage turn.failed");
	assert_int_equal(fake_provider_cancelled(world.model), 1);
	client_forget(&c);
}

static void
test_the_whole_turn_has_a_time_limit(void **state)
{
	struct id turn = world_begin(0, "Hello");
	struct client c;

	client_attach(&c, 0, &turn, 0);
	fake_provider_say(world.model, "Well");
	world_run(599999);
	assert_int_equal(c.ends, 0);
	world_run(1);
	assert_string_equal(error_code(&c), "turn_timeout");
	assert_int_equal(fake_provider_cancelled(world.model), 1);
	assert_true(fake_store_message(world.store, 1)->is_partial);
	client_forget(&c);
}

/* ---- the record fails ---- */

static void
expect_refused(enum fake_verb verb, int err)
{
	struct request r;

	fake_store_fail(world.store, verb, err, 1);
	request_init(&r, "Hello");
	request_send(&r, 0);
	world_run(0);
	assert_int_equal(r.answers, 1);
	assert_int_equal(r.err, err);
	assert_int_equal(turns_live(world.workers[0].turns), 0);
	assert_int_equal(fake_provider_calls(world.model), 0);
}

static void
test_no_record_no_turn(void **state)
{
	expect_refused(FAKE_SESSION_GET, E_STORE_UNAVAILABLE);
	expect_refused(FAKE_BEGIN, E_STORE_UNAVAILABLE);
	expect_refused(FAKE_BEGIN, E_SESSION_CLOSED);
	expect_refused(FAKE_SESSION_GET, E_NOT_FOUND);
}

static void
test_no_history_no_answer(void **state)
{
	struct id turn;
	struct client c;

	fake_store_fail(world.store, FAKE_HISTORY, E_STORE_UNAVAILABLE, 1);
	turn = world_begin(0, "Hello");
	client_attach(&c, 0, &turn, 0);
	client_expect(&c, "turn.started turn.failed");
	assert_string_equal(error_code(&c), "store_unavailable");
	assert_int_equal(fake_provider_calls(world.model), 0);
	client_forget(&c);
}

static void
test_completed_comes_only_after_the_commit(void **state)
{
	struct id turn = world_begin(0, "Hello");
	struct client c;

	client_attach(&c, 0, &turn, 0);
	fake_store_delay(world.store, FAKE_END, 400);
	fake_provider_say(world.model, "Hi");
	fake_provider_end(world.model);
	world_run(399);
	client_expect(&c, "turn.started text.delta usage");
	assert_int_equal(turns_live(world.workers[0].turns), 1);
	world_run(1);
	client_expect(&c, "turn.started text.delta usage turn.completed");
	client_forget(&c);
}

static void
test_a_commit_that_fails_fails_the_turn_and_is_repeated(void **state)
{
	struct id turn = world_begin(0, "Hello");
	struct client c;
	struct request r;

	client_attach(&c, 0, &turn, 0);
	fake_store_fail(world.store, FAKE_END, E_STORE_UNAVAILABLE, 3);
	fake_provider_say(world.model, "Hi");
	fake_provider_end(world.model);
	world_run(0);
	client_expect(&c, "turn.started text.delta usage turn.failed");
	assert_string_equal(error_code(&c), "store_unavailable");
	assert_string_equal(fake_store_turn(world.store, turn.s)->state, "live");
	world_run(1000 + 2000);
	assert_string_equal(fake_store_turn(world.store, turn.s)->state, "live");
	world_run(4000);
	assert_string_equal(fake_store_turn(world.store, turn.s)->state, "failed");
	assert_string_equal(fake_store_turn(world.store, turn.s)->error_code, "store_unavailable");
	assert_int_equal(fake_store_turn(world.store, turn.s)->last_seq, 4);
	assert_true(fake_store_message(world.store, 1)->is_partial);
	assert_int_equal(fake_store_calls(world.store, FAKE_END), 4);
	world_run(100000);
	assert_int_equal(fake_store_calls(world.store, FAKE_END), 4);
	request_init(&r, "Again");
	request_send(&r, 1);
	world_run(0);
	assert_int_equal(r.err, 0);
	client_forget(&c);
}

static void
test_a_commit_whose_answer_was_lost_is_not_undone(void **state)
{
	struct id turn = world_begin(0, "Hello");
	struct client c;

	client_attach(&c, 0, &turn, 0);
	fake_store_lie(world.store, FAKE_END, E_STORE_UNAVAILABLE);
	fake_provider_end(world.model);
	world_run(0);
	assert_string_equal(error_code(&c), "store_unavailable");
	world_run(60000);
	/* The record has it; the repetition was fenced and is not repeated for ever. */
	assert_string_equal(fake_store_turn(world.store, turn.s)->state, "completed");
	assert_int_equal(fake_store_calls(world.store, FAKE_END), 2);
	client_forget(&c);
}

static void
test_a_turn_that_somebody_else_has_ended(void **state)
{
	struct id turn = world_begin(0, "Hello");
	struct client c;

	client_attach(&c, 0, &turn, 0);
	fake_provider_say(world.model, "Hi");
	world_run(0);
	fake_store_fence(world.store, turn.s);
	world_run(1000); /* the next progress finds out */
	client_expect(&c, "turn.started text.delta usage turn.failed");
	assert_string_equal(error_code(&c), "worker_lost");
	assert_int_equal(fake_provider_cancelled(world.model), 1);
	assert_int_equal(fake_store_calls(world.store, FAKE_END), 0);
	client_forget(&c);
}

static void
test_a_fence_found_at_the_end(void **state)
{
	struct id turn = world_begin(0, "Hello");
	struct client c;

	client_attach(&c, 0, &turn, 0);
	fake_store_fence(world.store, turn.s);
	fake_provider_say(world.model, "Hi");
	fake_provider_end(world.model);
	world_run(0);
	assert_string_equal(error_code(&c), "worker_lost");
	assert_int_equal(fake_store_message_count(world.store), 1);
	world_run(100000);
	assert_int_equal(fake_store_calls(world.store, FAKE_END), 1);
	client_forget(&c);
}

static void
test_progress_is_recorded_once_a_second(void **state)
{
	struct id turn = world_begin(0, "Hello");

	for (int i = 0; i < 35; i++) {
		fake_provider_say(world.model, "x");
		world_run(100);
	}
	assert_int_equal(fake_store_calls(world.store, FAKE_PROGRESS), 3);
	assert_int_equal(strlen(fake_store_turn(world.store, turn.s)->text), 30);
	/* Nothing new, nothing written; and a failing write is only late. */
	world_run(10000);
	assert_int_equal(fake_store_calls(world.store, FAKE_PROGRESS), 4);
	world_run(10000);
	assert_int_equal(fake_store_calls(world.store, FAKE_PROGRESS), 4);
	fake_store_fail(world.store, FAKE_PROGRESS, E_STORE_UNAVAILABLE, 1);
	fake_provider_say(world.model, "y");
	world_run(1000);
	fake_provider_say(world.model, "z");
	world_run(1000);
	assert_int_equal(strlen(fake_store_turn(world.store, turn.s)->text), 37);
	fake_provider_end(world.model);
	world_run(0);
	assert_string_equal(fake_store_turn(world.store, turn.s)->state, "completed");
}

static void
test_a_slow_record_gets_one_progress_at_a_time(void **state)
{
	world_begin(0, "Hello");
	fake_store_delay(world.store, FAKE_PROGRESS, 10000);
	for (int i = 0; i < 100; i++) {
		fake_provider_say(world.model, "x");
		world_run(100);
	}
	assert_int_equal(fake_store_calls(world.store, FAKE_PROGRESS), 1);
	fake_provider_end(world.model);
	world_run(0);
	assert_int_equal(turns_live(world.workers[0].turns), 0);
}

static void
test_freed_in_the_middle_of_everything(void **state)
{
	struct request r;
	struct client c;
	struct answer_seen a = {0};
	struct id turn = world_begin(0, "Hello");

	client_attach(&c, 0, &turn, 0);
	fake_store_delay(world.store, FAKE_SESSION_GET, 1000);
	request_init(&r, "Other");
	request_send(&r, 0);
	fake_provider_say(world.model, "x");
	world_ask(&a, 0, &turn, 5000);
	world_kill(0, true);
	world_run(10000);
	assert_int_equal(a.answers, 0);
	assert_int_equal(r.answers, 0);
	assert_int_equal(c.ends, 0);
	client_forget(&c);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_a_plain_turn),
	    TEST(test_what_the_model_is_given),
	    TEST(test_tools_of_the_request_take_the_place_of_the_sessions),
	    TEST(test_reasoning_is_told_and_not_kept),
	    TEST(test_the_model_fails_before_the_first_word),
	    TEST(test_a_broken_answer_is_kept_as_a_part),
	    TEST(test_bad_utf8_in_a_reason_is_not_passed_on),
	    TEST(test_an_answer_without_end_is_cut),
	    TEST(test_the_whole_turn_has_a_time_limit),
	    TEST(test_no_record_no_turn),
	    TEST(test_no_history_no_answer),
	    TEST(test_completed_comes_only_after_the_commit),
	    TEST(test_a_commit_that_fails_fails_the_turn_and_is_repeated),
	    TEST(test_a_commit_whose_answer_was_lost_is_not_undone),
	    TEST(test_a_turn_that_somebody_else_has_ended),
	    TEST(test_a_fence_found_at_the_end),
	    TEST(test_progress_is_recorded_once_a_second),
	    TEST(test_a_slow_record_gets_one_progress_at_a_time),
	    TEST(test_freed_in_the_middle_of_everything),
	};

	return cmocka_run_group_tests_name("turn_plain", tests, NULL, NULL);
}
