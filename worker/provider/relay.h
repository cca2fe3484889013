/*
 * relay - a request to an OpenAI-compatible route of ours, given to a target behind its
 * alias, and the answer given back as it comes.
 *
 * It asks (ask.h): what may be asked again or elsewhere is. Bytes of an answer are passed
 * on unchanged and at once; of a stream whole events, so that a broken one is never
 * passed on as if it were whole. Usage is picked out on the way. What is kept of an answer does
 * not grow with it, but for one that is not a stream: it is held up to RELAY_HELD_BYTES_MAX, so
 * that its status is known before it begins; beyond that it begins, and a cut is the caller's to
 * show.
 *
 * Callbacks run on the loop, never from inside a verb; on_done comes exactly once unless the relay
 * was freed before.
 */
#ifndef WORKER_PROVIDER_RELAY_H
#define WORKER_PROVIDER_RELAY_H

#include "worker/provider/body.h"
#include "worker/provider/provider.h"

enum { RELAY_HELD_BYTES_MAX = 1 << 20 };

enum relay_kind {
	RELAY_CHAT,
	RELAY_EMBEDDINGS,
	RELAY_IMAGES,
	RELAY_RESPONSES,
	RELAY_KINDS,
};

const char *relay_path(enum relay_kind); /* behind base_url: "/chat/completions" */

struct relay_question {
	enum relay_kind kind;
	const char *alias;           /* one that is known, or "" */
	const struct body *body;     /* and its text: copied */
	size_t event_bytes_max;      /* a larger event passes unread */
	const char *request_id;      /* passed on; may be NULL */
	const char *traceparent;     /* passed on; may be NULL */
	const char *idempotency_key; /* of all attempts; may be NULL */
};

/* What is known of a model call; at any time. Names are the config's, "" when none was asked. */
struct relay_report {
	const char *provider, *model;
	uint32_t attempts;
	int err;                     /* 0: a whole answer; E_CANCELLED while it is not over */
	struct provider_usage usage; /* of the last attempt */
	uint64_t first_ms, total_ms; /* to the first byte passed on (0: none), and so far */
};

struct relay_result { /* borrowed for the call */
	int err;
	const char *message; /* err != 0: for the client */
	uint32_t retry_after_ms;
	/* Without on_begin: the answer; with err the provider's own refusal, or status 0. */
	int status;
	struct str content_type, body;
	bool is_in_event; /* err != 0: an event was given in part: it must be ended first */
	bool is_told;     /* err != 0: the provider's own words about it were passed on */
};

struct relay_handlers {
	/* Bytes follow. content_type has no parameters. */
	void (*on_begin)(void *arg, struct str content_type, bool is_stream);
	bool (*on_bytes)(void *arg, struct str bytes); /* false: no more until relay_resume() */
	void (*on_done)(void *arg, const struct relay_result *);
};

struct relay;

struct relay *relay_start(
    struct providers *, const struct relay_question *, const struct relay_handlers *, void *arg);
void relay_resume(struct relay *);
void relay_report(const struct relay *, struct relay_report *);
/* Ends it for a reason of the caller's, which its report says from now on; no callback follows.
 * True: an event was given in part. It is to be freed. */
bool relay_stop(struct relay *, int err);
/* Ends it, if it has not ended: the provider is stopped. Fine from inside its callbacks. */
void relay_free(struct relay **);

#endif
