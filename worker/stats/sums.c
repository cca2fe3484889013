/* sums - what is done with the fleet's sums: stored, told to the metrics, warned of. */
#include <inttypes.h>
#include <stdio.h>

#include "common/log.h"
#include "common/metric.h"
#include "worker/stats/stats_impl.h"

enum { WARN_MS = 60000 }; /* a warning is repeated so often */

bool
sums_may_warn(struct stats *s, uint64_t *warned_ms)
{
	uint64_t now_ms = loop_now_ms(s->loop);

	if (*warned_ms != 0 && now_ms - *warned_ms < WARN_MS)
		return false;
	*warned_ms = now_ms;
	return true;
}

/* ---- what they say ---- */

static bool
has_drift(const struct stats *s, const struct aggregate *a)
{
	return a->is_compared && (double)a->drift_ppm > s->conf->stats.drift * DRIFT_WHOLE_PPM;
}

static bool
is_slow(const struct stats *s, const struct aggregate *a)
{
	return a->took_us > s->conf->stats.latency_ms * 1000;
}

/* For every worker's /health and scrape: only this row says it. */
static void
publish(struct stats *s, const struct aggregate sums[REGION_COUNT])
{
	uint64_t instances = 0, drift_ppm = 0;
	bool drifts = false, slow = false;

	for (unsigned region = 0; region < REGION_COUNT; region++) {
		const struct aggregate *a = &sums[region];

		instances = a->instances > instances ? a->instances : instances;
		if (a->is_compared && a->drift_ppm > drift_ppm)
			drift_ppm = a->drift_ppm;
		drifts |= has_drift(s, a);
		slow |= is_slow(s, a);
		metric_gauge_set(METRIC_FLEET_CACHE, region, FLEET_HITS, (int64_t)a->counts.hits);
		metric_gauge_set(
		    METRIC_FLEET_CACHE, region, FLEET_MISSES, (int64_t)a->counts.misses);
		metric_gauge_set(
		    METRIC_FLEET_CACHE, region, FLEET_ENTRIES, (int64_t)a->counts.entries);
	}
	metric_gauge_set(METRIC_STATS_INSTANCES, 0, 0, (int64_t)instances);
	metric_gauge_set(METRIC_STATS_TOOK, 0, 0, (int64_t)sums[0].took_us);
	metric_gauge_set(METRIC_STATS_DRIFT, 0, 0, (int64_t)drift_ppm);
	metric_gauge_set(METRIC_STATS_ALARM, STATS_ALARM_DRIFT, 0, drifts);
	metric_gauge_set(METRIC_STATS_ALARM, STATS_ALARM_LATENCY, 0, slow);
}

void
sums_clear(struct stats *s)
{
	static const struct aggregate nothing[REGION_COUNT];

	publish(s, nothing);
}

void
sums_saw(struct stats *s, const struct aggregate sums[REGION_COUNT])
{
	publish(s, sums);
	atomic_store(shm_word(s->shm, SHM_WORD_STATS_SEEN), loop_now_ms(s->loop));
}

/* ---- adding up ---- */

static void
store_sums(struct stats *s, unsigned region, const struct aggregate *a)
{
	struct buf key = BUF_INIT, text = BUF_INIT;
	char keep[24];

	buf_printf(
	    &key, "%sstats:aggregated:%s", s->conf->backplane.key_prefix, region_name(region));
	aggregate_format(a, &text);
	snprintf(keep, sizeof(keep), "%" PRIu64, STATS_KEEP_INTERVALS * stats_keep_ms(s));
	const struct str argv[] = {
	    STR("SET"), buf_str(&key), buf_str(&text), STR("PX"), str_of(keep)};
	redis_command(s->redis, ARRAY_LEN(argv), argv, NULL, NULL);
	buf_fini(&key);
	buf_fini(&text);
}

static void
warn_of(struct stats *s, const struct aggregate sums[REGION_COUNT])
{
	bool drifts = false;

	for (unsigned region = 0; region < REGION_COUNT; region++) {
		if (!has_drift(s, &sums[region]))
			continue;
		if (!drifts) {
			metric_add(METRIC_STATS_ALARMS, STATS_ALARM_DRIFT, 0, 1);
			if (sums_may_warn(s, &s->drift_warned_ms))
				log_warn("stats drift region=%s drift=%.4f limit=%.4f",
				    region_name(region), (double)sums[region].drift_ppm / 1e6,
				    s->conf->stats.drift);
		}
		drifts = true;
	}
	if (!drifts)
		s->drift_warned_ms = 0;
	if (!is_slow(s, &sums[0])) {
		s->latency_warned_ms = 0;
		return;
	}
	metric_add(METRIC_STATS_ALARMS, STATS_ALARM_LATENCY, 0, 1);
	if (sums_may_warn(s, &s->latency_warned_ms))
		log_warn("stats slow took_ms=%.1f limit_ms=%" PRIu64 " instances=%" PRIu64,
		    (double)sums[0].took_us / 1e3, s->conf->stats.latency_ms, sums[0].instances);
}

void
sums_finish(struct stats *s, const struct collect_result *result)
{
	struct aggregate sums[REGION_COUNT];

	for (unsigned region = 0; region < REGION_COUNT; region++) {
		sums[region] = fleet_aggregate(&s->fleet, result, region);
		store_sums(s, region, &sums[region]);
	}
	metric_add(METRIC_STATS_REJECTED, 0, 0, result->rejected);
	if (result->rejected > 0)
		log_debug("stats rejected=%" PRIu64, result->rejected);
	warn_of(s, sums);
	sums_saw(s, sums);
}
