/*
 * refusal - what is told to who is over a limit or a budget: which one it is, how much of it is
 * left, and when it ends. Formats only.
 */
#ifndef WORKER_USAGE_REFUSAL_H
#define WORKER_USAGE_REFUSAL_H

#include "common/buf.h"
#include "common/limiter.h"
#include "worker/usage/holds.h"

/* unit: what the limit counts, for people ("requests per minute"). */
void refusal_message(const struct limiter_verdict *, const char *unit, struct buf *);
/* A JSON object for clients: {"of":"key","unit","amount","remaining","resets_at"}; resets_at is
 * when the same would be allowed. */
void refusal_of_limit(const struct limiter_verdict *, const char *unit, struct buf *);
/* {"of","period","amount","spent","reserved","requested","resets_at"}. */
void refusal_of_budget(const struct hold_refusal *, struct buf *);

#endif
