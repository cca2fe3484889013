/*
 * breaker - a circuit breaker shared by the workers of a host: may this be called
 * now, and who tries whether it works again?
 *
 *               failures in a row, or their share of a window
 *     CLOSED ------------------------------------------------> OPEN
 *       ^                                                      |  ^
 *       | the probe succeeds         recovery is over: one call|  | the probe fails,
 *       |                            becomes the probe         v  | or its prober is dead
 *       +--------------------------------------------------- HALF_OPEN
 *
 * One word of shared memory holds the state and changes by compare-and-swap only. A process that
 * dies holds nothing: a probe names its prober's incarnation, and a dead one's is given to
 * the next who asks. Zeroed memory is a closed breaker. Pure: takes the time
 * (CLOCK_MONOTONIC, the same for all), does no I/O. What is recorded of calls that began before
 * the state changed does not count.
 */
#ifndef COMMON_BREAKER_H
#define COMMON_BREAKER_H

#include "common/shm.h"
#include "common/tally.h"

struct breaker {
	_Atomic uint64_t state;
	struct tally calls; /* a: calls, b: failures */
};

struct breaker_rule {
	uint32_t failures;   /* in a row; up to 65535; 0: never */
	double failure_rate; /* share of the window's calls; 0: never */
	uint32_t calls_min;  /* from so many on */
	uint32_t window_ms, recovery_ms;
};

enum breaker_state { BREAKER_CLOSED, BREAKER_HALF_OPEN, BREAKER_OPEN };

/* Permission for one call; given back by breaker_record() or breaker_return(), once. */
struct breaker_pass {
	uint64_t word; /* the state in which it was given */
};

enum breaker_outcome { BREAKER_SUCCESS, BREAKER_FAILURE };

/* Looks only: would breaker_enter() let a call through now? shm NULL: everybody is alive. */
bool breaker_allows(
    const struct breaker *, const struct breaker_rule *, const struct shm *, uint64_t now_ms);
/* False: not now. The call may be the probe. */
bool breaker_enter(struct breaker *, const struct breaker_rule *, const struct shm *,
    struct shm_who me, uint64_t now_ms, struct breaker_pass *ret);
bool breaker_is_probe(const struct breaker_pass *);
/* True: this has changed the state. */
bool breaker_record(struct breaker *, const struct breaker_rule *, struct breaker_pass,
    enum breaker_outcome, uint64_t now_ms);
/* The call has shown nothing; a probe goes to the next. */
void breaker_return(
    struct breaker *, const struct breaker_rule *, struct breaker_pass, uint64_t now_ms);

enum breaker_state breaker_state(const struct breaker *);
const char *breaker_state_name(enum breaker_state); /* "closed", "half_open", "open" */
/* Until a probe may be made; 0: now, or it is not open. */
uint32_t breaker_wait_ms(const struct breaker *, const struct breaker_rule *, uint64_t now_ms);

#endif
