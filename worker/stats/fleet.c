/* fleet - see fleet.h. */
#include "worker/stats/fleet.h"

void
fleet_add(struct fleet *f, const struct collect_result *so_far, const struct collect_instance *i)
{
	for (unsigned region = 0; region < REGION_COUNT; region++) {
		const struct stored *stored = &so_far->stored[region];
		const struct region_counts *then;

		if ((i->known & 1U << region) == 0)
			continue;
		f->instances[region]++;
		counts_add(&f->sums[region], &i->reports[region].counts);
		if (stored->state != STORED_OK)
			continue;
		then = report_as_of(&i->reports[region], stored->sums.at_ms);
		if (then == NULL)
			continue;
		f->then_instances[region]++;
		counts_add(&f->then[region], then);
	}
}

struct aggregate
fleet_aggregate(const struct fleet *f, const struct collect_result *result, unsigned region)
{
	const struct stored *stored = &result->stored[region];
	struct aggregate a = {.at_ms = result->now_ms,
	    .instances = f->instances[region],
	    .took_us = result->took_us,
	    .counts = f->sums[region]};

	if (stored->state == STORED_GARBAGE) {
		a.is_compared = true;
		a.drift_ppm = DRIFT_WHOLE_PPM;
	} else if (stored->state == STORED_OK &&
		   stored->sums.instances == f->then_instances[region]) {
		a.is_compared = true;
		a.drift_ppm = counts_drift_ppm(&stored->sums.counts, &f->then[region]);
	}
	return a;
}
