/* pg_pool_test - the pool's decisions, with the clock in our hand and connections that are none. */
#include "t/unit/unit.h"

#include <string.h>

#include "common/check.h"
#include "worker/store/pg_pool.h"

enum { SIZE = 3, OVERFLOW = 2, SLOTS = 40 };

static struct pg_pool pool;
static struct pg_slot slots[SLOTS];
static unsigned used;
static uint64_t now;

static int
setup(void **state)
{
	now = 1000000;
	used = 0;
	memset(slots, 0, sizeof(slots));
	pg_pool_init(&pool, SIZE, OVERFLOW);
	pool.recycle_ms = 3600000;
	pool.check_after_ms = 30000;
	return 0;
}

static enum pg_move
next(bool is_alone, unsigned waiting, struct pg_slot **ret)
{
	*ret = NULL;
	return pg_pool_next(&pool, is_alone, waiting, now, ret);
}

static struct pg_slot *
add(void)
{
	assert_true(used < SLOTS);
	pg_pool_add(&pool, &slots[used]);
	return &slots[used++];
}

static struct pg_slot *
add_open(void)
{
	struct pg_slot *slot = add();

	pg_pool_opened(&pool, slot, now);
	return slot;
}

static struct pg_slot *
add_busy(bool is_alone)
{
	struct pg_slot *slot = add_open();

	pg_pool_take(&pool, slot, is_alone);
	return slot;
}

static void
as_many_are_opened_as_wait(void **state)
{
	struct pg_slot *slot;

	assert_int_equal(next(true, 2, &slot), PG_OPEN);
	add();
	assert_int_equal(next(true, 2, &slot), PG_OPEN);
	add();
	assert_int_equal(next(true, 2, &slot), PG_WAIT); /* they will do */
	assert_int_equal(next(true, 9, &slot), PG_OPEN);
	while (next(true, 9, &slot) == PG_OPEN)
		add();
	assert_int_equal(used, PG_OPENING_MAX);
	assert_int_equal(pg_pool_ready(&pool), 0);
	pg_pool_opened(&pool, &slots[0], now);
	assert_int_equal(next(true, 9, &slot), PG_TAKE);
	assert_ptr_equal(slot, &slots[0]);
	pg_pool_take(&pool, slot, true);
	assert_int_equal(next(true, 9, &slot), PG_OPEN);
	add();
	assert_int_equal(next(true, 9, &slot), PG_WAIT); /* size and overflow */
	assert_int_equal(used, SIZE + OVERFLOW);
	assert_int_equal(pg_pool_in_use(&pool), 1);
}

static void
overflow_is_closed_on_return_unless_someone_waits(void **state)
{
	for (int i = 0; i < SIZE + OVERFLOW; i++)
		add_busy(true);
	assert_true(pg_pool_give(&pool, &slots[0], 1, now)); /* for who waits */
	pg_pool_take(&pool, &slots[0], true);
	assert_false(pg_pool_give(&pool, &slots[0], 0, now));
	pg_pool_remove(&pool, &slots[0]);
	assert_false(pg_pool_give(&pool, &slots[1], 0, now));
	pg_pool_remove(&pool, &slots[1]);
	for (int i = 2; i < SIZE + OVERFLOW; i++)
		assert_true(pg_pool_give(&pool, &slots[i], 0, now));
	assert_int_equal(pg_pool_ready(&pool), SIZE);
	assert_int_equal(pg_pool_in_use(&pool), 0);
}

static void
overflow_stays_while_a_crowd_comes_and_goes(void **state)
{
	struct pg_slot *slot;

	for (int i = 0; i < SIZE + 1; i++) {
		next(true, 1, &slot);
		add_busy(true);
	}
	for (int i = 0; i < 3; i++) {
		assert_true(pg_pool_give(&pool, &slots[SIZE], 0, now));
		now += PG_CROWD_MS - 1;
		assert_int_equal(next(true, 1, &slot), PG_TAKE); /* all others are busy */
		assert_ptr_equal(slot, &slots[SIZE]);
		pg_pool_take(&pool, slot, true);
	}
	assert_true(pg_pool_give(&pool, &slots[0], 0, now));
	now += PG_CROWD_MS;
	assert_false(pg_pool_give(&pool, &slots[SIZE], 0, now));
}

static void
short_ones_share_and_transactions_do_not(void **state)
{
	struct pg_slot *alone = add_busy(true), *shared = add_busy(false), *slot;

	assert_int_equal(next(false, 1, &slot), PG_TAKE);
	assert_ptr_equal(slot, shared);
	assert_int_equal(next(true, 1, &slot), PG_OPEN);
	while (next(false, 1, &slot) == PG_TAKE) {
		assert_ptr_equal(slot, shared);
		pg_pool_take(&pool, slot, false);
	}
	assert_int_equal(shared->depth, PG_DEPTH_MAX);
	assert_int_equal(next(false, 1, &slot), PG_OPEN);
	/* It comes back when the last has ended. */
	for (int i = 1; i < PG_DEPTH_MAX; i++) {
		assert_true(pg_pool_give(&pool, shared, 0, now));
		assert_int_equal(shared->state, PG_SHARED);
	}
	assert_true(pg_pool_give(&pool, shared, 0, now));
	assert_int_equal(shared->state, PG_IDLE);
	assert_int_equal(next(true, 1, &slot), PG_TAKE);
	assert_int_equal(alone->state, PG_ALONE);
}

static void
the_least_busy_is_shared(void **state)
{
	struct pg_slot *a = add_busy(false), *slot;

	pg_pool_take(&pool, a, false);
	add_busy(false);
	assert_int_equal(next(false, 1, &slot), PG_TAKE);
	assert_ptr_equal(slot, &slots[1]);
}

static void
who_idled_is_checked_before_use(void **state)
{
	struct pg_slot *slot, *a = add_open();

	add_open();
	now += 29999;
	assert_int_equal(next(true, 1, &slot), PG_TAKE);
	now++;
	assert_int_equal(next(true, 1, &slot), PG_CHECK);
	pg_pool_check(&pool, slot);
	assert_int_equal(next(true, 1, &slot), PG_WAIT); /* for that one */
	assert_int_equal(next(true, 2, &slot), PG_CHECK);
	assert_ptr_equal(slot, a);
	pg_pool_checked(&pool, &slots[1], now);
	assert_int_equal(next(true, 1, &slot), PG_TAKE);
	assert_ptr_equal(slot, &slots[1]);
	/* Always checked is not checked for ever. */
	pool.check_after_ms = 0;
	assert_int_equal(next(true, 1, &slot), PG_TAKE);
	pg_pool_take(&pool, slot, true);
	assert_true(pg_pool_give(&pool, slot, 0, now));
	assert_int_equal(next(true, 1, &slot), PG_CHECK);
}

/* Where one broke, others are dead that nobody has noticed. */
static void
where_one_broke_the_others_are_checked(void **state)
{
	struct pg_slot *idle = add_open(), *shared = add_busy(false), *broken = add_busy(true),
		       *slot;

	pg_pool_take(&pool, shared, false);
	now += 10;
	pg_pool_broken(&pool, broken, now, 0);
	assert_int_equal(next(true, 1, &slot), PG_CHECK);
	assert_ptr_equal(slot, idle);
	pg_pool_check(&pool, idle);
	assert_int_equal(next(false, 2, &slot), PG_OPEN); /* the shared one has not been heard of */
	pg_pool_checked(&pool, idle, now);
	assert_int_equal(next(true, 1, &slot), PG_TAKE);
	pg_pool_take(&pool, idle, true);
	/* One that is opened in the same millisecond is none of them; one that could not be opened
	 * says nothing of others. */
	pg_pool_broken(&pool, shared, now, 0);
	slot = add_open();
	assert_int_equal(next(true, 1, &slot), PG_TAKE);
	pg_pool_take(&pool, slot, true);
	now += 10;
	assert_true(pg_pool_give(&pool, slot, 0, now));
	pg_pool_broken(&pool, add(), now, 0);
	assert_int_equal(next(true, 1, &slot), PG_TAKE);
}

/* They may have been on their way: a firewall forgets between an answer and the next word. */
static void
answers_to_what_was_asked_before_one_broke_prove_nothing(void **state)
{
	struct pg_slot *broken = add_busy(true), *late = add_busy(true), *checked = add_open(),
		       *opening, *slot;

	now += 30000;
	assert_int_equal(next(true, 1, &slot), PG_CHECK);
	pg_pool_check(&pool, checked);
	opening = add();
	pg_pool_broken(&pool, broken, now, 0);
	now++;
	assert_true(pg_pool_give(&pool, late, 0, now));
	pg_pool_checked(&pool, checked, now);
	pg_pool_opened(&pool, opening, now);
	for (unsigned waiting = 1; waiting <= 3; waiting++) {
		assert_int_equal(next(true, waiting, &slot), PG_CHECK);
		pg_pool_check(&pool, slot);
	}
	pg_pool_checked(&pool, late, now);
	assert_int_equal(next(true, 1, &slot), PG_TAKE);
	assert_ptr_equal(slot, late);
	/* What it answers after that is trusted until the next one breaks. */
	pg_pool_take(&pool, late, false);
	now++;
	assert_true(pg_pool_give(&pool, late, 0, now));
	assert_int_equal(next(true, 1, &slot), PG_TAKE);
	pg_pool_broken(&pool, checked, now, 0);
	assert_int_equal(next(true, 2, &slot), PG_CHECK);
}

static void
old_ones_are_replaced(void **state)
{
	struct pg_slot *idle = add_open(), *busy = add_busy(false), *slot;

	pool.check_after_ms = UINT64_MAX;
	now += 3600000;
	assert_int_equal(next(true, 1, &slot), PG_CLOSE);
	assert_ptr_equal(slot, idle);
	pg_pool_remove(&pool, slot);
	assert_int_equal(next(false, 1, &slot), PG_OPEN); /* not shared any more */
	assert_false(pg_pool_give(&pool, busy, 5, now));
	pg_pool_remove(&pool, busy);
	add_open();
	pool.recycle_ms = 0;
	now += 1000000000;
	assert_int_equal(next(true, 1, &slot), PG_TAKE);
}

/* All break at once; then one is tried at a time, later and later, until one succeeds. */
static void
the_pool_heals_without_a_stampede(void **state)
{
	struct pg_slot *slot;
	uint64_t waits[8], last = 0;

	for (int i = 0; i < SIZE + OVERFLOW; i++)
		add_busy(true);
	for (int i = 0; i < SIZE + OVERFLOW; i++)
		pg_pool_broken(&pool, &slots[i], now, UINT64_MAX - (uint64_t)i);
	assert_int_equal(pg_pool_ready(&pool), 0);
	assert_true(pg_pool_wait_ms(&pool, now) <= PG_BACKOFF_FIRST_MS);
	for (unsigned i = 0; i < ARRAY_LEN(waits); i++) {
		now += pg_pool_wait_ms(&pool, now);
		assert_int_equal(next(true, 100, &slot), PG_OPEN);
		slot = add();
		assert_int_equal(next(true, 100, &slot), PG_WAIT);
		pg_pool_broken(&pool, &slots[used - 1], now, i % 2 == 0 ? 0 : UINT32_MAX);
		waits[i] = pg_pool_wait_ms(&pool, now);
		assert_true(waits[i] >= PG_BACKOFF_FIRST_MS / 2);
		assert_true(waits[i] <= PG_BACKOFF_MAX_MS);
		assert_int_equal(next(true, 100, &slot), PG_WAIT);
		last = waits[i];
	}
	assert_true(last >= PG_BACKOFF_MAX_MS / 2);
	now += last;
	slot = add();
	pg_pool_opened(&pool, slot, now);
	pg_pool_take(&pool, slot, true);
	add();
	assert_int_equal(next(true, 100, &slot), PG_OPEN); /* several again */
}

static void
waits_differ_by_chance(void **state)
{
	uint64_t least = UINT64_MAX, most = 0;

	for (uint64_t random = 0; random < 3000; random += 7) {
		setup(NULL);
		for (int i = 0; i < 10; i++)
			pg_pool_broken(&pool, add(), now, 0);
		pg_pool_broken(&pool, add(), now, random);
		if (pg_pool_wait_ms(&pool, now) < least)
			least = pg_pool_wait_ms(&pool, now);
		if (pg_pool_wait_ms(&pool, now) > most)
			most = pg_pool_wait_ms(&pool, now);
	}
	assert_true(least < PG_BACKOFF_MAX_MS * 6 / 10);
	assert_true(most > PG_BACKOFF_MAX_MS * 9 / 10);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup(name, setup)
	const struct CMUnitTest tests[] = {
	    T(as_many_are_opened_as_wait),
	    T(overflow_is_closed_on_return_unless_someone_waits),
	    T(overflow_stays_while_a_crowd_comes_and_goes),
	    T(short_ones_share_and_transactions_do_not),
	    T(the_least_busy_is_shared),
	    T(who_idled_is_checked_before_use),
	    T(where_one_broke_the_others_are_checked),
	    T(answers_to_what_was_asked_before_one_broke_prove_nothing),
	    T(old_ones_are_replaced),
	    T(the_pool_heals_without_a_stampede),
	    T(waits_differ_by_chance),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
