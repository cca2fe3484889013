/*
 * knowledge - passages from an app's knowledge base, asked for before a turn.
 *
 *   POST url {"query","session","top_k"} ->
 * {"results":[{"text","source","title"?,"url"?,"score"?}]}
 *
 * One pool of connections for the bases of all apps, with the limits of `knowledge` in the config.
 * Where a base is, is the operator's choice: addresses are not restricted. An answer may
 * have knowledge.max_response bytes; of its passages, in their order, top_k count and those that
 * fit into knowledge.max_text. Any failure is one answer with an error: the turn goes on without.
 */
#ifndef WORKER_KNOWLEDGE_KNOWLEDGE_H
#define WORKER_KNOWLEDGE_KNOWLEDGE_H

#include <jansson.h>

#include "common/conf.h"
#include "worker/client/client.h"
#include "worker/loop/loop.h"

struct knowledge;

struct knowledge *knowledge_new(struct loop *, struct client *, const struct conf *);
void knowledge_free(struct knowledge **); /* before the client; nobody is called back */

struct knowledge_question {
	const char *url, *session_id;
	struct str query; /* UTF-8; the first KNOWLEDGE_QUERY_MAX bytes are asked for */
	uint32_t top_k;
	const char *request_id, *traceparent; /* passed on; may be NULL */
};
enum { KNOWLEDGE_QUERY_MAX = 8192 };

struct knowledge_answer {       /* borrowed for the call */
	const char *error_code; /* NULL: well; "knowledge_timeout", "knowledge_error" */
	const char *error_message;
	/* [{"number","source","title","url","score"}]: what was there of it; NULL on an error. */
	json_t *sources;
	struct str prompt; /* for the model; empty: nothing was found */
};
typedef void knowledge_on_answer(void *arg, const struct knowledge_answer *);

/* Returns a handle, never 0. Calls back once, from the loop, unless cancelled. */
uint64_t knowledge_ask(
    struct knowledge *, const struct knowledge_question *, knowledge_on_answer *, void *arg);
void knowledge_cancel(struct knowledge *, uint64_t handle); /* unknown or 0: nothing */

/* Pure, for knowledge_ask() and its tests. False: the text is not of that shape; *ret_sources is
 * new. */
bool knowledge_read(struct str text, uint32_t top_k, size_t text_bytes_max, json_t **ret_sources,
    struct buf *prompt);

#endif
