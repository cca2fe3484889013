/*
 * provider - one call of a language model.
 *
 * The config's models are aliases; a call names the alias, the provider layer
 * chooses the target, speaks its dialect and reports normalised events. It
 * executes nothing and stores nothing. Callbacks run on the loop, never from
 * inside provider_call(); on_done comes exactly once unless cancelled.
 */
#ifndef WORKER_PROVIDER_PROVIDER_H
#define WORKER_PROVIDER_PROVIDER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/breaker.h"
#include "common/conf.h"
#include "common/shm.h"
#include "common/str.h"
#include "worker/client/client.h"
#include "worker/loop/loop.h"

struct providers;

/* shm NULL: limits and breakers are this process's own, and requests_per_minute does not hold. */
struct limits;
struct providers *providers_new(
    struct loop *, struct client *, const struct conf *, struct shm *, struct shm_who me);
/* Once, before anybody asks: requests_per_minute holds over all hosts. Borrowed. */
void providers_use_limits(struct providers *, struct limits *);
/* What becomes of providers is told there; borrowed. */
struct events;
void providers_use_events(struct providers *, struct events *);
void providers_free(struct providers **);

struct provider_request {
	const char *model; /* alias; NULL or "": the first model */
	/* OpenAI chat messages, JSON text, a comma between two; they come before those of
	 * `messages`, and may be empty. Borrowed until on_done or provider_cancel(), because it
	 * may have to be said again. */
	struct str history;
	json_t *messages;        /* an array; shared with the call, and not changed meanwhile */
	json_t *tools;           /* OpenAI tools array, or NULL; likewise */
	uint32_t max_tokens;     /* of the answer; 0: the provider's own limit */
	struct str prefill;      /* the beginning of the answer; set by the call itself */
	uint32_t timeout_ms;     /* what is left of the turn's time */
	const char *request_id;  /* passed on as X-Request-Id; may be NULL */
	const char *traceparent; /* passed on; may be NULL */
};

/* A tool call that the model asks for, put together from its deltas. */
struct provider_tool_call {
	const char *id; /* the provider's; may be empty and is not unique */
	const char *name;
	const char *arguments; /* JSON text as the model wrote it; "{}" when it wrote nothing */
};

/* No call takes more: what a provider tells beyond that is nonsense, and would overflow sums. */
enum { PROVIDER_TOKENS_MAX = 1000000000 };

struct provider_usage {
	uint64_t input_tokens, output_tokens, cached_tokens;
	bool is_estimated; /* the provider gave none: bytes / 4 */
};

enum provider_finish {
	PROVIDER_FINISH_STOP,
	PROVIDER_FINISH_LENGTH,
	PROVIDER_FINISH_TOOL_CALLS,
	PROVIDER_FINISH_CONTENT_FILTER,
};

struct provider_result {
	int err; /* 0, or E_PROVIDER, E_PROVIDER_TIMEOUT, E_POOL_TIMEOUT, E_PROVIDER_REFUSED,
		    E_RATE_LIMITED .. */
	const char *message; /* err != 0: for the client; the provider's own reason where it gave
				one; borrowed */
	uint32_t retry_after_ms; /* 0: none */
	enum provider_finish finish;
	const struct provider_tool_call *tool_calls;
	uint32_t tool_call_count;
	struct provider_usage usage;
	const char *provider; /* names of the target that answered, or of the last; borrowed */
	const char *model;
	uint32_t attempts; /* requests that were made */
};

struct provider_handlers {
	void (*on_text)(void *arg, struct str text);      /* a delta, valid UTF-8, borrowed */
	void (*on_reasoning)(void *arg, struct str text); /* likewise; may be NULL */
	void (*on_done)(void *arg, const struct provider_result *);
	/* What this call has given is void: its answer begins anew. NULL: an answer that breaks in
	 * the middle is not gone on with elsewhere. */
	void (*on_restarted)(void *arg);
};

/*
 * Starts a call; returns a handle, never 0. A request that cannot be made (unknown alias)
 * ends in on_done like any other. An answer that was cut, malformed or without an end is an
 * error in on_done, never a finish.
 */
uint64_t provider_call(struct providers *, const struct provider_request *,
    const struct provider_handlers *, void *arg);
void provider_cancel(
    struct providers *, uint64_t handle); /* nothing comes any more; the upstream is closed */

struct loop *providers_loop(const struct providers *);
bool providers_know_model(const struct providers *, const char *alias);
/* Millionths of the currency unit for this usage; -1: the model has no price. */
int64_t providers_cost(const struct providers *, const char *alias, const struct provider_usage *);
uint32_t providers_context_tokens(const struct providers *, const char *alias); /* 0: unknown */

/* What is known of the config's providers, of the whole host. */
enum provider_health { PROVIDER_UNKNOWN, PROVIDER_UP, PROVIDER_MISCONFIGURED, PROVIDER_DOWN };
const char *provider_health_name(enum provider_health); /* "unknown", "up", .. */

struct provider_state {
	const char *name;
	enum provider_health health; /* as the last look at it found */
	uint32_t calls, calls_max;   /* in progress, and places for them */
	int64_t waiting;             /* calls that wait for a place */
};
size_t providers_count(const struct providers *);
void providers_state(const struct providers *, size_t i, struct provider_state *ret);

struct provider_target_state {
	const char *provider, *model;
	enum breaker_state breaker;
	uint32_t retry_ms;   /* open: until a call may try again */
	uint32_t cooling_ms; /* the provider wants not to be asked for so long; 0: it may */
};
size_t providers_target_count(const struct providers *);
void providers_target_state(const struct providers *, size_t i, struct provider_target_state *ret);

#endif
