/*
 * gateway_money - what a call through the OpenAI-compatible routes may cost, and what it has cost.
 *
 * Before: the estimate for the budgets, and the answer to who has none left. After: the row of
 * usage. A call that was refused costs nothing; one that broke off after its first byte, or that
 * was given up, costs what the provider said, or what was seen of it.
 */
#ifndef WORKER_API_GATEWAY_MONEY_H
#define WORKER_API_GATEWAY_MONEY_H

#include "worker/api/call.h"
#include "worker/provider/relay.h"

struct gateway_money {
	struct id id;     /* of the row, and of the hold */
	int64_t began_at; /* wall ms */
	uint64_t hold;    /* 0: none */
};

/* The texts are the call's and the alias. */
void gateway_money_init(struct gateway_money *);
struct hold_question gateway_money_question(const struct gateway_money *, const struct api_call *,
    const char *alias, enum relay_kind, const struct body *);

/* Answers and ends the call. refusal as of hold_on_answer. */
void gateway_money_refuse(struct api_call *, int err, const struct hold_refusal *);

/* Writes the row; returns the tokens that count. */
uint64_t gateway_money_settle(const struct gateway_money *, const struct api_call *,
    const char *alias, const struct relay_report *);

#endif
