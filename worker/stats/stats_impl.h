/*
 * stats_impl - what the files of worker/stats share. Nobody else includes it.
 *
 *   stats.c     who reads; the host alone; health
 *   speaker.c   the host's voice: registers, reports, hears the stored sums
 *   sums.c      what is done with sums: stored, told to the metrics, warned of
 */
#ifndef WORKER_STATS_STATS_IMPL_H
#define WORKER_STATS_STATS_IMPL_H

#include "worker/stats/stats.h"

enum { STATS_KEEP_INTERVALS = 3 }; /* stored sums that nobody replaces are gone after so many */

struct stats {
	struct loop *loop;
	const struct conf *conf;
	struct shm *shm;
	struct shm_who me;
	struct redis *redis; /* NULL: not configured */
	char name[STATS_NAME_LEN + 1];
	struct loop_timer beat;
	bool is_beating, is_draining, has_spoken;
	struct report said[REGION_COUNT], saying[REGION_COUNT];
	uint64_t drift_warned_ms, latency_warned_ms, failure_warned_ms; /* 0: not now */

	struct collect *collect; /* under way, for the stored sums or for readers */
	bool is_adding_up;       /* .. and its sums are to be stored */
	struct fleet fleet;
	struct list readers;    /* who hear of it */
	struct list next;       /* who came in its midst, and hear of the next one */
	struct loop_post alone; /* answers when Redis cannot be asked */
	uint64_t began_ms;
};

/* How long a report counts. */
static inline uint64_t
stats_keep_ms(const struct stats *s)
{
	return s->conf->stats.interval_ms + STATS_GRACE_MS;
}

/* stats.c */
bool stats_collect(
    struct stats *); /* false: Redis cannot be asked; true also when it is under way */
void stats_look_at_host(const struct stats *, struct report reports[REGION_COUNT]);

/* speaker.c */
void speaker_init(struct stats *, struct backplane *);
void speaker_fini(struct stats *);
void speaker_drain(struct stats *);

/* sums.c */
void sums_finish(struct stats *, const struct collect_result *); /* of s->fleet: stores them */
void sums_saw(struct stats *, const struct aggregate sums[REGION_COUNT]); /* fresh ones */
void sums_clear(struct stats *); /* this worker says nothing of them any more */
bool sums_may_warn(struct stats *, uint64_t *warned_ms); /* one a minute, of each kind */

#endif
