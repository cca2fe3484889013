/*
 * ask_impl - what the files of the engine share. Nobody else includes it.
 *
 *   ask.c        a question: what it holds, its time, the gate, the end
 *   ask_next.c   which target, and what follows a failure
 *   ask_http.c   one attempt: the request, the answer's pieces, the time limits
 *
 *   CHOOSE -> PLACE -> HEAD -> FIRST -> STREAM -> TAIL -> ended
 *     ^         ^       |        |        |
 *     |         |       +-> REFUSAL (the body of an error answer)
 *     |         |           |    |        |
 *     |         +- BACKOFF <+----+        |        the same target again
 *     +---------------------+----+--------+        the next one
 */
#ifndef WORKER_PROVIDER_ASK_IMPL_H
#define WORKER_PROVIDER_ASK_IMPL_H

#include "worker/provider/ask.h"
#include "worker/provider/provider_parts.h"

enum ask_state {
	ASK_STATE_CHOOSE,  /* posted */
	ASK_STATE_PLACE,   /* at the provider's gate */
	ASK_STATE_HEAD,    /* the request is on its way */
	ASK_STATE_FIRST,   /* a good head, nothing passed on */
	ASK_STATE_STREAM,  /* something was passed on */
	ASK_STATE_TAIL,    /* complete; what follows is not needed */
	ASK_STATE_REFUSAL, /* an error answer's body is read */
	ASK_STATE_BACKOFF, /* until the next attempt */
};

struct ask {
	struct providers *providers;
	uint64_t handle; /* 0: ended or cancelled */
	struct ask_handlers handlers;
	void *arg;
	unsigned depth; /* inside the asker's callbacks */
	enum ask_state state;
	uint64_t state_ms; /* since when; moved by life */
	struct loop_post post;
	struct loop_timer timer;

	const struct route *route; /* NULL: the alias is unknown */
	struct target *target;     /* of this attempt, or of the last */
	char *path, *request_id, *traceparent, *idempotency_key;
	char method[8];
	bool is_streamed, is_pinned;
	uint64_t due_ms;          /* the asker's time is up; UINT64_MAX: never */
	uint64_t tried;           /* a set of the route's targets: not to be asked (again) */
	uint64_t pinned;          /* the only one that may be asked; 0: any */
	uint32_t attempts, tries; /* in all; at this target */
	bool has_begun;           /* something was passed on, ever */
	uint32_t backoff_ms;
	bool is_unasked; /* BACKOFF: nobody was asked yet, the target wants not to be */

	/* This attempt. What it holds is given back by ask_stop_attempt(). */
	struct gate_ticket ticket;
	struct breaker_pass pass;
	bool has_pass, is_outstanding;
	uint64_t sent_ms;  /* since when */
	uint64_t transfer; /* 0: none, or ended */
	bool has_token;    /* something of it was passed on */
	bool is_paused, is_done;
	int status; /* 0: no head yet */
	struct buf content_type, refusal;
	struct translation *translation; /* of the answer; NULL: it needs none */
	uint32_t retry_after_ms;

	/* How the last one failed. */
	enum failure failure;
	struct buf message, detail;
};

/* ask.c */
const struct conf_provider *ask_conf(const struct ask *);
void ask_enter(struct ask *, enum ask_state);
void ask_wait(struct ask *);        /* sets the timer for the present state */
bool ask_leave_asker(struct ask *); /* after one of its callbacks; false: the ask is gone */
uint64_t ask_now_ms(const struct ask *);
void ask_go_to_gate(struct ask *); /* of its target, with a pass of its breaker */
bool ask_pass_take(struct ask *);
void ask_pass_use(struct ask *, enum breaker_outcome);
void ask_pass_return(struct ask *);
void ask_stop_attempt(struct ask *); /* transfer and place are given up; the pass is not */
void ask_count_attempt(const struct ask *, unsigned outcome);
bool ask_names_key(const struct ask *, struct str text); /* which is not to be passed on */
void ask_fail(struct ask *);                             /* to the asker, as the last attempt did */
void ask_free(struct ask *);
void ask_succeeded(struct ask *);
void ask_proved(struct ask *); /* the model has given something: a probe has succeeded */

/* ask_next.c */
void ask_choose(struct ask *); /* the first target, or the next; or the end */
uint64_t ask_bit_of(const struct ask *, const struct target *);
/* The attempt is over, and what follows has been begun. message NULL: the error's own; detail is
 * for the log. Both may be the attempt's own. */
void ask_failed(struct ask *, enum failure, const char *message, const char *detail);

/* ask_http.c */
void ask_send(struct ask *);                  /* at a place */
uint64_t ask_http_due_ms(const struct ask *); /* the state has lasted too long; UINT64_MAX: never */
void ask_http_late(struct ask *);             /* .. and has */

#endif
