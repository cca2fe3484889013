/*
 * admission_test - replay of waits: what is pressure and what is not, where the limit
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
wait_of(uint64_t us)
{
	now_us += us;
	return admission_waited(&a, us, us, now_us);
}

static void
idle_for(uint64_t us)
{
	now_us += us;
	admission_waited(&a, 2, 2, now_us);
}

/* One after the other, as when the core is never free. */
static void
waits_for(uint64_t time_us, uint64_t us)
{
	for (uint64_t end_us = now_us + time_us; now_us < end_us;)
		wait_of(us);
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
test_waits_below_the_target_never_limit(void **state)
{
	enter(1000);
	waits_for(10 * 1000 * 1000, TARGET_US);
	assert_false(admission_is_limited(&a));
	assert_true(admission_allows(&a));
	assert_int_equal(a.delay_us, TARGET_US);
}

static void
test_a_standing_queue_limits_after_an_interval(void **state)
{
	enter(1000);
	waits_for(INTERVAL_US - 10000, TARGET_US + 1);
	assert_false(admission_is_limited(&a));
	waits_for(INTERVAL_US / 5, TARGET_US + 1);
	assert_true(admission_is_limited(&a));
	assert_in_range(a.limit, 800, 999);
	assert_false(admission_allows(&a));
}

/* A slow read now and then, or a machine that takes the core away. */
static void
test_single_long_waits_are_no_pressure(void **state)
{
	static const uint64_t long_us[] = {30000, 50000, 99000, 150000, 1000000};

	enter(1);
	for (size_t i = 0; i < sizeof(long_us) / sizeof(long_us[0]); i++) {
		for (int n = 0; n < 50; n++) {
			wait_of(long_us[i]);
			for (int quiet = 0; quiet < 12; quiet++)
				idle_for(long_us[i] / 10);
		}
		assert_false(admission_is_limited(&a));
	}
}

/* Three in a row, too, however long. */
static void
test_it_takes_several_long_waits(void **state)
{
	enter(10);
	for (int n = 0; n < 20; n++) {
		for (int i = 1; i < ADMISSION_WAITS_MIN; i++)
			wait_of(400000);
		for (int i = 0; i < 20; i++)
			idle_for(100000);
	}
	assert_false(admission_is_limited(&a));
	for (int i = 0; i < ADMISSION_WAITS_MIN; i++)
		wait_of(400000);
	assert_true(admission_is_limited(&a));
}

/* Late within each beat, and nothing to do between two. */
static void
test_beats_are_pressure_by_their_share(void **state)
{
	enter(1000);
	for (int n = 0; n < 50; n++) {
		wait_of(8000);
		idle_for(12000);
	}
	assert_false(admission_is_limited(&a));
	for (int n = 0; n < 50; n++) {
		wait_of(12000);
		idle_for(8000);
	}
	assert_true(admission_is_limited(&a));
}

/* Others have the core: what little there is to do waits, but refusing would not change that. */
static void
test_a_core_that_others_have_is_no_pressure(void **state)
{
	enter(10);
	for (int i = 0; i < 1000; i++) {
		now_us += 20000;
		admission_waited(&a, 20000, 20000 / 2 / ADMISSION_CORE_TIMES, now_us);
	}
	assert_false(admission_is_limited(&a));
	for (int i = 0; i < 10; i++) {
		now_us += 20000;
		admission_waited(&a, 20000, 20000 / ADMISSION_CORE_TIMES, now_us);
	}
	assert_true(admission_is_limited(&a));
}

static void
test_off_admits_everything(void **state)
{
	admission_init(&a, 0, INTERVAL_US);
	enter(1000);
	waits_for(1000000, 200000);
	assert_true(admission_allows(&a));
	assert_false(admission_is_limited(&a));
}

/* ---- the limit ---- */

static void
test_no_further_cut_before_the_last_had_its_effect(void **state)
{
	uint32_t first;

	enter(1000);
	waits_for(INTERVAL_US + 10000, 6000);
	first = a.limit;
	waits_for(10 * INTERVAL_US, 6000);
	assert_int_equal(a.limit, first); /* 1000 are still in progress */
	leave(1000 - first);
	waits_for(INTERVAL_US + 10000, 6000);
	assert_true(a.limit < first);
}

static void
test_far_above_the_target_it_is_cut_by_more(void **state)
{
	uint32_t near, far;

	enter(1000);
	waits_for(INTERVAL_US + 10000, TARGET_US + 1);
	near = a.limit;
	admission_init(&a, TARGET_US, INTERVAL_US);
	enter(1000);
	waits_for(INTERVAL_US + 30000, 8 * TARGET_US);
	far = a.limit;
	assert_true(far < near);
	assert_in_range(far, 500, 800);
}

static void
test_it_never_goes_below_the_least(void **state)
{
	enter(20);
	for (int i = 0; i < 200; i++) {
		waits_for(INTERVAL_US + 20000, 10000);
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
	waits_for(INTERVAL_US + 10000, 6000);
	low = a.limit;
	enter(100); /* of those that are not asked for */
	for (int i = 0; i < 5; i++) {
		assert_false(admission_allows(&a));
		waits_for(INTERVAL_US + 1000, 1000);
	}
	assert_in_range(a.limit, low + 5, low + 40);
	leave(200);
	waits_for(6 * 1000 * 1000, 1000);
	assert_false(admission_is_limited(&a));
}

/* An idle worker hardly measures: time counts. */
static void
test_idle_time_lifts_it(void **state)
{
	enter(100);
	waits_for(INTERVAL_US + 10000, 6000);
	leave(100);
	for (int i = 0; i < 7; i++) {
		now_us += 1000000;
		wait_of(1);
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
			admission_waited(&a, us, us, now_us);
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
	    cmocka_unit_test_setup(test_waits_below_the_target_never_limit, setup),
	    cmocka_unit_test_setup(test_a_standing_queue_limits_after_an_interval, setup),
	    cmocka_unit_test_setup(test_single_long_waits_are_no_pressure, setup),
	    cmocka_unit_test_setup(test_it_takes_several_long_waits, setup),
	    cmocka_unit_test_setup(test_beats_are_pressure_by_their_share, setup),
	    cmocka_unit_test_setup(test_a_core_that_others_have_is_no_pressure, setup),
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
