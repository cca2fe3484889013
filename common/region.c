/* region - see region.h. */
#include "common/region.h"

#include "common/check.h"
#include "common/clock.h"

const char *
region_name(unsigned region)
{
	check(region < REGION_COUNT);
	return metric_label_infos[LABEL_REGION].values[region];
}

void
region_count(unsigned region, bool is_hit, uint64_t since_us)
{
	metric_add(is_hit ? METRIC_CACHE_HITS : METRIC_CACHE_MISSES, region, 0, 1);
	metric_observe_us(METRIC_CACHE_SECONDS, region, clock_mono_us() - since_us);
}

void
region_entries(unsigned region, size_t entries)
{
	metric_gauge_set(METRIC_CACHE_ENTRIES, region, 0, (int64_t)entries);
}

void
region_read(const struct shm *shm, unsigned region, struct region_counts *ret)
{
	uint64_t cells[METRIC_HISTOGRAM_CELLS];
	int64_t entries = metric_total(shm, METRIC_CACHE_ENTRIES, region, 0);

	ret->hits = (uint64_t)metric_total(shm, METRIC_CACHE_HITS, region, 0);
	ret->misses = (uint64_t)metric_total(shm, METRIC_CACHE_MISSES, region, 0);
	ret->entries = entries > 0 ? (uint64_t)entries : 0;
	metric_read_histogram(shm, METRIC_CACHE_SECONDS, region, cells);
	memcpy(ret->times, cells, sizeof(ret->times));
	ret->us = cells[METRIC_HISTOGRAM_CELLS - 1];
}
