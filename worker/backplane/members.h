/*
 * members - which workers of all hosts are registered, as last read; who of them has gone. Pure.
 *
 * A worker that is missing is only known to be gone when it was there before. A host is known
 * to be gone when a list that was asked for after the first question about it has none
 * of its workers: one that began since the last reading is in no list yet.
 */
#ifndef WORKER_BACKPLANE_MEMBERS_H
#define WORKER_BACKPLANE_MEMBERS_H

#include "worker/backplane/backplane.h"

enum { MEMBERS_MAX = 65536, MEMBERS_DOUBTS_MAX = 64 };

struct members { /* zeroed */
	struct backplane_addr *list;
	size_t count;
	uint64_t asked_ms; /* when this list was asked for; 0: none yet */
	struct {
		uint64_t host, since_ms;
	} doubts[MEMBERS_DOUBTS_MAX];
	size_t doubt_count, doubt_next;
};

/* A new list takes the place of the old one. on_gone (NULL: not to be trusted yet) is told of those
 * that are in it no more. */
void members_replace(struct members *, const struct backplane_addr *list, size_t count,
    uint64_t asked_ms, void (*on_gone)(void *arg, struct backplane_addr), void *arg);
/* True: known to be gone. False and *ret_ask: a new list is to be asked for. */
bool members_is_host_gone(struct members *, uint64_t host, uint64_t now_ms, bool *ret_ask);
void members_fini(struct members *);

#endif
