/*
 * usage_rows - how a row of usage is written, as a group of an operation: the row, what the day's
 * sum becomes by it, and the end of what was held for the call. Twice is once.
 *
 * Private to worker/store.
 */
#ifndef WORKER_STORE_USAGE_ROWS_H
#define WORKER_STORE_USAGE_ROWS_H

#include "worker/store/op_wire.h"
#include "worker/store/store.h"

#define USAGE_PARAMS                                                                               \
	"usage_id app_id org_id key_id of_session_id of_turn_id model provider provider_model "    \
	"input_tokens output_tokens cached_tokens is_estimated cost_micros outcome attempts "      \
	"first_ms total_ms failed day created_at"

/*
 * Which part of a day's sum a statement adds to: another for each connection, for the row is locked
 * until its commit. SQLite has one writer.
 */
#define USAGE_PART_SQLITE   "0"
#define USAGE_PART_POSTGRES "pg_backend_pid() % 64"

#define USAGE_ADD_UP(part)                                                                         \
	"INSERT INTO usage_days (app_id, key_id, model, day, calls, failed_calls, input_tokens,"   \
	" output_tokens, cached_tokens, cost_micros, part) SELECT CAST($app_id AS text),"          \
	" coalesce(CAST($key_id AS text), ''), CAST($model AS text), CAST($day AS bigint), 1,"     \
	" CAST($failed AS bigint), CAST($input_tokens AS bigint), CAST($output_tokens AS bigint)," \
	" CAST($cached_tokens AS bigint), coalesce(CAST($cost_micros AS bigint), 0), " part
#define USAGE_ADD_TO_DAY                                                                           \
	" ON CONFLICT (day, app_id, key_id, model, part) DO UPDATE SET"                            \
	" calls = usage_days.calls + excluded.calls,"                                              \
	" failed_calls = usage_days.failed_calls + excluded.failed_calls,"                         \
	" input_tokens = usage_days.input_tokens + excluded.input_tokens,"                         \
	" output_tokens = usage_days.output_tokens + excluded.output_tokens,"                      \
	" cached_tokens = usage_days.cached_tokens + excluded.cached_tokens,"                      \
	" cost_micros = usage_days.cost_micros + excluded.cost_micros"
#define USAGE_INSERT                                                                               \
	"INSERT INTO usage (id, app_id, org_id, key_id, session_id, turn_id, model, provider,"     \
	" provider_model, input_tokens, output_tokens, cached_tokens, is_estimated, cost_micros,"  \
	" outcome, attempts, first_ms, total_ms, created_at) VALUES ($usage_id, $app_id,"          \
	" $org_id, $key_id, $of_session_id, $of_turn_id, $model, $provider, $provider_model,"      \
	" $input_tokens, $output_tokens, $cached_tokens, $is_estimated, $cost_micros, $outcome,"   \
	" $attempts, $first_ms, $total_ms, from_ms($created_at)) ON CONFLICT (id) DO NOTHING"
/* While the row is not there. */
#define USAGE_ADD_UP_SQLITE                                                                        \
	USAGE_ADD_UP(USAGE_PART_SQLITE)                                                            \
	" WHERE NOT EXISTS (SELECT 1 FROM usage WHERE id = $usage_id)" USAGE_ADD_TO_DAY
/* Adds up what it has written itself: the same write, sent before over a connection that broke, may
 * not have ended yet, and the row tells who is first. */
#define USAGE_INSERT_AND_ADD_UP_POSTGRES                                                           \
	"WITH new AS (" USAGE_INSERT                                                               \
	" RETURNING 1) " USAGE_ADD_UP(USAGE_PART_POSTGRES) " FROM new" USAGE_ADD_TO_DAY
#define USAGE_UNHOLD "DELETE FROM budget_holds WHERE id = $usage_id"

#define USAGE_STATEMENTS(group)                                                                    \
	{.sql = USAGE_ADD_UP_SQLITE, .postgres = "", .each = (group)},                             \
	    {.sql = USAGE_INSERT, .postgres = USAGE_INSERT_AND_ADD_UP_POSTGRES, .each = (group)},  \
	{                                                                                          \
		.sql = USAGE_UNHOLD, .each = (group)                                               \
	}

void usage_put(struct op_call *, const struct store_usage *); /* the values of USAGE_PARAMS */

#endif
