/*
 * reconnect - how long to wait before the next attempt to connect. Pure.
 *
 * Exponential with full jitter ("Exponential Backoff And Jitter", AWS 2015): all workers of all
 * hosts lose a Redis at the same instant and must not come back at the same one. Who was connected
 * for RECONNECT_STABLE_MS begins anew; a connection that keeps breaking at once does not.
 */
#ifndef WORKER_BACKPLANE_RECONNECT_H
#define WORKER_BACKPLANE_RECONNECT_H

#include <stdint.h>

enum {
	RECONNECT_FIRST_MS = 200, /* upper end of the first wait */
	RECONNECT_MAX_MS = 5000,
	RECONNECT_MIN_MS = 20,
	RECONNECT_STABLE_MS = 10000
};

struct reconnect { /* zeroed */
	uint32_t failures;
	uint64_t up_since_ms; /* 0: not up */
};

/* random: any 64 bits. */
uint32_t reconnect_delay_ms(struct reconnect *, uint64_t now_ms, uint64_t random);
void reconnect_up(struct reconnect *, uint64_t now_ms);

#endif
