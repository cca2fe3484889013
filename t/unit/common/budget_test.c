/* budget - where periods begin and end, in UTC. */
#include "t/unit/unit.h"

#include "common/budget.h"
#include "common/clock.h"

static int64_t
at(const char *text)
{
	int64_t ms;

	assert_true(clock_parse(str_of(text), &ms));
	return ms;
}

static void
assert_period(enum budget_period period, const char *now, const char *first, const char *end)
{
	assert_true(budget_first_day(period, at(now)) * 86400000 == at(first));
	assert_true(budget_end_ms(period, at(now)) == at(end));
}

static void
periods_begin_and_end_in_utc(void **state)
{
	assert_period(
	    BUDGET_DAY, "2026-11-21T00:00:00.000Z", "2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z");
	assert_period(
	    BUDGET_DAY, "2026-11-21T23:59:59.999Z", "2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z");
	assert_period(BUDGET_MONTH, "2026-12-31T23:59:59.999Z", "2026-12-01T00:00:00Z",
	    "2027-01-01T00:00:00Z");
	assert_period(
	    BUDGET_MONTH, "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z");
	assert_period(
	    BUDGET_MONTH, "2026-01-31T00:00:00Z", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
	/* 2026-11-23 is a Monday. */
	assert_period(BUDGET_WEEK, "2026-11-22T23:59:59.999Z", "2026-11-16T00:00:00Z",
	    "2026-11-23T00:00:00Z");
	assert_period(
	    BUDGET_WEEK, "2026-11-23T00:00:00Z", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z");
	assert_int_equal(budget_first_day(BUDGET_TOTAL, at("2026-11-21T00:00:00Z")), 0);
	assert_int_equal(budget_end_ms(BUDGET_TOTAL, at("2026-11-21T00:00:00Z")), 0);
}

static void
rules_come_from_the_config(void **state)
{
	struct budget_rule rule = budget_rule_of(0.1, "day");

	assert_int_equal(rule.amount_micros, 100000);
	assert_int_equal(rule.period, BUDGET_DAY);
	assert_int_equal(budget_rule_of(0, "month").amount_micros, 0);
	assert_int_equal(budget_rule_of(1, "decade").period, BUDGET_TOTAL);
	assert_string_equal(budget_period_name(BUDGET_WEEK), "week");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(periods_begin_and_end_in_utc),
	    cmocka_unit_test(rules_come_from_the_config),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
