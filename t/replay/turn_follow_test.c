/* turn_follow - listeners near and far: nothing lost, nothing twice, nothing out of order. */
#include "t/unit/unit.h"

#include <stdio.h>

#include "common/err.h"
#include "t/replay/turn_world.h"

enum { WORDS = 20 };

static void
say_word(unsigned i)
{
	char word[8];

	snprintf(word, sizeof(word), "w%u ", i);
	fake_provider_say(world.model, word);
	world_run(0);
}

static const char *
words_from(unsigned first)
{
	static char text[256];
	size_t len = 0;

	for (unsigned i = first; i < WORDS; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "w%u ", i);
	return text;
}

static void
end_turn(void)
{
	fake_provider_end(world.model);
	world_run(0);
}

static void
expect_end(struct client *c, enum turn_event_type type, uint64_t seq)
{
	assert_int_equal(c->ends, 1);
	assert_int_equal(c->end_err, 0);
	assert_true(c->count > 0);
	assert_int_equal(c->heard[c->count - 1].type, type);
	assert_int_equal(c->heard[c->count - 1].seq, seq);
}

/* started, WORDS deltas, usage, completed. */
enum { LAST_SEQ = WORDS + 3 };

static void
test_from_every_number_on_every_worker(void **state)
{
	struct id turn = world_begin(0, "Go");
	static struct client live[WORLD_WORKERS][LAST_SEQ + 2], late;

	for (unsigned i = 0; i < WORDS; i++) {
		for (unsigned worker = 0; worker < WORLD_WORKERS; worker++)
			client_attach(&live[worker][i], worker, &turn, i);
		say_word(i);
	}
	end_turn();
	for (unsigned worker = 0; worker < WORLD_WORKERS; worker++) {
		for (unsigned i = 0; i < WORDS; i++) {
			client_expect_seqs(&live[worker][i], i + 1);
			expect_end(&live[worker][i], TURN_COMPLETED, LAST_SEQ);
			client_forget(&live[worker][i]);
		}
		for (unsigned after = 0; after < LAST_SEQ; after++) {
			client_attach(&late, worker, &turn, after);
			client_expect_seqs(&late, after + 1);
			expect_end(&late, TURN_COMPLETED, LAST_SEQ);
			client_forget(&late);
		}
		for (unsigned after = LAST_SEQ; after < LAST_SEQ + 3; after++) {
			client_attach(&late, worker, &turn, after);
			assert_int_equal(late.count, 0);
			assert_int_equal(late.ends, 1);
			assert_int_equal(late.end_err, 0);
		}
	}
}

/* A listener may name an event that is still to come: it gets what follows it. */
static void
test_ahead_of_what_there_is(void **state)
{
	for (unsigned worker = 0; worker < 2; worker++) {
		struct id turn = world_begin(0, "Go");
		struct client next, never;

		client_attach(&next, worker, &turn, 3);
		client_attach(&never, worker, &turn, 1000);
		say_word(0);
		say_word(1);
		assert_int_equal(next.count, 0);
		say_word(2);
		end_turn();
		client_expect(&next, "text.delta usage turn.completed");
		client_expect_seqs(&next, 4);
		assert_int_equal(next.ends, 1);
		client_expect(&never, "");
		assert_int_equal(never.ends, 1);
		client_forget(&next);
	}
}

static void
test_turns_that_are_not_there(void **state)
{
	struct id turn = world_begin(0, "Go"), unknown = id_new("turn");
	struct client c;

	for (unsigned worker = 0; worker < WORLD_WORKERS; worker++) {
		client_attach(&c, worker, &unknown, 0);
		assert_int_equal(c.ends, 1);
		assert_int_equal(c.end_err, E_NOT_FOUND);
		struct id mine = world.session;
		world.session = id_new("sess");
		client_attach(&c, worker, &turn, 0);
		assert_int_equal(c.ends, 1);
		assert_int_equal(c.end_err, E_NOT_FOUND);
		world.session = mine;
	}
	end_turn();
}

/* ---- the wire ---- */

static void
test_lost_batches_are_asked_for_again(void **state)
{
	struct id turn = world_begin(0, "Go");
	struct client c;

	client_attach(&c, 1, &turn, 0);
	for (unsigned i = 0; i < WORDS; i++) {
		if (i % 4 == 1)
			fake_backplane_lose(BACKPLANE_TURN_EVENTS, 1);
		say_word(i);
	}
	world_run(10);
	end_turn();
	world_run(1000);
	client_expect_text(&c, words_from(0));
	client_expect_seqs(&c, 1);
	expect_end(&c, TURN_COMPLETED, LAST_SEQ);
	client_forget(&c);
}

static void
test_the_last_event_is_lost(void **state)
{
	struct id turn = world_begin(0, "Go");
	struct client c;

	client_attach(&c, 1, &turn, 0);
	say_word(0);
	fake_backplane_lose(BACKPLANE_TURN_EVENTS, 2);
	end_turn();
	client_expect(&c, "turn.started text.delta");
	world_run(1000);
	client_expect(&c, "turn.started text.delta usage turn.completed");
	assert_int_equal(c.ends, 1);
	client_forget(&c);
}

static void
test_the_attachment_is_lost(void **state)
{
	struct id turn = world_begin(0, "Go");
	struct client a, b;

	fake_backplane_lose(BACKPLANE_TURN_ATTACH, 1);
	client_attach(&a, 1, &turn, 0);
	fake_backplane_lose(BACKPLANE_REPLY, 1);
	client_attach(&b, 2, &turn, 0); /* the events come all the same */
	client_expect(&b, "turn.started");
	say_word(0);
	assert_int_equal(a.count, 0);
	world_run(1100);
	client_expect(&a, "turn.started text.delta");
	end_turn();
	assert_int_equal(a.ends, 1);
	assert_int_equal(b.ends, 1);
	client_expect_seqs(&b, 1);
	client_forget(&a);
	client_forget(&b);
}

static void
test_a_full_queue_to_the_listener(void **state)
{
	struct id turn = world_begin(0, "Go");
	struct client c;

	client_attach(&c, 1, &turn, 0);
	fake_backplane_refuse(BACKPLANE_TURN_EVENTS, 1000);
	for (unsigned i = 0; i < WORDS; i++)
		say_word(i);
	client_expect(&c, "turn.started");
	fake_backplane_refuse(BACKPLANE_TURN_EVENTS, 0);
	world_run(1000);
	client_expect_text(&c, words_from(0));
	client_expect_seqs(&c, 1);
	end_turn();
	expect_end(&c, TURN_COMPLETED, LAST_SEQ);
	client_forget(&c);
}

static void
test_an_owner_that_says_nothing_for_long(void **state)
{
	struct id turn = world_begin(0, "Go");
	struct client c;

	client_attach(&c, 1, &turn, 0);
	fake_backplane_hold(BACKPLANE_TURN_EVENTS, true);
	say_word(0);
	world_run(3500); /* silence: it attaches again */
	assert_true(fake_backplane_sent(BACKPLANE_TURN_ATTACH) >= 2);
	fake_backplane_hold(BACKPLANE_TURN_EVENTS, false);
	world_run(0);
	client_expect(&c, "turn.started text.delta");
	end_turn();
	client_expect_seqs(&c, 1);
	assert_int_equal(c.ends, 1);
	client_forget(&c);
}

static void
test_an_owner_that_never_answers(void **state)
{
	struct id turn = world_begin(0, "Go");
	struct client fresh, old;

	client_attach(&old, 2, &turn, 0);
	fake_backplane_hold(BACKPLANE_TURN_ATTACH, true);
	fake_backplane_hold(BACKPLANE_TURN_EVENTS, true);
	client_attach(&fresh, 1, &turn, 0);
	world_run(3000);
	assert_int_equal(fresh.ends, 1);
	assert_int_equal(fresh.end_err, E_OWNER_UNAVAILABLE);
	world_run(11000);
	assert_int_equal(old.ends, 1);
	assert_int_equal(old.end_err, E_OWNER_UNAVAILABLE);
	fake_backplane_reset();
	world_run(2000);
	end_turn();
	client_forget(&old);
}

static void
test_quiet_turns_are_not_taken_for_dead(void **state)
{
	struct id turn = world_begin(0, "Go");
	struct client c;

	client_attach(&c, 1, &turn, 0);
	world_run(60000);
	assert_int_equal(fake_backplane_sent(BACKPLANE_TURN_ATTACH), 1);
	end_turn();
	assert_int_equal(c.ends, 1);
	/* The owner is told, and stops repeating. */
	unsigned sent = fake_backplane_sent(BACKPLANE_TURN_EVENTS);
	world_run(10000);
	assert_int_equal(fake_backplane_sent(BACKPLANE_TURN_EVENTS), sent);
	client_forget(&c);
}

static void
test_a_lost_farewell(void **state)
{
	struct id turn = world_begin(0, "Go");
	struct client c;
	unsigned sent;

	client_attach(&c, 1, &turn, 0);
	fake_backplane_lose(BACKPLANE_TURN_DETACH, 1);
	client_leave(&c, true);
	world_run(3000); /* a batch for nobody is answered with the farewell */
	sent = fake_backplane_sent(BACKPLANE_TURN_EVENTS);
	say_word(0);
	world_run(5000);
	assert_int_equal(fake_backplane_sent(BACKPLANE_TURN_EVENTS), sent);
	end_turn();
	client_forget(&c);
}

static void
test_big_batches_are_cut(void **state)
{
	static char big[100001];
	struct id turn;
	struct client c;
	unsigned sent;

	world.conf.turns.feed_max_bytes = 4 << 20;
	turn = world_begin(0, "Go");
	memset(big, 'x', sizeof(big) - 1);
	for (unsigned i = 0; i < 5; i++) {
		fake_provider_say(world.model, big);
		world_run(0);
	}
	sent = fake_backplane_sent(BACKPLANE_TURN_EVENTS);
	client_attach(&c, 1, &turn, 0);
	assert_true(fake_backplane_sent(BACKPLANE_TURN_EVENTS) >= sent + 3);
	client_expect_seqs(&c, 1);
	assert_int_equal(c.count, 6);
	end_turn();
	client_forget(&c);
}

/* ---- slow ones ---- */

static void
test_slow_listeners_hold_nobody_up(void **state)
{
	struct id turn = world_begin(0, "Go");
	struct client slow[2], good[2];

	for (unsigned worker = 0; worker < 2; worker++) {
		client_attach(&good[worker], worker, &turn, 0);
		client_attach(&slow[worker], worker, &turn, 0);
		slow[worker].refuse_from = 5;
	}
	for (unsigned i = 0; i < WORDS; i++)
		say_word(i);
	for (unsigned worker = 0; worker < 2; worker++) {
		assert_int_equal(slow[worker].count, 4);
		assert_int_equal(slow[worker].ends, 0); /* not called: it knows */
		client_forget(&slow[worker]);
		client_attach(&slow[worker], worker, &turn, 4); /* and comes back */
	}
	end_turn();
	for (unsigned worker = 0; worker < 2; worker++) {
		client_expect_seqs(&slow[worker], 5);
		expect_end(&slow[worker], TURN_COMPLETED, LAST_SEQ);
		client_expect_seqs(&good[worker], 1);
		expect_end(&good[worker], TURN_COMPLETED, LAST_SEQ);
		client_forget(&slow[worker]);
		client_forget(&good[worker]);
	}
}

static void
test_too_many_listeners(void **state)
{
	struct id turn;
	struct client c[3];

	world.conf.turns.max_listeners = 2;
	turn = world_begin(0, "Go");
	for (unsigned i = 0; i < 3; i++)
		client_attach(&c[i], i, &turn, 0);
	assert_int_equal(c[2].end_err, E_AT_CAPACITY);
	client_leave(&c[0], false);
	client_attach(&c[2], 2, &turn, 0);
	end_turn();
	assert_int_equal(c[2].ends, 1);
	assert_int_equal(c[2].end_err, 0);
	for (unsigned i = 0; i < 3; i++)
		client_forget(&c[i]);
}

/* Leaves in the middle of being told. */
static bool
leave_at_once(void *arg, const struct turn_event *event)
{
	struct client *c = arg;

	c->count++;
	turn_detach(world.workers[c->worker].turns, c->listener, false);
	return true;
}

static void
never_ends(void *arg, int err)
{
	fail();
}

static void
test_leaving_from_inside(void **state)
{
	static const struct turn_listener_handlers handlers = {leave_at_once, never_ends};
	struct id turn = world_begin(0, "Go");
	struct client c[2] = {{.worker = 0}, {.worker = 1}};

	for (unsigned i = 0; i < 2; i++)
		c[i].listener = turn_attach(
		    world.workers[i].turns, &world.session, &turn, 0, 0, &handlers, &c[i]);
	world_run(0);
	say_word(0);
	end_turn();
	assert_int_equal(c[0].count, 1);
	assert_int_equal(c[1].count, 1);
	turn_detach(world.workers[0].turns, c[0].listener, true); /* gone already: nothing */
}

/* ---- what is not kept any more ---- */

static void
test_a_feed_that_has_dropped_its_beginning(void **state)
{
	struct id turn;
	struct client c;

	world.conf.turns.feed_max_bytes = 400;
	turn = world_begin(0, "Go");
	for (unsigned i = 0; i < WORDS; i++)
		say_word(i);
	for (unsigned worker = 0; worker < 2; worker++) {
		client_attach(&c, worker, &turn, 1);
		client_expect(&c, "turn.snapshot");
		assert_string_equal(client_last_text(&c, TURN_SNAPSHOT, "text"), words_from(0));
		assert_int_equal(c.heard[0].seq, WORDS + 1);
		assert_int_equal(
		    json_integer_value(json_object_get(c.heard[0].data, "seq")), WORDS + 1);
		client_leave(&c, false);
		client_forget(&c);
	}
	end_turn();
	for (unsigned worker = 0; worker < 2; worker++) {
		client_attach(&c, worker, &turn, 1);
		client_expect(&c, "turn.snapshot turn.completed");
		assert_int_equal(c.heard[0].seq, LAST_SEQ - 1);
		expect_end(&c, TURN_COMPLETED, LAST_SEQ);
		client_forget(&c);
	}
}

static void
test_after_the_retention(void **state)
{
	struct id turn = world_begin(0, "Go");
	struct client before, after;

	for (unsigned i = 0; i < WORDS; i++)
		say_word(i);
	end_turn();
	client_attach(&before, 1, &turn, LAST_SEQ - 1);
	world_run(299000);
	client_attach(&after, 0, &turn, 0);
	client_expect_seqs(&after, 1);
	client_forget(&after);
	world_run(2000);
	for (unsigned worker = 0; worker < WORLD_WORKERS; worker++) {
		client_attach(&after, worker, &turn, 3);
		client_expect(&after, "turn.snapshot turn.completed");
		assert_string_equal(client_last_text(&after, TURN_SNAPSHOT, "text"), words_from(0));
		assert_true(json_is_array(
		    json_object_get(client_last(&after, TURN_SNAPSHOT), "tool_calls")));
		assert_int_equal(after.heard[0].seq, LAST_SEQ - 1);
		expect_end(&after, TURN_COMPLETED, LAST_SEQ);
		/* The same as was told live. */
		assert_true(json_equal(
		    client_last(&after, TURN_COMPLETED), client_last(&before, TURN_COMPLETED)));
		client_forget(&after);
		client_attach(&after, worker, &turn, LAST_SEQ - 1);
		client_expect(&after, "turn.completed");
		client_forget(&after);
		client_attach(&after, worker, &turn, LAST_SEQ);
		client_expect(&after, "");
		assert_int_equal(after.ends, 1);
	}
	client_forget(&before);
}

static void
test_tool_calls_outlive_the_retention(void **state)
{
	struct id turn = world_begin_with_tools(0, "Go");
	struct client c;
	struct answer_seen a;

	client_attach(&c, 0, &turn, 0);
	fake_provider_ask_one(world.model, "x", "weather", "{}");
	world_run(0);
	world_give_result(&a, 0, client_last_text(&c, TURN_TOOL_CALL, "tool_call_id"), "1", NULL);
	end_turn();
	client_forget(&c);
	world_run(400000);
	client_attach(&c, 1, &turn, 0);
	client_expect(&c, "turn.snapshot turn.completed");
	const json_t *calls = json_object_get(client_last(&c, TURN_SNAPSHOT), "tool_calls");
	assert_int_equal(json_array_size(calls), 1);
	client_forget(&c);
}

static void
test_the_bytes_of_all_feeds_are_limited(void **state)
{
	struct id turns[8];
	struct client c;
	unsigned snapshots = 0;

	world.conf.turns.feed_total_bytes = 16 << 10;
	for (unsigned i = 0; i < 8; i++) {
		turns[i] = world_begin(0, "Go");
		for (unsigned k = 0; k < WORDS; k++)
			say_word(k);
		end_turn();
	}
	for (unsigned i = 0; i < 8; i++) {
		client_attach(&c, 0, &turns[i], 0);
		bool is_snapshot = c.heard[0].type == TURN_SNAPSHOT;
		snapshots += is_snapshot;
		assert_int_equal(is_snapshot, i < snapshots); /* the oldest went first */
		assert_int_equal(c.ends, 1);
		client_forget(&c);
	}
	assert_in_range(snapshots, 1, 7);
}

static void
test_finished_turns_are_counted(void **state)
{
	struct id turns[5];
	struct client c;

	world.conf.turns.max_retained = 3;
	for (unsigned i = 0; i < ARRAY_LEN(turns); i++) {
		turns[i] = world_begin(0, "Go");
		say_word(0);
		end_turn();
	}
	for (unsigned i = 0; i < ARRAY_LEN(turns); i++) {
		client_attach(&c, 0, &turns[i], 0);
		assert_int_equal(c.heard[0].type == TURN_SNAPSHOT, i < 2);
		assert_int_equal(c.ends, 1);
		client_forget(&c);
	}
}

/* ---- the owner dies ---- */

static void
test_an_owner_that_dies(void **state)
{
	struct id turn = world_begin(0, "Go");
	struct client live, late;

	client_attach(&live, 1, &turn, 0);
	for (unsigned i = 0; i < 5; i++)
		say_word(i);
	world_run(1000); /* recorded up to here */
	say_word(5);
	world_kill(0, true);
	world_run(900);
	client_expect_seqs(&live, 1);
	assert_int_equal(live.count, 8);
	assert_int_equal(live.heard[7].type, TURN_FAILED);
	assert_int_equal(live.ends, 1);
	assert_string_equal(json_string_value(json_object_get(
				json_object_get(live.heard[7].data, "error"), "code")),
	    "worker_lost");
	assert_string_equal(fake_store_turn(world.store, turn.s)->error_code, "worker_lost");
	/* Who comes later gets the text as far as it was recorded. */
	client_attach(&late, 2, &turn, 0);
	client_expect(&late, "turn.snapshot turn.failed");
	assert_string_equal(client_last_text(&late, TURN_SNAPSHOT, "text"), "w0 w1 w2 w3 w4 ");
	client_forget(&late);
	client_attach(&late, 2, &turn, 7); /* .. or what is new to it */
	client_expect(&late, "turn.failed");
	assert_int_equal(late.heard[0].seq, 8);
	client_forget(&late);
	client_forget(&live);
}

static void
test_an_owner_dies_and_nobody_listens(void **state)
{
	struct id turn = world_begin(2, "Go");

	world_kill(2, true);
	world_run(200);
	assert_string_equal(fake_store_turn(world.store, turn.s)->error_code, "worker_lost");
	assert_int_equal(fake_store_calls(world.store, FAKE_LOSE_ALL), 1); /* one is elected */
}

static void
test_an_owner_dies_and_the_record_is_away(void **state)
{
	struct id turn = world_begin(0, "Go");
	struct client c;

	client_attach(&c, 1, &turn, 0);
	fake_store_delay(world.store, FAKE_LOSE, 4000);
	fake_store_delay(world.store, FAKE_GET, 4000);
	fake_store_fail(world.store, FAKE_LOSE_ALL, E_STORE_UNAVAILABLE, 2);
	world_kill(0, true);
	world_run(899);
	assert_int_equal(c.ends, 0);
	world_run(1);
	client_expect(&c, "turn.started turn.failed");
	assert_int_equal(c.ends, 1);
	world_run(3000);
	assert_string_equal(fake_store_turn(world.store, turn.s)->error_code, "worker_lost");
	world_run(10000);
	client_forget(&c);
}

static void
test_an_owner_dies_after_the_commit(void **state)
{
	struct id turn = world_begin(0, "Go");
	struct client c;

	client_attach(&c, 1, &turn, 0);
	say_word(0);
	fake_store_delay(world.store, FAKE_END, 5000); /* committed, not yet acknowledged */
	end_turn();
	world_kill(0, true);
	world_run(900);
	client_expect(&c, "turn.started text.delta usage turn.completed");
	client_expect_seqs(&c, 1);
	assert_int_equal(c.ends, 1);
	client_forget(&c);
}

static void
test_the_master_is_slow_to_notice(void **state)
{
	struct id turn = world_begin(0, "Go");
	struct worker *w = &world.workers[0];
	struct client c;

	client_attach(&c, 1, &turn, 0);
	fake_backplane_kill(w->backplane, false);
	turns_free(&w->turns);
	store_free(&w->store);
	fake_backplane_kill(w->backplane, true); /* the connection is gone, the row is not */
	world_run(300);
	assert_int_equal(c.ends, 0);
	assert_string_equal(fake_store_turn(world.store, turn.s)->state, "live");
	shm_row_reap(world.shm, w->who);
	world_run(200);
	client_expect(&c, "turn.started turn.failed");
	assert_string_equal(fake_store_turn(world.store, turn.s)->error_code, "worker_lost");
	client_forget(&c);
}

/* Each listener's own looks are further and further apart: the row's end is what it waits for. */
static void
test_the_master_is_slower_still(void **state)
{
	struct id turn = world_begin(0, "Go");
	struct worker *w = &world.workers[0];

	for (unsigned late_ms = 450; late_ms <= 800; late_ms += 50) {
		struct client c;

		if (late_ms > 450) {
			world_teardown(state);
			world_setup(state);
			turn = world_begin(0, "Go");
		}
		client_attach(&c, 1, &turn, 0);
		fake_backplane_kill(w->backplane, false);
		turns_free(&w->turns);
		store_free(&w->store);
		fake_backplane_kill(w->backplane, true);
		world_run(late_ms);
		assert_int_equal(c.ends, 0);
		shm_row_reap(world.shm, w->who);
		world_run(60);
		client_expect(&c, "turn.started turn.failed");
		client_forget(&c);
	}
}

static void
test_only_the_connection_breaks(void **state)
{
	struct id turn = world_begin(0, "Go");
	struct client c;

	client_attach(&c, 1, &turn, 0);
	fake_backplane_part(world.workers[0].backplane, world.workers[1].backplane);
	world_run(0);
	say_word(0);
	world_run(10000);
	say_word(1);
	end_turn();
	client_expect(&c, "turn.started text.delta text.delta usage turn.completed");
	client_expect_seqs(&c, 1);
	assert_string_equal(fake_store_turn(world.store, turn.s)->state, "completed");
	client_forget(&c);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_from_every_number_on_every_worker),
	    TEST(test_ahead_of_what_there_is),
	    TEST(test_turns_that_are_not_there),
	    TEST(test_lost_batches_are_asked_for_again),
	    TEST(test_the_last_event_is_lost),
	    TEST(test_the_attachment_is_lost),
	    TEST(test_a_full_queue_to_the_listener),
	    TEST(test_an_owner_that_says_nothing_for_long),
	    TEST(test_an_owner_that_never_answers),
	    TEST(test_quiet_turns_are_not_taken_for_dead),
	    TEST(test_a_lost_farewell),
	    TEST(test_big_batches_are_cut),
	    TEST(test_slow_listeners_hold_nobody_up),
	    TEST(test_too_many_listeners),
	    TEST(test_leaving_from_inside),
	    TEST(test_a_feed_that_has_dropped_its_beginning),
	    TEST(test_after_the_retention),
	    TEST(test_tool_calls_outlive_the_retention),
	    TEST(test_the_bytes_of_all_feeds_are_limited),
	    TEST(test_finished_turns_are_counted),
	    TEST(test_an_owner_that_dies),
	    TEST(test_an_owner_dies_and_nobody_listens),
	    TEST(test_an_owner_dies_and_the_record_is_away),
	    TEST(test_an_owner_dies_after_the_commit),
	    TEST(test_the_master_is_slow_to_notice),
	    TEST(test_the_master_is_slower_still),
	    TEST(test_only_the_connection_breaks),
	};

	return cmocka_run_group_tests_name("turn_follow", tests, NULL, NULL);
}
