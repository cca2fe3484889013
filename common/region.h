/*
 * region - a named cache, and what is counted of it: for statistics of a host and of a fleet.
 *
 *   keys      secrets to principals: the worker's own copies; a miss asks the record
 *   apps      ids to the configuration's apps
 *   tools     tool calls to who waits for their result: own map, shared memory, Redis; a miss asks
 *             the record
 *   sessions  turns of sessions: live ones anywhere and those kept here for replay; a miss asks
 *             the record
 *
 * Each worker counts in its own row of the metrics, so a host's figure is the sum of its workers',
 * the dead ones' included. REGION_KEYS .. are values of LABEL_REGION.
 */
#ifndef COMMON_REGION_H
#define COMMON_REGION_H

#include "common/metric_layout.h"

enum { REGION_COUNT = LABEL_REGION_SIZE, REGION_TIMES = METRIC_BUCKETS + 1 };

struct region_counts {
	uint64_t hits, misses, entries;
	uint64_t us; /* of all lookups together */
	uint64_t
	    times[REGION_TIMES]; /* lookups by time, as metric_bucket_us; the last is the rest */
};

const char *region_name(unsigned region);

/* since_us: clock_mono_us() when it was asked for. */
void region_count(unsigned region, bool is_hit, uint64_t since_us);
void region_entries(unsigned region, size_t entries); /* of this worker, now */

void region_read(const struct shm *, unsigned region, struct region_counts *ret); /* of the host */

#endif
