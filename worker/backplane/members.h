/*
 * members - which workers of all hosts are registered, as last read; who of them has gone. Pure.
 *
 * A worker that is missing is only known to be gone when it was there before.
 */
#ifndef WORKER_BACKPLANE_MEMBERS_H
#define WORKER_BACKPLANE_MEMBERS_H

#include "worker/backplane/backplane.h"

enum { MEMBERS_MAX = 65536 };

struct members { /* zeroed */
	struct backplane_addr *list;
	size_t count;
	uint64_t asked_ms; /* when this list was asked for; 0: none yet */
};

/* A new list takes the place of the old one. on_gone (NULL: not to be trusted yet) is told of those
 * that are in it no more. */
void members_replace(struct members *, const struct backplane_addr *list, size_t count,
    uint64_t asked_ms, void (*on_gone)(void *arg, struct backplane_addr), void *arg);
void members_fini(struct members *);

#endif
