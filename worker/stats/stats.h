/*
 * stats - figures of the named caches (common/region.h), of this host and of the fleet.
 *
 *   PREFIX instances                  hosts, by the time (Redis's clock, ms) until which they count
 *   PREFIX stats:INSTANCE:REGION      what a host last said (report.h); it expires
 *   PREFIX stats:aggregated:REGION    the sums over all, as last added up
 *   PREFIX stats:aggregator           who adds up in this interval
 *
 * One worker of a host speaks for it: the first that is ready. Every stats.interval it says what
 * the host's workers have counted and that the host is alive, drops who is late from the registry,
 * and reads the stored sums. Whoever of all speakers comes first in an interval adds up all
 * reports, compares the stored sums with them, and stores the new ones.
 *
 * Without Redis, and while it is away, there is this host alone.
 */
#ifndef WORKER_STATS_STATS_H
#define WORKER_STATS_STATS_H

#include "common/conf.h"
#include "worker/backplane/backplane.h"
#include "worker/stats/fleet.h"

struct stats;

/* All is borrowed. */
struct stats *stats_new(
    struct loop *, const struct conf *, struct shm *, struct shm_who, struct backplane *);
/* Does not speak any more; with the host's end it takes the host from the registry. */
void stats_drain(struct stats *);
bool stats_is_idle(const struct stats *); /* nobody reads */
void stats_free(struct stats **);

/* HOST: no Redis is configured. ALONE: it is, and is away. */
enum stats_mode { STATS_HOST, STATS_ALONE, STATS_FLEET };
const char *stats_mode_name(enum stats_mode);
const char *stats_self(const struct stats *); /* this host's name as an instance */

/* Somebody who wants to know. All reports are read anew, once for all who came before that began.
 * Embedded in the caller's, zeroed; the handlers are set by it and called from the loop. */
struct stats_reader {
	/* What on_instance has told is void: Redis went away in the midst of it. */
	void (*on_again)(struct stats_reader *);
	/* Of each instance, by their names. */
	void (*on_instance)(struct stats_reader *, const struct collect_result *so_far,
	    const struct collect_instance *);
	/* Once, last. fleet is borrowed. Never an error: without Redis it is this host. */
	void (*on_fleet)(struct stats_reader *, enum stats_mode, const struct collect_result *,
	    const struct fleet *);
	struct list node;
	bool is_waiting;
};
void stats_read(struct stats *, struct stats_reader *);

/* For /health: what the speaker of this host has last seen, told by any worker. */
struct stats_health {
	enum stats_mode mode;
	uint64_t instances, took_us, drift_ppm;
	uint64_t age_ms; /* of the sums as last seen; UINT64_MAX: none seen yet */
	bool is_late;    /* there should be newer ones by now */
	bool has_drift, has_latency;
};
void stats_get_health(const struct stats *, struct stats_health *ret);

#endif
