/*
 * dialect - how a provider is spoken to. Everybody who asks a model speaks the dialect of
 * OpenAI; what another one needs is translated on the way to it and back, so that
 * askers know nothing of it.
 */
#ifndef WORKER_PROVIDER_DIALECT_H
#define WORKER_PROVIDER_DIALECT_H

#include <stdbool.h>

#include "common/buf.h"
#include "common/str.h"

struct translation; /* of one answer */

struct dialect {
	const char *name;        /* of the config */
	const char *key_header;  /* "Authorization" */
	const char *key_prefix;  /* "Bearer " */
	const char *more_header; /* one that each request has, or NULL */
	const char *more_value;
	/* The provider's path for one of OpenAI's ("/chat/completions"); NULL: it has none. */
	const char *(*path)(const char *openai);

	/* The rest is NULL where nothing is translated. */

	/* Adds the request's body in the dialect. False: it cannot be said in it, *ret_why
	 * (static). */
	bool (*request)(struct str openai, struct buf *out, const char **ret_why);
	struct translation *(*begin)(bool is_streamed);
	/* Adds what the bytes mean to OpenAI's clients. False: they are malformed. */
	bool (*feed)(struct translation *, struct str bytes, struct buf *out);
	/* The answer has ended; what is left to say. A stream that was cut says nothing: its
	 * reader misses the end. */
	bool (*finish)(struct translation *, struct buf *out);
	void (*end)(struct translation **); /* NULL is fine */
};

/* Never NULL: the config was checked. */
const struct dialect *dialect_named(const char *name);

/* Of a translation that there may not be. */
void dialect_end(const struct dialect *, struct translation **);

extern const struct dialect dialect_anthropic; /* anthropic.c */

#endif
