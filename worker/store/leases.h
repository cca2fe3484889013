/*
 * leases - which hosts that share the record live: this host's lease is renewed, others' are read.
 *
 * Private to worker/store; only where the record is shared (PostgreSQL). The first worker of a
 * host renews, every worker reads, three times within backplane.lease; the clock is the database's.
 * One that could not read for a while (the database was away, for others too perhaps) believes no
 * lease to be over until it has read for a whole lease and the longest pause between two attempts
 * to connect again.
 *
 * Elected is the first worker of the oldest living host; it believes so no longer than its lease
 * lasts. It declares lost the turns of hosts whose leases are over.
 */
#ifndef WORKER_STORE_LEASES_H
#define WORKER_STORE_LEASES_H

#include "worker/store/store.h"

struct leases;

struct leases *leases_new(
    struct loop *, const struct conf *, struct shm *, struct shm_who me, struct store *);
void leases_free(struct leases **); /* before the store's operations */

bool leases_is_elected(const struct leases *);
bool leases_is_over(const struct leases *, uint64_t host);
enum { LEASES_WATCHERS_MAX = 4 };
/* Told once of each host whose lease is over. */
void leases_on_over(struct leases *, void (*on_over)(void *arg, uint64_t host), void *arg);

#endif
