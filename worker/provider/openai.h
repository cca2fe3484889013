/*
 * openai - the chat-completions dialect: a request to bytes, bytes of a streamed
 * answer to deltas and a result. Pure: it knows no connection and no time.
 *
 * An answer is whole when a finish_reason was seen and the connection ended
 * properly, or when [DONE] was seen after it. Everything else is an error:
 * malformed JSON, invalid UTF-8, an error event, an end without a reason, an
 * event or an answer beyond its limit.
 */
#ifndef WORKER_PROVIDER_OPENAI_H
#define WORKER_PROVIDER_OPENAI_H

#include "common/buf.h"
#include "worker/provider/failure.h"
#include "worker/provider/provider.h"

enum {
	OPENAI_EVENT_BYTES_MAX = 1 << 20,
	OPENAI_ANSWER_BYTES_MAX = 8 << 20, /* text, reasoning and arguments together */
	OPENAI_TOOL_CALLS_MAX = 128,
};

/* The body of POST {base_url}/chat/completions. model: the provider's name for it. */
void openai_request(const struct provider_request *, const char *model, struct buf *out);

struct openai_answer;

struct openai_handlers {
	void (*on_text)(void *arg, struct str);
	void (*on_reasoning)(void *arg, struct str);
};

struct openai_answer *openai_answer_new(const struct openai_handlers *, void *arg);
void openai_answer_free(struct openai_answer **); /* not from inside its callbacks */

/* 0 or an E_*; after an error it takes nothing more and says the same again. */
int openai_answer_feed(struct openai_answer *, struct str bytes);
/* The connection has ended properly: 0 when the answer is whole. */
int openai_answer_end(struct openai_answer *);

bool openai_answer_is_whole(const struct openai_answer *);   /* a finish_reason was seen */
bool openai_answer_is_done(const struct openai_answer *);    /* [DONE] after a finish_reason */
uint64_t openai_answer_deltas(const struct openai_answer *); /* grows with what the model gives */
enum failure openai_answer_failure(const struct openai_answer *); /* after an error only */
/* Why it is an error; fit for the client. */
const char *openai_answer_message(const struct openai_answer *);

/* finish, tool calls and usage of a whole answer; borrowed from it. usage.input_tokens is 0 where
 * it must be estimated. */
void openai_answer_result(const struct openai_answer *, struct provider_result *ret);

/* The provider's reason in the body of an error answer, as "message (code)"; empty when there is
 * none. */
void openai_error_message(struct str body, struct buf *out);
/* Does the body of an error answer say that the request was too long for the model? That what was
 * paid for is used up? */
bool openai_error_is_context(struct str body);
bool openai_error_is_quota(struct str body);

#endif
