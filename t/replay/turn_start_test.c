/* turn_start - requests that are repeated, refused or wait their turn; and turns that nobody runs
 * any more. */
#include "t/unit/unit.h"

#include <stdio.h>

#include "common/err.h"
#include "t/replay/turn_world.h"

static void
send_with_id(struct request *r, unsigned worker, const char *text, const char *request_id)
{
	request_init(r, text);
	r->start.request_id = request_id;
	request_send(r, worker);
	world_run(0);
}

static void
send_queued(struct request *r, unsigned worker, const char *text)
{
	request_init(r, text);
	r->start.queue = true;
	request_send(r, worker);
	world_run(1); /* a millisecond between two that come */
}

static void
end_live(void)
{
	fake_provider_end(world.model);
	world_run(0);
}

static void
test_the_same_request_again_is_the_same_turn(void **state)
{
	struct request first, again;
	struct client c;

	send_with_id(&first, 0, "Hello", "r1");
	assert_int_equal(first.err, 0);
	assert_false(first.started.is_replay);
	for (unsigned worker = 0; worker < WORLD_WORKERS; worker++) { /* while it is live */
		send_with_id(&again, worker, "Hello", "r1");
		assert_int_equal(again.err, 0);
		assert_true(again.started.is_replay);
		assert_string_equal(again.started.turn_id.s, first.started.turn_id.s);
	}
	fake_provider_say(world.model, "Hi");
	end_live();
	for (unsigned worker = 0; worker < WORLD_WORKERS; worker++) { /* and after */
		send_with_id(&again, worker, "Hello", "r1");
		assert_true(again.started.is_replay);
		client_attach(&c, worker, &again.started.turn_id, 0);
		client_expect(&c, "turn.started text.delta usage turn.completed");
		assert_int_equal(c.ends, 1);
		client_forget(&c);
	}
	assert_int_equal(fake_provider_calls(world.model), 1);
	assert_int_equal(turns_live(world.workers[1].turns), 0);
}

static void
test_another_input_under_the_same_id(void **state)
{
	struct request first, other;

	send_with_id(&first, 0, "Hello", "r1");
	send_with_id(&other, 1, "Hallo", "r1");
	assert_int_equal(other.err, E_REQUEST_ID_REUSED);
	end_live();
	send_with_id(&other, 0, "Hallo", "r1");
	assert_int_equal(other.err, E_REQUEST_ID_REUSED);
}

static void
test_one_live_turn(void **state)
{
	struct request r;

	world_begin(0, "Hello");
	for (unsigned worker = 0; worker < WORLD_WORKERS; worker++) {
		send_with_id(&r, worker, "More", NULL);
		assert_int_equal(r.err, E_TURN_IN_PROGRESS);
	}
	end_live();
	world_begin(2, "Now");
	end_live();
}

static void
test_unknown_models_and_closed_sessions(void **state)
{
	struct request r;

	request_init(&r, "Hello");
	r.start.model = "gpt-17";
	request_send(&r, 0);
	world_run(0);
	assert_int_equal(r.err, E_INVALID_VALUE);
	assert_int_equal(fake_store_calls(world.store, FAKE_SESSION_GET), 0);
	fake_store_set_status(world.store, world.session.s, "closed");
	send_with_id(&r, 0, "Hello", NULL);
	assert_int_equal(r.err, E_SESSION_CLOSED);
	world.session = id_new("sess");
	send_with_id(&r, 0, "Hello", NULL);
	assert_int_equal(r.err, E_NOT_FOUND);
	world.session = id_new("sess");
	fake_store_add_session(world.store, world.session.s, "gone", NULL, NULL);
	send_with_id(&r, 0, "Hello", NULL);
	assert_int_equal(r.err, E_INVALID_VALUE);
}

/* Whoever came first is next, on whichever worker it waits. */
static void
test_the_queue_keeps_its_order(void **state)
{
	static const unsigned at[] = {2, 0, 1, 2, 0};
	struct request waiting[5];

	world_begin(1, "first");
	for (unsigned i = 0; i < 5; i++) {
		char text[16];

		snprintf(text, sizeof(text), "queued %u", i);
		send_queued(&waiting[i], at[i], text);
		assert_int_equal(waiting[i].answers, 0);
	}
	for (unsigned i = 0; i < 5; i++) {
		end_live();
		world_run(500);
		for (unsigned k = 0; k < 5; k++)
			assert_int_equal(waiting[k].answers, k <= i);
		assert_int_equal(waiting[i].err, 0);
		assert_false(waiting[i].started.is_replay);
	}
	end_live();
	assert_int_equal(fake_provider_calls(world.model), 6);
}

static void
test_the_next_one_does_not_wait_for_a_clock(void **state)
{
	struct request r;

	world_begin(1, "first");
	send_queued(&r, 2, "second");
	end_live();
	assert_int_equal(r.answers, 1);
	assert_int_equal(r.err, 0);
	end_live();
}

static void
test_the_queue_has_an_end(void **state)
{
	struct request waiting[3];

	world.conf.turns.max_waiting = 2;
	world.conf.turns.total_timeout_ms = 20000;
	world_begin(0, "first");
	world_run(10);
	send_queued(&waiting[0], 0, "a");
	send_queued(&waiting[1], 1, "b");
	send_queued(&waiting[2], 2, "c");
	assert_int_equal(waiting[2].err, E_TURN_IN_PROGRESS);
	assert_int_equal(waiting[2].answers, 1);
	assert_int_equal(waiting[0].answers, 0);
	world.conf.turns.total_timeout_ms = 0; /* the next in line runs without a limit */
	world_run(19987); /* the first one's time is up, then the first waiting one begins */
	assert_int_equal(waiting[0].answers, 1);
	assert_int_equal(waiting[0].err, 0);
	assert_int_equal(waiting[1].answers, 0);
	world_run(11);
	assert_int_equal(waiting[1].answers, 1);
	assert_int_equal(waiting[1].err, E_TURN_IN_PROGRESS); /* it has waited long enough */
	end_live();
}

static void
test_the_one_that_it_waits_for_dies(void **state)
{
	struct request r;
	struct id turn = world_begin(1, "first");

	send_queued(&r, 2, "second");
	world_kill(1, true);
	world_run(900);
	assert_int_equal(r.answers, 1);
	assert_int_equal(r.err, 0);
	assert_string_equal(fake_store_turn(world.store, turn.s)->error_code, "worker_lost");
	end_live();
}

static void
test_one_that_waits_dies(void **state)
{
	struct request dead, next;

	world_begin(1, "first");
	send_queued(&dead, 0, "second");
	send_queued(&next, 2, "third");
	world_kill(0, true);
	end_live();
	world_run(100);
	assert_int_equal(dead.answers, 0);
	assert_int_equal(next.answers, 1);
	assert_int_equal(next.err, 0);
	end_live();
}

static void
test_a_request_of_a_dead_worker_runs_anew(void **state)
{
	struct request first, again;

	send_with_id(&first, 1, "Hello", "r1");
	world_kill(1, false); /* nobody has even noticed */
	send_with_id(&again, 0, "Hello", "r1");
	assert_int_equal(again.err, 0);
	assert_false(again.started.is_replay);
	assert_string_equal(
	    fake_store_turn(world.store, first.started.turn_id.s)->error_code, "worker_lost");
	fake_provider_say(world.model, "Hi");
	end_live();
	assert_string_equal(
	    fake_store_turn(world.store, again.started.turn_id.s)->state, "completed");
	send_with_id(&first, 2, "Hello", "r1");
	assert_true(first.started.is_replay);
	assert_string_equal(first.started.turn_id.s, again.started.turn_id.s);
}

static void
test_a_turn_of_a_former_life_is_in_the_way(void **state)
{
	fake_store_add_live(world.store, "turn_00000000000000000000000001", world.session.s,
	    "00000000000000aa.1.1", "old", 7);
	world_begin(0, "Hello");
	assert_string_equal(
	    fake_store_turn(world.store, "turn_00000000000000000000000001")->error_code,
	    "worker_lost");
	end_live();
}

static void
test_the_first_worker_looks_for_former_lives(void **state)
{
	struct id turn = world_begin(2, "Go");

	world_run(0);
	assert_string_equal(
	    fake_store_turn(world.store, WORLD_FORMER_TURN)->error_code, "worker_lost");
	assert_int_equal(fake_store_calls(world.store, FAKE_LOSE_FORMER), 1);
	world_kill(0, true); /* its successor is not the first: others' turns may be live */
	world_start_worker(0);
	world_run(0);
	assert_int_equal(fake_store_calls(world.store, FAKE_LOSE_FORMER), 1);
	assert_string_equal(fake_store_turn(world.store, turn.s)->state, "live");
	end_live();
}

static void
test_a_successor_takes_over(void **state)
{
	struct request r, again;
	struct client c;

	send_with_id(&r, 0, "Hello", "r1");
	client_attach(&c, 1, &r.started.turn_id, 0);
	world_kill(0, true);
	world_start_worker(0); /* the same row, another number */
	world_run(900);
	assert_int_equal(c.ends, 1);
	assert_non_null(client_last(&c, TURN_FAILED));
	client_forget(&c);
	send_with_id(&again, 0, "Hello", "r1");
	assert_int_equal(again.err, 0);
	assert_false(again.started.is_replay);
	client_attach(&c, 1, &again.started.turn_id, 0);
	end_live();
	client_expect(&c, "turn.started usage turn.completed");
	client_forget(&c);
}

static void
test_the_record_fails_to_lose_it(void **state)
{
	struct request r;

	fake_store_add_live(
	    world.store, "turn_00000000000000000000000001", world.session.s, "nonsense", "old", 7);
	fake_store_fail(world.store, FAKE_LOSE, E_STORE_UNAVAILABLE, 1);
	send_with_id(&r, 0, "Hello", NULL);
	assert_int_equal(r.err, E_STORE_UNAVAILABLE);
	assert_int_equal(turns_live(world.workers[0].turns), 0);
	send_with_id(&r, 0, "Hello", NULL);
	assert_int_equal(r.err, 0);
	end_live();
}

static void
test_a_begin_whose_answer_was_lost(void **state)
{
	struct request r, again;

	fake_store_lie(world.store, FAKE_BEGIN, E_STORE_UNAVAILABLE);
	send_with_id(&r, 0, "Hello", "r1");
	assert_int_equal(r.err, E_STORE_UNAVAILABLE);
	/* It is live and nobody runs it: the same request takes its place. */
	send_with_id(&again, 0, "Hello", "r1");
	assert_int_equal(again.err, 0);
	assert_false(again.started.is_replay);
	end_live();
}

static void
test_a_begin_whose_answer_was_lost_blocks_nobody(void **state)
{
	for (unsigned worker = 0; worker < WORLD_WORKERS; worker++) {
		struct request r;

		fake_store_lie(world.store, FAKE_BEGIN, E_STORE_UNAVAILABLE);
		fake_store_fail(world.store, FAKE_LOSE, E_STORE_UNAVAILABLE, 2);
		send_with_id(&r, 0, "Hello", NULL);
		assert_int_equal(r.err, E_STORE_UNAVAILABLE);
		world_run(5000);
		send_with_id(&r, worker, "Hello", NULL);
		assert_int_equal(r.err, 0);
		end_live();
	}
}

static void
test_draining_takes_no_new_ones(void **state)
{
	struct request waiting, late;
	struct id turn = world_begin(0, "Hello");
	struct client c;

	send_queued(&waiting, 0, "later");
	client_attach(&c, 1, &turn, 0);
	atomic_store(shm_word(world.shm, SHM_WORD_IS_DRAINING), 1);
	turns_drain(world.workers[0].turns);
	world_run(1999);
	assert_int_equal(waiting.answers, 0);
	world_run(1);
	assert_int_equal(waiting.answers, 1);
	assert_int_equal(waiting.err, E_DRAINING);
	send_with_id(&late, 0, "late", NULL);
	assert_int_equal(late.err, E_DRAINING);
	assert_int_equal(turns_live(world.workers[0].turns), 1); /* it gets its time */
	fake_provider_say(world.model, "Still ");
	world_run(26999);
	assert_int_equal(c.ends, 0);
	world_run(1001);
	client_expect(&c, "turn.started text.delta usage turn.failed");
	assert_string_equal(fake_store_turn(world.store, turn.s)->error_code, "draining");
	assert_int_equal(turns_live(world.workers[0].turns), 0);
	client_forget(&c);
}

static void
test_who_is_replaced_takes_new_ones_for_half_of_its_time(void **state)
{
	struct request early, late;

	fake_provider_auto(world.model, "Hi");
	turns_drain(world.workers[0].turns);
	world_run(14999);
	send_with_id(&early, 0, "Hello", "r1");
	assert_int_equal(early.err, 0);
	world_run(1);
	send_with_id(&late, 0, "Hello", "r2");
	assert_int_equal(late.err, E_DRAINING);
}

static void
test_a_request_that_was_drained_runs_anew(void **state)
{
	struct request r;

	send_with_id(&r, 0, "Hello", "r1");
	turns_drain(world.workers[0].turns);
	world_run(30000);
	send_with_id(&r, 1, "Hello", "r1");
	assert_int_equal(r.err, 0);
	assert_false(r.started.is_replay);
	end_live();
}

static void
test_many_sessions_at_once(void **state)
{
	struct request r[40];

	fake_provider_auto(world.model, "Hi");
	for (unsigned i = 0; i < 40; i++) {
		world.session = id_new("sess");
		fake_store_add_session(world.store, world.session.s, NULL, NULL, NULL);
		request_init(&r[i], "Hello");
		request_send(&r[i], i % WORLD_WORKERS);
	}
	world_run(0);
	for (unsigned i = 0; i < 40; i++)
		assert_string_equal(
		    fake_store_turn(world.store, r[i].started.turn_id.s)->state, "completed");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_the_same_request_again_is_the_same_turn),
	    TEST(test_another_input_under_the_same_id),
	    TEST(test_one_live_turn),
	    TEST(test_unknown_models_and_closed_sessions),
	    TEST(test_the_queue_keeps_its_order),
	    TEST(test_the_next_one_does_not_wait_for_a_clock),
	    TEST(test_the_queue_has_an_end),
	    TEST(test_the_one_that_it_waits_for_dies),
	    TEST(test_one_that_waits_dies),
	    TEST(test_a_request_of_a_dead_worker_runs_anew),
	    TEST(test_a_turn_of_a_former_life_is_in_the_way),
	    TEST(test_the_first_worker_looks_for_former_lives),
	    TEST(test_a_successor_takes_over),
	    TEST(test_the_record_fails_to_lose_it),
	    TEST(test_a_begin_whose_answer_was_lost),
	    TEST(test_a_begin_whose_answer_was_lost_blocks_nobody),
	    TEST(test_draining_takes_no_new_ones),
	    TEST(test_who_is_replaced_takes_new_ones_for_half_of_its_time),
	    TEST(test_a_request_that_was_drained_runs_anew),
	    TEST(test_many_sessions_at_once),
	};

	return cmocka_run_group_tests_name("turn_start", tests, NULL, NULL);
}
