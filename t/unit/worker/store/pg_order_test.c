/*
 * pg_order_test - a pool of one connection: whose answer comes first. Over the database that
 * PARLEY_TEST_STORE names; skipped without.
 */
#include "t/unit/worker/store/world.h"

#include "worker/store/pg_queue.h"

enum { READS = 40, ENDS = 20 };

static struct world w;
static char order[READS + ENDS + 1];
static unsigned answered;

static int
setup(void **state)
{
	if (world_postgres() == NULL)
		return 0;
	world_init(&w);
	w.conf.store.pool_size = 1;
	w.conf.store.max_overflow = 0;
	world_start(&w);
	answered = 0;
	return 0;
}

static int
teardown(void **state)
{
	if (world_postgres() != NULL)
		world_fini(&w);
	return 0;
}

static void
on_read(void *arg, int err, const struct store_turn *turn)
{
	assert_int_equal(err, E_NOT_FOUND);
	order[answered++] = 'r';
	world_came(&w);
}

/* Of a turn that is not: asked of the database all the same. */
static void
on_end(void *arg, int err)
{
	assert_int_equal(err, E_FENCED);
	order[answered++] = 'e';
	world_came(&w);
}

static void
ends_of_turns_overtake_reads_which_do_not_starve(void **state)
{
	const struct store_turn_end end = {.turn_id = "turn_none",
	    .session_id = "sess_none",
	    .fence = 1,
	    .state = "completed",
	    .now = 1767225600000};
	unsigned reads = 0, ends = 0;

	if (world_postgres() == NULL)
		skip();
	for (int i = 0; i < READS; i++) {
		world_expect(&w);
		store_turn_get(w.store, "turn_none", on_read, NULL);
	}
	for (int i = 0; i < ENDS; i++) {
		world_expect(&w);
		store_turn_end(w.store, &end, on_end, NULL);
	}
	world_wait(&w);
	for (unsigned i = 0; i < answered; i++) {
		if (order[i] == 'r')
			reads++;
		else
			assert_true(reads <= ends++ / PG_AHEAD_MAX);
	}
	assert_int_equal(ends, ENDS);
	assert_int_equal(reads, READS);
	assert_true(memchr(order, 'r', PG_AHEAD_MAX + 1) != NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(
		ends_of_turns_overtake_reads_which_do_not_starve, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
