/*
 * body - the body of a request to an OpenAI-compatible route: what we must know of it,
 * and the same with another model in it, every other byte as it was sent.
 *
 * Pure. It looks at members of the top level only; what it does not know it leaves
 * alone. A body in which something that we rewrite or count stands twice is refused, because
 * the provider might read the other one.
 */
#ifndef WORKER_PROVIDER_BODY_H
#define WORKER_PROVIDER_BODY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/str.h"

enum { BODY_MODEL_BYTES_MAX = 256 };

enum body_mark { /* where the editor has something to do */
	BODY_MODEL,
	BODY_STREAM,
	BODY_STREAM_OPTIONS,
	BODY_INCLUDE_USAGE, /* inside stream_options */
	BODY_MARKS,
};

struct body {
	struct str text;              /* borrowed */
	struct str marks[BODY_MARKS]; /* values as written; .p NULL: absent */
	const char *inside;           /* behind the opening brace */
	bool is_empty;                /* {} */
	bool is_streamed;
	bool wants_usage;    /* stream_options.include_usage is true */
	bool has_no_options; /* stream_options is absent or null */
	bool options_are_empty;
	uint64_t choices;           /* n; 1 where it is not said */
	uint64_t output_tokens_max; /* max_completion_tokens and its like, times n, up to
				     * UINT32_MAX; 0: not said */
};

/*
 * 0, or E_INVALID_JSON, E_INVALID_REQUEST (something twice), E_INVALID_VALUE (a type that cannot
 * be); then *ret_param is the member or NULL, and *ret_why a static text. model gets what the
 * member says, decoded; empty when it is absent.
 */
int body_read(struct str text, struct body *, struct buf *model, const char **ret_param,
    const char **ret_why);

/* The same body over a copy of its text. */
void body_copy(struct body *, const struct body *of, struct str copy);

/* Adds the body with this model in it; asks_usage sets stream_options.include_usage. */
void body_write(const struct body *, const char *model, bool asks_usage, struct buf *out);

#endif
