/* report - see report.h. */
#include "worker/stats/report.h"

#include <inttypes.h>

#include "common/check.h"

/* ---- texts ---- */

static void
format_counts(const struct region_counts *c, const char *prefix, struct buf *out)
{
	buf_printf(out,
	    " %shits=%" PRIu64 " %smisses=%" PRIu64 " %sentries=%" PRIu64 " %sus=%" PRIu64
	    " %stimes=",
	    prefix, c->hits, prefix, c->misses, prefix, c->entries, prefix, c->us, prefix);
	for (size_t i = 0; i < REGION_TIMES; i++)
		buf_printf(out, i == 0 ? "%" PRIu64 : ",%" PRIu64, c->times[i]);
}

void
report_format_rest(const struct report *r, struct buf *out)
{
	buf_printf(out, " interval=%" PRIu64, r->interval_ms);
	format_counts(&r->counts, "", out);
	buf_printf(out, " was_at=%" PRIu64, r->was_at_ms);
	format_counts(&r->was, "was_", out);
}

void
report_format(const struct report *r, struct buf *out)
{
	buf_printf(out, "v=1 at=%" PRIu64, r->at_ms);
	report_format_rest(r, out);
}

void
aggregate_format(const struct aggregate *a, struct buf *out)
{
	buf_printf(out,
	    "v=1 at=%" PRIu64 " instances=%" PRIu64 " took_us=%" PRIu64
	    " compared=%d drift_ppm=%" PRIu64,
	    a->at_ms, a->instances, a->took_us, a->is_compared, a->drift_ppm);
	format_counts(&a->counts, "", out);
}

/* "PREFIXNAME=..", up to the next space or the end: what is behind the sign. */
static bool
take_text(struct str *rest, const char *prefix, const char *name, struct str *ret)
{
	struct str part = str_split(rest, ' ');
	struct str key = str_split(&part, '=');
	size_t prefix_len = strlen(prefix);

	if (!str_starts(key, str_of(prefix)) ||
	    !str_eq(str_sub(key.p + prefix_len, key.len - prefix_len), str_of(name)))
		return false;
	*ret = part;
	return true;
}

static bool
take(struct str *rest, const char *prefix, const char *name, uint64_t max, uint64_t *ret)
{
	struct str number;

	return take_text(rest, prefix, name, &number) && str_to_u64(number, ret) && *ret <= max;
}

static bool
take_times(struct str *rest, const char *prefix, uint64_t max, struct region_counts *ret)
{
	struct str part;

	if (!take_text(rest, prefix, "times", &part))
		return false;
	for (size_t i = 0; i < REGION_TIMES; i++)
		if (!str_to_u64(str_split(&part, ','), &ret->times[i]) || ret->times[i] > max)
			return false;
	return part.len == 0;
}

static bool
take_counts(struct str *rest, const char *prefix, uint64_t max, struct region_counts *ret)
{
	return take(rest, prefix, "hits", max, &ret->hits) &&
	       take(rest, prefix, "misses", max, &ret->misses) &&
	       take(rest, prefix, "entries", max, &ret->entries) &&
	       take(rest, prefix, "us", max, &ret->us) && take_times(rest, prefix, max, ret);
}

bool
report_parse(struct str s, struct report *ret)
{
	const uint64_t max = REPORT_NUMBER_MAX;
	struct report r;
	uint64_t version;

	if (s.len > REPORT_BYTES_MAX || !take(&s, "", "v", 1, &version) || version != 1 ||
	    !take(&s, "", "at", max, &r.at_ms) || !take(&s, "", "interval", max, &r.interval_ms) ||
	    !take_counts(&s, "", max, &r.counts) || !take(&s, "", "was_at", max, &r.was_at_ms) ||
	    !take_counts(&s, "was_", max, &r.was) || s.len > 0)
		return false;
	*ret = r;
	return true;
}

bool
aggregate_parse(struct str s, struct aggregate *ret)
{
	struct aggregate a;
	uint64_t version, is_compared;

	if (s.len > REPORT_BYTES_MAX || !take(&s, "", "v", 1, &version) || version != 1 ||
	    !take(&s, "", "at", REPORT_NUMBER_MAX, &a.at_ms) ||
	    !take(&s, "", "instances", REPORT_INSTANCES_MAX, &a.instances) ||
	    !take(&s, "", "took_us", REPORT_NUMBER_MAX, &a.took_us) ||
	    !take(&s, "", "compared", 1, &is_compared) ||
	    !take(&s, "", "drift_ppm", UINT64_MAX, &a.drift_ppm) ||
	    !take_counts(&s, "", REPORT_NUMBER_MAX * REPORT_INSTANCES_MAX, &a.counts) || s.len > 0)
		return false;
	a.is_compared = is_compared != 0;
	*ret = a;
	return true;
}

/* ---- sums ---- */

void
counts_add(struct region_counts *sum, const struct region_counts *c)
{
	sum->hits += c->hits;
	sum->misses += c->misses;
	sum->entries += c->entries;
	sum->us += c->us;
	for (size_t i = 0; i < REGION_TIMES; i++)
		sum->times[i] += c->times[i];
}

const struct region_counts *
report_as_of(const struct report *r, uint64_t at_ms)
{
	if (r->at_ms <= at_ms)
		return &r->counts;
	return r->was_at_ms != 0 && r->was_at_ms <= at_ms ? &r->was : NULL;
}

static uint64_t
timed(const struct region_counts *c)
{
	uint64_t n = 0;

	for (size_t i = 0; i < REGION_TIMES; i++)
		n += c->times[i];
	return n;
}

static uint64_t
apart_ppm(uint64_t stored, uint64_t fresh)
{
	uint64_t apart = stored > fresh ? stored - fresh : fresh - stored;
	double share = (double)apart / (double)(fresh > DRIFT_FEW ? fresh : DRIFT_FEW);

	return share < 1e6 ? (uint64_t)(share * DRIFT_WHOLE_PPM) : DRIFT_WHOLE_PPM * 1000000ULL;
}

uint64_t
counts_drift_ppm(const struct region_counts *stored, const struct region_counts *fresh)
{
	const uint64_t apart[] = {apart_ppm(stored->hits, fresh->hits),
	    apart_ppm(stored->misses, fresh->misses), apart_ppm(stored->entries, fresh->entries),
	    apart_ppm(timed(stored), timed(fresh))};
	uint64_t most = 0;

	for (size_t i = 0; i < ARRAY_LEN(apart); i++)
		most = apart[i] > most ? apart[i] : most;
	return most;
}

uint64_t
counts_time_us(const struct region_counts *c, double share)
{
	double wanted = (double)timed(c) * share, seen = 0;

	if (timed(c) == 0)
		return 0;
	for (size_t i = 0; i < METRIC_BUCKETS; i++) {
		seen += (double)c->times[i];
		if (seen >= wanted)
			return metric_bucket_us[i];
	}
	return UINT64_MAX;
}
