/*
 * answer - what the model says to one chat request, as deltas in order.
 *
 * The text is tok0 tok1 .. (tokens=), a given one (text=), the results of the
 * tools after tool messages ("tool results: a; b"), or "echo: " and what the
 * user said. With tools= and a request that has tools, tool calls come in
 * place of the text until they were made `hops` times. Tool call ids are
 * call_0, call_1 .. in every hop: not unique, as with some real providers.
 * With stamped each word of a stream, and the end of a whole text, is @ASKED:GIVEN; the times being
 * the caller's (clock_mono_us(), which all processes of a host share): what else lies between a
 * question and its answer is the work of who stands between. Pure.
 */
#ifndef LOADTEST_MOCK_LLM_ANSWER_H
#define LOADTEST_MOCK_LLM_ANSWER_H

#include <jansson.h>

#include "loadtest/mock_llm/plan.h"

struct answer_piece { /* a part of a tool call */
	uint32_t call;
	size_t from, len;
	bool is_head; /* id and name */
};

struct answer {
	const struct plan *plan;
	struct buf text; /* unused when the words are made */
	bool makes_words;
	bool calls_tools;
	uint32_t hop; /* how often tools were called since the user spoke */

	uint32_t reasoning_at, word_at;
	uint64_t asked_us, now_us; /* set by the caller, if stamped */
	size_t text_at;
	struct answer_piece *pieces;
	size_t piece_count, piece_at;

	uint64_t prompt_tokens, completion_tokens; /* bytes / 4 of the contents; deltas given */
};

/* Checks the request as a provider would; false and *ret_error (static) for a bad one. Fills the
 * plan from the last user message. */
bool answer_init(struct answer *, const json_t *request, struct plan *, const char **ret_error);
void answer_fini(struct answer *);

/* The next delta as a JSON object appended to out; false at the end. */
bool answer_next(struct answer *, struct buf *out);

/* The whole message as JSON appended to out; uses the deltas up. */
void answer_message(struct answer *, struct buf *out);

const char *answer_finish(const struct answer *);
void answer_usage(const struct answer *, struct buf *out); /* the usage object */

#endif
