/*
 * deaths - workers of this host that have died, for who takes over what they had.
 *
 *   its connection broke --the master has reaped it--> told of
 *
 * Before that it may be writing still. The first of the living is told at once, the others
 * later_ms after it, for who is first by then may be a successor that has heard of nothing: so what
 * is done about a death must do no harm when it is done again.
 */
#ifndef WORKER_BACKPLANE_DEATHS_H
#define WORKER_BACKPLANE_DEATHS_H

#include "common/list.h"
#include "common/shm.h"
#include "worker/backplane/backplane.h"
#include "worker/loop/loop.h"

struct death;

/* Embedded in the caller's. The first five are set by it; all are borrowed. */
struct deaths {
	struct loop *loop;
	struct shm *shm;
	struct backplane *backplane;
	uint64_t later_ms;
	/* owner: as owner_format() writes it; borrowed. Ends in death_end() or death_again(), now
	 * or later. */
	void (*on_death)(struct deaths *, struct death *, const char *owner);
	struct backplane_addr self; /* internal, as what follows */
	struct list all;
};

void deaths_start(struct deaths *); /* once in a worker's life: a watcher is never taken back */
void deaths_stop(struct deaths *);  /* what is under way is forgotten */

struct deaths *death_of(struct death *);
void death_end(struct death *);
void death_again(struct death *, uint64_t delay_ms); /* it is told of once more */

#endif
