/*
 * budget - money that is held for calls in progress.
 *
 * What a budget has left is decided in one transaction: what was spent (the sums of days) and
 * what is held, of the period's days, and the new hold beside them. Writes of the usage of a call
 * end its hold (usage_rows.h). A hold whose lease has run out was its worker's, which is dead: its
 * estimate becomes usage.
 */
#include "worker/store/run.h"

#include "common/budget.h"
#include "common/check.h"
#include "common/err.h"
#include "worker/store/usage_rows.h"

/* PostgreSQL lets the reservations of one app go one after another. */
#define LOCK_APP "SELECT pg_advisory_xact_lock(hashtextextended($app_id, 7))"
#define SUM_OF(table, who, name, id, since)                                                        \
	"(SELECT CAST(coalesce(sum(cost_micros), 0) AS bigint) FROM " table " WHERE " who " = " id \
	" AND day >= " since ") AS " name
#define IS_ADVANCE "substr(id, 1, 4) = 'adv_'"
#define EXCEEDS(who, id, since, limit)                                                             \
	"SELECT '" who "', spent, held, (SELECT CAST(coalesce(sum(cost_micros), 0) AS bigint)"     \
	" FROM budget_holds WHERE " who "_id = " id " AND day >= " since " AND " IS_ADVANCE        \
	") FROM (SELECT " SUM_OF("usage_days", who "_id", "spent", id, since) ", " SUM_OF(         \
	    "budget_holds", who "_id", "held", id,                                                 \
	    since) ") AS used WHERE CAST(" limit " AS bigint) > 0"                                 \
		   " AND spent + held > CAST(" limit " AS bigint) - CAST($cost_micros AS bigint)"

const struct op op_budget_hold = {
    .name = "budget_hold",
    .params = "id app_id org_id key_id session_id turn_id model day input_tokens output_tokens "
	      "cost_micros created_at lapses_at key_limit key_day app_limit app_day",
    .is_write = true,
    .statements =
	{
	    {.sql = "", .postgres = LOCK_APP},
	    {.sql = "SELECT 1 FROM budget_holds WHERE id = $id", .expect = OP_DONE_IF_ROW},
	    {.sql = EXCEEDS("key", "$key_id", "$key_day", "$key_limit"),
		.expect = OP_NONE,
		.err = E_BUDGET_EXCEEDED},
	    {.sql = EXCEEDS("app", "$app_id", "$app_day", "$app_limit"),
		.expect = OP_NONE,
		.err = E_BUDGET_EXCEEDED},
	    {.sql = "INSERT INTO budget_holds (id, app_id, org_id, key_id, session_id, turn_id,"
		    " model, day, input_tokens, output_tokens, cost_micros, created_at, lapses_at)"
		    " VALUES ($id, $app_id, $org_id, $key_id, $session_id, $turn_id, $model, $day,"
		    " $input_tokens, $output_tokens, $cost_micros, from_ms($created_at),"
		    " from_ms($lapses_at))"},
	},
};

/* What a budget has left beside the advance's own row, after what that must keep. */
#define LEFT_OF(who, id, since, limit)                                                             \
	"(SELECT CASE WHEN CAST(" limit " AS bigint) > 0 THEN CAST(" limit " AS bigint) - spent"   \
	" - held + (SELECT coalesce(max(cost_micros), 0) FROM budget_holds WHERE id = $id)"        \
	" - CAST($keep AS bigint) ELSE 9000000000000000 END FROM (SELECT " SUM_OF("usage_days",    \
	    who "_id", "spent", id,                                                                \
	    since) ", " SUM_OF("budget_holds", who "_id", "held", id, since) ") AS " who "_used)"
#define SHARE(least)                                                                               \
	"(SELECT " least "(" LEFT_OF("key", "$key_id", "$key_day", "$key_limit") ", " LEFT_OF(     \
	    "app", "$app_id", "$app_day", "$app_limit") ") / 64 AS share) AS left_over"
#define ADVANCE(least, greatest)                                                                   \
	"INSERT INTO budget_holds (id, app_id, org_id, key_id, model, day, input_tokens,"          \
	" output_tokens, cost_micros, created_at, lapses_at) SELECT CAST($id AS text),"            \
	" CAST($app_id AS text), CAST($org_id AS text), CAST($key_id AS text),"                    \
	" CAST($model AS text), CAST($day AS bigint), 0, 0, CAST($keep AS bigint)"                 \
	" + CASE WHEN share < CAST($least AS bigint) THEN 0 ELSE " greatest "(0, " least           \
	"(CAST($want AS bigint), share) - CAST($free AS bigint)) END, from_ms($created_at),"       \
	" from_ms($lapses_at) FROM " SHARE(                                                        \
	    least) " WHERE true ON CONFLICT (id) DO UPDATE SET"                                    \
		   " cost_micros = excluded.cost_micros, lapses_at = excluded.lapses_at"
_Static_assert(STORE_ADVANCE_SHARE == 64, "SHARE says so");

const struct op op_budget_advance = {
    .name = "budget_advance",
    .params = "id app_id org_id key_id model day created_at lapses_at key_limit key_day app_limit "
	      "app_day keep free want least",
    .groups = {"call_id call_session call_turn call_day input_tokens output_tokens call_cost "
	       "call_created"},
    .is_write = true,
    .is_first = true,
    .statements =
	{
	    {.sql = "", .postgres = LOCK_APP},
	    {.sql = "INSERT INTO budget_holds (id, app_id, org_id, key_id, session_id, turn_id,"
		    " model, day, input_tokens, output_tokens, cost_micros, created_at, lapses_at)"
		    " VALUES ($call_id, $app_id, $org_id, $key_id, $call_session, $call_turn,"
		    " $model, $call_day, $input_tokens, $output_tokens, $call_cost,"
		    " from_ms($call_created), from_ms($lapses_at)) ON CONFLICT (id) DO NOTHING",
		.each = 1},
	    {.sql = ADVANCE("min", "max"), .postgres = ADVANCE("least", "greatest")},
	    {.sql = "SELECT cost_micros FROM budget_holds WHERE id = $id", .is_answer = true},
	},
};

const struct op op_budget_renew = {
    .name = "budget_renew",
    .params = "lapses_at",
    .groups = {"id"},
    .is_write = true,
    .is_first = true,
    .is_upkeep = true,
    .statements = {{.sql = "UPDATE budget_holds SET lapses_at = from_ms($lapses_at)"
			   " WHERE id = $id",
	.each = 1}},
};

const struct op op_budget_release = {
    .name = "budget_release",
    .params = "id",
    .is_write = true,
    .is_first = true,
    .statements = {{.sql = "DELETE FROM budget_holds WHERE id = $id"}},
};

#define LAPSED       " FROM budget_holds WHERE lapses_at < from_ms($now)"
#define LAPSED_CALLS LAPSED " AND NOT " IS_ADVANCE
#define LOSE_ADD_UP                                                                                \
	"INSERT INTO usage_days (app_id, key_id, model, day, calls, failed_calls, input_tokens,"   \
	" output_tokens, cached_tokens, cost_micros) SELECT app_id, coalesce(key_id, ''), model,"  \
	" day, count(*), count(*), sum(input_tokens), sum(output_tokens), 0, sum(cost_micros)"
#define LOSE_BY_DAY " GROUP BY app_id, coalesce(key_id, ''), model, day" USAGE_ADD_TO_DAY
#define LOSE_INSERT(yes)                                                                           \
	"INSERT INTO usage (id, app_id, org_id, key_id, session_id, turn_id, model, input_tokens," \
	" output_tokens, cached_tokens, is_estimated, cost_micros, outcome, created_at) SELECT "   \
	"id,"                                                                                      \
	" app_id, org_id, key_id, session_id, turn_id, model, input_tokens, output_tokens, 0,"     \
	" " yes ", cost_micros, 'lost', created_at" LAPSED_CALLS " ON CONFLICT (id) DO NOTHING"

/* PostgreSQL adds up what was inserted, as in usage_rows.h. */
const struct op op_budget_lose = {
    .name = "budget_lose",
    .params = "now",
    .is_write = true,
    .is_upkeep = true,
    .statements =
	{
	    {.sql = LOSE_ADD_UP LAPSED_CALLS " AND NOT EXISTS (SELECT 1 FROM usage"
					     " WHERE usage.id = budget_holds.id)" LOSE_BY_DAY,
		.postgres = ""},
	    {.sql = LOSE_INSERT("1"),
		.postgres = "WITH new AS (" LOSE_INSERT(
		    "true") " RETURNING id) " LOSE_ADD_UP
			    " FROM budget_holds WHERE id IN (SELECT id FROM new)" LOSE_BY_DAY},
	    {.sql = "DELETE" LAPSED " AND " IS_ADVANCE},
	    {.sql = "DELETE" LAPSED, .is_answer = true},
	},
};

static void
decode_held(struct op_rows *rows, store_callback *callback, void *arg)
{
	store_on_held *on_held = (store_on_held *)callback;
	struct op_value v[OP_VALUES_MAX];
	struct store_budget_state state = {.is_app = false};

	if (rows->err == E_BUDGET_EXCEEDED && rows->columns == 4 && op_rows_next(rows, v)) {
		state.is_app = strcmp(op_text(&v[0]), "app") == 0;
		state.spent_micros = op_int(&v[1]);
		state.held_micros = op_int(&v[2]);
		state.advanced_micros = op_int(&v[3]);
	}
	on_held(arg, rows->err, &state);
}

void
store_budget_hold(
    struct store *store, const struct store_budget_hold *h, store_on_held *on_held, void *arg)
{
	struct op_call call;

	check(h->usage.cost_micros >= 0);
	op_call_init(&call, &op_budget_hold);
	op_put_text(&call, h->usage.id);
	op_put_text(&call, h->usage.app_id);
	op_put_text(&call, h->usage.org_id);
	op_put_text(&call, h->usage.key_id);
	op_put_text(&call, h->usage.session_id);
	op_put_text(&call, h->usage.turn_id);
	op_put_text(&call, h->usage.model);
	op_put_int(&call, budget_day(h->usage.created_at));
	op_put_int(&call, (int64_t)h->usage.input_tokens);
	op_put_int(&call, (int64_t)h->usage.output_tokens);
	op_put_int(&call, h->usage.cost_micros);
	op_put_int(&call, h->usage.created_at);
	op_put_int(&call, h->lapses_at);
	op_put_int(&call, h->key_limit_micros);
	op_put_int(&call, h->key_day);
	op_put_int(&call, h->app_limit_micros);
	op_put_int(&call, h->app_day);
	store_run(store, &call, decode_held, (store_callback *)on_held, arg);
}

static void
decode_advanced(struct op_rows *rows, store_callback *callback, void *arg)
{
	struct op_value v[OP_VALUES_MAX];
	int64_t amount = 0;

	if (rows->err == 0 && op_rows_next(rows, v))
		amount = op_int(&v[0]);
	((store_on_advanced *)callback)(arg, rows->err, amount);
}

static void
put_paid_call(struct op_call *call, const struct store_usage *u)
{
	op_put_text(call, u->id);
	op_put_text(call, u->session_id);
	op_put_text(call, u->turn_id);
	op_put_int(call, budget_day(u->created_at));
	op_put_int(call, (int64_t)u->input_tokens);
	op_put_int(call, (int64_t)u->output_tokens);
	op_put_int(call, u->cost_micros);
	op_put_int(call, u->created_at);
}

void
store_budget_advance(struct store *store, const struct store_budget_advance *a,
    store_on_advanced *on_advanced, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_budget_advance);
	op_put_text(&call, a->id);
	op_put_text(&call, a->app_id);
	op_put_text(&call, a->org_id);
	op_put_text(&call, a->key_id);
	op_put_text(&call, a->model);
	op_put_int(&call, budget_day(a->created_at));
	op_put_int(&call, a->created_at);
	op_put_int(&call, a->lapses_at);
	op_put_int(&call, a->key_limit_micros);
	op_put_int(&call, a->key_day);
	op_put_int(&call, a->app_limit_micros);
	op_put_int(&call, a->app_day);
	op_put_int(&call, a->keep_micros);
	op_put_int(&call, a->free_micros);
	op_put_int(&call, a->want_micros);
	op_put_int(&call, a->least_micros);
	op_put_count(&call, a->count);
	for (size_t i = 0; i < a->count; i++)
		put_paid_call(&call, a->calls[i]);
	store_run(store, &call, decode_advanced, (store_callback *)on_advanced, arg);
}

void
store_budget_renew(struct store *store, const char *const *ids, size_t count, int64_t lapses_at,
    store_on_done *on_done, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_budget_renew);
	op_put_int(&call, lapses_at);
	op_put_count(&call, count);
	for (size_t i = 0; i < count; i++)
		op_put_text(&call, ids[i]);
	store_run(store, &call, store_decode_done, (store_callback *)on_done, arg);
}

void
store_budget_release(struct store *store, const char *id, store_on_done *on_done, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_budget_release);
	op_put_text(&call, id);
	store_run(store, &call, store_decode_done, (store_callback *)on_done, arg);
}

void
store_budget_lose(struct store *store, int64_t now, store_on_count *on_count, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_budget_lose);
	op_put_int(&call, now);
	store_run(store, &call, store_decode_count, (store_callback *)on_count, arg);
}
