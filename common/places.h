/*
 * places - at most so many at once over all workers of a host.
 *
 * A place is a word of shared memory that names who holds it, taken and given by
 * compare-and-swap: exact, and a worker that dies holds nothing, because its places are
 * taken over by whoever finds no free one. Zeroed memory is all free. Who waits does so in order:
 * each worker shows since when its first one waits, and a place is left to the oldest.
 */
#ifndef COMMON_PLACES_H
#define COMMON_PLACES_H

#include <stdatomic.h>

#include "common/shm.h"

enum { PLACES_MAX = 100000, PLACES_ROWS_MAX = 4096 };

struct places {
	_Atomic uint64_t waiting[PLACES_ROWS_MAX]; /* by row: who, and since when */
	_Atomic uint64_t seen[PLACES_ROWS_MAX];    /* when that was last said */
	_Atomic uint64_t holders[PLACES_MAX];      /* row << 32 | number; 0: free */
};

/* A place below max, or -1. *hint is the caller's, 0 at first. shm NULL: everybody is alive. */
int places_take(
    struct places *, uint32_t max, const struct shm *, struct shm_who me, uint32_t *hint);
void places_give(struct places *, int place, struct shm_who me);
/* Of these numbers, how many are held by the living. */
uint32_t places_held(const struct places *, uint32_t max, const struct shm *);

/* `me` has one waiting since then (ms, not 0); 0: nobody waits any more. To be said again at least
 * every PLACES_SEEN_MS, or it is taken to be too busy to get a place. */
enum { PLACES_SEEN_MS = 50 };
void places_wait(struct places *, struct shm_who me, uint64_t since_ms, uint64_t now_ms);
/* Does somebody else wait for longer? */
bool places_has_older(const struct places *, const struct shm *, struct shm_who me,
    uint64_t since_ms, uint64_t now_ms);

#endif
