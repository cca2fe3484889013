/*
 * follower_index - the followers of all turns of a worker, by who listens.
 *
 * Thousands may follow one turn and come and go together: neither may walk over the others. A hash
 * table, chained through the followers, which it does not own.
 */
#ifndef WORKER_TURN_FOLLOWER_INDEX_H
#define WORKER_TURN_FOLLOWER_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "worker/backplane/backplane.h"

struct follower;

/* Zeroed before first use. */
struct follower_index {
	struct follower **buckets;
	size_t bucket_count, count; /* buckets: a power of two, or none */
};

/* Not in it: nobody else with its listener and address is. */
void follower_index_add(struct follower_index *, struct follower *);
void follower_index_del(struct follower_index *, struct follower *); /* in it */
/* addr: of the worker that has the listener; NULL: this one. NULL: nobody. */
struct follower *follower_index_find(
    const struct follower_index *, const struct backplane_addr *addr, uint64_t listener);
void follower_index_fini(struct follower_index *); /* empty */

#endif
