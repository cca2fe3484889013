/* report, fleet - texts of figures in Redis, sums over instances, and how far stored ones are off.
 */
#include "t/unit/unit.h"

#include <stdlib.h>

#include "common/check.h"
#include "worker/stats/fleet.h"

static struct region_counts
counts_of(uint64_t n)
{
	struct region_counts c = {.hits = 5 * n, .misses = 3 * n, .entries = n, .us = 700 * n};

	c.times[0] = 5 * n;
	c.times[4] = 2 * n;
	c.times[REGION_TIMES - 1] = n;
	return c;
}

static struct report
report_of(uint64_t at_ms, uint64_t n, uint64_t was_at_ms, uint64_t was)
{
	return (struct report){.at_ms = at_ms,
	    .interval_ms = 1000,
	    .counts = counts_of(n),
	    .was_at_ms = was_at_ms,
	    .was = counts_of(was)};
}

/* ---- texts ---- */

static void
test_report_there_and_back(void **state)
{
	struct report r = report_of(1763740000000, 7, 1763739999000, 6), again;
	struct buf out = BUF_INIT, rest = BUF_INIT;

	report_format(&r, &out);
	assert_true(report_parse(buf_str(&out), &again));
	assert_memory_equal(&r, &again, sizeof(r));
	assert_true(out.len < 1000);
	buf_add_cstr(&rest, "v=1 at=1763740000000");
	report_format_rest(&r, &rest);
	assert_string_equal(rest.data, out.data);
	/* No beginning of it is one, and nothing more may follow. */
	for (size_t len = 0; len < out.len; len++) {
		bool is_shorter_number = report_parse(str_sub(out.data, len), &again);

		assert_true(!is_shorter_number || out.data[len] != ',');
		assert_true(!is_shorter_number || len == out.len - 1);
	}
	buf_add_cstr(&out, " x=1");
	assert_false(report_parse(buf_str(&out), &again));
	buf_fini(&out);
	buf_fini(&rest);
}

static void
test_aggregate_there_and_back(void **state)
{
	struct aggregate a = {.at_ms = 5,
			     .instances = 1000,
			     .took_us = 77,
			     .is_compared = true,
			     .drift_ppm = 50001,
			     .counts = counts_of(1000)},
			 again;
	struct buf out = BUF_INIT;

	aggregate_format(&a, &out);
	assert_true(aggregate_parse(buf_str(&out), &again));
	assert_true(again.is_compared);
	assert_int_equal(again.at_ms, a.at_ms);
	assert_int_equal(again.instances, a.instances);
	assert_int_equal(again.took_us, a.took_us);
	assert_int_equal(again.drift_ppm, a.drift_ppm);
	assert_memory_equal(&a.counts, &again.counts, sizeof(a.counts));
	out.data[2] = '2'; /* of another version */
	assert_false(aggregate_parse(buf_str(&out), &again));
	buf_fini(&out);
}

/* Replaces a piece of a good report. */
static bool
parses_with(const char *piece, const char *by)
{
	struct report r = report_of(10, 1, 9, 1);
	struct buf out = BUF_INIT, other = BUF_INIT;

	report_format(&r, &out);
	const char *at = strstr(out.data, piece);
	assert_non_null(at);
	buf_add(&other, out.data, (size_t)(at - out.data));
	buf_add_cstr(&other, by);
	buf_add_cstr(&other, at + strlen(piece));
	bool is_good = report_parse(buf_str(&other), &r);
	buf_fini(&out);
	buf_fini(&other);
	return is_good;
}

static void
test_what_is_no_report(void **state)
{
	assert_true(parses_with("hits=5", "hits=6"));
	assert_true(parses_with("hits=5", "hits=1125899906842624")); /* REPORT_NUMBER_MAX */
	assert_false(parses_with("hits=5", "hits=1125899906842625"));
	assert_false(parses_with("hits=5", "hits=18446744073709551616"));
	assert_false(parses_with("hits=5", "hits=-5"));
	assert_false(parses_with("hits=5", "hits= 5"));
	assert_false(parses_with("hits=5", "hits="));
	assert_false(parses_with("hits=5", "hits=5.0"));
	assert_false(parses_with("hits=5", "misses=5"));
	assert_false(parses_with(" hits=5", ""));
	assert_false(parses_with(" hits=5", " hits=5 hits=5"));
	assert_false(parses_with("times=5,", "times=5,5,"));
	assert_false(parses_with("times=5,", "times="));
	assert_false(parses_with("times=5,", "times=x,"));
	assert_false(parses_with("v=1", "v=2"));
	assert_false(parses_with("v=1", "w=1"));
	assert_false(parses_with(" was_hits", " hits"));
	struct report r;
	char *long_one = xcalloc(1, REPORT_BYTES_MAX + 1);
	memset(long_one, ' ', REPORT_BYTES_MAX + 1);
	assert_false(report_parse(str_sub(long_one, REPORT_BYTES_MAX + 1), &r));
	free(long_one);
	assert_false(report_parse(STR_NONE, &r));
}

/* ---- sums ---- */

static void
test_sums_fit(void **state)
{
	struct region_counts sum = {.hits = 0}, one = {.hits = REPORT_NUMBER_MAX};

	for (int i = 0; i < REPORT_INSTANCES_MAX; i++)
		counts_add(&sum, &one);
	assert_true(sum.hits == REPORT_NUMBER_MAX * REPORT_INSTANCES_MAX);
	assert_true(sum.hits / REPORT_INSTANCES_MAX == REPORT_NUMBER_MAX);
}

static void
test_as_of(void **state)
{
	struct report r = report_of(2000, 7, 1000, 6), first = report_of(2000, 7, 0, 0);

	assert_ptr_equal(report_as_of(&r, 2000), &r.counts);
	assert_ptr_equal(report_as_of(&r, 1999), &r.was);
	assert_ptr_equal(report_as_of(&r, 1000), &r.was);
	assert_null(report_as_of(&r, 999)); /* it has spoken twice since */
	assert_null(report_as_of(&first, 1999));
	assert_ptr_equal(report_as_of(&first, 2000), &first.counts);
}

static void
test_drift(void **state)
{
	struct region_counts a = counts_of(1000), b = a;

	assert_int_equal(counts_drift_ppm(&a, &b), 0);
	b.hits += 250;
	assert_int_equal(counts_drift_ppm(&b, &a), 50000);
	b = a;
	b.entries = 0;
	assert_int_equal(counts_drift_ppm(&b, &a), 1000000);
	b = a;
	b.times[0] = 0;
	assert_int_equal(counts_drift_ppm(&b, &a), 625000);
	/* Of few, one is not much. */
	a = (struct region_counts){.hits = 1};
	b = (struct region_counts){.hits = 2};
	assert_int_equal(counts_drift_ppm(&a, &b), 10000);
	b.hits = UINT64_MAX;
	assert_true(counts_drift_ppm(&b, &a) >= DRIFT_WHOLE_PPM);
}

static void
test_times(void **state)
{
	struct region_counts c = {.hits = 0};

	assert_int_equal(counts_time_us(&c, 0.5), 0);
	c.times[0] = 90;
	c.times[3] = 9;
	c.times[REGION_TIMES - 1] = 1;
	assert_int_equal(counts_time_us(&c, 0.5), metric_bucket_us[0]);
	assert_int_equal(counts_time_us(&c, 0.9), metric_bucket_us[0]);
	assert_int_equal(counts_time_us(&c, 0.99), metric_bucket_us[3]);
	assert_true(counts_time_us(&c, 1) == UINT64_MAX);
}

/* ---- the fleet ---- */

static struct fleet fleet;
static struct collect_result result;

static void
add(unsigned known, struct report r)
{
	struct collect_instance i = {.known = known};

	for (unsigned region = 0; region < REGION_COUNT; region++)
		i.reports[region] = r;
	fleet_add(&fleet, &result, &i);
}

/* Sums as they were stored at that moment. */
static void
begin(uint64_t at_ms, uint64_t instances, uint64_t n)
{
	memset(&fleet, 0, sizeof(fleet));
	result = (struct collect_result){.now_ms = at_ms + 1000, .took_us = 123};
	for (unsigned region = 0; region < REGION_COUNT; region++)
		result.stored[region] = (struct stored){
		    STORED_OK, {.at_ms = at_ms, .instances = instances, .counts = counts_of(n)}};
}

static void
test_growth_is_no_drift(void **state)
{
	begin(5000, 2, 30);
	add(15, report_of(5900, 1000, 4900, 10)); /* grew a hundred times */
	add(15, report_of(4950, 20, 0, 0));       /* has said nothing since */
	add(15, report_of(5500, 400, 0, 0));      /* is new */
	struct aggregate a = fleet_aggregate(&fleet, &result, REGION_KEYS);
	assert_int_equal(a.instances, 3);
	assert_int_equal(a.at_ms, 6000);
	assert_int_equal(a.took_us, 123);
	assert_int_equal(a.counts.hits, 5 * 1420);
	assert_true(a.is_compared);
	assert_int_equal(a.drift_ppm, 0);
	/* Now somebody has changed them. */
	result.stored[REGION_APPS].sums.counts.hits += 100;
	assert_int_equal(fleet_aggregate(&fleet, &result, REGION_KEYS).drift_ppm, 0);
	a = fleet_aggregate(&fleet, &result, REGION_APPS);
	assert_true(a.is_compared);
	assert_int_equal(a.drift_ppm, 666666);
}

static void
test_who_has_gone_cannot_be_compared(void **state)
{
	begin(5000, 3, 30);
	add(15, report_of(5900, 1000, 4900, 10));
	add(15, report_of(5950, 1000, 4950, 10));
	assert_false(fleet_aggregate(&fleet, &result, REGION_KEYS).is_compared);
	add(15, report_of(5990, 50, 5400, 45)); /* spoke twice since */
	assert_false(fleet_aggregate(&fleet, &result, REGION_KEYS).is_compared);
	begin(5000, 1, 1);
	add(1 << REGION_TOOLS, report_of(5900, 2, 4900, 1));
	assert_true(fleet_aggregate(&fleet, &result, REGION_TOOLS).is_compared);
	assert_int_equal(fleet_aggregate(&fleet, &result, REGION_KEYS).instances, 0);
	assert_false(fleet_aggregate(&fleet, &result, REGION_KEYS).is_compared);
}

static void
test_what_was_stored_may_be_nothing(void **state)
{
	begin(5000, 1, 1);
	result.stored[REGION_KEYS].state = STORED_NONE;
	result.stored[REGION_APPS].state = STORED_GARBAGE;
	add(15, report_of(5900, 2, 4900, 1));
	assert_false(fleet_aggregate(&fleet, &result, REGION_KEYS).is_compared);
	assert_true(fleet_aggregate(&fleet, &result, REGION_APPS).is_compared);
	assert_int_equal(fleet_aggregate(&fleet, &result, REGION_APPS).drift_ppm, DRIFT_WHOLE_PPM);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_report_there_and_back),
	    cmocka_unit_test(test_aggregate_there_and_back),
	    cmocka_unit_test(test_what_is_no_report),
	    cmocka_unit_test(test_sums_fit),
	    cmocka_unit_test(test_as_of),
	    cmocka_unit_test(test_drift),
	    cmocka_unit_test(test_times),
	    cmocka_unit_test(test_growth_is_no_drift),
	    cmocka_unit_test(test_who_has_gone_cannot_be_compared),
	    cmocka_unit_test(test_what_was_stored_may_be_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
