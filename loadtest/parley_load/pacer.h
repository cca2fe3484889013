/*
 * pacer - so many things per second: how many are due now, and when each was.
 * Pure.
 */
#ifndef LOADTEST_PARLEY_LOAD_PACER_H
#define LOADTEST_PARLEY_LOAD_PACER_H

#include <stdint.h>

struct pacer {
	double per_s;
	uint64_t began_us;
	uint64_t count; /* so far */
};

/* The next thing is due: counts it, returns the time it was due at; 0: none is. */
uint64_t pacer_next(struct pacer *, uint64_t now_us);

#endif
