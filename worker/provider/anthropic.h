/*
 * anthropic - the Messages dialect (api.anthropic.com, version 2023-06-01): a
 * chat-completions request as one of /messages, and its answer back. Pure.
 *
 * What has no counterpart is refused where leaving it out would change what is asked (several
 * choices, audio, a response_format), and left out otherwise.
 */
#ifndef WORKER_PROVIDER_ANTHROPIC_H
#define WORKER_PROVIDER_ANTHROPIC_H

#include "worker/provider/dialect.h"

enum {
	ANTHROPIC_MAX_TOKENS = 4096,           /* the dialect wants a limit: where none was given */
	ANTHROPIC_TOOL_CALLS_MAX = 128,        /* of one answer; more are left out */
	ANTHROPIC_EVENT_BYTES_MAX = 1 << 20,   /* of a stream */
	ANTHROPIC_ANSWER_BYTES_MAX = 16 << 20, /* of what is not one */
};

/* As of struct dialect. */
bool anthropic_request(struct str openai, struct buf *out, const char **ret_why);
struct translation *anthropic_begin(bool is_streamed);
bool anthropic_feed(struct translation *, struct str bytes, struct buf *out);
bool anthropic_finish(struct translation *, struct buf *out);
void anthropic_end(struct translation **);

#endif
