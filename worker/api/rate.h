/*
 * rate - how often a key may ask, and an address without one: their windows.
 */
#ifndef WORKER_API_RATE_H
#define WORKER_API_RATE_H

#include "common/limiter.h"
#include "worker/backplane/limits.h"
#include "worker/session/keys.h"
#include "worker/usage/tokens.h"

/* The windows of a key, and of whom it counts. */
struct rate_of {
	struct limiter_key own, rpm, rpd;
	struct limiter_rule rate;
	uint32_t rpm_limit, rpd_limit;
	struct token_limit tpm; /* the calls' own business */
	enum key_kind kind;
};

/* A client key's limit holds per key and device where it is bound, else per key and network
 * (http_client_network()); a server key's for the key. */
struct rate_of rate_of_key(const struct principal *, const char *network);

/*
 * One from each window, or cost, over all hosts while Redis is there. Embedded in the caller's,
 * zeroed. The verdict is that of the limit that refuses, or else of the one that is nearest;
 * without any limit its limit is 0. unit: what it counts, for people ("requests per minute").
 */
struct rate_ask {
	struct limit_ask ask;                 /* internal */
	unsigned limited;                     /* internal: of LABEL_LIMITED */
	const char *units[LIMIT_WINDOWS_MAX]; /* internal */
	void (*on_decided)(struct rate_ask *);
	uint32_t cost; /* of each window; 0: one */
	struct limiter_verdict verdict;
	const char *unit;
};

/* True: decided, on_decided is not called; false: it comes later, from the loop. A refusal is
 * counted. The time is asked for anew: the loop's may be old when much is to be done, and units
 * would expire too early. */
bool rate_take(struct limits *, const struct rate_of *, struct rate_ask *);
void rate_cancel(struct rate_ask *); /* nobody wants to know any more */

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
