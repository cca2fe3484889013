/*
 * resolve - names to addresses without blocking the loop.
 *
 * A number or a path is answered at once from a post; a name is looked up by a thread that lives
 * as long as getaddrinfo() takes, also when nobody waits for it any more.
 */
#ifndef WORKER_LOOP_RESOLVE_H
#define WORKER_LOOP_RESOLVE_H

#include "common/netaddr.h"
#include "worker/loop/loop.h"

enum { RESOLVE_MAX = 8 };

struct resolve;

/* From the loop, once. count 0: no such name, error says why (static). Addresses are borrowed. */
typedef void resolve_on_done(
    void *arg, const struct netaddr *addrs, size_t count, const char *error);

struct resolve *resolve_start(
    struct loop *, const char *host, uint16_t port, resolve_on_done *, void *arg);
/* NULL is fine; sets NULL. Not after on_done, which frees it. */
void resolve_cancel(struct resolve **);

#endif
