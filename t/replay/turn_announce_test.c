/* turn_announce - each worker hears once of each turn that begins, also when it could not take it.
 */
#include "t/unit/unit.h"

#include "common/check.h"
#include "common/err.h"
#include "t/replay/turn_world.h"

enum { HEARINGS_MAX = 16, FOR_EVER = 1000000, AGAIN_MS = 100 };

/* What a worker has heard of. */
struct hearing {
	struct id turn;
	uint64_t originator;
};

static struct {
	struct hearing of[HEARINGS_MAX];
	unsigned count;
} heard[WORLD_WORKERS];

static void
on_begun(void *arg, const struct id *session, const struct id *turn, uint64_t originator)
{
	unsigned worker = (unsigned)(uintptr_t)arg;

	assert_string_equal(session->s, world.session.s);
	check(heard[worker].count < HEARINGS_MAX);
	heard[worker].of[heard[worker].count++] = (struct hearing){*turn, originator};
}

static int
setup(void **state)
{
	world_setup(state);
	memset(heard, 0, sizeof(heard));
	for (unsigned i = 0; i < WORLD_WORKERS; i++)
		turns_on_begun(world.workers[i].turns, on_begun, (void *)(uintptr_t)i);
	return 0;
}

static void
end_turn(void)
{
	fake_provider_end(world.model);
	world_run(0);
}

static void
expect_heard(unsigned worker, unsigned count, const struct id *last)
{
	assert_int_equal(heard[worker].count, count);
	if (count > 0)
		assert_string_equal(heard[worker].of[count - 1].turn.s, last->s);
}

static unsigned
sent(void)
{
	return fake_backplane_sent(BACKPLANE_SESSION_TURN);
}

static void
test_all_hear_once(void **state)
{
	struct id turn = world_begin(0, "Go");

	for (unsigned i = 0; i < WORLD_WORKERS; i++)
		expect_heard(i, 1, &turn);
	world_run(5000);
	assert_int_equal(heard[1].count, 1);
	assert_int_equal(sent(), WORLD_WORKERS - 1);
	end_turn();
}

static void
test_the_originator_is_known_where_it_is(void **state)
{
	struct request r;

	request_init(&r, "Go");
	r.start.originator = 77;
	request_send(&r, 1);
	world_run(0);
	assert_int_equal(r.err, 0);
	assert_true(heard[1].of[0].originator == 77);
	assert_true(heard[0].of[0].originator == 0);
	end_turn();
}

static void
test_a_full_queue_is_tried_again(void **state)
{
	fake_backplane_refuse(BACKPLANE_SESSION_TURN, 5);
	struct id turn = world_begin(0, "Go"); /* neither takes it, nor the next time .. */

	expect_heard(0, 1, &turn);
	world_run(AGAIN_MS);
	expect_heard(1, 0, NULL);
	expect_heard(2, 0, NULL);
	world_run(AGAIN_MS); /* .. one does .. */
	assert_int_equal(heard[1].count + heard[2].count, 1);
	world_run(AGAIN_MS); /* .. and the other */
	expect_heard(1, 1, &turn);
	expect_heard(2, 1, &turn);
	world_run(10000);
	assert_int_equal(heard[0].count + heard[1].count + heard[2].count, 3);
	assert_int_equal(sent(), 7);
	end_turn();
}

static void
test_also_when_the_turn_has_ended_meanwhile(void **state)
{
	static struct client late;

	fake_backplane_refuse(BACKPLANE_SESSION_TURN, FOR_EVER);
	struct id turn = world_begin(0, "Go");
	fake_provider_say(world.model, "gone");
	end_turn();
	world_run(1000);
	expect_heard(1, 0, NULL);
	fake_backplane_refuse(BACKPLANE_SESSION_TURN, 0);
	world_run(AGAIN_MS);
	expect_heard(1, 1, &turn);
	client_attach(&late, 1, &heard[1].of[0].turn, 0);
	world_run(0);
	client_expect_text(&late, "gone");
	client_expect_seqs(&late, 1);
	assert_int_equal(late.ends, 1);
	client_forget(&late);
}

/* The second turn's owner is heard before the first's: each is heard of once, and whole. */
static void
test_out_of_order(void **state)
{
	static struct client c[2];

	fake_backplane_refuse(BACKPLANE_SESSION_TURN, 2);
	struct id first = world_begin(0, "one");
	fake_provider_say(world.model, "first");
	end_turn();
	struct id second = world_begin(1, "two");
	fake_provider_say(world.model, "second");
	world_run(0);
	expect_heard(2, 1, &second);
	client_attach(&c[0], 2, &second, 0);
	world_run(AGAIN_MS);
	expect_heard(2, 2, &first);
	client_attach(&c[1], 2, &first, 0);
	end_turn();
	world_run(5000);
	expect_heard(2, 2, &first);
	client_expect_text(&c[0], "second");
	client_expect_text(&c[1], "first");
	for (unsigned i = 0; i < 2; i++) {
		client_expect_seqs(&c[i], 1);
		assert_int_equal(c[i].ends, 1);
		client_forget(&c[i]);
	}
}

static void
test_who_dies_is_not_told(void **state)
{
	fake_backplane_refuse(BACKPLANE_SESSION_TURN, 4);
	struct id turn = world_begin(0, "Go");

	world_run(AGAIN_MS);
	world_kill(1, true);
	world_run(AGAIN_MS);
	expect_heard(2, 1, &turn);
	unsigned before = sent();
	world_run(10000);
	assert_int_equal(sent(), before);
	end_turn();
}

static void
test_a_turn_that_is_forgotten_is_not_announced(void **state)
{
	fake_backplane_refuse(BACKPLANE_SESSION_TURN, FOR_EVER);
	world_begin(0, "Go");
	end_turn();
	world_run(world.conf.turns.retain_events_ms + 1000);
	unsigned before = sent();
	fake_backplane_refuse(BACKPLANE_SESSION_TURN, 0);
	world_run(10000);
	assert_int_equal(sent(), before);
	expect_heard(1, 0, NULL);
}

/* A worker stops that has told nobody yet: the teardown holds timers and memory against it. */
static void
test_an_owner_that_stops(void **state)
{
	fake_backplane_refuse(BACKPLANE_SESSION_TURN, FOR_EVER);
	world_begin(0, "Go");
	world_kill(0, true);
	fake_backplane_refuse(BACKPLANE_SESSION_TURN, 0);
	world_run(1000);
	expect_heard(1, 0, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, world_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_all_hear_once),
	    TEST(test_the_originator_is_known_where_it_is),
	    TEST(test_a_full_queue_is_tried_again),
	    TEST(test_also_when_the_turn_has_ended_meanwhile),
	    TEST(test_out_of_order),
	    TEST(test_who_dies_is_not_told),
	    TEST(test_a_turn_that_is_forgotten_is_not_announced),
	    TEST(test_an_owner_that_stops),
	};

	return cmocka_run_group_tests_name("turn_announce", tests, NULL, NULL);
}
