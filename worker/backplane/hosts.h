/*
 * hosts - the way to the workers of other hosts: messages, owners and the registry, in Redis.
 *
 *   PREFIX in:ADDR       a worker's inbox (inbox.h)
 *   PREFIX all           of every worker
 *   PREFIX own:ID        ADDR of who runs a turn or waits for a tool call; a hint, it expires
 *   PREFIX workers       every worker, by the time of its last heartbeat (Redis's clock)
 *
 * It helps to find, and it carries; it decides nothing: that is the record's. When Redis is away
 * or refuses to write, messages are refused or lost, nobody is found, and the callers' own
 * time limits and repetitions do the rest. Without an URL there is none.
 */
#ifndef WORKER_BACKPLANE_HOSTS_H
#define WORKER_BACKPLANE_HOSTS_H

#include "worker/backplane/backplane.h"
#include "worker/backplane/redis.h"

enum {
	HOSTS_OWNED_S = 3600, /* longer than any turn that is looked for */
};

struct hosts;

struct hosts_handlers {
	void (*on_message)(
	    void *arg, struct backplane_addr from, uint16_t method, struct str payload);
	/* Nobody listens where this call went. */
	void (*on_undelivered)(void *arg, uint64_t call_id);
	/* No heartbeat within backplane.lease and the longest back-off, or it has signed off. */
	void (*on_gone)(void *arg, struct backplane_addr);
	/* Connected again: what was sent meanwhile has not come. */
	void (*on_resumed)(void *arg);
};

/* NULL: what the configuration says cannot work (logged). */
struct hosts *hosts_new(struct loop *, const struct conf_backplane *, struct shm *,
    struct backplane_addr self, const struct hosts_handlers *, void *arg);
void hosts_free(struct hosts **); /* nobody is called */
struct redis *hosts_redis(struct hosts *);

/* payload as on the bus. call_id 0: nobody wants to know whether it arrived. 0, E_BUSY. */
int hosts_send(struct hosts *, struct backplane_addr to, uint16_t method, struct str payload,
    uint64_t call_id);
void hosts_broadcast(struct hosts *, uint16_t method, struct str payload);

void hosts_own(struct hosts *, const struct id *);
void hosts_disown(struct hosts *, const struct id *);
/* on_owner comes from the loop: 0 or E_NOT_FOUND. False: nobody can be asked. */
bool hosts_find_owner(struct hosts *, const struct id *, backplane_on_owner *, void *arg);

/* A worker of this host has ended: the others need not wait for its lease. */
void hosts_sign_off(struct hosts *, struct backplane_addr);
/* This one ends at once, with what it was at: signs off; nothing is sent after it. */
void hosts_leave(struct hosts *);
size_t hosts_count(const struct hosts *); /* workers in the registry, as last read */
/* Ready workers of this host without their Redis; of a host that is to have one. */
uint32_t hosts_workers_away(const struct shm *);

#endif
