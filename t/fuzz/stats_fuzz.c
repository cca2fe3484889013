/*
 * stats_fuzz - what instances and those who add up have written into Redis.
 */
#include "common/check.h"
#include "worker/stats/report.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_report(struct str s)
{
	struct report r, again;
	struct buf out = BUF_INIT;

	if (!report_parse(s, &r))
		return;
	report_format(&r, &out);
	check(report_parse(buf_str(&out), &again));
	check(memcmp(&r, &again, sizeof(r)) == 0);
	check(counts_drift_ppm(&r.counts, &r.counts) == 0);
	counts_drift_ppm(&r.was, &r.counts);
	counts_time_us(&r.counts, 0.99);
	report_as_of(&r, r.was_at_ms);
	buf_fini(&out);
}

static void
check_aggregate(struct str s)
{
	struct aggregate a, again;
	struct buf out = BUF_INIT;

	if (!aggregate_parse(s, &a))
		return;
	check(a.instances <= REPORT_INSTANCES_MAX);
	aggregate_format(&a, &out);
	check(aggregate_parse(buf_str(&out), &again));
	check(counts_drift_ppm(&a.counts, &again.counts) == 0 && a.at_ms == again.at_ms);
	buf_fini(&out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str s = str_sub((const char *)data, size);

	check_report(s);
	check_aggregate(s);
	return 0;
}
