/*
 * task_rows - how a task is read from the record, for the two files of its operations.
 *
 * Private to worker/store.
 */
#ifndef WORKER_STORE_TASK_ROWS_H
#define WORKER_STORE_TASK_ROWS_H

#include "worker/store/op_wire.h"
#include "worker/store/run.h"
#include "worker/store/tasks.h"

#define TASK_NOW "from_ms(now_ms())"
#define TASK_COLUMNS_OF(input, terms, result)                                                      \
	"id, app_id, key_id, type, partition_key, state, model, " input ", " terms                 \
	", progress, message, " result ", error_code, error_message, is_retryable, attempts,"      \
	" losses, runs, provider, provider_model, job_id, owner, fence, timeout_ms,"               \
	" to_ms(deadline_at) - now_ms(), to_ms(created_at), to_ms(updated_at),"                    \
	" to_ms(started_at), to_ms(ended_at), to_ms(archived_at),"                                 \
	" webhook"
#define TASK_COLUMNS       TASK_COLUMNS_OF("input", "terms", "result")
#define TASK_COLUMNS_SHORT TASK_COLUMNS_OF("NULL", "NULL", "NULL")

enum { TASK_COLUMN_COUNT = 31 };

/*
 * PostgreSQL: who adds a task to a partition, or ends one of it, does so alone, so that a later one
 * is not seen without an earlier one, and the next is found when one ends. SQLite has one writer.
 */
#define TASK_LOCK(app, key) "pg_advisory_xact_lock(hashtextextended(" app " || ' ' || " key ", 0))"

void task_read(const struct op_value *, struct store_task *ret);
/* All rows; the caller frees. */
struct store_task *task_read_all(struct op_rows *, size_t *ret_count);
/* .. for a store_on_tasks. */
void task_decode_all(struct op_rows *, store_callback *, void *arg);

#endif
