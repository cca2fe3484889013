/* money - prices and costs are exact, whatever the numbers. */
#include "t/unit/unit.h"

#include "common/money.h"

static int64_t
cost(double input, double output, double cached, uint64_t in, uint64_t out, uint64_t hits)
{
	struct money_price p = money_price_of(input, output, cached);

	return money_cost(&p, in, out, hits);
}

static void
costs_are_exact_and_rounded_up_once(void **state)
{
	assert_int_equal(cost(0.15, 0.60, 0.075, 1000, 100, 200), 195);
	/* 0.1 + 0.2 is no float: 3 tokens at 0.1 and 1 at 0.7 are 1 micro, not 1.0000000000000002
	 */
	assert_int_equal(cost(0.1, 0.7, -1, 3, 1, 0), 1);
	assert_int_equal(cost(0.07, 0, -1, 100, 0, 0), 7);
	assert_int_equal(cost(0.000001, 0, -1, 1, 0, 0), 1); /* anything is at least a micro */
	assert_int_equal(cost(0.000001, 0, -1, 1000001, 0, 0), 2);
	assert_int_equal(cost(0, 0, 0, 1000, 1000, 0), 0);
	assert_int_equal(cost(1, 2, -1, 10, 10, 10), 30);
	assert_int_equal(cost(1, 2, 0.5, 10, 10, 99), 25); /* no more hits than there are */
}

static void
sums_of_parts_are_never_below_the_whole(void **state)
{
	uint64_t seed = 1;

	for (int i = 0; i < 2000; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		uint64_t a = seed >> 40, b = seed >> 20 & 0xfffff;
		int64_t whole = cost(0.15, 0.6, 0.075, a, b, a / 3);

		assert_true(whole >= 0);
		assert_true(
		    cost(0.15, 0.6, 0.075, a, 0, a / 3) + cost(0.15, 0.6, 0.075, 0, b, 0) - whole <=
		    1);
		assert_true(
		    cost(0.15, 0.6, 0.075, a, 0, a / 3) + cost(0.15, 0.6, 0.075, 0, b, 0) >= whole);
	}
}

static void
what_has_no_price_has_no_cost(void **state)
{
	assert_int_equal(cost(-1, -1, -1, 1, 1, 0), -1);
	assert_int_equal(cost(1, -1, -1, 1, 1, 0), -1);
}

static void
huge_numbers_end_at_the_largest(void **state)
{
	assert_true(cost(1e6, 1e6, -1, UINT64_MAX, UINT64_MAX, 0) == INT64_MAX);
	assert_true(cost(1e300, 0, -1, 1, 0, 0) == INT64_C(1000000));
	assert_true(money_micros(1e300) == INT64_MAX);
	assert_true(money_micros(1e9) == INT64_C(1000000000000000));
	assert_int_equal(money_micros(0.1), 100000);
	assert_int_equal(money_micros(-1), 0);
}

static void
amounts_are_written_short(void **state)
{
	char out[MONEY_TEXT_MAX];

	assert_string_equal(money_format(0, out), "0");
	assert_string_equal(money_format(12000000, out), "12");
	assert_string_equal(money_format(10500000, out), "10.5");
	assert_string_equal(money_format(1, out), "0.000001");
	assert_string_equal(money_format(100, out), "0.0001");
	assert_string_equal(money_format(INT64_MAX, out), "9223372036854.775807");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(costs_are_exact_and_rounded_up_once),
	    cmocka_unit_test(sums_of_parts_are_never_below_the_whole),
	    cmocka_unit_test(what_has_no_price_has_no_cost),
	    cmocka_unit_test(huge_numbers_end_at_the_largest),
	    cmocka_unit_test(amounts_are_written_short),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
