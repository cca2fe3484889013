/* slot: only what never worked is delayed, and ever longer. */
#include "t/unit/unit.h"

#include "master/slot.h"

static uint64_t
died(struct slot *s, bool was_ready, uint64_t backoff_ms, uint64_t max_ms)
{
	struct slot_death d = {was_ready, was_ready ? 60000 : 5, false};

	return slot_died(s, &d, backoff_ms, max_ms);
}

static void
test_a_worker_that_was_ready_is_replaced_at_once(void **state)
{
	struct slot s = {.index = 1};

	assert_int_equal(died(&s, true, 100, 10000), 0);
	assert_int_equal(died(&s, true, 100, 10000), 0);
}

static void
test_early_deaths_double_the_wait_up_to_the_limit(void **state)
{
	static const uint64_t expected[] = {100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000};
	struct slot s = {.index = 0};

	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		assert_int_equal(died(&s, false, 100, 10000), expected[i]);
	s.early_deaths = UINT32_MAX - 1;
	assert_int_equal(died(&s, false, 100, 10000), 10000);
}

static void
test_one_that_works_ends_the_series(void **state)
{
	struct slot s = {.index = 0};

	died(&s, false, 100, 10000);
	died(&s, false, 100, 10000);
	slot_worked(&s);
	assert_int_equal(died(&s, false, 100, 10000), 100);
	assert_int_equal(died(&s, true, 100, 10000), 0);
	assert_int_equal(died(&s, false, 100, 10000), 100);
}

static void
test_a_first_wait_above_the_limit_is_the_limit(void **state)
{
	struct slot s = {.index = 0};

	assert_int_equal(died(&s, false, 500, 50), 50);
}

static void
test_a_series_of_crashes_is_slowed_down(void **state)
{
	static const uint64_t expected[] = {0, 0, 100, 200, 400, 400};
	struct slot_death soon = {true, 900, false}, late = {true, SLOT_CALM_MS, false};
	struct slot_death killed = {true, 900, true};
	struct slot s = {.index = 0};

	(void)state;
	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		assert_int_equal(slot_died(&s, &soon, 100, 400), expected[i]);
	assert_true(slot_is_crashing(&s));
	assert_int_equal(slot_died(&s, &killed, 100, 400), 0);
	assert_int_equal(slot_died(&s, &late, 100, 400), 0);
	assert_false(slot_is_crashing(&s));
	slot_died(&s, &soon, 100, 400);
	slot_is_calm(&s);
	assert_int_equal(slot_died(&s, &soon, 100, 400), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_a_worker_that_was_ready_is_replaced_at_once),
	    cmocka_unit_test(test_early_deaths_double_the_wait_up_to_the_limit),
	    cmocka_unit_test(test_one_that_works_ends_the_series),
	    cmocka_unit_test(test_a_series_of_crashes_is_slowed_down),
	    cmocka_unit_test(test_a_first_wait_above_the_limit_is_the_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
