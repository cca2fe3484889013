/*
 * fake_holds - budgets that do as they are told, in place of worker/usage: what is asked for
 * waits until the test answers.
 */
#ifndef T_REPLAY_FAKE_HOLDS_H
#define T_REPLAY_FAKE_HOLDS_H

#include "worker/usage/usage.h"

struct fake_holds {
	unsigned asked, answered, released, forgotten;
	uint64_t counted_tokens; /* by usage_count() */
	int64_t asked_micros;    /* of the last */
	char asked_id[64];
};
extern struct fake_holds fake_holds;

struct holds *fake_holds_new(void);
/* The oldest that waits; err as of hold_on_answer. There is one. */
void fake_holds_answer(int err, const struct hold_refusal *);
unsigned fake_holds_waiting(void);
unsigned fake_holds_held(void);
void fake_holds_reset(void);

#endif
