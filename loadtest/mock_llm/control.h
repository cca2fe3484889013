/*
 * control - what a test may ask about the mock and tell it: /mock/stats,
 * /mock/requests, /mock/fault, /mock/reset.
 */
#ifndef LOADTEST_MOCK_LLM_CONTROL_H
#define LOADTEST_MOCK_LLM_CONTROL_H

#include "loadtest/mock_llm/plan.h"
#include "loadtest/mock_llm/server.h"

struct control;

struct control *control_new(void);
void control_free(struct control **);

/* Counts and remembers a request; then lets a waiting /mock/fault fill the plan. */
void control_note(struct control *, const struct request *);
void control_apply(struct control *, struct plan *);
/* The plan's fault with `times=` is used up for its key: take one. False: no fault this time. */
bool control_spend(struct control *, const struct plan *);

/* A chat answer begins and ends; live ones are counted. */
void control_begin(struct control *, bool is_streamed);
void control_end(struct control *, bool is_streamed, bool is_aborted);

/* Answers /mock/..; false: not such a path. */
bool control_answer(struct control *, struct server *, struct conn *, const struct request *);

#endif
