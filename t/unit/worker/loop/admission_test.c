/*
 * admission_test - replay of round times: what is a standing queue and what is not, where the limit
 * goes, and a worker that is offered three times what it carries.
 */
#include "t/unit/unit.h"

#include "worker/loop/admission.h"

enum { TARGET_US = 5000, INTERVAL_US = 100000 };

static struct admission a;
static uint64_t now_us;

static int
setup(void **state)
{
	admission_init(&a, TARGET_US, INTERVAL_US);
	now_us = 1000000;
	return 0;
}

static bool
round_of(uint64_t us)
{
	now_us += us;
	return admission_round(&a, us, now_us);
}

static void
rounds_for(uint64_t time_us, uint64_t us)
{
	for (uint64_t end_us = now_us + time_us; now_us < end_us;)
		round_of(us);
}

static void
enter(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		admission_enter(&a);
}

static void
leave(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		admission_leave(&a);
}

/* ---- pressure ---- */

static void
test_rounds_below_the_target_never_limit(void **state)
{
	enter(1000);
	rounds_for(10 * 1000 * 1000, TARGET_US);
	assert_false(admission_is_limited(&a));
	assert_true(admission_allows(&a));
	assert_int_equal(a.delay_us, TARGET_US);
}

static void
test_a_standing_queue_limits_after_an_interval(void **state)
{
	enter(1000);
	rounds_for(INTERVAL_US - 1000, TARGET_US + 1);
	assert_false(admission_is_limited(&a));
	rounds_for(INTERVAL_US / 5, TARGET_US + 1);
	assert_true(admission_is_limited(&a));
	assert_in_range(a.limit, 900, 999);
	assert_false(admission_allows(&a));
}

/* A slow read now and then, or a machine that takes the core away: the queue is empty afterwards.
 */
static void
test_single_long_rounds_are_no_pressure(void **state)
{
	static const uint64_t long_us[] = {30000, 50000, 99000, 150000, 1000000};

	enter(1);
	for (size_t i = 0; i < sizeof(long_us) / sizeof(long_us[0]); i++) {
		for (int n = 0; n < 50; n++) {
			round_of(long_us[i]);
			round_of(2);
		}
		assert_false(admission_is_limited(&a));
	}
}

/* Two in a row, too, and three, however long. */
static void
test_it_takes_several_long_rounds(void **state)
{
	enter(10);
	for (int n = 0; n < 100; n++) {
		for (int i = 1; i < ADMISSION_ROUNDS_MIN; i++)
			round_of(400000);
		round_of(10);
	}
	assert_false(admission_is_limited(&a));
	for (int i = 0; i < ADMISSION_ROUNDS_MIN; i++)
		round_of(400000);
	assert_true(admission_is_limited(&a));
}

static void
test_off_admits_everything(void **state)
{
	admission_init(&a, 0, INTERVAL_US);
	enter(1000);
	rounds_for(1000000, 200000);
	assert_true(admission_allows(&a));
	assert_false(admission_is_limited(&a));
}

/* ---- the limit ---- */

static void
test_no_further_cut_before_the_last_had_its_effect(void **state)
{
	uint32_t first;

	enter(1000);
	rounds_for(INTERVAL_US + 10000, 6000);
	first = a.limit;
	rounds_for(10 * INTERVAL_US, 6000);
	assert_int_equal(a.limit, first); /* 1000 are still in progress */
	leave(1000 - first);
	rounds_for(INTERVAL_US + 10000, 6000);
	assert_true(a.limit < first);
}

static void
test_far_above_the_target_it_is_cut_by_more(void **state)
{
	uint32_t near, far;

	enter(1000);
	rounds_for(INTERVAL_US + 10000, TARGET_US + 1);
	near = a.limit;
	admission_init(&a, TARGET_US, INTERVAL_US);
	enter(1000);
	rounds_for(INTERVAL_US + 30000, 8 * TARGET_US);
	far = a.limit;
	assert_true(far < near);
	assert_in_range(far, 700, 800);
}

static void
test_it_never_goes_below_the_least(void **state)
{
	enter(20);
	for (int i = 0; i < 200; i++) {
		rounds_for(INTERVAL_US + 20000, 10000);
		while (a.live > a.limit)
			leave(1);
	}
	assert_int_equal(a.limit, ADMISSION_LIMIT_MIN);
	leave(1);
	assert_true(admission_allows(&a));
}

static void
test_it_grows_while_it_is_asked_for_and_goes_when_it_is_not(void **state)
{
	uint32_t low;

	enter(100);
	rounds_for(INTERVAL_US + 10000, 6000);
	low = a.limit;
	enter(100); /* of those that are not asked for */
	for (int i = 0; i < 5; i++) {
		assert_false(admission_allows(&a));
		rounds_for(INTERVAL_US + 1000, 1000);
	}
	assert_in_range(a.limit, low + 5, low + 25);
	leave(200);
	rounds_for(6 * 1000 * 1000, 1000);
	assert_false(admission_is_limited(&a));
}

/* An idle worker has hardly a round: time counts, not rounds. */
static void
test_idle_time_lifts_it(void **state)
{
	enter(100);
	rounds_for(INTERVAL_US + 10000, 6000);
	leave(100);
	for (int i = 0; i < 7; i++) {
		now_us += 1000000;
		round_of(1);
	}
	assert_false(admission_is_limited(&a));
}

/* ---- a worker, simulated: a round is as long as the work in progress makes it ---- */

enum { CARRIES = 300, TURN_MS = 400, OFFERED_TIMES = 3 };

/* Above what it carries rounds grow quickly, as queues do. */
static uint64_t
round_us_of(uint32_t live)
{
	return live < CARRIES ? 100 + live * 10 : 3100 + (uint64_t)(live - CARRIES) * 200;
}

static void
test_three_times_the_load_settles_near_what_is_carried(void **state)
{
	uint32_t ends[TURN_MS + 1] = {0}, lowest = UINT32_MAX, highest = 0;
	uint64_t due = 0, refused = 0, longest_us = 0;

	for (uint64_t ms = 0; ms < 20000; ms++) {
		uint32_t slot = (uint32_t)(ms % TURN_MS);

		leave(ends[slot]);
		ends[slot] = 0;
		for (due += OFFERED_TIMES * CARRIES; due >= TURN_MS; due -= TURN_MS) {
			if (admission_allows(&a)) {
				admission_enter(&a);
				ends[slot]++; /* it comes by again when the turn has ended */
			} else {
				refused++;
			}
		}
		uint64_t us = round_us_of(a.live);
		now_us = 1000000 + ms * 1000;
		if (ms % (us / 1000 + 1) == 0)
			admission_round(&a, us, now_us);
		if (ms < 3000)
			continue;
		lowest = a.live < lowest ? a.live : lowest;
		highest = a.live > highest ? a.live : highest;
		longest_us = us > longest_us ? us : longest_us;
	}
	assert_in_range(lowest, CARRIES * 8 / 10, CARRIES);
	assert_in_range(highest, CARRIES, CARRIES * 12 / 10);
	assert_true(longest_us < 3 * TARGET_US);
	assert_true(refused > 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(test_rounds_below_the_target_never_limit, setup),
	    cmocka_unit_test_setup(test_a_standing_queue_limits_after_an_interval, setup),
	    cmocka_unit_test_setup(test_single_long_rounds_are_no_pressure, setup),
	    cmocka_unit_test_setup(test_it_takes_several_long_rounds, setup),
	    cmocka_unit_test_setup(test_off_admits_everything, setup),
	    cmocka_unit_test_setup(test_no_further_cut_before_the_last_had_its_effect, setup),
	    cmocka_unit_test_setup(test_far_above_the_target_it_is_cut_by_more, setup),
	    cmocka_unit_test_setup(test_it_never_goes_below_the_least, setup),
	    cmocka_unit_test_setup(
		test_it_grows_while_it_is_asked_for_and_goes_when_it_is_not, setup),
	    cmocka_unit_test_setup(test_idle_time_lifts_it, setup),
	    cmocka_unit_test_setup(test_three_times_the_load_settles_near_what_is_carried, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
