/*
 * tokens - tokens per minute of a server key: reserved before a call of a model, settled after it.
 * Over all hosts while Redis is there.
 */
#ifndef WORKER_USAGE_TOKENS_H
#define WORKER_USAGE_TOKENS_H

#include "worker/backplane/limits.h"

#define TOKENS_UNIT "tokens per minute"

struct token_limit {
	struct limiter_key key;
	uint32_t limit; /* tokens in any 60 s; 0: no limit */
};

struct token_limit token_limit_of(struct str key_id, uint32_t limit);

/* Embedded in the caller's, zeroed, on_decided set. */
struct token_ask {
	struct limit_ask ask; /* internal */
	void (*on_decided)(struct token_ask *);
	struct limiter_verdict verdict; /* without a limit its limit is 0 */
	uint32_t tokens;                /* reserved, if the verdict allows it */
};

/*
 * As many as the call may take: one that may take more than the limit has to find it unused. True:
 * decided, on_decided is not called; false: it comes later, from the loop. A refusal is counted.
 */
bool tokens_reserve(
    struct limits *, const struct token_limit *, uint64_t tokens, struct token_ask *);
void tokens_cancel(struct token_ask *); /* nobody wants to know any more */
/* Afterwards: what was used. 0 gives all of it back; what was used beyond the reservation is taken
 * as far as the window holds it: then it is full. */
void tokens_settle(struct limits *, const struct token_limit *, uint32_t reserved, uint64_t used);

#endif
