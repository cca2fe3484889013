/*
 * tasks - tasks in the record, as those who ask for them see them: made, looked at, listed,
 * cancelled, begun anew. Who runs them: task_claims.c.
 */
#include "worker/store/tasks.h"

#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/err.h"
#include "worker/store/run.h"
#include "worker/store/task_rows.h"
#include "worker/store/webhook_rows.h"

#define CREATE_PARAMS                                                                              \
	"id app_id key_id type partition_key stripe idempotency_key model input terms webhook "    \
	"timeout_ms"
#define LOCK_PARTITION                                                                             \
	{                                                                                          \
		.sql = "", .postgres = "SELECT " TASK_LOCK("CAST($app_id AS text)",                \
			       "CAST($partition_key AS text)") " WHERE CAST($partition_key AS"     \
							       " text) IS NOT NULL"                \
	}
/* The key in a query of its own: where PostgreSQL sees that it is NULL it makes a cheaper plan,
 * each time anew, which costs ten times what it saves. */
#define OF_PARTITION                                                                               \
	" FROM tasks o WHERE o.app_id = $app_id"                                                   \
	" AND o.partition_key = (SELECT CAST($partition_key AS text))"                             \
	" AND o.ended_at IS NULL AND o.id <> $id"
#define INSERT_TASK(place, due)                                                                    \
	{                                                                                          \
		.sql = "INSERT INTO tasks (id, app_id, key_id, type, partition_key, stripe,"       \
		       " position, due_at, idempotency_key, state, model, input, terms, webhook,"  \
		       " progress, attempts, losses, runs, fence, timeout_ms, deadline_at,"        \
		       " created_at, updated_at) VALUES ($id, $app_id, $key_id, $type,"            \
		       " $partition_key, $stripe, " place ", " due ", $idempotency_key, 'queued'," \
		       " $model, $input, $terms, $webhook, 0, 0, 0, 0, 0, $timeout_ms,"            \
		       " from_ms(now_ms() + CAST($timeout_ms AS bigint)), " TASK_NOW ", " TASK_NOW \
		       ") ON CONFLICT (id) DO NOTHING"                                             \
	}
#define INSERT_BEHIND                                                                              \
	INSERT_TASK("(SELECT coalesce(max(o.position), 0) + 1" OF_PARTITION ")",                   \
	    "CASE WHEN EXISTS (SELECT 1" OF_PARTITION ") THEN NULL ELSE " TASK_NOW " END")

/* No verdict, so that PostgreSQL takes it in one round trip beside others. */
const struct op op_task_create = {
    .name = "task_create",
    .params = CREATE_PARAMS,
    .groups = {WEBHOOK_ENDPOINT_PARAMS},
    .is_write = true,
    .statements = {WEBHOOK_ENDPOINT_STATEMENT(1), INSERT_TASK("1", TASK_NOW)},
};

const struct op op_task_create_ordered = {
    .name = "task_create_ordered",
    .params = CREATE_PARAMS,
    .groups = {WEBHOOK_ENDPOINT_PARAMS},
    .is_write = true,
    .statements = {WEBHOOK_ENDPOINT_STATEMENT(1), LOCK_PARTITION, INSERT_BEHIND},
};

#define SELECT_REQUEST                                                                             \
	"SELECT " TASK_COLUMNS " FROM tasks WHERE app_id = $app_id"                                \
	" AND idempotency_key = $idempotency_key"
const struct op op_task_create_once = {
    .name = "task_create_once",
    .params = CREATE_PARAMS,
    .groups = {WEBHOOK_ENDPOINT_PARAMS},
    .is_write = true,
    .statements = {{.sql = SELECT_REQUEST " AND id <> $id", .expect = OP_NONE, .err = E_DUPLICATE},
	WEBHOOK_ENDPOINT_STATEMENT(1), LOCK_PARTITION, INSERT_BEHIND},
    .constraints = {{"tasks_request", "tasks.app_id, tasks.idempotency_key", E_BUSY}},
};

const struct op op_task_of_request = {
    .name = "task_of_request",
    .params = "app_id idempotency_key",
    .statements =
	{{.sql = SELECT_REQUEST, .expect = OP_ONE, .err = E_NOT_FOUND, .is_answer = true}},
};

/* By two indexes: of what may be claimed, now or later, and of what waits for another of its
 * partition. */
const struct op op_task_waiting = {
    .name = "task_waiting",
    .params = "app_id limit",
    .is_slow = true,
    .statements = {{.sql = "SELECT (SELECT count(*) FROM (SELECT 1 FROM tasks"
			   " WHERE app_id = $app_id AND due_at IS NOT NULL LIMIT $limit) AS due)"
			   " + (SELECT count(*) FROM (SELECT 1 FROM tasks WHERE app_id = $app_id"
			   " AND partition_key IS NOT NULL AND ended_at IS NULL"
			   " AND due_at IS NULL AND owner IS NULL LIMIT $limit) AS behind)",
	.expect = OP_ONE,
	.err = E_INTERNAL,
	.is_answer = true}},
};

const struct op op_task_get = {
    .name = "task_get",
    .params = "id app_id",
    .statements = {{.sql = "SELECT " TASK_COLUMNS " FROM tasks WHERE id = $id"
			   " AND (CAST($app_id AS text) IS NULL OR app_id = $app_id)",
	.expect = OP_ONE,
	.err = E_NOT_FOUND,
	.is_answer = true}},
};

const struct op op_task_list = {
    .name = "task_list",
    .params = "app_id state type after limit",
    .is_slow = true,
    .statements = {{.sql = "SELECT " TASK_COLUMNS_SHORT " FROM tasks WHERE app_id = $app_id"
			   " AND id < coalesce(CAST($after AS text), 'u')"
			   " AND (CAST($state AS text) IS NULL OR state = $state)"
			   " AND (CAST($type AS text) IS NULL OR type = $type)"
			   " AND archived_at IS NULL ORDER BY id DESC LIMIT $limit",
	.is_answer = true}},
};

#define LOCK_PARTITION_OF_TASK                                                                     \
	{                                                                                          \
		.sql = "", .postgres = "SELECT " TASK_LOCK("app_id",                               \
			       "partition_key") " FROM tasks WHERE id = $id AND app_id = $app_id"  \
						" AND partition_key IS NOT NULL"                   \
	}
#define SELECT_TASK                                                                                \
	"SELECT " TASK_COLUMNS " FROM tasks WHERE id = $id"                                        \
	" AND app_id = $app_id"

/* Behind all others of its partition. The answer has two rows when it has changed something. */
const struct op op_task_retry = {
    .name = "task_retry",
    .params = "id app_id only_retryable",
    .is_write = true,
    .statements =
	{
	    LOCK_PARTITION_OF_TASK,
	    {.sql = "UPDATE tasks SET state = 'queued', fence = fence + 1, runs = runs + 1,"
		    " attempts = 0, losses = 0, progress = 0, message = NULL, result = NULL,"
		    " error_code = NULL, error_message = NULL, is_retryable = NULL,"
		    " provider = NULL, provider_model = NULL, job_id = NULL, owner = NULL,"
		    " started_at = NULL, ended_at = NULL, updated_at = " TASK_NOW ","
		    " deadline_at = from_ms(now_ms() + timeout_ms), position = (SELECT"
		    " coalesce(max(o.position), 0) + 1 FROM tasks o WHERE o.app_id = tasks.app_id"
		    " AND o.partition_key = tasks.partition_key AND o.ended_at IS NULL),"
		    " due_at = CASE WHEN EXISTS (SELECT 1 FROM tasks o WHERE"
		    " o.app_id = tasks.app_id AND o.partition_key = tasks.partition_key"
		    " AND o.ended_at IS NULL) THEN NULL ELSE " TASK_NOW " END"
		    " WHERE id = $id AND app_id = $app_id AND archived_at IS NULL"
		    " AND state IN ('failed', 'timed_out', 'cancelled')"
		    " AND (CAST($only_retryable AS bigint) = 0"
		    " OR (state = 'failed' AND is_retryable))"
		    " RETURNING " TASK_COLUMNS,
		.is_answer = true},
	    {.sql = SELECT_TASK, .is_answer = true},
	},
};

/* ---- reading ---- */

void
task_read(const struct op_value *v, struct store_task *ret)
{
	*ret = (struct store_task){
	    .id = op_text(&v[0]),
	    .app_id = op_text(&v[1]),
	    .key_id = op_text(&v[2]),
	    .type = op_text(&v[3]),
	    .partition_key = op_text(&v[4]),
	    .state = op_text(&v[5]),
	    .model = op_text(&v[6]),
	    .input_json = op_text(&v[7]),
	    .terms_json = op_text(&v[8]),
	    .progress = (int)op_int(&v[9]),
	    .message = op_text(&v[10]),
	    .result_json = op_text(&v[11]),
	    .error_code = op_text(&v[12]),
	    .error_message = op_text(&v[13]),
	    .is_retryable = op_int(&v[14]) != 0,
	    .attempts = (uint32_t)op_int(&v[15]),
	    .losses = (uint32_t)op_int(&v[16]),
	    .runs = (uint32_t)op_int(&v[17]),
	    .provider = op_text(&v[18]),
	    .provider_model = op_text(&v[19]),
	    .job_id = op_text(&v[20]),
	    .owner = op_text(&v[21]),
	    .fence = (uint64_t)op_int(&v[22]),
	    .timeout_ms = (uint64_t)op_int(&v[23]),
	    .left_ms = op_int(&v[24]),
	    .created_at = op_int(&v[25]),
	    .updated_at = op_int(&v[26]),
	    .started_at = op_int(&v[27]),
	    .ended_at = op_int(&v[28]),
	    .archived_at = op_int(&v[29]),
	    .webhook_json = op_text(&v[30]),
	};
}

struct store_task *
task_read_all(struct op_rows *rows, size_t *ret_count)
{
	struct store_task *tasks = xcalloc(rows->count + 1, sizeof(*tasks));
	struct op_value v[OP_VALUES_MAX];

	*ret_count = 0;
	while (op_rows_next(rows, v))
		task_read(v, &tasks[(*ret_count)++]);
	return tasks;
}

static void
decode_task(struct op_rows *rows, store_callback *callback, void *arg)
{
	store_on_task *on_task = (store_on_task *)callback;
	bool has_task = rows->count > 0 && rows->columns == TASK_COLUMN_COUNT;
	struct op_value v[OP_VALUES_MAX];
	struct store_task task;

	if (!has_task || !op_rows_next(rows, v)) {
		on_task(arg, rows->err, NULL);
		return;
	}
	task_read(v, &task);
	on_task(arg, rows->err, &task);
}

void
task_decode_all(struct op_rows *rows, store_callback *callback, void *arg)
{
	size_t count;
	struct store_task *tasks = task_read_all(rows, &count);

	((store_on_tasks *)callback)(arg, rows->err, tasks, count);
	free(tasks);
}

static void
decode_changed(struct op_rows *rows, store_callback *callback, void *arg)
{
	store_on_task_changed *on_changed = (store_on_task_changed *)callback;
	size_t count;
	struct store_task *tasks = task_read_all(rows, &count);
	int err = rows->err != 0 ? rows->err : count == 0 ? E_NOT_FOUND : 0;

	on_changed(arg, err, count > 1, err == 0 ? &tasks[count - 1] : NULL);
	free(tasks);
}

/* ---- verbs ---- */

void
store_task_create(
    struct store *store, const struct store_task_new *t, store_on_task *on_task, void *arg)
{
	const struct op *op = t->idempotency_key != NULL ? &op_task_create_once
			      : t->partition_key != NULL ? &op_task_create_ordered
							 : &op_task_create;
	struct op_call call;

	op_call_init(&call, op);
	op_put_text(&call, t->id);
	op_put_text(&call, t->app_id);
	op_put_text(&call, t->key_id);
	op_put_text(&call, t->type);
	op_put_text(&call, t->partition_key);
	op_put_int(&call, t->stripe);
	op_put_text(&call, t->idempotency_key);
	op_put_text(&call, t->model);
	op_put_text(&call, t->input_json);
	op_put_text(&call, t->terms_json);
	op_put_text(&call, t->webhook_json);
	op_put_int(&call, (int64_t)t->timeout_ms);
	op_put_count(&call, t->endpoint != NULL);
	if (t->endpoint != NULL)
		webhook_endpoint_put(&call, t->endpoint);
	store_run(store, &call, decode_task, (store_callback *)on_task, arg);
}

void
store_task_of_request(struct store *store, const char *app_id, const char *idempotency_key,
    store_on_task *on_task, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_task_of_request);
	op_put_text(&call, app_id);
	op_put_text(&call, idempotency_key);
	store_run(store, &call, decode_task, (store_callback *)on_task, arg);
}

void
store_task_waiting(
    struct store *store, const char *app_id, uint32_t limit, store_on_count *on_count, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_task_waiting);
	op_put_text(&call, app_id);
	op_put_int(&call, limit);
	store_run(store, &call, store_decode_number, (store_callback *)on_count, arg);
}

void
store_task_get(
    struct store *store, const char *id, const char *app_id, store_on_task *on_task, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_task_get);
	op_put_text(&call, id);
	op_put_text(&call, app_id);
	store_run(store, &call, decode_task, (store_callback *)on_task, arg);
}

void
store_task_list(
    struct store *store, const struct store_task_filter *f, store_on_tasks *on_tasks, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_task_list);
	op_put_text(&call, f->app_id);
	op_put_text(&call, f->state);
	op_put_text(&call, f->type);
	op_put_text(&call, f->after);
	op_put_int(&call, f->limit);
	store_run(store, &call, task_decode_all, (store_callback *)on_tasks, arg);
}

void
store_task_retry(struct store *store, const char *id, const char *app_id, bool only_retryable,
    store_on_task_changed *on_changed, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_task_retry);
	op_put_text(&call, id);
	op_put_text(&call, app_id);
	op_put_int(&call, only_retryable);
	store_run(store, &call, decode_changed, (store_callback *)on_changed, arg);
}
