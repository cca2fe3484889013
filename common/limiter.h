/*
 * limiter - exact sliding-window rate limits for all workers of one host.
 *
 * A key (16 bytes of a hash of whatever is limited) may spend `limit` units in
 * any window of `window_ms`; the window slides, it does not reset: the units
 * spent in the last window_ms are counted exactly. Lock-free in shared memory;
 * a process killed in the middle of a decision neither blocks the key nor
 * spends twice.
 */
#ifndef COMMON_LIMITER_H
#define COMMON_LIMITER_H

#include "common/shm.h"
#include "common/str.h"

struct limiter_key {
	uint8_t bytes[16];
};

struct limiter_rule {
	uint32_t limit;     /* 0: no limit */
	uint32_t window_ms; /* 1 s to 24 h */
};

struct limiter_verdict {
	bool is_allowed;
	uint32_t limit;
	uint32_t remaining;
	uint32_t retry_after_ms; /* refused: when the same cost would be allowed */
	uint32_t reset_ms;       /* until the window is empty again */
};

/* `kind` keeps the keys of different uses apart ("key", "address", "rpm:openai"). */
struct limiter_key limiter_key_of(const char *kind, struct str name);

/* Takes `cost` units if they fit. now_ms: CLOCK_MONOTONIC, the same for all processes of the host.
 */
struct limiter_verdict limiter_take(
    struct shm *, struct limiter_key, struct limiter_rule, uint32_t cost, uint64_t now_ms);

/* Gives units back that were taken and not used (a reservation that was too high). */
void limiter_give(
    struct shm *, struct limiter_key, struct limiter_rule, uint32_t cost, uint64_t now_ms);

/* For shm.c: the size of the table. */
size_t limiter_shm_bytes(void);

#endif
