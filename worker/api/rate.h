/*
 * rate - how often a key may ask, and an address without one: their windows.
 */
#ifndef WORKER_API_RATE_H
#define WORKER_API_RATE_H

#include "common/limiter.h"
#include "worker/session/keys.h"

/* The windows of a key, and of whom it counts. */
struct rate_of {
	struct limiter_key own, rpm, rpd, tpm;
	struct limiter_rule rate;
	uint32_t rpm_limit, rpd_limit, tpm_limit;
	enum key_kind kind;
};

/* A client key's limit holds per key and device where it is bound, else per key and network
 * (http_client_network()); a server key's for the key. */
struct rate_of rate_of_key(const struct principal *, const char *network);

/*
 * Takes one from each window. The verdict is that of the limit that refuses, which is counted, or
 * else of the one that is nearest; without any limit verdict->limit is 0. Returns
 * verdict->is_allowed. *ret_unit: what its limit counts, for people ("requests per minute"); may be
 * NULL. The time is asked for anew: the loop's may be old when much is to be done,
 * and units would expire too early.
 */
bool rate_take(
    struct shm *, const struct rate_of *, struct limiter_verdict *, const char **ret_unit);

/*
 * Tokens per minute of a server key are reserved before a call, as many as it may take: a
 * call that may take more than the limit has to find it unused. Returns what was reserved in
 * *ret_tokens; false: refused and counted. Afterwards rate_settle_tokens() is told what was used.
 */
bool rate_reserve_tokens(struct shm *, const struct rate_of *, uint64_t tokens,
    uint32_t *ret_tokens, struct limiter_verdict *);
void rate_settle_tokens(struct shm *, const struct rate_of *, uint32_t reserved, uint64_t used);

/* The same for a request without a valid key. */
bool rate_take_address(
    struct shm *, const struct conf *, const char *network, struct limiter_verdict *);

static inline uint32_t
rate_retry_after_s(const struct limiter_verdict *v)
{
	uint32_t s = (v->retry_after_ms + 999) / 1000;

	return s > 0 ? s : 1;
}

#endif
