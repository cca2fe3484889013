/*
 * turn - runs turns: one exchange of a session with a model, with its tool calls,
 * as a state machine; and lets any number of listeners on any worker follow it.
 *
 *   PREPARE -> CALL -> STREAM -> SAVE -> DONE
 *               ^        |
 *               +- TOOLS-+        FAILED and CANCELLED from anywhere
 *
 * The record decides who owns a turn. A turn's events have sequence numbers 1, 2,
 * .. and go into its feed, which is kept for turns.retain_events after the end. A
 * listener gets every event after the one it names, once and in order, or one
 * snapshot in place of those that are no longer kept; the owner may be this worker
 * or another one, the listener does not see the difference.
 */
#ifndef WORKER_TURN_TURN_H
#define WORKER_TURN_TURN_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/conf.h"
#include "common/id.h"
#include "worker/backplane/backplane.h"
#include "worker/knowledge/knowledge.h"
#include "worker/loop/loop.h"
#include "worker/provider/provider.h"
#include "worker/store/store.h"
#include "worker/tool/runner.h"
#include "worker/usage/usage.h"
#include "worker/usage/tokens.h"

struct turns;

struct turns_money { /* what calls of models use; without holds budgets are not kept */
	struct holds *holds;
	struct usages *usages;
	struct limits *limits;
};

/* knowledge NULL: no base is asked. */
struct turns *turns_new(struct loop *, const struct conf *, struct shm *, struct backplane *,
    struct store *, struct providers *, const struct turns_money *, struct knowledge *);
/* Tools that servers run join those of clients; before the first turn. NULL: there are none. */
void turns_use_runner(struct turns *, const struct tool_runner *);
/* Silently: nobody is called back. The loop does not turn between this and the end of the store,
 * the backplane and the providers, which call nobody back either. */
void turns_free(struct turns **);
/* Soon no new ones, and none that still wait (E_DRAINING); what runs at the time limit fails with
 * it. Who was let in before the drain may still begin one: for a moment when the host stops, for
 * half of the time when this worker is replaced. */
void turns_drain(struct turns *);
uint32_t turns_live(const struct turns *);

/* ---- events ---- */

/*
 * What their data holds is written in event.c. The offset of a text.delta is where its text
 * begins in the whole turn's text (that of all hops in a row), in UTF-16 code units: what
 * JavaScript, Java, Kotlin, C# and Dart call the length of the text that they have so far.
 */

enum turn_event_type {
#define X(name, text) name,
#include "worker/turn/turn_events.tbl"
#undef X
	TURN_EVENT_COUNT
};

/* Who is told of the end of a turn by somebody else: rows that are written with it. */
struct turn_ending {
	const char *app_id, *session_id, *turn_id;
	enum turn_event_type outcome;
	const char *data_json; /* of the last event */
};
struct turn_hooks {
	/* Their texts are from the arena, which lives as long as the turn's writes. */
	size_t (*rows)(void *arg, const struct turn_ending *, struct arena *,
	    const struct store_webhook **ret);
	void (*on_written)(void *arg);
	void *arg;
};
void turns_use_hooks(struct turns *, const struct turn_hooks *); /* before the first turn */
struct str turn_event_name(enum turn_event_type);                /* "text.delta" */
bool turn_event_is_last(enum turn_event_type);                   /* completed, failed, cancelled */

struct turn_event {
	enum turn_event_type type;
	uint64_t seq;
	struct str data; /* JSON object, one line; borrowed for the call */
};

/* ---- start ---- */

struct turn_start {
	struct id session_id;
	const char *app_id, *key_id;
	const json_t *input;        /* string or array of content parts; borrowed */
	const char *request_id;     /* NULL: none */
	const json_t *tools;        /* OpenAI tools, or NULL: the session's */
	const char *model;          /* alias, or NULL: the session's, else the default */
	const struct conf_app *app; /* of the config; NULL: none */
	/* The turn is cancelled when its listeners have been gone for turns.disconnect_grace; also
	 * when none has come for so long. */
	bool cancel_on_disconnect;
	bool queue; /* wait while another turn is live, at most turns.total_timeout */
	const char *http_request_id; /* passed to the provider */
	const char *traceparent;
	struct budget_rule budget; /* of the key, as the next */
	struct token_limit tokens;
	uint64_t
	    originator; /* names the connection that may run client tools ("claimed_by"); 0: none */
};

struct turn_started {
	struct id turn_id;
	bool is_replay; /* the request_id's turn existed: attach to it */
};

/* err as store_turn_begin, plus E_DRAINING, E_INVALID_VALUE (unknown model). started is NULL unless
 * err == 0. */
typedef void turn_on_started(void *arg, int err, const struct turn_started *, const char *message);
void turn_start(struct turns *, const struct turn_start *, turn_on_started *, void *arg);

/* ---- follow ---- */

struct turn_listener_handlers {
	/* False: the listener cannot take more now and is detached (it may attach again); on_end is
	 * not called. */
	bool (*on_event)(void *arg, const struct turn_event *);
	/* After the last event (err 0), or E_NOT_FOUND, E_OWNER_UNAVAILABLE,
	 * E_STORE_UNAVAILABLE, E_AT_CAPACITY (turns.max_listeners): nothing comes any more. */
	void (*on_end)(void *arg, int err);
};

/* Follows a turn of this session from after_seq on. Returns a handle, never 0. Callbacks never from
 * inside. */
uint64_t turn_attach(struct turns *, const struct id *session_id, const struct id *turn_id,
    uint64_t after_seq, uint64_t originator, const struct turn_listener_handlers *, void *arg);
/* is_disconnect: the user went away (the disconnect policy counts it); false: detached for another
 * reason. */
void turn_detach(struct turns *, uint64_t listener, bool is_disconnect);

/*
 * Told of each turn that begins, in this worker before its first event is delivered, in others of
 * the host soon after. originator: as given to turn_start() here; 0 from elsewhere. One watcher.
 */
typedef void turns_on_turn_begun(
    void *arg, const struct id *session_id, const struct id *turn_id, uint64_t originator);
void turns_on_begun(struct turns *, turns_on_turn_begun *, void *arg);

/* Turns that begin and end here are told to who hears session:ID. Borrowed. */
struct events;
void turns_use_events(struct turns *, struct events *);

/* ---- ask and tell, wherever the turn runs ---- */

/* {"id","session_id","state",..,"pending_tool_calls":[..]} as GET .../turns/{turn} answers;
 * E_NOT_FOUND .. */
typedef void turn_on_state(void *arg, int err, json_t *state); /* borrowed */
/* Answers at once, or with wait_ms > 0 when the turn has ended or waits for client tools, at the
 * latest after wait_ms. Returns a handle, never 0. */
uint64_t turn_get_state(struct turns *, const struct id *session_id, const struct id *turn_id,
    uint32_t wait_ms, turn_on_state *, void *arg);
/* The answer is wanted now, as things are. Answered already: nothing. */
void turn_hurry_state(struct turns *, uint64_t handle);
/* Nobody waits for the answer any more: on_state will not be called. Answered already: nothing. */
void turn_forget_state(struct turns *, uint64_t handle);

typedef void turn_on_done(void *arg, int err);
void turn_cancel(struct turns *, const struct id *session_id, const struct id *turn_id,
    turn_on_done *, void *arg); /* ended already: 0 */

struct turn_tool_result {
	struct id session_id;
	const char *tool_call_id;
	const json_t *output; /* or */
	const char *error;
};
/* 0: accepted. E_ALREADY_ANSWERED with is_same_output; E_UNKNOWN_TOOL_CALL; E_OWNER_UNAVAILABLE;
 * E_PAYLOAD_TOO_LARGE (tools.max_output); E_STORE_UNAVAILABLE. */
typedef void turn_on_tool_result(void *arg, int err, bool is_same_output);
void turn_tool_result(
    struct turns *, const struct turn_tool_result *, turn_on_tool_result *, void *arg);

#endif
