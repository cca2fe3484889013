/* report: figures by name, saturation, what passes; and tallies added up, and the pacer. */
#include "t/unit/unit.h"

#include <jansson.h>

#include "loadtest/parley_load/expect.c"
#include "loadtest/parley_load/latency.c"
#include "loadtest/parley_load/pacer.c"
#include "loadtest/parley_load/report.c"
#include "loadtest/parley_load/tally.c"

static struct options options;
static struct report report;

static int
setup(void **state)
{
	options = (struct options){.scenario = "turns", .users = 4, .processes = 2, .count = 10};
	report = (struct report){.options = &options};
	report.total.started = report.total.done = 10;
	report.total.took_us = 2000000;
	for (int i = 0; i < 10; i++)
		latency_add(&report.total.whole, 1000);
	return 0;
}

static double
value_of(const char *name)
{
	double value = -1;

	assert_true(report_value(&report, str_of(name), &value));
	return value;
}

static bool
passes(const char *expect)
{
	struct buf json = BUF_INIT;
	json_error_t error;

	options.expect_count = expect != NULL;
	if (expect != NULL)
		assert_true(expect_parse(expect, &options.expects[0]));
	bool has_passed = report_format(&report, &json);
	json_t *parsed = json_loadb(json.data, json.len, 0, &error);
	assert_non_null(parsed);
	assert_int_equal(json_is_true(json_object_get(parsed, "passed")), has_passed);
	json_decref(parsed);
	buf_fini(&json);
	return has_passed;
}

static void
test_figures_by_name(void **state)
{
	report.total.failed = 1;
	report.total.refused = 3;
	assert_true(value_of("done") == 10);
	assert_true(value_of("seconds") == 2);
	assert_true(value_of("per_second") == 5);
	assert_true(value_of("whole_per_second") == 3);
	assert_true(value_of("missing") == 0);
	assert_true(value_of("whole_count") == 10);
	assert_true(value_of("whole_mean_us") == 1000);
	assert_true(value_of("whole_p50_us") == 1000);
	assert_true(value_of("whole_p999_us") == 1000);
	assert_true(value_of("whole_max_us") == 1000);
	assert_true(isnan(value_of("first_p99_us")));
}

static void
test_no_such_figure(void **state)
{
	static const char *const bad[] = {"", "whole", "whole_", "whole_p99", "whole_p99_ms",
	    "whole_p98_us", "whole_count_us", "don"};
	double value;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(report_value(&report, str_of(bad[i]), &value));
}

static void
test_what_passes(void **state)
{
	assert_true(passes(NULL));
	assert_true(passes("whole_p99_us<=1000"));
	assert_false(passes("whole_p99_us<1000"));
	assert_false(passes("first_p99_us<1000000")); /* it was never taken */
	report.total.failed = 1;
	assert_false(passes(NULL));
	assert_true(passes("failed<2"));
	report.total.failed = 0;
	report.died = 1;
	assert_false(passes(NULL));
}

static void
test_what_is_missing(void **state)
{
	report.total.done = 9;
	assert_false(passes(NULL));
	assert_true(value_of("missing") == 1);
	options.count = 0; /* it ran for a time: what began must have ended */
	assert_true(value_of("missing") == 1);
	report.total.started = 9;
	assert_true(passes(NULL));
}

static void
test_saturation(void **state)
{
	assert_null(report_saturation(&report));
	report.total.cpu_share_max = 0.95;
	assert_non_null(report_saturation(&report));
	report.total.cpu_share_max = 0.5;
	latency_add(&report.total.lag, 9000);
	assert_null(report_saturation(&report));
	latency_add(&report.total.lag, 11000);
	assert_non_null(report_saturation(&report));
	assert_true(value_of("saturated") == 1);
	assert_false(passes("saturated=0"));
}

static void
test_tallies_add_up(void **state)
{
	static struct tally sum, a, b;

	a.done = 3;
	a.took_us = 1000;
	a.measured_cpu_us = 100;
	latency_add(&a.first, 10);
	b.done = 4;
	b.took_us = 500;
	b.measured_cpu_us = 400;
	latency_add(&b.first, 30);
	tally_merge(&sum, &a);
	tally_merge(&sum, &b);
	assert_int_equal(sum.done, 7);
	assert_int_equal(sum.took_us, 1000);
	assert_true(sum.cpu_share_max == 0.8);
	assert_int_equal(sum.first.count, 2);
	assert_int_equal(sum.first.max_us, 30);
	assert_true(latency_mean(&sum.first) == 20);
	assert_int_equal(latency_percentile(&sum.first, 99), 30);
}

static void
test_a_pace_is_kept(void **state)
{
	struct pacer p = {.per_s = 1000, .began_us = 5000};

	assert_int_equal(pacer_next(&p, 4999), 0);
	assert_int_equal(pacer_next(&p, 5000), 5000);
	assert_int_equal(pacer_next(&p, 5999), 0);
	/* Who comes late finds what was due, and when. */
	assert_int_equal(pacer_next(&p, 7500), 6000);
	assert_int_equal(pacer_next(&p, 7500), 7000);
	assert_int_equal(pacer_next(&p, 7500), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(test_figures_by_name, setup),
	    cmocka_unit_test_setup(test_no_such_figure, setup),
	    cmocka_unit_test_setup(test_what_passes, setup),
	    cmocka_unit_test_setup(test_what_is_missing, setup),
	    cmocka_unit_test_setup(test_saturation, setup),
	    cmocka_unit_test_setup(test_tallies_add_up, setup),
	    cmocka_unit_test(test_a_pace_is_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
