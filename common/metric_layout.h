/*
 * metric_layout - where the cells of a metric are in the shared memory.
 * Between metric.c, which writes, and metric_expose.c, which reads.
 *
 *   names | row 0 | row 1 | .. | the master's row       a row: gauges | counters
 *
 * Rows and their gauges begin on a page of their own: no page is shared by two
 * writers, and gauges are dropped by the page. A page of which no cell was written
 * or read does not exist, so a reader looks only where something can be.
 */
#ifndef COMMON_METRIC_LAYOUT_H
#define COMMON_METRIC_LAYOUT_H

#include "common/metric.h"

enum metric_type {
	TYPE_COUNTER,
	TYPE_COUNTER_MICRO,
	TYPE_GAUGE,
	TYPE_GAUGE_WORKER,
	TYPE_GAUGE_MIN,
	TYPE_GAUGE_MAX,
	TYPE_HISTOGRAM,
};

enum { METRIC_BUCKETS = 18, METRIC_HISTOGRAM_CELLS = METRIC_BUCKETS + 2 }; /* .. +Inf, sum */

struct metric_info {
	const char *name, *help;
	enum metric_type type;
	enum metric_label label_a, label_b;
	unsigned size_a, size_b;
};

struct metric_label_info {
	const char *name, *second; /* second: of a pair */
	unsigned size;
	const char *const *values; /* of a fixed list */
};

extern const struct metric_info metric_infos[METRIC_COUNT];
extern const struct metric_label_info metric_label_infos[LABEL_COUNT];
extern const uint64_t metric_bucket_us[METRIC_BUCKETS];

/* A metric's cell: i counts the cells of a histogram, else 0. */
_Atomic uint64_t *metric_cell(
    const struct shm *, uint32_t row, enum metric, unsigned a, unsigned b, unsigned i);
/* Label value number i; of a pair both, the first ends with METRIC_PAIR_SEPARATOR. p is NULL when
 * there is none (yet). */
struct str metric_label_value(const struct shm *, enum metric_label, unsigned i);

/* A histogram over all rows: its buckets, +Inf, the sum in microseconds. */
void metric_read_histogram(
    const struct shm *, enum metric, unsigned a, uint64_t ret[METRIC_HISTOGRAM_CELLS]);

enum { METRIC_PAIR_SEPARATOR = 0x1f };

#endif
