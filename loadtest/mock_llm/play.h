/*
 * play - gives an answer to a chat request, whole or streamed, at its pace and
 * with its fault.
 *
 *   WAIT -> DELTAS -> (finish, usage, [DONE]) -> end
 *     |        +----> CUT, STALL, DRIP: faults
 *     +-> a whole answer
 */
#ifndef LOADTEST_MOCK_LLM_PLAY_H
#define LOADTEST_MOCK_LLM_PLAY_H

#include <event2/event.h>
#include <jansson.h>

#include "loadtest/mock_llm/answer.h"
#include "loadtest/mock_llm/control.h"
#include "loadtest/mock_llm/plan.h"
#include "loadtest/mock_llm/server.h"

/* is_messages: it came as Anthropic's (messages.h). Takes the plan over. The request is borrowed
 * for the call. */
void play_chat(struct event_base *, struct control *, struct conn *, const json_t *request,
    bool is_messages, struct plan *);

/* Faults that come before any answer; true: it was one, the request is done with. */
bool play_early_fault(struct conn *, const struct plan *);

void play_error(struct conn *, int status, const char *type, const char *code, const char *message,
    const char *retry_after);

#endif
