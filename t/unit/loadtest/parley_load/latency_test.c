/* latency: every value is found again, at most 3.2 % too high. */
#include "t/unit/unit.h"

#include "loadtest/parley_load/latency.c"

static void
test_a_value_is_known_to_its_cell(void **state)
{
	(void)state;
	for (uint64_t us = 1; us < UINT64_C(1) << 36; us += us / 7 + 1) {
		struct latency l = {0};

		latency_add(&l, us);
		l.max_us = UINT64_MAX;
		assert_in_range(latency_percentile(&l, 50), us, us + us / 31 + 1);
	}
}

static void
test_percentiles(void **state)
{
	static struct latency l;

	(void)state;
	assert_int_equal(latency_percentile(&l, 99), 0);
	for (uint64_t us = 1; us <= 10000; us++)
		latency_add(&l, us);
	assert_in_range(latency_percentile(&l, 50), 5000, 5170);
	assert_in_range(latency_percentile(&l, 99), 9900, 10000);
	assert_int_equal(latency_percentile(&l, 100), 10000);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_a_value_is_known_to_its_cell),
	    cmocka_unit_test(test_percentiles),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
