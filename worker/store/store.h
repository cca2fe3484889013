/*
 * store - the record: apps, keys, sessions, turns, messages, usage.
 *
 * Typed verbs over named operations (worker/store/ops): an operation is a list of
 * SQL statements that run in one transaction, and a backend runs operations.
 * Backends, with the same schema and behaviour: SQLite (one elected writer per host with
 * group commit, readers everywhere), PostgreSQL (a pool of connections per worker).
 *
 * Every verb is asynchronous. Its callback comes exactly once, from the loop,
 * never from inside the verb; records in it are borrowed for the call. err is 0
 * or negative; E_STORE_UNAVAILABLE when the record cannot be reached within
 * store.acquire_timeout, or more than store.max_queue operations wait. A write is acknowledged
 * after its commit. Every write is idempotent (by the ids given by the caller), because it is
 * repeated when the writer dies, or the connection breaks, before its answer arrives. Slow reads
 * (of many rows) may take up to store.statement_timeout once they have begun.
 *
 * Times are wall-clock milliseconds. Texts that hold JSON are named _json.
 * An absent text is NULL in records given and returned.
 */
#ifndef WORKER_STORE_STORE_H
#define WORKER_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/conf.h"
#include "common/id.h"
#include "common/shm.h"
#include "common/str.h"
#include "worker/backplane/backplane.h"
#include "worker/loop/loop.h"

struct store;

/* NULL when the database cannot be opened (logged); PostgreSQL may come later. The schema is there:
 * the master migrated it. */
struct store *store_new(struct loop *, const struct conf *, struct shm *, struct backplane *);
/* For the command line: no loop, no workers; each verb calls back before it returns. */
struct store *store_new_direct(const struct conf *);
/* What this worker's writer has (SQLite), and writes on their way (PostgreSQL, two seconds at
 * most), are committed first. No callback comes any more, for those who would get them may be gone;
 * the loop does not run between this and backplane_free(). */
void store_free(struct store **);
bool store_is_available(const struct store *);
/* Since when (loop_now_ms()) it cannot be reached; for the grace period of readiness. 0: it can. */
uint64_t store_unavailable_since_ms(const struct store *);

/* parleyd migrate and the master at start: all pending migrations of the url, under a lock. 0 or
 * E_* (logged). */
int store_migrate(const struct conf *);

/* Is this worker the one that does what is done once for all, of all hosts that share the record?
 * (SQLite: it writes. PostgreSQL: the first of the host that has been alive the longest.) */
bool store_is_elected(const struct store *);

/* The lease of another host, or of a former life of this one, is over: what it ran is lost. False:
 * it lives, or nobody can tell yet. Nobody shares a SQLite file: there it is always true. */
bool store_is_host_over(const struct store *, uint64_t host);
/* Told once when a lease is over; never of SQLite's. A few watchers (LEASES_WATCHERS_MAX). */
void store_on_host_over(struct store *, void (*on_over)(void *arg, uint64_t host), void *arg);

bool store_is_idle(const struct store *); /* no operation is on its way */

typedef void store_on_done(void *arg, int err);

/* ---- apps and keys ---- */

struct store_key {
	const char *id;        /* key_.. */
	const char *kind;      /* client, server, admin */
	const char *app_id;    /* NULL for admin */
	const char *device_id; /* NULL: unbound */
	const char *name;
	uint8_t hash[32];        /* SHA-256 of the secret */
	const char *limits_json; /* {"limit","window_ms","rpm","tpm","rpd","models",..} or NULL */
	int64_t created_at, expires_at, revoked_at; /* 0: never */
};

typedef void store_on_key(void *arg, int err, const struct store_key *);
typedef void store_on_keys(
    void *arg, int err, const struct store_key *, size_t count, bool has_more);

void store_key_create(struct store *, const struct store_key *, store_on_done *, void *arg);
void store_key_by_hash(struct store *, const uint8_t hash[32], store_on_key *,
    void *arg); /* E_NOT_FOUND; also revoked and expired ones */
void store_key_get(struct store *, const char *id, store_on_key *, void *arg); /* E_NOT_FOUND */
/* By id, those after `after` (NULL: from the first). app_id NULL: of all. */
void store_key_list(struct store *, const char *app_id, const char *after, uint32_t limit,
    store_on_keys *, void *arg);
void store_key_change(struct store *, const char *id, const char *name, const char *limits_json,
    store_on_done *, void *arg); /* E_NOT_FOUND: also a revoked one */
void store_key_revoke(
    struct store *, const char *id, int64_t now, store_on_done *, void *arg); /* E_NOT_FOUND */

/* Counts changes of the keys, also those by `parleyd key`: who caches keys looks often. */
typedef void store_on_count(void *arg, int err, uint64_t count);
void store_key_generation(struct store *, store_on_count *, void *arg);

/* ---- sessions ---- */

struct store_session {
	const char *id, *app_id, *device_id;
	const char *status; /* active, closed, expired */
	const char *model, *system;
	const char *tools_json, *metadata_json;
	int64_t created_at, last_activity_at;
	bool is_erased; /* its content was removed */
};

struct store_session_open {
	struct store_session session; /* the one to make if none is reused; its id is new */
	bool reuse; /* the app's newest active one of the device, active since reuse_after */
	int64_t reuse_after, now;
};

typedef void store_on_session(void *arg, int err, const struct store_session *);
typedef void store_on_opened(void *arg, int err, const struct store_session *, bool is_reused);
typedef void store_on_sessions(
    void *arg, int err, const struct store_session *, size_t count, bool has_more);

/* On reuse model, tools, metadata that are not NULL replace the stored ones; simultaneous opens
 * yield one. */
void store_session_open(
    struct store *, const struct store_session_open *, store_on_opened *, void *arg);
void store_session_get(
    struct store *, const char *id, store_on_session *, void *arg); /* E_NOT_FOUND */
struct store_session_filter {
	const char *app_id, *device_id, *status,
	    *after; /* app_id required; NULL: any. Newest first, after: an id */
	uint32_t limit;
};
void store_session_list(
    struct store *, const struct store_session_filter *, store_on_sessions *, void *arg);
void store_session_close(struct store *, const char *id, int64_t now, store_on_done *,
    void *arg); /* closed already: fine */
/* Closes, and hides the content: it goes with store_session_empty(), usage stays. */
void store_session_erase(struct store *, const char *id, int64_t now, store_on_done *, void *arg);
/* Erases up to `limit` sessions that were closed or expired before; on_count gets how many. */
void store_session_retire(struct store *, int64_t closed_before, int64_t now, uint32_t limit,
    store_on_count *, void *arg);
/* Removes up to `limit` messages, and of as many turns what was said, of one erased session (NULL:
 * of any). on_count gets how many sessions (100: or more) are not empty yet: again. */
void store_session_empty(
    struct store *, const char *id, uint32_t limit, store_on_count *, void *arg);
/* Sets up to `limit` sessions idle since before `idle_before` to expired: these. */
struct store_expired {
	const char *session_id, *app_id;
};
typedef void store_on_expired(void *arg, int err, const struct store_expired *, size_t count);
void store_session_expire(struct store *, int64_t idle_before, int64_t now, uint32_t limit,
    store_on_expired *, void *arg);

/* Those with status active: walks them all. */
void store_session_count_active(struct store *, store_on_count *, void *arg);

/* ---- messages ---- */

struct store_message {
	const char *id, *session_id, *turn_id;
	int64_t position; /* ascending within the session; given by the store on insert */
	const char *role; /* system, user, assistant, tool */
	/* The OpenAI message object: {"role","content","tool_calls"?,"tool_call_id"?}; ours beside
	 * it. */
	const char *body_json;
	bool is_partial; /* the part of an answer that broke off */
	int64_t created_at;
};

typedef void store_on_messages(
    void *arg, int err, const struct store_message *, size_t count, bool has_more);
/* Ascending after the message id `after` (NULL: from the first). */
void store_message_list(struct store *, const char *session_id, const char *after, uint32_t limit,
    store_on_messages *, void *arg);
/* The newest messages, ascending, until their bodies exceed max_bytes (at least one). For the
 * model's history. */
void store_message_history(
    struct store *, const char *session_id, uint64_t max_bytes, store_on_messages *, void *arg);

/* ---- turns ---- */

struct store_webhook;

struct store_turn {
	const char *id, *session_id, *app_id, *key_id;
	const char *request_id; /* NULL: none */
	const char *input_hash; /* hex SHA-256 of the canonical input: tells a reused request_id */
	const char *state;      /* live, completed, failed, cancelled */
	const char *owner;      /* host.row.number in hex, of a live one */
	uint64_t fence;         /* every later write names it; a takeover raises it */
	const char *model;
	const char *error_code, *error_message; /* failed */
	const char *finish_reason;              /* completed */
	const char *text;                       /* the answer (or its part) */
	const char *
	    result_json; /* what turn.completed carried: message, usage, sources; NULL while live */
	uint64_t last_seq; /* of the last event */
	int64_t created_at, ended_at;
};

struct store_usage {
	const char *id; /* unique per model call; of a turn's: its id and the hop */
	const char *app_id, *org_id, *key_id, *session_id, *turn_id, *model, *provider,
	    *provider_model;
	uint64_t input_tokens, output_tokens, cached_tokens;
	bool is_estimated;
	int64_t cost_micros; /* -1: no price */
	/* "ok", an error's code, "cancelled", "lost" (with its worker); NULL: of an older version
	 */
	const char *outcome;
	uint32_t attempts;
	uint64_t first_ms, total_ms; /* to the first token (0: none came), and in all */
	int64_t created_at;          /* when the call began: its day is that of its budget */
};

struct store_turn_begin {
	struct store_turn turn;       /* state live; owner, fence, input_hash given */
	struct store_message message; /* the user's */
	int64_t now;
};

/*
 * One transaction. 0: begun. Otherwise nothing was written and `existing` says why:
 *   E_DUPLICATE         the request_id's turn (same input; replay it)
 *   E_REQUEST_ID_REUSED likewise, other input
 *   E_TURN_IN_PROGRESS  the live turn of the session
 *   E_SESSION_CLOSED, E_NOT_FOUND   existing is NULL
 * A request_id whose turn failed with worker_lost or draining is taken over by the new turn.
 * Sets the session's last_activity_at. Repeating a begin that was committed (same turn id) is 0.
 */
typedef void store_on_begun(void *arg, int err, const struct store_turn *existing);
void store_turn_begin(struct store *, const struct store_turn_begin *, store_on_begun *, void *arg);

/* Messages of a hop (assistant with tool calls, tool results), while live. E_FENCED. */
void store_turn_add(struct store *, const char *turn_id, uint64_t fence,
    const struct store_message *, size_t count, const struct store_usage *, size_t usage_count,
    store_on_done *, void *arg);

/* The part of the answer so far and the last sequence number, while live: what survives the worker.
 * E_FENCED. */
void store_turn_progress(struct store *, const char *turn_id, uint64_t fence, const char *text,
    uint64_t last_seq, store_on_done *, void *arg);

struct store_turn_end {
	const char *turn_id, *session_id;
	uint64_t fence;
	const char *state; /* completed, failed, cancelled */
	const char *error_code, *error_message, *finish_reason, *text, *result_json;
	uint64_t last_seq;
	const struct store_message *messages; /* the answer, if any */
	size_t message_count;
	const struct store_usage *usage;
	size_t usage_count;
	const struct store_webhook *webhooks; /* who is told of it; the endpoints are there */
	size_t webhook_count;
	int64_t now;
};
void store_turn_end(struct store *, const struct store_turn_end *, store_on_done *,
    void *arg); /* E_FENCED: someone else ended it */

typedef void store_on_turn(void *arg, int err, const struct store_turn *);
void store_turn_get(struct store *, const char *id, store_on_turn *, void *arg); /* E_NOT_FOUND */
void store_turn_live(struct store *, const char *session_id, store_on_turn *,
    void *arg); /* E_NOT_FOUND: none live */

/*
 * Who is told by a webhook (turn.failed) of turns of an app that are lost with their worker; it is
 * written with that. Its data is data_head, the session's id, then turn_id with the turn's, then
 * data_tail. place: two characters of its id, others for each endpoint. Copied.
 */
struct store_lost_hook {
	const char *endpoint_id, *app_id, *place, *data_head, *data_tail;
};
void store_use_lost_hooks(struct store *, const struct store_lost_hook *, size_t count);

/*
 * Fails a live turn whose owner is dead: state failed, worker_lost, fence raised. E_FENCED when it
 * is not live any more or has another owner. The whole of a dead incarnation's with
 * store_turn_lose_all().
 */
void store_turn_lose(
    struct store *, const char *id, const char *owner, int64_t now, store_on_done *, void *arg);
void store_turn_lose_all(
    struct store *, const char *owner, int64_t now, store_on_count *, void *arg);
/* Live turns whose owner does not begin with host_prefix: those of a host's former lives, where the
 * record is one host's (SQLite). */
void store_turn_lose_former(
    struct store *, const char *host_prefix, int64_t now, store_on_count *, void *arg);

/* ---- hosts: which of those that share the record live, by its clock ---- */

struct store_host {
	const char *id; /* what its turns' owners begin with, up to the first point */
	bool is_over;   /* its lease */
};
typedef void store_on_hosts(void *arg, int err, const struct store_host *, size_t count);
/* Begins or renews a lease. All hosts that are known, this one too, the oldest first. */
void store_host_renew(
    struct store *, const char *host, uint64_t lease_ms, store_on_hosts *, void *arg);
void store_host_list(struct store *, store_on_hosts *, void *arg);
/* Live turns of hosts whose leases are over are lost; on_count gets how many. A host that is not
 * known gets a lease of grace_ms; one that has been over for as long is forgotten. */
void store_hosts_lose(struct store *, uint64_t grace_ms, int64_t now, store_on_count *, void *arg);

/* ---- usage ---- */

struct store_usage_sum {
	const char *model;
	uint64_t calls, input_tokens, output_tokens, cached_tokens;
	int64_t cost_micros;
};
typedef void store_on_usage(void *arg, int err, const struct store_usage_sum *, size_t count);
void store_usage_by_model(
    struct store *, const char *app_id, int64_t from, int64_t to, store_on_usage *, void *arg);

/* Rows whose ids are there already are left as they are. Ends what was held under their ids. */
void store_usage_add(
    struct store *, const struct store_usage *const *, size_t count, store_on_done *, void *arg);

struct store_usage_filter {
	int64_t from_day, to_day;            /* days since 1970, in UTC; both inclusive */
	const char *app_id, *key_id, *model; /* NULL: any */
	uint32_t limit;
};
struct store_usage_day {
	const char *app_id, *key_id; /* key_id "": none */
	int64_t day;
	uint64_t failed_calls; /* among sum.calls */
	struct store_usage_sum sum;
};
typedef void store_on_usage_days(void *arg, int err, const struct store_usage_day *, size_t count);
void store_usage_days(
    struct store *, const struct store_usage_filter *, store_on_usage_days *, void *arg);

/* ---- answers that are kept for clients that may have gone ---- */

struct store_answer {
	const char *key_id, *request_id; /* not told by store_answer_get() */
	int status;
	const char *content_type;
	struct str body; /* any bytes */
	int64_t created_at, expires_at;
};
/* In the place of an earlier one of the same key and request. */
void store_answer_put(struct store *, const struct store_answer *, store_on_done *, void *arg);
typedef void store_on_answer(void *arg, int err, const struct store_answer *);
void store_answer_get(struct store *, const char *key_id, const char *request_id, int64_t now,
    store_on_answer *, void *arg); /* E_NOT_FOUND: also of one that has expired */
void store_answer_sweep(struct store *, int64_t now, store_on_count *, void *arg); /* how many */

/* ---- budgets: money held for calls in progress ---- */

struct store_budget_hold {
	/* What the call will be at most: id, app, org, key, session, turn, model, tokens, cost (not
	 * -1), created_at. */
	struct store_usage usage;
	int64_t key_limit_micros, app_limit_micros; /* 0: no budget */
	int64_t key_day, app_day;                   /* where their periods begin */
	int64_t lapses_at;
};
struct store_budget_state { /* of the budget that has not so much left */
	bool is_app;        /* the app's; else the key's */
	int64_t spent_micros, held_micros;
	int64_t advanced_micros; /* of what is held: no call's yet */
};
typedef void store_on_held(void *arg, int err, const struct store_budget_state *);
/* 0: held, once, until usage with this id is written. E_BUDGET_EXCEEDED: nothing was written. */
void store_budget_hold(
    struct store *, const struct store_budget_hold *, store_on_held *, void *arg);
void store_budget_renew(struct store *, const char *const *ids, size_t count, int64_t lapses_at,
    store_on_done *, void *arg);
void store_budget_release(struct store *, const char *id, store_on_done *, void *arg);

enum { STORE_ADVANCE_SHARE = 64 };
/*
 * Money that a worker holds ahead of its calls, as one row under an id of its own ("adv_.."), so
 * that most calls need not ask. One write at a time for one id: the row's amount is set.
 */
struct store_budget_advance {
	const char *id, *app_id, *org_id, *key_id, *model;
	int64_t key_limit_micros, app_limit_micros; /* 0: no budget */
	int64_t key_day, app_day;
	int64_t created_at, lapses_at;
	int64_t keep_micros; /* what it must go on to hold, */
	int64_t free_micros; /* and how much of that is no call's */
	/* That much should be free; it becomes at most 1 / STORE_ADVANCE_SHARE of what the budgets
	 * have left, and does not grow when that is less than least. 0: does not grow. */
	int64_t want_micros, least_micros;
	/* Calls that were paid from it get holds of their own (once): id, session, turn, tokens,
	 * cost, created_at. */
	const struct store_usage *const *calls;
	size_t count;
};
/* err 0: the row holds amount_micros, >= keep. */
typedef void store_on_advanced(void *arg, int err, int64_t amount_micros);
void store_budget_advance(
    struct store *, const struct store_budget_advance *, store_on_advanced *, void *arg);

/* What lapsed before now becomes usage at its estimate; on_count gets how many. An advance that
 * lapsed was no call's money: it ends. */
void store_budget_lose(struct store *, int64_t now, store_on_count *, void *arg);

/* ---- webhooks: an outbox, and where they go ---- */

struct store_webhook {
	const char *id;          /* wh_.., made by id_new(): its time is what retention goes by */
	const char *endpoint_id; /* whe_.. of a task's; conf:NAME of the configuration's */
	const char *app_id;      /* NULL: nobody's but the admin's */
	const char *order_key;   /* what is told of, a task or session; NULL: in no order */
	int64_t position;        /* in that order; not for adding */
	const char *event;       /* turn.completed, .. */
	const char *body;        /* sent and signed as it is; JSON */
	int64_t created_at;
	/* What became of it; of the last attempt. */
	const char *state; /* pending, delivered, dead */
	uint64_t attempts, claim;
	int64_t due_at, ended_at;
	int status;           /* 0: there was no answer */
	const char *error;    /* NULL: none */
	const char *response; /* its first bytes, as text */
	uint64_t first_ms, total_ms;
};

struct store_webhook_endpoint {
	const char *id, *app_id, *url;
	const char *secrets, *headers; /* of tasks': as worker/webhook/endpoint.h writes them */
	uint64_t batch;                /* webhooks in one request, at most; 0, 1: one */
	int64_t created_at;
	uint64_t failures; /* in a row */
	/* The breaker: open until then (also: somebody tries, and is to have said by then how it
	 * went); 0: closed. */
	int64_t probe_at;
	int64_t disabled_at;
	uint64_t delivered, failed, dead; /* attempts that failed; webhooks that went well, or died
					   */
	int last_status;
	const char *last_error;
	int64_t last_at;
	/* Of store_webhook_look() alone, by the database's clock. */
	int64_t due_in_ms, probe_in_ms; /* the next of its webhooks; the next try. < 0: is due */
};

/* Rows and the endpoints that they name; what is there already stays. (Changes of other things
 * write them in their own transactions: webhook_rows.h.) */
void store_webhook_add(struct store *, const struct store_webhook *, size_t count,
    const struct store_webhook_endpoint *, size_t endpoint_count, store_on_done *, void *arg);

typedef void store_on_webhooks(
    void *arg, int err, const struct store_webhook *, size_t count, bool has_more);
typedef void store_on_webhook_endpoints(
    void *arg, int err, const struct store_webhook_endpoint *, size_t count, bool has_more);

/* Those that have something pending, by id after `after` (NULL: from the first). */
void store_webhook_look(
    struct store *, const char *after, uint32_t limit, store_on_webhook_endpoints *, void *arg);

struct store_webhook_want {
	const char *endpoint_id;
	uint32_t limit;    /* one only while the breaker tries */
	uint32_t in_a_row; /* of equal order_key, at most; 0: 1 */
};
/* Nobody else gets them for lease_ms, unless the owner's are given to others. By ascending
 * endpoint_id. Of equal order_key the first ones, by position without a gap, if the first of all
 * may be had; the rows come in any order. */
void store_webhook_claim(struct store *, const char *owner, const struct store_webhook_want *,
    size_t count, uint64_t lease_ms, store_on_webhooks *, void *arg);
/* What an owner that is dead has claimed is anybody's; or what owners with another prefix have
 * (SQLite's record is one host's). How many that were. */
void store_webhook_release(struct store *, const char *owner, store_on_count *, void *arg);
void store_webhook_release_former(
    struct store *, const char *host_prefix, store_on_count *, void *arg);

struct store_webhook_result {
	const char *id;
	uint64_t claim;
	const char *state; /* pending: again in due_in_ms */
	uint64_t due_in_ms;
	bool was_tried; /* counts as an attempt; else nothing but its due_at changes */
	int status;
	const char *error, *response;
	uint64_t first_ms, total_ms;
};
struct store_webhook_tally { /* of one endpoint's results */
	const char *endpoint_id;
	uint64_t delivered, failed, dead;
	uint64_t failures; /* at the end, in a row */
	bool had_success;
	bool is_gone; /* it wants no more */
	int last_status;
	const char *last_error;
};
struct store_webhook_breaker {
	uint64_t failures, recovery_ms; /* failures 0: never */
};
struct store_webhook_settler {
	const char *id;  /* a worker's, or whoever's */
	uint64_t number; /* of what it settles: 1, 2, .. */
};
/* A delivered one is delivered whoever claimed it meanwhile; other results of a claim that is over
 * change nothing. Tallies by ascending endpoint_id. on_endpoints gets those of the tallies; none
 * when it is known under its number: whoever does not know whether it was done says the same
 * again. */
void store_webhook_settle(struct store *, const struct store_webhook_settler *,
    const struct store_webhook_result *, size_t count, const struct store_webhook_tally *,
    size_t tally_count, const struct store_webhook_breaker *, store_on_webhook_endpoints *,
    void *arg);

struct store_webhook_filter {
	const char *app_id, *endpoint_id, *state, *order_key, *after; /* NULL: any */
	uint32_t limit;
};
/* Newest first. */
void store_webhook_list(
    struct store *, const struct store_webhook_filter *, store_on_webhooks *, void *arg);
typedef void store_on_webhook(void *arg, int err, const struct store_webhook *);
void store_webhook_get(struct store *, const char *id, store_on_webhook *, void *arg);
/* Ended ones become pending again, as new: that one, or up to limit dead ones of an endpoint. */
void store_webhook_resend(struct store *, const char *id, const char *endpoint_id, uint32_t limit,
    store_on_count *, void *arg);
void store_webhook_endpoint_list(
    struct store *, const char *after, uint32_t limit, store_on_webhook_endpoints *, void *arg);
/* Its breaker closes, and it is not disabled any more; or it is, and what comes waits: of one that
 * has said itself that it wants no more it becomes dead. */
void store_webhook_endpoint_enable(
    struct store *, const char *id, bool is_enabled, store_on_done *, void *arg); /* E_NOT_FOUND */

struct store_webhook_sweep {
	int64_t delivered_before, dead_before; /* what was written, or sent again, before goes */
	int64_t pending_before;                /* becomes dead: expired */
	int64_t endpoints_before;              /* without webhooks and not named since: they go */
	uint32_t limit;                        /* of each */
};
void store_webhook_sweep(struct store *, const struct store_webhook_sweep *, store_on_count *,
    void *arg); /* how many changed */

struct store_webhook_counts {
	uint64_t pending, dead, open; /* open: breakers */
};
typedef void store_on_webhook_counts(void *arg, int err, const struct store_webhook_counts *);
void store_webhook_count(struct store *, store_on_webhook_counts *, void *arg);

#endif
