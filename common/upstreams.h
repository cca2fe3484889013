/*
 * upstreams - what the workers of a host share about model providers: places,
 * breakers, cool-downs, retry budgets, health.
 *
 * A provider and a target (provider and model) are found by name, so that workers of an
 * old and a new config mean the same. Entries are made on first use and stay; when the table is
 * full the caller gets NULL and counts for himself. All of an entry is lock-free and zero
 * when fresh.
 */
#ifndef COMMON_UPSTREAMS_H
#define COMMON_UPSTREAMS_H

#include "common/breaker.h"
#include "common/places.h"
#include "common/str.h"
#include "common/tally.h"

enum { UPSTREAMS_MAX = 32, UPSTREAM_TARGETS_MAX = 256 };

struct upstream_shared { /* of a provider */
	_Atomic uint64_t key;
	struct tally retries;           /* a: calls, b: retries */
	_Atomic uint64_t health_due_ms; /* the next look at it; 0: none was planned */
	_Atomic uint64_t health;        /* the provider module's */
	struct places places;
};

struct upstream_target_shared {
	_Atomic uint64_t key;
	struct breaker breaker;
	_Atomic uint64_t cool_until_ms; /* CLOCK_MONOTONIC; the provider's Retry-After */
};

struct upstream_shared *upstreams_provider(struct shm *, struct str name);
struct upstream_target_shared *upstreams_target(
    struct shm *, struct str provider, struct str model);

/* It wants not to be asked until then; the latest word holds. True: it was not cooling down. */
bool upstreams_cool_down(struct upstream_target_shared *, uint64_t until_ms, uint64_t now_ms);
/* So long; 0: it may be asked. */
uint32_t upstreams_cooling_ms(const struct upstream_target_shared *, uint64_t now_ms);

/* For shm.c. */
size_t upstreams_shm_bytes(void);

#endif
