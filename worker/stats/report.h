/*
 * report - what an instance says of one of its caches, and the sums over all of them, as texts in
 * Redis. Pure.
 *
 *   v=1 at=MS interval=MS COUNTS was_at=MS WAS_COUNTS          PREFIX stats:INSTANCE:REGION
 *   v=1 at=MS instances=N took_us=N compared=0|1 drift_ppm=N COUNTS
 *                                                              PREFIX stats:aggregated:REGION
 *   COUNTS: hits=N misses=N entries=N us=N times=N,N,..        as struct region_counts
 *
 * A report says also what it said the time before: so the sums of a moment can be found
 * again later, and what has grown since is no error of theirs.
 *
 * What is parsed comes from outside: in this order, decimal numbers up to REPORT_NUMBER_MAX,
 * nothing else.
 */
#ifndef WORKER_STATS_REPORT_H
#define WORKER_STATS_REPORT_H

#include "common/buf.h"
#include "common/region.h"

enum {
	REPORT_BYTES_MAX = 100 << 10, /* longer ones are not read; ours have 200 to 500 */
	REPORT_INSTANCES_MAX = 8192,
};
/* So many times REPORT_INSTANCES_MAX fits into 64 bits. */
#define REPORT_NUMBER_MAX ((uint64_t)1 << 50)

struct report {
	uint64_t at_ms;       /* by Redis's clock */
	uint64_t interval_ms; /* until the next one */
	struct region_counts counts;
	uint64_t was_at_ms; /* 0: this is the first one */
	struct region_counts was;
};

struct aggregate {
	uint64_t at_ms;
	uint64_t instances;
	uint64_t took_us; /* to read and to add up all regions */
	bool
	    is_compared; /* with the sums before; false: who reported then is not who reports now */
	uint64_t drift_ppm;
	struct region_counts counts;
};

/* From " interval=" on: what is before it is the beginning of every text, and Redis's clock. */
void report_format_rest(const struct report *, struct buf *out); /* appends */
void report_format(const struct report *, struct buf *out);
bool report_parse(struct str, struct report *ret);

void aggregate_format(const struct aggregate *, struct buf *out);
bool aggregate_parse(struct str, struct aggregate *ret);

void counts_add(struct region_counts *sum, const struct region_counts *);
/* What it said at that time; NULL: nothing yet, or nobody knows any more. */
const struct region_counts *report_as_of(const struct report *, uint64_t at_ms);

/*
 * By how much hits, misses, entries or lookups that were timed differ at most, in millionths of the
 * fresh sum; of DRIFT_FEW where there are fewer, as a difference of one is none of substance then.
 */
enum { DRIFT_FEW = 100, DRIFT_WHOLE_PPM = 1000000 };
uint64_t counts_drift_ppm(const struct region_counts *stored, const struct region_counts *fresh);

/* Above which time one of so many lookups (share 0 to 1) took no longer: a limit of a bucket.
 * 0: none was timed; UINT64_MAX: longer than the last limit. */
uint64_t counts_time_us(const struct region_counts *, double share);

#endif
