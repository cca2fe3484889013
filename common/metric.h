/*
 * metric - counters, gauges and histograms of the whole host.
 *
 * Declared in metric.tbl. Every incarnation adds into its own row of the shared
 * memory (no atomic read-modify-write: one writer); a scrape by any worker sums
 * the rows and the `retired` row, into which the master folds the counters of the
 * dead. Gauges of the dead are dropped.
 *
 * A metric has up to two labels. A label's values are an index into a fixed list:
 * a static list from metric.tbl, or names registered at start from the config
 * (providers, models, routes): the same config gives the same order in every
 * worker, and the names are kept in the shared memory for the scraper.
 */
#ifndef COMMON_METRIC_H
#define COMMON_METRIC_H

#include "common/buf.h"
#include "common/shm.h"

enum metric {
#define METRIC(id, ...) id,
#include "common/metric.tbl"
#undef METRIC
	METRIC_COUNT
};

enum metric_label; /* the lists of label values: LABEL_ROUTE, LABEL_PROVIDER, ..: defined in
		      metric.c's table */

void metric_init(struct shm *, struct shm_who me); /* this process writes into that row */

/* The index of a label value, registered on first use; the last index ("other") when the list is
 * full. */
unsigned metric_label(int label, struct str value);

/* a and b are label indexes, 0 for a metric without. */
void metric_add(enum metric, unsigned a, unsigned b, uint64_t n);      /* counter */
void metric_gauge(enum metric, unsigned a, unsigned b, int64_t delta); /* gauge, summed over rows */
void metric_observe_us(enum metric, unsigned a, uint64_t us);          /* histogram of seconds */

/* Sum over all rows, for /health and status. */
int64_t metric_total(const struct shm *, enum metric, unsigned a, unsigned b);
int64_t metric_of_row(const struct shm *, uint32_t row, enum metric, unsigned a, unsigned b);

/* The Prometheus text exposition, format 0.0.4. */
void metric_expose(const struct shm *, struct buf *out);

#endif
