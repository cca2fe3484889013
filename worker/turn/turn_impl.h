/*
 * turn_impl - what the files of worker/turn share: the worker's turns, one turn,
 * and the verbs between the files. Nobody else includes it.
 *
 *   start.c     a request becomes a turn: session, queue, the record's transaction
 *   turn.c      the machine: states, enter, steps, the ways to end
 *   call.c      the model: messages out, deltas and tool calls in
 *   serving.c   the tools that servers run: on the menu, called, cancelled
 *   passages.c  the knowledge base: asked before the model, told to it and to listeners
 *   aside.c     what a tool asks the model meanwhile
 *   charge.c    its money: held before a call, used after it
 *   save.c      the record: progress, hops, the end; what is not yet written
 *   event.c     the JSON of events and states
 *   follow.c    the owner's side of listeners: deliver, repeat, disconnect policy
 *   listener.c  the listener's side: find the owner, check the sequence
 *   route.c     where a turn is: here, at a peer, in the record
 *   remote.c    cancel, state and tool results from anywhere
 *   lost.c      turns of dead owners
 *   announce.c  a turn has begun: all workers hear it, once
 *   turns.c     the worker's turns: maps, retention, drain
 */
#ifndef WORKER_TURN_TURN_IMPL_H
#define WORKER_TURN_TURN_IMPL_H

#include "common/arena.h"
#include "common/buf.h"
#include "common/check.h"
#include "common/err.h"
#include "common/idmap.h"
#include "common/list.h"
#include "common/strmap.h"
#include "worker/backplane/owner.h"
#include "worker/tool/call.h"
#include "worker/turn/feed.h"
#include "worker/turn/follower_index.h"
#include "worker/turn/turn.h"
#include "worker/usage/usage.h"

enum turn_state {
#define X(name, step, text, is_live) name,
#include "worker/turn/turn_states.tbl"
#undef X
	TURN_STATE_COUNT
};

struct turns {
	struct loop *loop;
	const struct conf *conf;
	struct shm *shm;
	struct backplane *backplane;
	struct store *store;
	struct providers *providers;
	struct holds *holds; /* NULL: no budgets */
	struct usages *usages;
	struct limits *limits;
	struct knowledge *knowledge;      /* NULL: none */
	struct events *events;            /* NULL: nobody is told */
	const struct tool_runner *runner; /* NULL: none */
	struct turn_hooks hooks;
	struct backplane_addr self;
	char owner[OWNER_MAX];

	struct idmap *handles;    /* every struct turn */
	struct strmap *by_id;     /* those that the record may have as ours, and the retained */
	struct tool_calls *calls; /* of live turns */
	struct idmap *listeners;  /* of this worker's clients */
	struct idmap *asides;     /* of live turns */
	uint32_t live;
	uint32_t ticket_count;
	bool is_draining, is_refusing; /* the latter a moment later */
	struct loop_timer refuse_timer, drain_timer;

	struct list retained; /* ended turns, oldest first */
	size_t retained_bytes, retained_count;
	struct loop_timer retain_timer;

	struct follower_index followers;
	struct list far_followers; /* followers in other workers */
	struct loop_timer head_timer;

	struct list gaps;      /* struct turn_gap */
	struct list searches;  /* route.c */
	struct list questions; /* remote.c */
	struct idmap *question_handles;
	struct list lost;   /* owners to be declared dead */
	struct list unsure; /* turns of ours that the record may have as live */
	uint32_t unsure_count;
	struct loop_timer lost_timer;

	struct list unheard; /* turns that not all workers have heard of */
	struct loop_timer unheard_timer;
	turns_on_turn_begun *on_turn_begun; /* NULL: nobody asked */
	void *on_turn_begun_arg;
};

struct turn_usage {
	uint64_t input_tokens, output_tokens, cached_tokens;
	int64_t cost_micros; /* -1: a model without a price was called */
	bool is_estimated;
	uint32_t calls;
};

/* What the record has not acknowledged yet (save.c). */
struct turn_unsaved {
	struct store_message *messages;
	size_t message_count, message_cap;
	struct store_usage *usage;
	size_t usage_count, usage_cap;
	bool is_writing;                        /* an add is on its way .. */
	size_t written_messages, written_usage; /* .. with so many of them */
};

struct turn {
	struct turns *turns;
	uint64_t handle;
	struct id id, session_id;
	enum turn_state state;
	bool has_asked; /* this state's question is on its way; set by its step, cleared by enter */
	uint64_t requested_ms;
	int64_t created_at, ended_at;

	/* What was asked; all of it in the arena but the JSON. */
	struct arena arena;
	const char *app_id, *org_id, *key_id, *request_id, *http_request_id, *traceparent;
	const char *model, *system;
	char input_hash[SHA256_HEX_LEN + 1];
	json_t *input, *tools;
	const struct conf_app *app;
	bool is_cancelled_on_disconnect, may_queue;
	uint64_t originator;
	turn_on_started *on_started; /* NULL once called */
	void *on_started_arg;
	uint64_t ticket;        /* its place among those that wait */
	uint64_t wait_listener; /* follows the live turn that it waits for */
	struct id existing;     /* the turn that it waits for, or that it is a repetition of */
	uint32_t begin_count;   /* how often it has tried */
	int refusal;
	const char *refusal_message;

	/* What the app's knowledge base has said. */
	uint64_t asking; /* knowledge_ask()'s handle */
	struct buf passages;
	json_t *sources; /* NULL: none was asked, or it failed */

	/* The model. */
	struct id user_message_id;
	struct buf
	    history;      /* as sent to the provider: what was said before the call of this turn, */
	json_t *messages; /* and what its tools' hops have added */
	uint64_t provider_call;
	uint32_t hop;
	size_t hop_text; /* where this hop's text begins in the feed's */
	struct tool_call **tools_called;
	size_t tool_count, tool_hop_first; /* of this hop: from here on */
	struct tool_menu *menu;            /* what servers run; NULL: nothing, or not asked yet */
	bool has_menu;                     /* they were asked */
	struct list servings;              /* calls of theirs that are under way */
	struct list asides;                /* what they ask of the model */
	uint32_t aside_count;              /* since it began */
	struct turn_usage usage;
	unsigned model_label;
	bool has_first_event;

	/* Its money. */
	struct budget_rule key_budget;
	struct token_limit key_tokens;
	struct token_ask tokens;  /* of this hop's call */
	uint32_t reserved_tokens; /* .. until it is settled */
	uint64_t *holds;          /* of its calls; the last is being asked for while is_holding */
	size_t hold_count;
	bool is_holding;
	int64_t call_began_at;                  /* of this hop */
	uint64_t call_began_ms, first_token_ms; /* 0: none came */

	/* The record. */
	uint64_t fence;
	struct turn_unsaved unsaved;
	uint64_t progress_seq; /* recorded up to here */
	bool is_progress_pending;
	struct loop_timer progress_timer, total_timer, tool_timer, gone_timer, retry_timer;
	uint64_t retry_delay_ms;

	/* The outcome, once known. */
	enum turn_event_type outcome;
	bool has_outcome;
	const struct store_webhook *webhooks; /* of it, in the arena */
	size_t webhook_count;
	const char *webhooks_of; /* the data that they tell; NULL: not made yet */
	bool is_unrecorded;      /* listeners know the end, the record does not yet */
	bool is_fenced;          /* the record says that somebody else has ended it */
	bool is_end_wanted; /* the end is to be written as soon as nothing else is on its way */
	int err;
	char *err_message;
	const char *exceeded;    /* NULL: nothing; else "budget" or "limit": which one, .. */
	json_t *exceeded_json;   /* .. how much of it is left, until when */
	uint32_t retry_after_ms; /* what the provider said with its error; 0: nothing */
	const char *finish_reason;
	struct id message_id;
	char *result_json; /* the last event's data */
	char *calls_json;  /* of an ended turn: an array for snapshots */
	char *model_name;  /* outlives the arena */

	/* Who has not heard that it has begun. */
	struct list unheard_node;
	struct backplane_addr *unheard;
	uint32_t unheard_count;

	/* Who follows. */
	struct feed feed;
	struct list followers;               /* struct follower */
	size_t listener_count, waiter_count; /* of them, without those that are gone */
	struct list asks;                    /* struct turn_ask */
	bool is_away_slow; /* a listener was detached for slowness and is not back */
	struct loop_post flush;
	struct list retained_node;
	size_t retained_bytes;
	uint64_t retained_until_ms;
	struct loop_post reap;
};

/* ---- asynchronous gaps: a callback finds its turn, or that it is gone ---- */

struct turn_gap {
	struct list node;
	struct turns *turns;
	uint64_t handle; /* of a turn, a listener or a question */
	uint64_t extra;
};

struct turn_gap *turn_gap_open(struct turns *, uint64_t handle);
struct turns *turn_gap_close(void *gap, uint64_t *ret_handle);
struct turn *turn_gap_turn(void *gap); /* closes; NULL: the turn is gone */

/* ---- turns.c ---- */

struct turn *turn_new(struct turns *);
void turn_publish(struct turn *);   /* it can be found from everywhere */
void turn_unpublish(struct turn *); /* .. no more */
struct turn *turn_by_id(struct turns *, const struct id *session_id, const struct id *turn_id);
bool turn_exists_here(struct turns *, const char *turn_id);
void turn_retain(struct turn *);       /* it has ended */
void turn_free_later(struct turn *);   /* it has ended and is of no use */
void turn_release_work(struct turn *); /* what only a live turn needs */
bool owner_is_dead(const struct turns *, struct backplane_addr);

/* ---- turn.c ---- */

void turn_enter(struct turn *, enum turn_state);
void turn_run(struct turn *); /* afterwards the turn may have ended */
const char *turn_state_name(enum turn_state);
bool turn_is_live(const struct turn *);
bool turn_has_ended(const struct turn *);
/* The ways to an outcome; when there is one already, or the turn has ended: nothing happens. */
void turn_complete(struct turn *, const char *finish_reason);
void turn_fail(struct turn *, int err, const char *message); /* message NULL: the table's */
void turn_stop(struct turn *);                               /* cancelled */
void turn_end_failed(struct turn *, int err); /* in SAVE: the record did not take the end */
void turn_finish(struct turn *);              /* from SAVE: tell everybody */

enum turn_next { TURN_NEXT_WAIT, TURN_NEXT_STEP };
enum turn_next turn_step_open(struct turn *);
enum turn_next turn_step_queued(struct turn *);
enum turn_next turn_step_begin(struct turn *);
enum turn_next turn_step_prepare(struct turn *);
enum turn_next turn_step_call(struct turn *);
enum turn_next turn_step_stream(struct turn *);
enum turn_next turn_step_tools(struct turn *);
enum turn_next turn_step_save(struct turn *);

/* ---- start.c ---- */

void turn_refuse(struct turn *, int err, const struct id *existing, const char *message);
void turn_on_drain(struct turn *); /* has not begun: refused */

/* ---- call.c ---- */

void turn_cancel_call(struct turn *);
void turn_tool_answered(struct turn *, struct tool_call *, const json_t *output, const char *error);
size_t turn_tools_pending(const struct turn *);        /* of anybody */
size_t turn_client_tools_pending(const struct turn *); /* that clients are asked to run */
void turn_drop_calls(struct turn *);

/* ---- serving.c ---- */

void turn_read_menu(struct turn *); /* once: servers' tools join the turn's */
bool turn_is_served(const struct turn *, const char *tool);
void turn_serve(struct turn *, struct tool_call *); /* turn_run() follows its end */
void turn_stop_serving(struct turn *);
void turn_close_menu(struct turn *);

/* ---- aside.c ---- */

struct tool_caller turn_caller(struct turn *);
void turn_drop_asides(struct turn *); /* nobody wants to know any more */

/* ---- passages.c ---- */

/* False: there is no base to be asked; else turn_ask_history() follows, whatever it says. */
bool turn_ask_knowledge(struct turn *);
void turn_ask_history(struct turn *); /* call.c */
void turn_stop_knowledge(struct turn *);
void turn_knowledge_fini(struct turn *);

/* ---- charge.c ---- */

void turn_call(struct turn *); /* call.c: asks the model */
/* True: turn_call() follows when tokens and money are reserved, or the turn has failed. */
bool turn_charge_asks(struct turn *);
/* Of one call of the turn's model; borrows from the turn, and the id. */
struct store_usage turn_usage_row(
    const struct turn *, const char *id, int64_t began_at, const struct provider_usage *);
void turn_charge_done(struct turn *, const struct provider_result *);
void turn_charge_cancelled(struct turn *);
void turn_charge_give_back(struct turn *); /* no call was made */
void turn_charge_forget(struct turn *);    /* its usage is recorded, or never will be */

/* ---- save.c ---- */

void turn_save_message(struct turn *, const struct id *, const char *role, json_t *body,
    bool is_partial); /* to be written; takes body */
void turn_save_usage(struct turn *, const struct store_usage *);
void turn_save_hop(struct turn *); /* writes what is unsaved, when nothing is on its way */
void turn_save_end(struct turn *);
void turn_save_progress_soon(struct turn *);
void turn_save_fini(struct turn *);

/* ---- event.c ---- */

void turn_emit(struct turn *, enum turn_event_type, json_t *data); /* takes data */
void turn_emit_started(struct turn *);
void turn_emit_tool_call(struct turn *, const struct tool_call *);
void turn_emit_tool_result(
    struct turn *, const struct tool_call *, const json_t *output, const char *error);
void turn_emit_usage(struct turn *);
json_t *turn_format_calls(const struct turn *);
json_t *turn_format_usage(const struct turn_usage *);
char *turn_format_end(struct turn *);     /* data of the last event */
json_t *turn_format_state(struct turn *); /* as GET answers */
json_t *turn_format_record(const struct store_turn *);
json_t *turn_format_error(int err, const char *message);
/* The last event of a recorded turn. */
enum turn_event_type turn_record_end(const struct store_turn *, struct buf *data);
void turn_record_snapshot(const struct store_turn *, uint64_t seq, struct buf *data);

/* ---- follow.c: the owner's side ---- */

struct follower {
	struct list node;
	struct list far_node;
	struct follower *next_of_bucket;
	struct turn *turn;
	uint64_t sent_seq;
	uint64_t originator;
	bool is_waiter; /* wants no events: waits in the queue for the turn's end */
	bool is_gone;   /* to be freed after the delivery */
	bool is_end_sent;
	uint32_t rank; /* of a waiter, when the turn ends */
	uint64_t ticket;
	uint64_t listener; /* handle, here or there */
	bool is_far;
	struct backplane_addr addr; /* is_far */
	uint64_t attach_no;
};

struct follow_request {
	uint64_t listener, after_seq, originator, ticket, attach_no;
	bool is_waiter, is_far;
	struct backplane_addr addr;
};

/* 0, E_AT_CAPACITY, E_TURN_IN_PROGRESS (a waiter, and too many wait). */
int follow_add(struct turn *, const struct follow_request *);
void follow_remove(struct turn *, uint64_t listener, bool is_disconnect); /* of this worker */
void follow_flush_soon(struct turn *);
/* When nobody is there: the grace of the disconnect policy begins. */
void follow_consider_user_gone(struct turn *);
bool follow_has_originator(const struct turn *);
void follow_drop_all(struct turn *);
void follow_peer_gone(struct turns *, struct backplane_addr);
void follow_init(struct turns *); /* serves ATTACH and DETACH */
void follow_fini(struct turns *);

/* Questions that wait for the turn to change (GET ?wait=, cancel): remote.c. */
void ask_answer_due(struct turn *);
void ask_drop_all(struct turn *); /* E_NOT_FOUND to who asks from afar */

/* ---- listener.c ---- */

struct listener;
/* False: it is gone or cannot take more. */
bool listener_take(struct turns *, uint64_t listener, const struct turn_event *);
void listener_end(struct turns *, uint64_t listener, int err, uint32_t rank);
void listener_peer_gone(struct turns *, struct backplane_addr);
void listener_owner_reaped(struct turns *, struct shm_who); /* of this host: it is dead for sure */
void listener_host_over(struct turns *, uint64_t host);     /* another one's lease */
void listener_init(struct turns *);                         /* serves EVENTS */
void listener_fini(struct turns *);

/* Waits for another turn's end in the order of the tickets. on_end gets the rank among all that
 * wait. */
typedef void listener_on_turn_ended(void *arg, int err, uint32_t rank);
uint64_t listener_wait(struct turns *, const struct id *session_id, const struct id *turn_id,
    uint64_t ticket, listener_on_turn_ended *, void *arg);

/* ---- route.c ---- */

enum route_kind { ROUTE_HERE, ROUTE_PEER, ROUTE_RECORD, ROUTE_FAILED };

struct route {
	enum route_kind kind;
	struct backplane_addr peer;      /* ROUTE_PEER */
	const struct store_turn *record; /* ROUTE_RECORD: an ended turn; borrowed */
	int err;                         /* ROUTE_FAILED: E_NOT_FOUND, E_STORE_UNAVAILABLE */
};

void route_init(struct turns *);
void route_fini(struct turns *);

typedef void route_on_found(void *arg, struct turns *, uint64_t handle, const struct route *);
/*
 * Finds a turn of a session; a live one whose owner is dead is declared lost on the way. on_found
 * comes once, also from inside when the turn is here; not when the turns are freed. `handle` is
 * passed through. is_record_only: the owner table was wrong, ask the record.
 */
void turn_route_find(struct turns *ts, const struct id *session_id, const struct id *turn_id,
    bool is_record_only, route_on_found *on_found, uint64_t handle, void *arg);
/* Who has looked so often in vain looks again after so long. */
uint64_t turn_route_retry_ms(uint32_t tries);

/* ---- remote.c, lost.c ---- */

void remote_init(struct turns *);
void remote_fini(struct turns *);
void lost_init(struct turns *);
void lost_maybe_begun(struct turns *, const struct id *turn_id); /* its begin was not answered */
void lost_fini(struct turns *);

/* ---- announce.c ---- */

void turn_announce(struct turn *);
void turn_tell_events(const struct turn *, const char *name); /* "turn.completed" */
void announce_forget(struct turn *); /* it goes: who has not heard of it never will */
void announce_init(struct turns *);
void announce_fini(struct turns *);

#endif
