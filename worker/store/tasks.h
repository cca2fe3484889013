/*
 * tasks - tasks in the record: work that outlives a request.
 *
 *   queued --claim--> queued, owned --change--> running --change--> succeeded, failed, cancelled
 *     ^                                            |                timed_out
 *     +--change (another attempt), release, retry--+
 *
 * Who has claimed a task owns it until its lease ends, unless renewed, by the clock of the
 * database. Whoever takes it from him (its end, a cancellation, a time limit) raises its fence:
 * his later writes find nothing to change. Among unfinished tasks of one app and partition key
 * only the oldest may be claimed. Everything else as in store.h.
 */
#ifndef WORKER_STORE_TASKS_H
#define WORKER_STORE_TASKS_H

#include "worker/store/store.h"

struct store_task {
	const char *id, *app_id, *key_id;
	const char *type;          /* "chat.completion", .. */
	const char *partition_key; /* NULL: ordered with no other */
	const char *state;         /* queued, running, succeeded, failed, cancelled, timed_out */
	const char *model;
	const char *input_json, *terms_json; /* NULL in lists, and when archived */
	int progress;                        /* 0-100 */
	const char *message;                 /* about it */
	const char *result_json;             /* NULL in lists */
	const char *error_code, *error_message;
	bool is_retryable;    /* failed, but another try may do */
	uint32_t attempts;    /* that have failed, in this run */
	uint32_t losses;      /* workers that died over it */
	uint32_t runs;        /* begun on demand, after the first */
	const char *provider; /* whose job_id is; NULL: there is no job */
	const char *provider_model, *job_id;
	const char *owner; /* also of an ended one: who it was */
	uint64_t fence;
	uint64_t timeout_ms;
	int64_t left_ms; /* until it is timed out */
	int64_t created_at, updated_at, started_at, ended_at, archived_at; /* 0: not */
	const char *webhook_json; /* NULL: nobody wants to be told */
};

typedef void store_on_task(void *arg, int err, const struct store_task *);
typedef void store_on_tasks(void *arg, int err, const struct store_task *, size_t count);

/* ---- for whoever asks ---- */

struct store_task_new {
	const char *id, *app_id, *key_id, *type;
	const char *partition_key, *idempotency_key; /* NULL: none */
	const char *model, *input_json, *terms_json;
	const char *webhook_json;                      /* NULL: none */
	const struct store_webhook_endpoint *endpoint; /* that it names; NULL: none */
	uint32_t stripe;
	uint64_t timeout_ms;
};
/* E_DUPLICATE: the idempotency key was used by this app: that task. Else err 0 and NULL. */
void store_task_create(struct store *, const struct store_task_new *, store_on_task *, void *arg);

/* What the idempotency key was used for. E_NOT_FOUND. */
void store_task_of_request(
    struct store *, const char *app_id, const char *idempotency_key, store_on_task *, void *arg);

/* How many of an app wait: anybody may claim them, now or later, or they stand behind others of
 * their partition. From limit on it is not counted exactly. */
void store_task_waiting(
    struct store *, const char *app_id, uint32_t limit, store_on_count *, void *arg);

/* E_NOT_FOUND: also another app's. app_id NULL: any. */
void store_task_get(struct store *, const char *id, const char *app_id, store_on_task *, void *arg);

struct store_task_filter {
	const char *app_id, *state, *type, *after; /* app_id required; NULL: any. Newest first */
	uint32_t limit;
};
void store_task_list(struct store *, const struct store_task_filter *, store_on_tasks *, void *arg);

/* The task as it is afterwards, behind all others of its partition. has_changed: it failed, timed
 * out or was cancelled until now. only_retryable: it failed, and said that another try may help.
 * E_NOT_FOUND. */
typedef void store_on_task_changed(void *arg, int err, bool has_changed, const struct store_task *);
void store_task_retry(struct store *, const char *id, const char *app_id, bool only_retryable,
    store_on_task_changed *, void *arg);

/* ---- for whoever runs them ---- */

struct store_task_claim {
	const char *owner;
	uint32_t limit;
	uint32_t stripe_from, stripe_to; /* the stripes from <= s < to */
	uint64_t lease_ms;
};
/* As many of each app's, the oldest first. apps: how many apps had any: what is less than the limit
 * need not be all when there are several. */
typedef void store_on_claimed(
    void *arg, int err, const struct store_task *, size_t count, uint32_t apps);
void store_task_claim(
    struct store *, const struct store_task_claim *, store_on_claimed *, void *arg);

/* What becomes of a task, by who owns it or takes it from its owner. */
struct store_task_change {
	const char *id, *app_id, *partition_key;
	uint64_t fence;
	/* From whoever has it: the fence is raised by so much, which store_task_take_step() gave,
	 * and is the same when the change is said again. 0: its owner says it. */
	uint64_t take_step;
	const char *state;
	int progress;
	const char *message, *result_json;
	const char *error_code, *error_message;
	bool is_retryable;
	uint32_t attempts, losses;
	const char *provider, *provider_model, *job_id;
	bool is_ended;     /* the state is a last one */
	bool is_kept;      /* it goes on with the same owner */
	int64_t due_in_ms; /* neither: anybody may claim it, so much later */
	/* Somebody is to be told: a row of the outbox in the same transaction. NULL: nobody. */
	const char *webhook_id, *webhook_endpoint, *webhook_event, *webhook_body;
	const struct store_webhook *hooks; /* likewise, of the configuration's endpoints */
	size_t hook_count;
};
/* Nobody else raises a fence by as much: a change that is said again is known by it as one's own.
 */
uint64_t store_task_take_step(void);
/* ids: of those that were changed. The others had another fence by then, or have ended: they are
 * somebody else's. */
typedef void store_on_ids(void *arg, int err, const char *const *ids, size_t count);
void store_task_change(
    struct store *, const struct store_task_change *, size_t count, store_on_ids *, void *arg);

/* ids: all that the owner still has. */
void store_task_renew(
    struct store *, const char *owner, uint64_t lease_ms, store_on_ids *, void *arg);

/* Tasks that somebody must take, up to 500 of them, as in lists: of an owner; of owners with
 * another prefix (SQLite's record is one host's); whose leases are over; whose time is up. */
void store_task_owned(struct store *, const char *owner, store_on_tasks *, void *arg);
void store_task_former(struct store *, const char *host_prefix, store_on_tasks *, void *arg);
void store_task_late(struct store *, store_on_tasks *, void *arg);
void store_task_overdue(struct store *, store_on_tasks *, void *arg);

/* What an owner has ended lately, as in lists, the last first; and what was taken from an owner,
 * who ever he was, and ended by that, settled_ms ago at least. */
struct store_task_ended {
	const char *owner;
	bool is_prefix; /* of all owners that begin with it */
	uint64_t lately_ms, settled_ms;
	uint32_t limit;
};
void store_task_ended(struct store *, const struct store_task_ended *, store_on_tasks *, void *arg);
/* Raises the fence of one that has ended: of all who try with one fence one gets its id. */
void store_task_take_end(struct store *, const char *id, uint64_t fence, store_on_ids *, void *arg);

/* The oldest of each partition key may be claimed, whatever happened. How many that was new to. */
void store_task_unblock(struct store *, store_on_count *, void *arg);

struct store_task_stats {
	uint64_t queued, running;
	int64_t oldest_ms; /* how long the oldest queued one has been due; 0: none */
};
typedef void store_on_task_stats(void *arg, int err, const struct store_task_stats *);
void store_task_stats(struct store *, store_on_task_stats *, void *arg);

/* What ended before: out of lists, without its input; and what was archived before: gone. How many,
 * at most limit. */
void store_task_archive(
    struct store *, uint64_t older_than_ms, uint32_t limit, store_on_count *, void *arg);
void store_task_purge(
    struct store *, uint64_t older_than_ms, uint32_t limit, store_on_count *, void *arg);

#endif
