/*
 * usage - what the calls of models used and cost, summed up. Rows are written
 * with their turns (turns.c).
 */
#include "worker/store/run.h"

#include <stdlib.h>

#include "common/check.h"

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
