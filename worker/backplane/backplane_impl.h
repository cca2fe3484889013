/*
 * backplane_impl - what the files of a backplane share. Nobody else includes it.
 *
 *   backplane.c  life: peers of this host, the way to others, watchers
 *   calls.c      calls, casts and their answers
 *   lookup.c     owners of turns and tool calls
 */
#ifndef WORKER_BACKPLANE_BACKPLANE_IMPL_H
#define WORKER_BACKPLANE_BACKPLANE_IMPL_H

#include "common/list.h"
#include "worker/backplane/backplane.h"
#include "worker/backplane/hosts.h"

struct service {
	backplane_handler *handler;
	void *arg;
};

struct seen {                  /* a row, as it was looked at last */
	uint32_t number, told; /* told: newest number that the watchers know to be gone */
	bool is_missed;
};

struct backplane {
	struct loop *loop;
	struct shm *shm;
	struct shm_who me;
	struct bus *bus;
	struct loop_watch watch;
	struct loop_timer look;
	struct service services[BACKPLANE_METHOD_COUNT];
	struct idmap *calls;
	struct hosts *hosts; /* NULL: there are no others */
	struct list lookups, watchers, resumers;
	struct seen *seen;  /* by row */
	struct buf message; /* the one being put together */
};

static inline struct backplane_addr
backplane_addr_of(const struct backplane *b, struct shm_who who)
{
	return (struct backplane_addr){shm_host_id(b->shm), who};
}

/* ---- calls.c ---- */

void backplane_calls_init(struct backplane *);
void backplane_calls_fini(struct backplane *); /* nobody is called back */
/* Of whichever way it came. */
void backplane_calls_take_message(
    struct backplane *, struct backplane_addr from, uint16_t method, struct str payload);
void backplane_calls_drop(
    struct backplane *, struct backplane_addr peer); /* E_GONE to who waits for it */
void backplane_calls_undelivered(struct backplane *, uint64_t call_id);

/* ---- lookup.c ---- */

void backplane_lookups_init(struct backplane *);
void backplane_lookups_fini(struct backplane *);

#endif
