/* turn_end - cancelled from anywhere, left by its user, asked for its state. */
#include "t/unit/unit.h"

#include <stdio.h>

#include "common/err.h"
#include "t/replay/turn_world.h"

static void
expect_state(const struct id *turn, const char *want)
{
	for (unsigned worker = 0; worker < WORLD_WORKERS; worker++) {
		struct answer_seen a;

		if (world.workers[worker].turns == NULL)
			continue;
		world_ask(&a, worker, turn, 0);
		assert_int_equal(a.answers, 1);
		assert_int_equal(a.err, 0);
		assert_string_equal(answer_text(&a, "state"), want);
		assert_string_equal(answer_text(&a, "id"), turn->s);
		json_decref(a.state);
	}
}

static struct id
begin_for_cancel(bool cancels_on_disconnect, unsigned worker)
{
	struct request r;

	request_init(&r, "Go");
	r.start.cancel_on_disconnect = cancels_on_disconnect;
	request_send(&r, worker);
	world_run(0);
	assert_int_equal(r.err, 0);
	return r.started.turn_id;
}

/* ---- cancel in every state, from every worker ---- */

static void
expect_cancelled(const struct id *turn, struct client *c, unsigned from)
{
	struct answer_seen a;

	world_cancel(&a, from, turn);
	assert_int_equal(a.answers, 1);
	assert_int_equal(a.err, 0);
	assert_int_equal(c->ends, 1);
	assert_int_equal(c->heard[c->count - 1].type, TURN_CANCELLED);
	client_expect_seqs(c, 1);
	assert_string_equal(fake_store_turn(world.store, turn->s)->state, "cancelled");
	assert_int_equal(fake_store_turn(world.store, turn->s)->last_seq, c->count);
	assert_int_equal(fake_provider_open(world.model), 0);
	assert_int_equal(turns_live(world.workers[0].turns), 0);
	expect_state(turn, "cancelled");
	world_cancel(&a, from, turn); /* once more: fine */
	assert_int_equal(a.err, 0);
	client_forget(c);
}

static void
test_cancel_while_preparing(void **state)
{
	for (unsigned from = 0; from < WORLD_WORKERS; from++) {
		fake_store_delay(world.store, FAKE_HISTORY, 1000);
		struct id turn = world_begin(0, "Go");
		struct client c;

		client_attach(&c, 0, &turn, 0);
		expect_cancelled(&turn, &c, from);
		world_run(1000); /* the history comes too late */
		assert_int_equal(fake_provider_calls(world.model), 0);
	}
}

static void
test_cancel_before_the_first_word(void **state)
{
	for (unsigned from = 0; from < WORLD_WORKERS; from++) {
		struct id turn = world_begin(0, "Go");
		struct client c;

		client_attach(&c, 1, &turn, 0);
		expect_cancelled(&turn, &c, from);
		assert_int_equal(fake_provider_cancelled(world.model), from + 1);
	}
}

static void
test_cancel_in_the_middle(void **state)
{
	for (unsigned from = 0; from < WORLD_WORKERS; from++) {
		struct id turn = world_begin(0, "Go");
		struct client c;

		client_attach(&c, 2, &turn, 0);
		fake_provider_say(world.model, "Once");
		expect_cancelled(&turn, &c, from);
		size_t last = fake_store_message_count(world.store) - 1;
		assert_true(fake_store_message(world.store, last)->is_partial);
		assert_string_equal(fake_store_turn(world.store, turn.s)->text, "Once");
	}
}

static void
test_cancel_while_tools_run(void **state)
{
	for (unsigned from = 0; from < WORLD_WORKERS; from++) {
		struct id turn = world_begin_with_tools(0, "Go");
		struct answer_seen a;
		struct client c;
		char call[ID_MAX];

		client_attach(&c, 2, &turn, 0);
		fake_provider_say(world.model, "Wait");
		fake_provider_ask_one(world.model, "x", "weather", "{}");
		world_run(0);
		snprintf(
		    call, sizeof(call), "%s", client_last_text(&c, TURN_TOOL_CALL, "tool_call_id"));
		expect_cancelled(&turn, &c, from);
		world_give_result(&a, from, call, "1", NULL);
		assert_int_equal(a.err, E_UNKNOWN_TOOL_CALL);
		/* What was said is kept, the call without a result is not. */
		size_t last = fake_store_message_count(world.store) - 1;
		assert_true(fake_store_message(world.store, last)->is_partial);
		assert_null(strstr(fake_store_message(world.store, last)->body_json, "tool_calls"));
		world_run(60000);
	}
}

static void
test_cancel_while_it_is_saved(void **state)
{
	struct id turn = world_begin(0, "Go");
	struct answer_seen a;
	struct client c;

	client_attach(&c, 1, &turn, 0);
	fake_store_delay(world.store, FAKE_END, 2000);
	fake_provider_say(world.model, "Done");
	fake_provider_end(world.model);
	world_run(0);
	world_cancel(&a, 2, &turn);
	assert_int_equal(a.answers, 0);
	world_run(800); /* it has ended as good as: no need to wait for the record */
	assert_int_equal(a.answers, 1);
	assert_int_equal(a.err, 0);
	world_run(1200);
	assert_non_null(client_last(&c, TURN_COMPLETED));
	expect_state(&turn, "completed");
	client_forget(&c);
}

static void
test_cancel_before_the_record_has_it(void **state)
{
	struct request r;
	struct answer_seen a;
	struct client c;
	struct id turn;

	/* The record has it, its worker does not know yet; somebody finds it there. */
	fake_store_delay(world.store, FAKE_BEGIN, 500);
	request_init(&r, "Go");
	request_send(&r, 0);
	world_run(100);
	turn = fake_store_live_turn(world.store, world.session.s);
	world_cancel(&a, 1, &turn);
	client_attach(&c, 2, &turn, 0);
	assert_int_equal(a.answers, 0);
	world_run(400);
	assert_int_equal(r.err, 0); /* it did begin */
	assert_int_equal(a.answers, 1);
	assert_int_equal(a.err, 0);
	client_expect(&c, "turn.started turn.cancelled");
	assert_int_equal(fake_provider_calls(world.model), 0);
	client_forget(&c);
}

static void
test_cancel_what_is_not_there(void **state)
{
	struct answer_seen a;
	struct id unknown = id_new("turn"), turn = world_begin(0, "Go");

	world_cancel(&a, 1, &unknown);
	assert_int_equal(a.err, E_NOT_FOUND);
	struct id mine = world.session;
	world.session = id_new("sess");
	for (unsigned from = 0; from < WORLD_WORKERS; from++) {
		world_cancel(&a, from, &turn);
		assert_int_equal(a.err, E_NOT_FOUND);
	}
	world.session = mine;
	expect_state(&turn, "live");
	fake_provider_end(world.model);
	world_run(0);
	world_cancel(&a, 1, &turn);
	assert_int_equal(a.err, 0);
	expect_state(&turn, "completed");
}

static void
test_a_cancel_that_the_record_does_not_take(void **state)
{
	struct id turn = world_begin(0, "Go");
	struct answer_seen a;
	struct client c;

	client_attach(&c, 0, &turn, 0);
	fake_store_fail(world.store, FAKE_END, E_STORE_UNAVAILABLE, 2);
	world_cancel(&a, 1, &turn);
	assert_int_equal(a.err, 0);
	client_expect(&c, "turn.started usage turn.cancelled");
	assert_string_equal(fake_store_turn(world.store, turn.s)->state, "live");
	world_run(3000);
	assert_string_equal(fake_store_turn(world.store, turn.s)->state, "cancelled");
	client_forget(&c);
}

/* ---- the user goes away ---- */

static void
test_the_last_one_has_left(void **state)
{
	for (unsigned worker = 0; worker < 2; worker++) {
		struct id turn = begin_for_cancel(true, 0);
		struct client a, b;

		client_attach(&a, worker, &turn, 0);
		client_attach(&b, 2, &turn, 0);
		client_leave(&a, true);
		world_run(6000);
		assert_int_equal(b.ends, 0); /* there is another */
		client_leave(&b, true);
		world_run(4999);
		expect_state(&turn, "live");
		world_run(1);
		expect_state(&turn, "cancelled");
		assert_int_equal(fake_provider_open(world.model), 0);
		client_forget(&a);
		client_forget(&b);
	}
}

static void
test_nobody_ever_came(void **state)
{
	struct id turn = begin_for_cancel(true, 0), other;
	struct client c;

	world_run(4999);
	expect_state(&turn, "live");
	world_run(1);
	expect_state(&turn, "cancelled");
	other = begin_for_cancel(true, 0);
	client_attach_as(&c, 0, &other, 0, 0);
	client_leave(&c, true); /* before it was even found */
	world_run(5000);
	expect_state(&other, "cancelled");
}

static void
test_somebody_comes_back_in_time(void **state)
{
	struct id turn = begin_for_cancel(true, 0);
	struct client c;

	client_attach(&c, 1, &turn, 0);
	client_leave(&c, true);
	client_forget(&c);
	world_run(4000);
	client_attach(&c, 2, &turn, 1);
	world_run(20000);
	expect_state(&turn, "live");
	client_leave(&c, true);
	client_forget(&c);
	world_run(5000);
	expect_state(&turn, "cancelled");
}

static void
test_continue_means_continue(void **state)
{
	struct id turn = begin_for_cancel(false, 0);
	struct client c;

	client_attach(&c, 1, &turn, 0);
	client_leave(&c, true);
	client_forget(&c);
	world_run(60000);
	fake_provider_say(world.model, "Hi");
	fake_provider_end(world.model);
	world_run(0);
	expect_state(&turn, "completed");
}

static void
test_slowness_is_no_disconnect(void **state)
{
	for (unsigned worker = 0; worker < 2; worker++) {
		struct id turn = begin_for_cancel(true, 0);
		struct client slow, other;

		client_attach(&slow, worker, &turn, 0);
		slow.refuse_from = 2;
		client_attach(&other, 2, &turn, 0);
		fake_provider_say(world.model, "Hi");
		world_run(0);
		assert_int_equal(slow.listener, 0);
		client_leave(&other, true);
		world_run(60000); /* the slow one may come back */
		expect_state(&turn, "live");
		client_forget(&slow);
		client_attach(&slow, worker, &turn, 1);
		client_leave(&slow, true);
		world_run(5000);
		expect_state(&turn, "cancelled");
		client_forget(&slow);
		client_forget(&other);
	}
}

static void
test_a_worker_dies_with_its_listeners(void **state)
{
	struct id turn = begin_for_cancel(true, 0);
	struct client c;

	client_attach(&c, 2, &turn, 0);
	world_kill(2, true);
	world_run(4999);
	expect_state(&turn, "live");
	world_run(1);
	expect_state(&turn, "cancelled");
	client_forget(&c);
}

/* ---- the state ---- */

static void
test_the_state_of_a_live_and_an_ended_turn(void **state)
{
	struct answer_seen a, waits[WORLD_WORKERS];
	struct id turn = world_begin(1, "Go");

	fake_provider_say(world.model, "Hi");
	world_run(0);
	expect_state(&turn, "live");
	for (unsigned worker = 0; worker < WORLD_WORKERS; worker++) {
		world_ask(&a, worker, &turn, 0);
		assert_string_equal(answer_text(&a, "text"), "Hi");
		assert_string_equal(answer_text(&a, "model"), "default");
		json_decref(a.state);
		world_ask(&waits[worker], worker, &turn, 30000);
		assert_int_equal(waits[worker].answers, 0);
	}
	world_run(10000);
	fake_provider_end(world.model);
	world_run(0);
	for (unsigned worker = 0; worker < WORLD_WORKERS; worker++) {
		assert_int_equal(waits[worker].answers, 1);
		assert_string_equal(answer_text(&waits[worker], "state"), "completed");
	}
	world_run(400000); /* only the record has it now: it says the same */
	for (unsigned worker = 0; worker < WORLD_WORKERS; worker++) {
		world_ask(&a, worker, &turn, 0);
		json_object_del(a.state, "ended_at");
		json_object_del(waits[worker].state, "ended_at");
		assert_true(json_equal(a.state, waits[worker].state));
		json_decref(a.state);
		json_decref(waits[worker].state);
	}
}

static void
test_a_wait_that_takes_too_long(void **state)
{
	struct id turn = world_begin(0, "Go");

	for (unsigned worker = 0; worker < 2; worker++) {
		struct answer_seen a;

		world_ask(&a, worker, &turn, 30000);
		world_run(29999);
		assert_int_equal(a.answers, 0);
		world_run(1);
		assert_int_equal(a.answers, 1);
		assert_string_equal(answer_text(&a, "state"), "live");
		json_decref(a.state);
	}
}

static void
test_waiting_while_the_owner_dies(void **state)
{
	struct id turn = world_begin(0, "Go");
	struct answer_seen a;

	world_ask(&a, 1, &turn, 30000);
	world_kill(0, true);
	world_run(1000);
	assert_int_equal(a.answers, 1);
	assert_string_equal(answer_text(&a, "state"), "failed");
	assert_string_equal(
	    json_string_value(json_object_get(json_object_get(a.state, "error"), "code")),
	    "worker_lost");
	json_decref(a.state);
}

static void
test_an_owner_that_does_not_answer_questions(void **state)
{
	struct id turn = world_begin(0, "Go");
	struct answer_seen a;

	fake_backplane_lose(BACKPLANE_TURN_STATE, 1);
	world_ask(&a, 1, &turn, 0);
	world_run(1000);
	assert_int_equal(a.err, E_OWNER_UNAVAILABLE);
	fake_backplane_lose(BACKPLANE_TURN_CANCEL, 1);
	world_cancel(&a, 1, &turn);
	world_run(2000);
	assert_int_equal(a.err, E_OWNER_UNAVAILABLE);
	expect_state(&turn, "live");
}

static void
test_an_answer_that_is_lost_is_asked_for_again(void **state)
{
	struct id turn = world_begin(0, "Go");
	struct answer_seen a;

	fake_backplane_lose(BACKPLANE_TURN_STATE, 1);
	world_ask(&a, 1, &turn, 5000);
	world_run(5999);
	assert_int_equal(a.answers, 0);
	world_run(2);
	assert_int_equal(a.answers, 1);
	assert_string_equal(answer_text(&a, "state"), "live");
	json_decref(a.state);
	fake_backplane_lose(BACKPLANE_TURN_STATE, 2);
	world_ask(&a, 1, &turn, 5000);
	world_run(7001);
	assert_int_equal(a.err, E_OWNER_UNAVAILABLE);
}

static void
test_questions_without_the_record(void **state)
{
	struct answer_seen a;
	struct id turn = id_new("turn");

	fake_store_fail(world.store, FAKE_GET, E_STORE_UNAVAILABLE, 1);
	world_ask(&a, 0, &turn, 0);
	assert_int_equal(a.err, E_STORE_UNAVAILABLE);
	world_ask(&a, 0, &turn, 0);
	assert_int_equal(a.err, E_NOT_FOUND);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_cancel_while_preparing),
	    TEST(test_cancel_before_the_first_word),
	    TEST(test_cancel_in_the_middle),
	    TEST(test_cancel_while_tools_run),
	    TEST(test_cancel_while_it_is_saved),
	    TEST(test_cancel_before_the_record_has_it),
	    TEST(test_cancel_what_is_not_there),
	    TEST(test_a_cancel_that_the_record_does_not_take),
	    TEST(test_the_last_one_has_left),
	    TEST(test_nobody_ever_came),
	    TEST(test_somebody_comes_back_in_time),
	    TEST(test_continue_means_continue),
	    TEST(test_slowness_is_no_disconnect),
	    TEST(test_a_worker_dies_with_its_listeners),
	    TEST(test_the_state_of_a_live_and_an_ended_turn),
	    TEST(test_a_wait_that_takes_too_long),
	    TEST(test_waiting_while_the_owner_dies),
	    TEST(test_an_owner_that_does_not_answer_questions),
	    TEST(test_an_answer_that_is_lost_is_asked_for_again),
	    TEST(test_questions_without_the_record),
	};

	return cmocka_run_group_tests_name("turn_end", tests, NULL, NULL);
}
