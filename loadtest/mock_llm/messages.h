/*
 * messages - the mock's second voice: POST /v1/messages as Anthropic's. The request becomes
 * one of chat completions, and what is said to that is put in the other's words. Pure.
 */
#ifndef LOADTEST_MOCK_LLM_MESSAGES_H
#define LOADTEST_MOCK_LLM_MESSAGES_H

#include <jansson.h>

#include "loadtest/mock_llm/answer.h"

/* NULL and *ret_error (static) for what the API would refuse. */
json_t *messages_request(const json_t *request, const char **ret_error);

struct messages { /* one stream */
	const struct answer *answer;
	char model[128];
	bool has_begun;
	char open; /* the kind of the open block: 't'ext, 'r'easoning, 'c'alls; 0: none */
	uint32_t block, first_call;
};

/* Events for a delta of chat completions; bytes that are no JSON come as a text of their own. */
void messages_delta(struct messages *, struct str delta, struct buf *out);
void messages_finish(struct messages *, struct buf *out);
void messages_stop(struct buf *out);
void messages_error(const char *message, struct buf *out);

/* A whole answer; message is that of chat completions. */
void messages_whole(const struct messages *, struct str message, struct buf *out);

#endif
