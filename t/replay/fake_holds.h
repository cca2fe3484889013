/*
 * fake_holds - budgets that do as they are told, in place of worker/usage: what is asked for
 * waits until the test answers. Tokens and rows that are late, too.
 */
#ifndef T_REPLAY_FAKE_HOLDS_H
#define T_REPLAY_FAKE_HOLDS_H

#include "worker/usage/tokens.h"
#include "worker/usage/usage.h"

struct fake_holds {
	unsigned asked, answered, released, on_the_way, forgotten;
	uint64_t counted_tokens; /* by usage_count() */
	int64_t asked_micros;    /* of the last */
	char asked_id[64];

	unsigned added; /* rows that came by usage_add(), the last one */
	char added_id[64];

	unsigned late; /* rows that came by usage_add_late(), the last one */
	char late_id[64];

	struct limiter_verdict tokens_verdict; /* allowed, at first */
	bool is_far;                           /* it comes when fake_tokens_answer() is called */
	uint64_t asked_tokens, settled_used;   /* of the last */
	unsigned settled;
	uint32_t settled_reserved;
};
extern struct fake_holds fake_holds;

struct holds *fake_holds_new(void);
/* The oldest that waits; err as of hold_on_answer. There is one. */
void fake_holds_answer(int err, const struct hold_refusal *);
unsigned fake_holds_waiting(void);
unsigned fake_holds_held(void);
void fake_holds_reset(void);

bool fake_tokens_are_asked(void);
void fake_tokens_answer(void);

#endif
