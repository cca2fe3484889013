/*
 * holds - money that is held in budgets for calls in progress.
 *
 *   ASKED --the record: it fits, or an advance covers it--> HELD --usage was written--> forgotten
 *     |                                                      +-----nothing was called--> given back
 *     +--it does not fit, or the record is away: refused
 *
 * The record decides, in one transaction (store_budget_hold()): it is exact over all workers, and
 * over all hosts that share it. It has decided ahead for keys that are busy and far from their
 * budget's end (advance.h). What does not fit only because others hold advances waits, for a
 * second and a half at most, while those are given back. While a hold lives its lease is renewed
 * every third of budgets.lease; that of a dead worker runs out, and one elected worker makes its
 * estimate the call's usage. Nobody does that until the record has answered for a whole lease:
 * after it was away the living renew first.
 */
#ifndef WORKER_USAGE_HOLDS_H
#define WORKER_USAGE_HOLDS_H

#include "common/budget.h"
#include "common/conf.h"
#include "worker/loop/loop.h"
#include "worker/store/store.h"

struct holds;

struct holds *holds_new(struct loop *, const struct conf *, struct store *);
/* No advances any more; those in the record end. */
void holds_drain(struct holds *);
bool holds_are_drained(const struct holds *);
/* No callback comes any more. The loop does not turn between this and the end of the store. */
void holds_free(struct holds **);

struct hold_question {
	/* What the call will be at most; cost_micros -1: the model has no price. */
	struct store_usage usage;
	struct budget_rule key, app;
};

/* Has it a budget at all? */
bool hold_is_needed(const struct hold_question *);

struct hold_refusal {
	bool is_app; /* the budget of the app; else of the key */
	struct budget_rule rule;
	int64_t spent_micros, held_micros, asked_micros;
	int64_t ends_at; /* wall ms: when the budget begins anew; 0: never */
	const char *message;
};

/* err 0: held. E_BUDGET_EXCEEDED: refusal says which, how much, until when; else it is NULL.
 * E_FORBIDDEN: the model has no price. E_STORE_UNAVAILABLE. */
typedef void hold_on_answer(void *arg, int err, const struct hold_refusal *);

/* Returns a handle, never 0; dead after a refusal. Never calls back from inside. */
uint64_t hold_ask(struct holds *, const struct hold_question *, hold_on_answer *, void *arg);
/* Nothing was called: given back. Before the answer: it does not come. 0: nothing. */
void hold_release(struct holds *, uint64_t handle);
/* The call's usage is made and on its way. True: somebody may need what is held, the sooner it is
 * written the better. 0: nothing, false. */
bool hold_settle(struct holds *, uint64_t handle);
/* The call's usage is written. 0: nothing. */
void hold_forget(struct holds *, uint64_t handle);

#endif
