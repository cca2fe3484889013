/*
 * task_claims - tasks in the record, as those who run them see them: claimed, changed, kept, found
 * by who outlives their owner, archived.
 */
#include "worker/store/tasks.h"

#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/crypto.h"
#include "worker/store/run.h"
#include "worker/store/task_rows.h"
#include "worker/store/webhook_rows.h"

enum { FENCE_STEP_MIN = 1 << 20 }; /* claims raise a fence by 1 */

/* ---- claiming ---- */

/*
 * As many of each app that has any: apps are found by jumping from one to the next in the index
 * tasks_due, so that a long queue of one costs no more than a short one. The number of apps goes
 * back with each row, in the place behind a task's columns.
 */
#define APPS_POSTGRES                                                                              \
	"WITH RECURSIVE apps (app) AS ((SELECT app_id FROM tasks WHERE due_at IS NOT NULL"         \
	" ORDER BY app_id LIMIT 1) UNION ALL SELECT (SELECT t.app_id FROM tasks t"                 \
	" WHERE t.due_at IS NOT NULL AND t.app_id > apps.app ORDER BY t.app_id LIMIT 1)"           \
	" FROM apps WHERE apps.app IS NOT NULL)"
#define APPS_SQLITE                                                                                \
	"WITH RECURSIVE apps (app) AS (SELECT (SELECT min(app_id) FROM tasks"                      \
	" WHERE due_at IS NOT NULL) UNION ALL SELECT (SELECT min(t.app_id) FROM tasks t"           \
	" WHERE t.due_at IS NOT NULL AND t.app_id > apps.app)"                                     \
	" FROM apps WHERE apps.app IS NOT NULL)"
#define APPS_COUNT "(SELECT count(app) FROM apps)"
#define SHARE                                                                                      \
	"(CAST($limit AS bigint) + " APPS_COUNT " - 1) / "                                         \
	"(SELECT count(app) + CASE WHEN count(app) = 0 THEN 1 ELSE 0 END FROM apps)"
#define CLAIM                                                                                      \
	" UPDATE tasks SET owner = $owner, fence = fence + 1, due_at = NULL,"                      \
	" lease_ends_at = from_ms(now_ms() + CAST($lease_ms AS bigint)), updated_at = " TASK_NOW
#define STRIPES "t.stripe >= $stripe_from AND t.stripe < $stripe_to"

const struct op op_task_claim = {
    .name = "task_claim",
    .params = "owner limit stripe_from stripe_to lease_ms",
    .is_write = true,
    .is_upkeep = true,
    .statements = {{.sql = APPS_SQLITE CLAIM
		    " WHERE id IN (SELECT c.id FROM (SELECT app FROM apps WHERE app IS NOT NULL"
		    " ORDER BY random() LIMIT 100000) a CROSS JOIN tasks c ON c.id IN (SELECT"
		    " t.id FROM tasks t WHERE t.app_id = a.app AND t.due_at <= " TASK_NOW
		    " AND " STRIPES " ORDER BY t.due_at LIMIT " SHARE ") LIMIT $limit)"
		    " RETURNING " TASK_COLUMNS ", " APPS_COUNT,
	.postgres = APPS_POSTGRES
	", picked AS MATERIALIZED (SELECT c.id AS picked_id FROM (SELECT app FROM apps"
	" WHERE app IS NOT NULL ORDER BY random()) a CROSS JOIN LATERAL (SELECT t.id"
	" FROM tasks t WHERE t.app_id = a.app AND t.due_at <= (SELECT " TASK_NOW ")"
	" AND " STRIPES " ORDER BY t.due_at LIMIT " SHARE " FOR UPDATE SKIP LOCKED) c"
	" LIMIT $limit)" CLAIM " FROM picked WHERE tasks.id = picked.picked_id"
	" RETURNING " TASK_COLUMNS ", " APPS_COUNT,
	.is_answer = true}},
};

/* ---- changes ---- */

/*
 * What has ended stays as it is; that its owner says it again changes nothing, nor does it that who
 * took it from him says it again: nobody else raises the fence to that. Rows of the second group:
 * partitions one of whose tasks ends.
 */
#define HAS_NOT_ENDED                                                                              \
	"(ended_at IS NULL OR (state = $state AND CAST($fence_step AS bigint) = 0"                 \
	" AND CAST($is_ended AS bigint) > 0))"
#define WAS_TAKEN                                                                                  \
	"(CAST($fence_step AS bigint) > 0 AND state = $state"                                      \
	" AND fence = CAST($fence AS bigint) + CAST($fence_step AS bigint))"
#define HOOK_POSITION WEBHOOK_POSITION("$wc_endpoint", "tasks.id")
const struct op op_task_change = {
    .name = "task_change",
    .params = "",
    .groups = {"id fence fence_step state progress message result error_code error_message "
	       "is_retryable attempts losses provider provider_model job_id is_ended is_kept "
	       "due_in_ms",
	"app_id partition_key", "wc_task wc_fence wc_id wc_endpoint wc_app wc_event wc_body"},
    .is_write = true,
    .is_first = true,
    .statements =
	{
	    {.sql = "",
		.postgres =
		    "SELECT " TASK_LOCK("CAST($app_id AS text)", "CAST($partition_key AS text)"),
		.each = 2},
	    {.sql = "UPDATE tasks SET fence = CAST($fence AS bigint)"
		    " + CAST($fence_step AS bigint),"
		    " state = $state, progress = $progress, message = $message,"
		    " result = $result, error_code = $error_code,"
		    " error_message = $error_message, is_retryable = $is_retryable,"
		    " attempts = $attempts, losses = $losses, provider = $provider,"
		    " provider_model = $provider_model, job_id = $job_id,"
		    " owner = CASE WHEN CAST($is_kept AS bigint) + CAST($is_ended AS bigint) > 0"
		    " THEN owner END,"
		    " lease_ends_at = CASE WHEN CAST($is_kept AS bigint) > 0"
		    " THEN lease_ends_at END,"
		    " due_at = from_ms(now_ms() + CAST($due_in_ms AS bigint)),"
		    " started_at = CASE WHEN started_at IS NULL AND CAST($state AS text) ="
		    " 'running' THEN " TASK_NOW " ELSE started_at END,"
		    " ended_at = CASE WHEN CAST($is_ended AS bigint) > 0"
		    " THEN coalesce(ended_at, " TASK_NOW ") END, updated_at = " TASK_NOW
		    " WHERE id = $id AND ((fence = $fence AND " HAS_NOT_ENDED ") OR " WAS_TAKEN
		    ") RETURNING id",
		.each = 1,
		.is_answer = true},
	    /* As WEBHOOK_STATEMENT, if the change was made. Only rows of those who are told: one
	     * that finds nobody to tell costs PostgreSQL a new plan each time. */
	    {.sql = "INSERT INTO webhooks (id, endpoint_id, app_id, order_key, position, event,"
		    " body, state, attempts, claim, due_at, created_at) SELECT"
		    " CAST($wc_id AS text), CAST($wc_endpoint AS text), CAST($wc_app AS text),"
		    " tasks.id, " HOOK_POSITION ", CAST($wc_event AS text),"
		    " CAST($wc_body AS text), 'pending', 0, 0, " TASK_NOW ", " TASK_NOW
		    " FROM tasks WHERE tasks.id = $wc_task"
		    " AND fence = CAST($wc_fence AS bigint) ON CONFLICT (id) DO NOTHING",
		.each = 3},
	    {.sql = "UPDATE tasks SET due_at = " TASK_NOW " WHERE id = (SELECT o.id FROM tasks o"
		    " WHERE o.app_id = $app_id AND o.partition_key = $partition_key"
		    " AND o.ended_at IS NULL ORDER BY o.position LIMIT 1)"
		    " AND due_at IS NULL AND owner IS NULL AND state = 'queued'",
		.each = 2},
	},
};

#define RENEW "UPDATE tasks SET lease_ends_at = from_ms(now_ms() + CAST($lease_ms AS bigint))"
const struct op op_task_renew = {
    .name = "task_renew",
    .params = "owner lease_ms",
    .is_write = true,
    .is_first = true,
    .is_upkeep = true,
    .statements = {{.sql = RENEW " WHERE owner = $owner AND ended_at IS NULL RETURNING id",
	.postgres =
	    "WITH mine AS MATERIALIZED (SELECT id AS mine_id FROM tasks"
	    " WHERE owner = $owner AND ended_at IS NULL ORDER BY id FOR NO KEY UPDATE) " RENEW
	    " FROM mine WHERE tasks.id = mine.mine_id RETURNING id",
	.is_answer = true}},
};

/* ---- owners that are gone, time that is up ---- */

#define AT_ONCE     " LIMIT 500"
#define SELECT_LIVE "SELECT " TASK_COLUMNS_SHORT " FROM tasks WHERE ended_at IS NULL AND "

const struct op op_task_owned = {
    .name = "task_owned",
    .params = "owner",
    .statements = {{.sql = SELECT_LIVE "owner = $owner" AT_ONCE, .is_answer = true}},
};

const struct op op_task_former = {
    .name = "task_former",
    .params = "host_prefix",
    .statements = {{.sql = SELECT_LIVE
		    "owner IS NOT NULL AND substr(owner, 1, length(CAST($host_prefix AS text)))"
		    " <> CAST($host_prefix AS text)" AT_ONCE,
	.is_answer = true}},
};

const struct op op_task_late = {
    .name = "task_late",
    .params = "",
    .statements = {{.sql = SELECT_LIVE "owner IS NOT NULL AND lease_ends_at <= (SELECT " TASK_NOW
				       ")" AT_ONCE,
	.is_answer = true}},
};

const struct op op_task_overdue = {
    .name = "task_overdue",
    .params = "",
    .statements = {{.sql = SELECT_LIVE "deadline_at <= (SELECT " TASK_NOW ")" AT_ONCE,
	.is_answer = true}},
};

const struct op op_task_ended = {
    .name = "task_ended",
    .params = "owner host_prefix lately_ms settled_ms fence_step limit",
    .is_slow = true,
    .statements = {{.sql = "SELECT " TASK_COLUMNS_SHORT " FROM tasks WHERE archived_at IS NULL"
			   " AND ended_at >= (SELECT from_ms(now_ms() -"
			   " CAST($lately_ms AS bigint))) AND (owner = $owner"
			   " OR substr(owner, 1, length(CAST($host_prefix AS text)))"
			   " = CAST($host_prefix AS text) OR (fence >= $fence_step AND ended_at <="
			   " (SELECT from_ms(now_ms() - CAST($settled_ms AS bigint)))))"
			   " ORDER BY ended_at DESC LIMIT $limit",
	.is_answer = true}},
};

const struct op op_task_take_end = {
    .name = "task_take_end",
    .params = "id fence",
    .is_write = true,
    .is_upkeep = true,
    .statements = {{.sql = "UPDATE tasks SET fence = fence + 1 WHERE id = $id AND fence = $fence"
			   " AND ended_at IS NOT NULL RETURNING id",
	.is_answer = true}},
};

/* Nothing older comes to be unfinished behind our back, so this needs no lock. */
#define SKIP_LOCKED AT_ONCE " FOR UPDATE SKIP LOCKED"
#define UNBLOCK                                                                                    \
	"UPDATE tasks SET due_at = " TASK_NOW " WHERE id IN (SELECT t.id FROM tasks t"             \
	" WHERE t.partition_key IS NOT NULL AND t.ended_at IS NULL AND t.due_at IS NULL"           \
	" AND t.owner IS NULL AND t.state = 'queued' AND NOT EXISTS (SELECT 1 FROM tasks o"        \
	" WHERE o.app_id = t.app_id AND o.partition_key = t.partition_key"                         \
	" AND o.ended_at IS NULL AND o.position < t.position)"
const struct op op_task_unblock = {
    .name = "task_unblock",
    .params = "",
    .is_write = true,
    .is_upkeep = true,
    .statements = {{.sql = UNBLOCK AT_ONCE ")",
	.postgres = UNBLOCK SKIP_LOCKED ")",
	.is_answer = true}},
};

const struct op op_task_stats = {
    .name = "task_stats",
    .params = "",
    .is_slow = true,
    .statements = {{.sql = "SELECT coalesce(sum(CASE WHEN state = 'queued' THEN 1 ELSE 0 END), 0),"
			   " coalesce(sum(CASE WHEN state = 'running' THEN 1 ELSE 0 END), 0),"
			   " coalesce(now_ms() - to_ms(min(due_at)), 0) FROM tasks"
			   " WHERE ended_at IS NULL AND deadline_at > from_ms(0)",
	.is_answer = true}},
};

/* ---- what is over ---- */

const struct op op_task_archive = {
    .name = "task_archive",
    .params = "older_ms limit",
    .is_write = true,
    .is_upkeep = true,
    .statements = {{.sql =
			"UPDATE tasks SET archived_at = " TASK_NOW ", input = NULL, terms = NULL,"
			" webhook = NULL WHERE id IN (SELECT id FROM tasks WHERE"
			" ended_at <= (SELECT from_ms(now_ms() - CAST($older_ms AS bigint)))"
			" AND archived_at IS NULL ORDER BY ended_at LIMIT $limit)",
	.is_answer = true}},
};

const struct op op_task_purge = {
    .name = "task_purge",
    .params = "older_ms limit",
    .is_write = true,
    .is_upkeep = true,
    .statements = {{.sql = "DELETE FROM tasks WHERE id IN (SELECT id FROM tasks WHERE archived_at"
			   " <= (SELECT from_ms(now_ms() - CAST($older_ms AS bigint)))"
			   " ORDER BY archived_at LIMIT $limit)",
	.is_answer = true}},
};

/* ---- reading ---- */

static void
decode_claimed(struct op_rows *rows, store_callback *callback, void *arg)
{
	store_on_claimed *on_claimed = (store_on_claimed *)callback;
	struct store_task *tasks = xcalloc(rows->count + 1, sizeof(*tasks));
	struct op_value v[OP_VALUES_MAX];
	uint32_t apps = 0;
	size_t count = 0;

	while (op_rows_next(rows, v)) {
		task_read(v, &tasks[count++]);
		apps = (uint32_t)op_int(&v[TASK_COLUMN_COUNT]);
	}
	on_claimed(arg, rows->err, tasks, count, apps);
	free(tasks);
}

static void
decode_ids(struct op_rows *rows, store_callback *callback, void *arg)
{
	const char **ids = xcalloc(rows->count + 1, sizeof(*ids));
	struct op_value v[OP_VALUES_MAX];
	size_t count = 0;

	while (op_rows_next(rows, v))
		ids[count++] = op_text(&v[0]);
	((store_on_ids *)callback)(arg, rows->err, ids, count);
	free(ids);
}

static void
decode_stats(struct op_rows *rows, store_callback *callback, void *arg)
{
	struct op_value v[OP_VALUES_MAX];
	struct store_task_stats stats = {0};

	if (op_rows_next(rows, v))
		stats = (struct store_task_stats){
		    .queued = (uint64_t)op_int(&v[0]),
		    .running = (uint64_t)op_int(&v[1]),
		    .oldest_ms = op_int(&v[2]),
		};
	((store_on_task_stats *)callback)(arg, rows->err, &stats);
}

/* ---- verbs ---- */

void
store_task_claim(
    struct store *store, const struct store_task_claim *c, store_on_claimed *on_claimed, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_task_claim);
	op_put_text(&call, c->owner);
	op_put_int(&call, c->limit);
	op_put_int(&call, c->stripe_from);
	op_put_int(&call, c->stripe_to);
	op_put_int(&call, (int64_t)c->lease_ms);
	store_run(store, &call, decode_claimed, (store_callback *)on_claimed, arg);
}

uint64_t
store_task_take_step(void)
{
	uint32_t dice;

	crypto_random(&dice, sizeof(dice));
	return FENCE_STEP_MIN + (uint64_t)(dice >> 1);
}

static void
put_change(struct op_call *call, const struct store_task_change *c)
{
	op_put_text(call, c->id);
	op_put_int(call, (int64_t)c->fence);
	op_put_int(call, (int64_t)c->take_step);
	op_put_text(call, c->state);
	op_put_int(call, c->progress);
	op_put_text(call, c->message);
	op_put_text(call, c->result_json);
	op_put_text(call, c->error_code);
	op_put_text(call, c->error_message);
	op_put_int(call, c->is_retryable);
	op_put_int(call, c->attempts);
	op_put_int(call, c->losses);
	op_put_text(call, c->provider);
	op_put_text(call, c->provider_model);
	op_put_text(call, c->job_id);
	op_put_int(call, c->is_ended);
	op_put_int(call, c->is_kept);
	if (c->is_ended || c->is_kept)
		op_put_text(call, NULL);
	else
		op_put_int(call, c->due_in_ms);
}

static int
compare_changes(const void *a, const void *b)
{
	const struct store_task_change *x = *(const struct store_task_change *const *)a;
	const struct store_task_change *y = *(const struct store_task_change *const *)b;

	return strcmp(x->id, y->id);
}

static int
compare_partitions(const void *a, const void *b)
{
	const struct store_task_change *x = *(const struct store_task_change *const *)a;
	const struct store_task_change *y = *(const struct store_task_change *const *)b;
	int order = strcmp(x->app_id, y->app_id);

	return order != 0 ? order : strcmp(x->partition_key, y->partition_key);
}

/* In one order, whoever locks them. */
static void
put_partitions(struct op_call *call, const struct store_task_change *c, size_t count)
{
	const struct store_task_change **ends =
	    xcalloc(count + 1, sizeof(struct store_task_change *));
	size_t n = 0;

	for (size_t i = 0; i < count; i++)
		if (c[i].is_ended && c[i].partition_key != NULL)
			ends[n++] = &c[i];
	qsort(ends, n, sizeof(struct store_task_change *), compare_partitions);
	op_put_count(call, n);
	for (size_t i = 0; i < n; i++) {
		op_put_text(call, ends[i]->app_id);
		op_put_text(call, ends[i]->partition_key);
	}
	free(ends);
}

static void
put_hook(struct op_call *call, const struct store_task_change *c, const struct store_webhook *hook)
{
	op_put_text(call, c->id);
	op_put_int(call, (int64_t)(c->fence + c->take_step));
	op_put_text(call, hook->id);
	op_put_text(call, hook->endpoint_id);
	op_put_text(call, hook->app_id);
	op_put_text(call, hook->event);
	op_put_text(call, hook->body);
}

/* The one that the task names, and those of the configuration. */
static void
put_hooks(struct op_call *call, const struct store_task_change *changes, size_t count)
{
	size_t n = 0;

	for (size_t i = 0; i < count; i++)
		n += changes[i].hook_count + (changes[i].webhook_id != NULL);
	op_put_count(call, n);
	for (size_t i = 0; i < count; i++) {
		const struct store_task_change *c = &changes[i];
		const struct store_webhook own = {.id = c->webhook_id,
		    .endpoint_id = c->webhook_endpoint,
		    .app_id = c->app_id,
		    .event = c->webhook_event,
		    .body = c->webhook_body};

		if (c->webhook_id != NULL)
			put_hook(call, c, &own);
		for (size_t k = 0; k < c->hook_count; k++)
			put_hook(call, c, &c->hooks[k]);
	}
}

void
store_task_change(struct store *store, const struct store_task_change *changes, size_t count,
    store_on_ids *on_ids, void *arg)
{
	struct op_call call;
	const struct store_task_change **order =
	    xcalloc(count + 1, sizeof(struct store_task_change *));

	for (size_t i = 0; i < count; i++)
		order[i] = &changes[i];
	/* In one order, whoever locks them: op_task_renew does. */
	qsort(order, count, sizeof(struct store_task_change *), compare_changes);
	op_call_init(&call, &op_task_change);
	op_put_count(&call, count);
	for (size_t i = 0; i < count; i++)
		put_change(&call, order[i]);
	free(order);
	put_partitions(&call, changes, count);
	put_hooks(&call, changes, count);
	store_run(store, &call, decode_ids, (store_callback *)on_ids, arg);
}

void
store_task_renew(
    struct store *store, const char *owner, uint64_t lease_ms, store_on_ids *on_ids, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_task_renew);
	op_put_text(&call, owner);
	op_put_int(&call, (int64_t)lease_ms);
	store_run(store, &call, decode_ids, (store_callback *)on_ids, arg);
}

static void
run_select(
    struct store *store, const struct op *op, const char *who, store_on_tasks *on_tasks, void *arg)
{
	struct op_call call;

	op_call_init(&call, op);
	if (who != NULL)
		op_put_text(&call, who);
	store_run(store, &call, task_decode_all, (store_callback *)on_tasks, arg);
}

void
store_task_owned(struct store *store, const char *owner, store_on_tasks *on_tasks, void *arg)
{
	run_select(store, &op_task_owned, owner, on_tasks, arg);
}

void
store_task_former(struct store *store, const char *prefix, store_on_tasks *on_tasks, void *arg)
{
	run_select(store, &op_task_former, prefix, on_tasks, arg);
}

void
store_task_late(struct store *store, store_on_tasks *on_tasks, void *arg)
{
	run_select(store, &op_task_late, NULL, on_tasks, arg);
}

void
store_task_overdue(struct store *store, store_on_tasks *on_tasks, void *arg)
{
	run_select(store, &op_task_overdue, NULL, on_tasks, arg);
}

void
store_task_ended(
    struct store *store, const struct store_task_ended *q, store_on_tasks *on_tasks, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_task_ended);
	op_put_text(&call, q->is_prefix ? NULL : q->owner);
	op_put_text(&call, q->is_prefix ? q->owner : NULL);
	op_put_int(&call, (int64_t)q->lately_ms);
	op_put_int(&call, (int64_t)q->settled_ms);
	op_put_int(&call, FENCE_STEP_MIN);
	op_put_int(&call, q->limit);
	store_run(store, &call, task_decode_all, (store_callback *)on_tasks, arg);
}

void
store_task_take_end(
    struct store *store, const char *id, uint64_t fence, store_on_ids *on_ids, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_task_take_end);
	op_put_text(&call, id);
	op_put_int(&call, (int64_t)fence);
	store_run(store, &call, decode_ids, (store_callback *)on_ids, arg);
}

void
store_task_unblock(struct store *store, store_on_count *on_count, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_task_unblock);
	store_run(store, &call, store_decode_count, (store_callback *)on_count, arg);
}

void
store_task_stats(struct store *store, store_on_task_stats *on_stats, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_task_stats);
	store_run(store, &call, decode_stats, (store_callback *)on_stats, arg);
}

static void
run_sweep(struct store *store, const struct op *op, uint64_t older_ms, uint32_t limit,
    store_on_count *on_count, void *arg)
{
	struct op_call call;

	op_call_init(&call, op);
	op_put_int(&call, (int64_t)older_ms);
	op_put_int(&call, limit);
	store_run(store, &call, store_decode_count, (store_callback *)on_count, arg);
}

void
store_task_archive(struct store *store, uint64_t older_than_ms, uint32_t limit,
    store_on_count *on_count, void *arg)
{
	run_sweep(store, &op_task_archive, older_than_ms, limit, on_count, arg);
}

void
store_task_purge(struct store *store, uint64_t older_than_ms, uint32_t limit,
    store_on_count *on_count, void *arg)
{
	run_sweep(store, &op_task_purge, older_than_ms, limit, on_count, arg);
}
