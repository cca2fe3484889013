/*
 * limits - sliding windows that are exact over all hosts: in Redis while it is there, else in the
 * shared memory of this host alone (common/limiter.h, whose rules hold for both).
 *
 * Redis decides in one script, by its own clock. What it allows is counted here as well, so
 * that a host whose Redis goes away knows what it has given out itself. An answer that does not
 * come in time is this host's. When Redis is back it does not know what hosts have given out alone:
 * for a window's length after that this host's own count must agree as well, so that no host gives
 * out more than the limit; what several gave out alone, each up to it, stays given.
 */
#ifndef WORKER_BACKPLANE_LIMITS_H
#define WORKER_BACKPLANE_LIMITS_H

#include "common/limiter.h"
#include "worker/backplane/redis.h"

enum { LIMIT_WINDOWS_MAX = 4 };

struct limits;

struct limit_window {
	struct limiter_key key;
	struct limiter_rule rule; /* limit 0: not asked */
	uint32_t cost;
};

/* Embedded in the caller's, zeroed; the first three are set by it. */
struct limit_ask {
	struct limit_window windows[LIMIT_WINDOWS_MAX];
	size_t count;
	void (*on_decided)(struct limit_ask *);
	/* One for each window up to the first that refuses; the windows before that one have been
	 * taken from. */
	struct limiter_verdict verdicts[LIMIT_WINDOWS_MAX];
	size_t decided;
	struct limits *limits; /* internal, as what follows */
	bool is_waiting;
};

/* redis NULL: this host alone. All is borrowed. */
struct limits *limits_new(struct shm *, struct redis *, const char *key_prefix);
void limits_free(struct limits **);

/* Redis is back; for backplane_on_resumed(). */
void limits_resumed(void *limits);

/* Takes from each window until one refuses. True: decided, on_decided is not called; false: it
 * comes later, from the loop. */
bool limits_take(struct limits *, struct limit_ask *);
/* Nobody wants to know any more; not waiting: nothing. What was taken stays taken. */
void limits_cancel(struct limit_ask *);
/* Takes as many of the window's units as it still holds: they have been used. */
void limits_fill(struct limits *, const struct limit_window *);
/* Gives units back, as limiter_give(). */
void limits_give(struct limits *, const struct limit_window *);

#endif
