/*
 * usage - what the calls of models used and cost: rows, and their sums. Those of turns are
 * written with their turns (turns.c).
 */
#include "worker/store/run.h"

#include <stdlib.h>
#include <string.h>

#include "common/budget.h"
#include "common/check.h"
#include "worker/store/usage_rows.h"

const struct op op_usage_by_model = {
    .name = "usage_by_model",
    .params = "app_id from to",
    .is_slow = true,
    .statements = {{.sql =
			"SELECT model, count(*), CAST(sum(input_tokens) AS bigint),"
			" CAST(sum(output_tokens) AS bigint), CAST(sum(cached_tokens) AS bigint),"
			" CAST(sum(coalesce(cost_micros, 0)) AS bigint) FROM usage"
			" WHERE app_id = $app_id AND created_at >= from_ms($from)"
			" AND created_at < from_ms($to) GROUP BY model ORDER BY model",
	.is_answer = true}},
};

const struct op op_usage_add = {
    .name = "usage_add",
    .params = "",
    .groups = {USAGE_PARAMS},
    .is_write = true,
    .is_first = true,
    .statements = {USAGE_STATEMENTS(1)},
};

const struct op op_usage_days = {
    .name = "usage_days",
    .params = "from_day to_day app_id key_id model limit",
    .is_slow = true,
    .statements = {{.sql = "SELECT app_id, key_id, model, day, CAST(sum(calls) AS bigint),"
			   " CAST(sum(failed_calls) AS bigint), CAST(sum(input_tokens) AS bigint),"
			   " CAST(sum(output_tokens) AS bigint),"
			   " CAST(sum(cached_tokens) AS bigint), CAST(sum(cost_micros) AS bigint)"
			   " FROM usage_days"
			   " WHERE day >= $from_day AND day <= $to_day"
			   " AND (CAST($app_id AS text) IS NULL OR app_id = $app_id)"
			   " AND (CAST($key_id AS text) IS NULL OR key_id = $key_id)"
			   " AND (CAST($model AS text) IS NULL OR model = $model)"
			   " GROUP BY day, app_id, key_id, model"
			   " ORDER BY day, app_id, key_id, model LIMIT $limit",
	.is_answer = true}},
};

void
usage_put(struct op_call *call, const struct store_usage *u)
{
	op_put_text(call, u->id);
	op_put_text(call, u->app_id);
	op_put_text(call, u->org_id);
	op_put_text(call, u->key_id);
	op_put_text(call, u->session_id);
	op_put_text(call, u->turn_id);
	op_put_text(call, u->model);
	op_put_text(call, u->provider);
	op_put_text(call, u->provider_model);
	op_put_int(call, (int64_t)u->input_tokens);
	op_put_int(call, (int64_t)u->output_tokens);
	op_put_int(call, (int64_t)u->cached_tokens);
	op_put_int(call, u->is_estimated);
	if (u->cost_micros < 0)
		op_put_text(call, NULL);
	else
		op_put_int(call, u->cost_micros);
	op_put_text(call, u->outcome);
	op_put_int(call, u->attempts);
	op_put_int(call, (int64_t)u->first_ms);
	op_put_int(call, (int64_t)u->total_ms);
	op_put_int(call, u->outcome != NULL && strcmp(u->outcome, "ok") != 0);
	op_put_int(call, budget_day(u->created_at));
	op_put_int(call, u->created_at);
}

void
store_usage_add(struct store *store, const struct store_usage *const *rows, size_t count,
    store_on_done *on_done, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_usage_add);
	op_put_count(&call, count);
	for (size_t i = 0; i < count; i++)
		usage_put(&call, rows[i]);
	store_run(store, &call, store_decode_done, (store_callback *)on_done, arg);
}

static void
decode_days(struct op_rows *rows, store_callback *callback, void *arg)
{
	store_on_usage_days *on_days = (store_on_usage_days *)callback;
	struct store_usage_day *days = xcalloc(rows->count + 1, sizeof(*days));
	struct op_value v[OP_VALUES_MAX];
	size_t count = 0;

	while (op_rows_next(rows, v))
		days[count++] = (struct store_usage_day){
		    .app_id = op_text(&v[0]),
		    .key_id = op_text(&v[1]),
		    .day = op_int(&v[3]),
		    .failed_calls = (uint64_t)op_int(&v[5]),
		    .sum = {.model = op_text(&v[2]),
			.calls = (uint64_t)op_int(&v[4]),
			.input_tokens = (uint64_t)op_int(&v[6]),
			.output_tokens = (uint64_t)op_int(&v[7]),
			.cached_tokens = (uint64_t)op_int(&v[8]),
			.cost_micros = op_int(&v[9])},
		};
	on_days(arg, rows->err, days, count);
	free(days);
}

void
store_usage_days(struct store *store, const struct store_usage_filter *f,
    store_on_usage_days *on_days, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_usage_days);
	op_put_int(&call, f->from_day);
	op_put_int(&call, f->to_day);
	op_put_text(&call, f->app_id);
	op_put_text(&call, f->key_id);
	op_put_text(&call, f->model);
	op_put_int(&call, f->limit);
	store_run(store, &call, decode_days, (store_callback *)on_days, arg);
}

static void
decode_usage(struct op_rows *rows, store_callback *callback, void *arg)
{
	store_on_usage *on_usage = (store_on_usage *)callback;
	struct store_usage_sum *sums = xcalloc(rows->count + 1, sizeof(*sums));
	struct op_value v[OP_VALUES_MAX];
	size_t count = 0;

	while (op_rows_next(rows, v))
		sums[count++] = (struct store_usage_sum){
		    .model = op_text(&v[0]),
		    .calls = (uint64_t)op_int(&v[1]),
		    .input_tokens = (uint64_t)op_int(&v[2]),
		    .output_tokens = (uint64_t)op_int(&v[3]),
		    .cached_tokens = (uint64_t)op_int(&v[4]),
		    .cost_micros = op_int(&v[5]),
		};
	on_usage(arg, rows->err, sums, count);
	free(sums);
}

void
store_usage_by_model(struct store *store, const char *app_id, int64_t from, int64_t to,
    store_on_usage *on_usage, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_usage_by_model);
	op_put_text(&call, app_id);
	op_put_int(&call, from);
	op_put_int(&call, to);
	store_run(store, &call, decode_usage, (store_callback *)on_usage, arg);
}
