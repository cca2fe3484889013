/*
 * ask - one question to the targets behind an alias, until one of them has
 * answered or nothing is left that would help.
 *
 * The engine does what is the same for everybody who asks a model: it chooses the
 * target, waits for a place, makes the request, holds the time limits, counts, asks
 * again or elsewhere. What the bytes mean it does not know: that is the asker's
 * (provider.c: a turn's events; relay.c: bytes as they are), who says after each piece
 * how far the answer is. Until the asker has passed something on (ASK_TOKEN) a failure is
 * followed by another attempt where that may help; afterwards only if the asker has on_break and
 * says that it can make a whole answer of it.
 *
 *   on_attempt  on_head  on_bytes ..  on_end         a whole answer
 *   on_attempt  on_head  on_bytes ..  on_attempt ..  it failed, the next one
 *   ..                                  on_done      once, unless cancelled; always the last
 *
 * Callbacks run on the loop, never from inside a verb of this header; a verb may be called from
 * inside any of them. An attempt's callbacks begin with on_attempt: there the asker forgets what
 * the attempt before it has said.
 */
#ifndef WORKER_PROVIDER_ASK_H
#define WORKER_PROVIDER_ASK_H

#include "common/buf.h"
#include "worker/client/client.h"
#include "worker/provider/failure.h"
#include "worker/provider/provider.h"

struct ask_question {      /* copied */
	const char *alias; /* NULL or "": the first model */
	const char *path;  /* behind base_url: "/chat/completions" */
	/* The answer is a stream: first_token_timeout and stall_timeout hold. Otherwise
	 * read_timeout does, before the answer and between its pieces. */
	bool is_streamed;
	uint32_t timeout_ms;     /* for all of it, waiting and retries included; 0: none */
	const char *request_id;  /* passed on as X-Request-Id; may be NULL */
	const char *traceparent; /* passed on; may be NULL */
	/* The same for each attempt at what must not be done twice: Idempotency-Key. May be NULL.
	 */
	const char *idempotency_key;
	const char *method; /* NULL: POST */
	/* Only that target, where something of an earlier question is; NULL: any. */
	const char *provider, *model;
};

struct ask_attempt { /* names are borrowed from the config */
	const char *provider, *model;
	const char *dialect; /* "openai", .. */
	bool supports_prefill;
	uint32_t number;     /* 1: the first */
	bool is_after_break; /* something was passed on before: see on_break */
};

/* How far an answer is. */
enum ask_progress {
	ASK_LIFE,  /* nothing was passed on; any byte counts as life */
	ASK_TOKEN, /* something was passed on, now or before in this attempt */
	ASK_WHOLE, /* it is complete; what may follow (usage, [DONE]) is waited for shortly */
	ASK_DONE,  /* nothing follows */
	ASK_FAULT, /* it is no answer: `failure` */
};

struct ask_sign {
	enum ask_progress progress;
	bool is_paused;       /* nothing more, please, until ask_resume(); time stands still */
	bool has_begun;       /* ASK_FAULT: something was passed on before, in this attempt */
	enum failure failure; /* ASK_FAULT */
	const char *message; /* ASK_FAULT: for the client; NULL: the error's own. Borrowed until the
				asker's next callback has returned */
};

struct ask_result {
	int err;              /* 0: a whole answer */
	enum failure failure; /* err != 0, of the attempt that decided */
	const char
	    *message; /* err != 0: for the client; the provider's own reason where it gave one */
	uint32_t retry_after_ms; /* 0: none */
	/* When the provider has refused: its answer as it came, up to 64 KiB. Else 0 and empty. */
	int status;
	struct str content_type, body;
	const char *provider, *model; /* of the target that answered, or of the last; "": none */
	uint32_t attempts;            /* requests made */
	bool has_begun;               /* something was passed on */
};

struct ask_handlers {
	/* Adds the body of the request to this target, JSON. */
	void (*on_attempt)(void *arg, const struct ask_attempt *, struct buf *body);
	/* A head with status 2xx. NULL: any is fine. */
	struct ask_sign (*on_head)(void *arg, const struct client_head *);
	struct ask_sign (*on_bytes)(void *arg, struct str);
	/* The answer has ended properly: ASK_DONE, or ASK_FAULT when it is not whole. */
	struct ask_sign (*on_end)(void *arg);
	/* After something was passed on the attempt has failed. True: go on at the next target, if
	 * there is one; what was passed on is the asker's business. NULL: never. */
	bool (*on_break)(void *arg);
	/* The handle is dead before the call; what the result borrows is valid in it. */
	void (*on_done)(void *arg, const struct ask_result *);
};

/* Never 0. An unknown alias ends in on_done (E_INVALID_VALUE) like everything else. */
uint64_t ask_start(
    struct providers *, const struct ask_question *, const struct ask_handlers *, void *arg);
/* Nothing comes any more; the place is free and the provider's connection closed at once. Unknown
 * handle: nothing. */
void ask_cancel(struct providers *, uint64_t handle);
void ask_resume(struct providers *, uint64_t handle);

#endif
