/*
 * pg_pool - which connection an operation gets; when one is opened, checked, closed.
 *
 * Pure: takes the time and a random number, does no I/O, owns nothing. The caller has
 * the connections, each with a pg_slot in it, and those who wait (pg_queue); it asks
 * pg_pool_next() for the next of them and does what it says.
 *
 * Up to `size` connections stay, up to `overflow` more are closed when they come back,
 * nobody waits and `size` has sufficed for PG_CROWD_MS: a crowd comes and goes within
 * milliseconds, and to open a connection costs more than a turn does. Operations of one
 * statement share a connection that is busy with such (pipelining); a transaction and a
 * slow read have theirs alone. Nobody overtakes the first of the queue.
 *
 * Where one breaks others have, and nobody has noticed yet. What was not heard of since is
 * checked before it is used, so that an operation does not go from one dead connection to the next.
 *
 * When the database goes away all connections break at once, in every worker of every
 * host. Then one connection at a time is tried, later and later, each wait drawn at
 * random; the first that succeeds lifts this.
 */
#ifndef WORKER_STORE_PG_POOL_H
#define WORKER_STORE_PG_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/list.h"

enum pg_state { PG_CONNECTING, PG_CHECKING, PG_IDLE, PG_SHARED, PG_ALONE, PG_STATES };

enum {
	PG_DEPTH_MAX = 8,   /* operations that share a connection */
	PG_OPENING_MAX = 4, /* connections that are opened at once, while all is well */
	PG_CROWD_MS = 5000,
	PG_BACKOFF_FIRST_MS = 100,
	PG_BACKOFF_MAX_MS = 2000,
};

struct pg_slot {
	struct list node; /* in the list of its state, or in none */
	enum pg_state state;
	unsigned depth;    /* operations on it */
	uint64_t born_ms;  /* when it was opened */
	uint64_t since_ms; /* when it was last heard of: since then it may be idle */
	uint64_t asked_at; /* pool.breaks when it was asked what it has answered */
};

struct pg_pool {
	unsigned size, overflow;
	uint64_t recycle_ms;     /* 0: never */
	uint64_t check_after_ms; /* idle for so long: checked before use. 0: always */
	struct list lists[PG_STATES];
	unsigned counts[PG_STATES];
	uint64_t crowd_until_ms; /* more than `size` were wanted a while ago */
	unsigned failures;       /* to open one, in a row */
	bool is_careful;         /* something broke, and none was opened since */
	uint64_t open_at_ms;     /* none is opened before */
	uint64_t breaks;         /* of those that were open: one that broke may not be alone */
};

enum pg_move {
	PG_TAKE,  /* use *ret: pg_pool_take() */
	PG_CHECK, /* check *ret first: pg_pool_check() */
	PG_CLOSE, /* *ret is too old: close it, pg_pool_remove(), ask again */
	PG_OPEN,  /* open one more: pg_pool_add(), ask again */
	PG_WAIT,
};

void pg_pool_init(struct pg_pool *, unsigned size, unsigned overflow);

/* For the first of `waiting` operations. */
enum pg_move pg_pool_next(
    struct pg_pool *, bool is_alone, unsigned waiting, uint64_t now_ms, struct pg_slot **ret);
/* How long until one may be opened; 0: now, or there is no room anyway. */
uint64_t pg_pool_wait_ms(const struct pg_pool *, uint64_t now_ms);

void pg_pool_add(struct pg_pool *, struct pg_slot *); /* connecting */
void pg_pool_opened(struct pg_pool *, struct pg_slot *, uint64_t now_ms);
void pg_pool_check(struct pg_pool *, struct pg_slot *);
void pg_pool_checked(struct pg_pool *, struct pg_slot *, uint64_t now_ms);

void pg_pool_take(struct pg_pool *, struct pg_slot *, bool is_alone);
/* An operation on it has ended. False: close it, pg_pool_remove(). */
bool pg_pool_give(struct pg_pool *, struct pg_slot *, unsigned waiting, uint64_t now_ms);

void pg_pool_remove(struct pg_pool *, struct pg_slot *); /* closed; nothing is wrong */
/* Broken: it could not be opened, or was cut off. `random` is any number. */
void pg_pool_broken(struct pg_pool *, struct pg_slot *, uint64_t now_ms, uint64_t random);

/* Has answered what it was asked since one broke last. An answer that comes later to what it was
 * asked earlier proves nothing: it may have been on its way already. */
bool pg_pool_trusts(const struct pg_pool *, const struct pg_slot *);

unsigned pg_pool_ready(const struct pg_pool *);  /* connections that are open */
unsigned pg_pool_in_use(const struct pg_pool *); /* of these, with work */

#endif
