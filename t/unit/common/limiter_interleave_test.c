/*
 * limiter_interleave_test - three workers decide about one key, stopped and killed between any two
 * atomic operations: never more than the limit is given, and never less than it while they ask.
 */
#include "t/unit/interleave.h"

#include "common/limiter.c"
#define place_of place_in_log /* both files have one */
#include "common/limiter_log.c"

#include "common/clock.h"
#include "common/metric.h"

enum { LIMIT = 2, WINDOW_MS = 1000, RANDOM_SCHEDULES = 10000 };

static const struct limiter_rule rule = {LIMIT, WINDOW_MS};
static struct shm *shm;
static struct limiter_key key;
static uint64_t now_ms = 100000, key_number;
static unsigned allowed, refused;
static int takes = 2;
static bool is_moving; /* the clock, between the takes */

static void
reset(void)
{
	char name[32];
	int len = snprintf(name, sizeof(name), "%ju", (uintmax_t)key_number++);

	key = limiter_key_of("test", str_sub(name, (size_t)len));
	now_ms += 3 * WINDOW_MS;
	allowed = refused = 0;
}

static void
take(int me)
{
	for (int i = 0; i < takes; i++) {
		uint64_t at_ms = now_ms + (is_moving ? (uint64_t)(me + 3 * i) : 0);

		if (limiter_take(shm, key, rule, 1, at_ms).is_allowed)
			allowed++;
		else
			refused++;
	}
}

static void
on_kill(int me)
{
	(void)me;
}

static void
the_limit_was_kept(void)
{
	unsigned killed = 0, left;

	for (int i = 0; i < interleave.what->actors; i++)
		killed += interleave_was_killed(i);
	left = limiter_take(shm, key, rule, 0, now_ms + 10).remaining;
	assert_true(allowed <= LIMIT);
	/* Who was killed has taken one unseen at most. */
	assert_true(LIMIT - left >= allowed && LIMIT - left <= allowed + killed);
	if (allowed + refused >= LIMIT)
		assert_int_equal(left, 0);
}

static void
test_every_order_of_two(void **state)
{
	struct interleave what = {.actors = 2,
	    .switches_max = 2,
	    .reset = reset,
	    .run = take,
	    .on_kill = on_kill,
	    .finish = the_limit_was_kept};

	(void)state;
	is_moving = false;
	takes = 1;
	assert_true(interleave_all(&what) > 100);
	what.switches_max = what.kills_max = 1;
	assert_true(interleave_all(&what) > 100);
	takes = 2;
}

static void
test_random_orders_of_three(void **state)
{
	const struct interleave what = {.actors = 3,
	    .switches_max = STEPS_MAX,
	    .kills_max = 1,
	    .reset = reset,
	    .run = take,
	    .on_kill = on_kill,
	    .finish = the_limit_was_kept};
	uint64_t seed = clock_mono_us();

	(void)state;
	for (int i = 0; i < 2; i++) {
		is_moving = i == 1;
		printf("seed=%ju\n", (uintmax_t)seed);
		interleave_some(&what, RANDOM_SCHEDULES / 2, seed++);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_every_order_of_two),
	    cmocka_unit_test(test_random_orders_of_three),
	};
	struct shm_who me;

	shm = shm_create(4);
	assert_non_null(shm);
	assert_true(shm_row_claim(shm, 0, (int)getpid(), &me));
	metric_init(shm, me);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
