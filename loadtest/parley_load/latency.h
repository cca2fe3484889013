/*
 * latency - a histogram of times in microseconds, log-linear as HdrHistogram
 * does it: 32 steps per power of two, so a value is known to 3.2 %.
 *
 * Plain data: may lie in shared memory, zeroed before first use.
 */
#ifndef LOADTEST_PARLEY_LOAD_LATENCY_H
#define LOADTEST_PARLEY_LOAD_LATENCY_H

#include <stdint.h>

enum { LATENCY_STEPS = 64, LATENCY_CELLS = LATENCY_STEPS * 40 };

struct latency {
	uint64_t cells[LATENCY_CELLS];
	uint64_t count, sum_us, max_us;
};

void latency_add(struct latency *, uint64_t us);
void latency_merge(struct latency *into, const struct latency *);
uint64_t latency_percentile(const struct latency *, double percent); /* 0 when empty */
double latency_mean(const struct latency *);                         /* 0 when empty */

#endif
