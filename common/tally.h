/*
 * tally - two counts over a sliding window, kept in shared memory: calls and
 * failures, calls and retries.
 *
 * The window is ten buckets; what is counted leaves with its bucket, up to a tenth of the window
 * early. Lock-free: a count is one compare-and-swap, so a process that is killed has counted
 * or has not. Zeroed memory is an empty tally. Pure: takes the time.
 */
#ifndef COMMON_TALLY_H
#define COMMON_TALLY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { TALLY_BUCKETS = 10, TALLY_BUCKET_MAX = (1 << 20) - 1 };

struct tally {
	_Atomic uint64_t buckets[TALLY_BUCKETS];
};

struct tally_counts {
	uint64_t a, b;
};

/* window_ms: at least TALLY_BUCKETS; the same for all who use the tally. Each count stays at
 * TALLY_BUCKET_MAX in a bucket when it would exceed it. */
void tally_add(struct tally *, uint32_t window_ms, uint32_t a, uint32_t b, uint64_t now_ms);
/* Only buckets that began at since_ms or later; 0: all. */
struct tally_counts tally_read(
    const struct tally *, uint32_t window_ms, uint64_t since_ms, uint64_t now_ms);

#endif
