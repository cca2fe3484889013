/*
 * chunk - what an OpenAI-compatible answer, or an event of one, says that a relay must know:
 * is it an end, an error, the usage. Pure; no tree is built, nothing is kept.
 *
 * Shapes: chat.completion and its chunks, embeddings, images, and the events of
 * /responses. Members that it does not know mean nothing to it.
 */
#ifndef WORKER_PROVIDER_CHUNK_H
#define WORKER_PROVIDER_CHUNK_H

#include "worker/provider/provider.h"

struct chunk {
	struct str type;    /* "type", what stands between the quotes; of /responses */
	bool has_error;     /* "error" with something in it */
	struct str error;   /* it, as written */
	bool has_choices;   /* at least one */
	bool has_finish;    /* a choice has its finish_reason */
	uint64_t finished;  /* which: a bit for each index, the last for all from 63 on */
	bool is_broken_off; /* a finish_reason that says that the provider failed */
	bool has_usage;
	struct provider_usage usage;
	uint64_t output_bytes; /* of text, reasoning, tool calls: for an estimate */
};

/* False: it is not a JSON object, not UTF-8, or nested too deeply. */
bool chunk_read(struct str json, struct chunk *);

/* A usage object in any of the shapes; false: it is none. */
bool chunk_read_usage(struct str json, struct provider_usage *ret);

#endif
