/*
 * collect - reads what all instances of the fleet say of their caches, once.
 *
 * The registry first, then the reports, some instances at a time: as many questions are under way
 * as keep Redis busy, and no round of the loop has more than these to read. A report
 * is read with a bound (GETRANGE): whatever somebody has put there, no more than REPORT_BYTES_MAX
 * comes.
 */
#ifndef WORKER_STATS_COLLECT_H
#define WORKER_STATS_COLLECT_H

#include "worker/backplane/redis.h"
#include "worker/stats/report.h"

enum {
	STATS_GRACE_MS = 1000, /* beyond its interval a report counts for so long */
	COLLECT_DEPTH = 32,    /* instances that are asked for at the same time */
	STATS_NAME_LEN = 16,   /* of an instance: shm_host_id() in hex */
};

struct collect;

struct collect_instance {
	char name[STATS_NAME_LEN + 1];
	unsigned known; /* bits of the regions that it reports */
	struct report reports[REGION_COUNT];
};

enum stored_state { STORED_NONE, STORED_GARBAGE, STORED_OK };

struct stored { /* sums that somebody has stored before */
	enum stored_state state;
	struct aggregate sums;
};
/* Of a bulk reply; anything else is none. */
void stored_take(struct stored *, const redisReply *);

struct collect_result {
	uint64_t now_ms;    /* by Redis's clock, when it began */
	uint64_t took_us;   /* from there to the last report added */
	uint64_t instances; /* that report at least one region */
	uint64_t stale;     /* registered, and late */
	uint64_t rejected;  /* reports, or names of the registry, that are none */
	bool is_cut;        /* there are more than REPORT_INSTANCES_MAX */
	struct stored stored[REGION_COUNT];
};

/* From the loop. on_instance: of each that reports, by their names; now_ms and stored are known.
 * on_done: last; err 0 or E_UNAVAILABLE. The collect has ended by then, and is not to be freed. */
struct collect_handlers {
	void (*on_instance)(
	    void *arg, const struct collect_result *so_far, const struct collect_instance *);
	void (*on_done)(void *arg, int err, const struct collect_result *);
};

/* NULL: nothing can be asked now. All is borrowed. */
struct collect *collect_start(
    struct redis *, const char *key_prefix, const struct collect_handlers *, void *arg);
void collect_cancel(struct collect **); /* nobody is called; NULL is fine */

#endif
