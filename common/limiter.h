/*
 * limiter - exact sliding-window rate limits for all workers of one host.
 *
 * A key (16 bytes of a hash of whatever is limited) may spend `limit` units in
 * any window of `window_ms`; the window slides, it does not reset: the units
 * spent in the last window_ms are counted, each until it is window_ms old.
 * Exact to the millisecond for limits up to LIMITER_EXACT_MAX. Above that, units
 * spent within one 4094th of the window (15 ms of a minute, 21 s of a day) are kept
 * together and expire with the last of them: never too early, late by that much.
 *
 * Lock-free in shared memory; a process killed in the middle of a decision neither
 * blocks the key nor spends twice (limiter_log.h says why). Keys that nobody used for
 * a window are forgotten and their places reused. When more keys are busy than
 * there are places (64,000 for limits below 64, 16,000 below 512, 4,000 above), a further key is
 * allowed without being counted, and that is counted in parley_limiter_overflow_total:
 * refusing would let whoever can make up keys shut everybody else out.
 *
 * A key has one rule. When its limit or window is changed by a reload, what was spent
 * before may be forgotten once.
 */
#ifndef COMMON_LIMITER_H
#define COMMON_LIMITER_H

#include "common/shm.h"
#include "common/str.h"

enum { LIMITER_EXACT_MAX = 4095 };

struct limiter_key {
	uint8_t bytes[16];
};

struct limiter_rule {
	uint32_t limit;     /* 0: no limit; up to 2^31 - 1 */
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

/* Takes `cost` units if they fit; a cost of 0 only looks. now_ms: CLOCK_MONOTONIC, the same for all
 * processes of the host; one that lags behind another's counts as that other's. */
struct limiter_verdict limiter_take(
    struct shm *, struct limiter_key, struct limiter_rule, uint32_t cost, uint64_t now_ms);

/* Gives units back that were taken and not used (a reservation that was too high). They are
 * forgiven at the old end of the window, which is never too early. */
void limiter_give(
    struct shm *, struct limiter_key, struct limiter_rule, uint32_t cost, uint64_t now_ms);

/* For shm.c: the size of the table. */
size_t limiter_shm_bytes(void);

#endif
