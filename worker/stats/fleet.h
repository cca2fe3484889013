/*
 * fleet - the sums over all instances, by region, and how far the stored ones are from them. Pure.
 *
 * Stored sums are as old as their moment. They are compared with what the same instances said
 * at that moment: a report says what it said before. When that is not known of as many
 * instances as there were, some have gone or have spoken more than once since: not compared.
 */
#ifndef WORKER_STATS_FLEET_H
#define WORKER_STATS_FLEET_H

#include "worker/stats/collect.h"

struct fleet { /* zeroed */
	uint64_t instances[REGION_COUNT];
	struct region_counts sums[REGION_COUNT];
	uint64_t then_instances[REGION_COUNT]; /* at the moment of the stored ones */
	struct region_counts then[REGION_COUNT];
};

void fleet_add(struct fleet *, const struct collect_result *, const struct collect_instance *);
/* What is to be stored; at_ms, took_us and stored are the result's. Stored sums that are not
 * understood differ by all. */
struct aggregate fleet_aggregate(
    const struct fleet *, const struct collect_result *, unsigned region);

#endif
