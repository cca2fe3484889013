/*
 * metric - counters, gauges and histograms of the whole host.
 *
 * Declared in metric.tbl. Every incarnation adds into its own row of the shared
 * memory (no atomic read-modify-write: one writer); a scrape by any worker sums
 * the rows. A dead incarnation's counters stay in its row and the row's next
 * inhabitant counts on from there, so there is no moment at which a count could
 * be lost or added twice; its gauges are dropped. The master counts into a row of
 * its own, which only one process at a time may claim.
 *
 * A metric has up to two labels (metric_label.tbl). A label's value is an index:
 * an enumerator of a fixed list, or what metric_label() gives for a name.
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

enum metric_label {
	LABEL_NONE,
#define LABEL_LIST(id, ...)  id,
#define LABEL_NAMES(id, ...) id,
#define LABEL_PAIRS(id, ...) id,
#include "common/metric_label.tbl"
#undef LABEL_LIST
#undef LABEL_NAMES
#undef LABEL_PAIRS
	LABEL_COUNT
};

/* KIND_HTTP, REJECT_CAPACITY, ..: the values of the fixed lists. */
#define V(id, text)                         id,
#define LABEL_LIST(id, name, values)        enum { values id##_SIZE };
#define LABEL_NAMES(id, name, max)          enum { id##_SIZE = (max) };
#define LABEL_PAIRS(id, first, second, max) enum { id##_SIZE = (max) };
#include "common/metric_label.tbl"
#undef V
#undef LABEL_LIST
#undef LABEL_NAMES
#undef LABEL_PAIRS
enum { LABEL_NONE_SIZE = 1 };

/* This process writes into that row. Before it nothing is counted. who.number 0: the master,
 * which has the row after the last. */
void metric_init(struct shm *, struct shm_who me);

/* The index of a label's value, registered on first use; the last index ("other") when the list
 * is full or the name is longer than 127 bytes. Look up once and keep it: it searches. */
unsigned metric_label(enum metric_label, struct str value);
unsigned metric_label_pair(enum metric_label, struct str first, struct str second);
unsigned metric_status(int http_status); /* of LABEL_STATUS; fast */

/* a and b are label indexes, 0 for a metric without. */
void metric_add(enum metric, unsigned a, unsigned b, uint64_t n); /* counter */
void metric_gauge(enum metric, unsigned a, unsigned b, int64_t delta);
void metric_gauge_set(enum metric, unsigned a, unsigned b, int64_t value);
void metric_observe_us(enum metric, unsigned a, uint64_t us); /* histogram */

/* As the scrape shows it: over all rows, or the living ones for a gauge; a histogram's count.
 * For /health and status. */
int64_t metric_total(const struct shm *, enum metric, unsigned a, unsigned b);
int64_t metric_of_row(const struct shm *, uint32_t row, enum metric, unsigned a, unsigned b);

/* The Prometheus text exposition, format 0.0.4. */
void metric_expose(const struct shm *, struct buf *out);

/* For shm.c. */
size_t metric_shm_bytes(uint32_t rows);
uint64_t metric_layout_hash(void);
void metric_row_clear_gauges(struct shm *, uint32_t row);

#endif
