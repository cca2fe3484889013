/*
 * charge - the money of a turn's model calls: what is held before a call, what is written after it.
 *
 * Each call that was made has one row of usage, under the id of its hold, however it ended: what
 * failed costs nothing, what was cancelled costs what was seen of it. Until the turn's end is in
 * the record its holds are renewed: a hop's row may be written late.
 */
#include <stdlib.h>

#include "common/clock.h"
#include "worker/turn/turn_impl.h"
#include "worker/usage/refusal.h"

/* Bytes / 4, as nobody but the provider can count. */
static uint64_t
input_estimate(const struct turn *t)
{
	size_t bytes = t->history.len;

	if (json_array_size(t->messages) > 0)
		bytes += json_dumpb(t->messages, NULL, 0, JSON_COMPACT);
	if (t->tools != NULL)
		bytes += json_dumpb(t->tools, NULL, 0, JSON_COMPACT);
	return (bytes + 3) / 4;
}

static const char *
call_id(struct turn *t)
{
	return arena_printf(&t->arena, "%s.%u", t->id.s, t->hop);
}

struct store_usage
turn_usage_row(
    const struct turn *t, const char *id, int64_t began_at, const struct provider_usage *u)
{
	return (struct store_usage){
	    .id = id,
	    .app_id = t->app_id,
	    .org_id = t->org_id,
	    .key_id = t->key_id,
	    .session_id = t->session_id.s,
	    .turn_id = t->id.s,
	    .model = t->model,
	    .input_tokens = u->input_tokens,
	    .output_tokens = u->output_tokens,
	    .cached_tokens = u->cached_tokens,
	    .is_estimated = u->is_estimated,
	    .cost_micros = providers_cost(t->turns->providers, t->model, u),
	    .created_at = began_at,
	};
}

static struct store_usage
usage_of(struct turn *t, const struct provider_usage *u)
{
	return turn_usage_row(t, call_id(t), t->call_began_at, u);
}

/* ---- before: tokens ---- */

static void
settle_tokens(struct turn *t, uint64_t used)
{
	tokens_cancel(&t->tokens);
	tokens_settle(t->turns->limits, &t->key_tokens, t->reserved_tokens, used);
	t->reserved_tokens = 0;
}

/* What is told beside the error; text is JSON. */
static void
set_exceeded(struct turn *t, const char *what, struct str text)
{
	json_decref(t->exceeded_json);
	t->exceeded_json = json_loadb(text.p, text.len, 0, NULL);
	t->exceeded = t->exceeded_json != NULL ? what : NULL;
}

static void
refuse_tokens(struct turn *t)
{
	const struct limiter_verdict *v = &t->tokens.verdict;
	struct buf message = BUF_INIT, limit = BUF_INIT;

	refusal_message(v, TOKENS_UNIT, &message);
	refusal_of_limit(v, TOKENS_UNIT, &limit);
	set_exceeded(t, "limit", buf_str(&limit));
	t->retry_after_ms = v->retry_after_ms > 0 ? v->retry_after_ms : 1;
	turn_fail(t, E_RATE_LIMITED, message.data);
	buf_fini(&message);
	buf_fini(&limit);
}

/* False: the turn has failed. */
static bool
take_tokens(struct turn *t)
{
	t->reserved_tokens = t->tokens.tokens;
	if (t->tokens.verdict.is_allowed)
		return true;
	refuse_tokens(t);
	return false;
}

static bool hold_money(struct turn *);

static void
on_tokens(struct token_ask *tokens)
{
	struct turn *t = container_of(tokens, struct turn, tokens);

	check(t->state == TURN_STATE_CALL);
	if (take_tokens(t) && !hold_money(t))
		turn_call(t);
}

/* True: it waits for all hosts, or the turn has failed. */
static bool
reserve_tokens(struct turn *t)
{
	if (t->key_tokens.limit == 0)
		return false;
	t->tokens.on_decided = on_tokens;
	if (!tokens_reserve(t->turns->limits, &t->key_tokens, input_estimate(t), &t->tokens))
		return true;
	return !take_tokens(t);
}

/* ---- before: money ---- */

static void
refuse_money(struct turn *t, int err, const struct hold_refusal *refusal)
{
	struct buf budget = BUF_INIT;

	if (refusal == NULL) {
		turn_fail(t, err,
		    err == E_FORBIDDEN ? "The model has no price: it cannot be used under a budget."
				       : NULL);
		return;
	}
	refusal_of_budget(refusal, &budget);
	set_exceeded(t, "budget", buf_str(&budget));
	buf_fini(&budget);
	turn_fail(t, err, refusal->message);
}

static void
on_held(void *arg, int err, const struct hold_refusal *refusal)
{
	struct turn *t = arg;

	check(t->state == TURN_STATE_CALL && t->is_holding);
	t->is_holding = false;
	if (err == 0) {
		turn_call(t);
		return;
	}
	t->hold_count--;
	settle_tokens(t, 0);
	refuse_money(t, err, refusal);
}

static void
keep_hold(struct turn *t, uint64_t hold)
{
	t->holds = xrealloc(t->holds, (t->hold_count + 1) * sizeof(*t->holds));
	t->holds[t->hold_count++] = hold;
}

/* True: the record is asked. */
static bool
hold_money(struct turn *t)
{
	struct turns *ts = t->turns;
	struct hold_question q = {.key = t->key_budget};
	struct provider_usage most = {
	    .output_tokens = (uint64_t)ts->conf->budgets.output_tokens, .is_estimated = true};

	if (t->app != NULL)
		q.app = budget_rule_of(t->app->budget.amount, t->app->budget.period);
	if (ts->holds == NULL || !hold_is_needed(&q))
		return false;
	most.input_tokens = input_estimate(t);
	q.usage = usage_of(t, &most);
	t->is_holding = true;
	keep_hold(t, hold_ask(ts->holds, &q, on_held, t));
	return true;
}

bool
turn_charge_asks(struct turn *t)
{
	t->call_began_at = clock_wall_ms();
	t->call_began_ms = loop_now_ms(t->turns->loop);
	t->first_token_ms = 0;
	return reserve_tokens(t) || hold_money(t);
}

/* ---- after ---- */

static void
count(struct turn *t, const struct store_usage *row)
{
	t->usage.input_tokens += row->input_tokens;
	t->usage.output_tokens += row->output_tokens;
	t->usage.cached_tokens += row->cached_tokens;
	t->usage.is_estimated |= row->is_estimated;
	if (row->cost_micros < 0 || t->usage.cost_micros < 0)
		t->usage.cost_micros = -1;
	else
		t->usage.cost_micros += row->cost_micros;
	usage_count(row);
}

static void
write(struct turn *t, struct store_usage *row)
{
	row->first_ms = t->first_token_ms;
	row->total_ms = loop_now_ms(t->turns->loop) - t->call_began_ms;
	if (row->total_ms < row->first_ms)
		row->total_ms = row->first_ms;
	if (row->input_tokens + row->output_tokens > 0)
		count(t, row);
	settle_tokens(t, row->input_tokens + row->output_tokens);
	if (t->hold_count > 0)
		hold_settle(t->turns->holds, t->holds[t->hold_count - 1]);
	turn_save_usage(t, row);
}

/* What was asked and given, by its bytes. */
static struct provider_usage
seen(const struct turn *t)
{
	return (struct provider_usage){.is_estimated = true,
	    .input_tokens = input_estimate(t),
	    .output_tokens = (t->feed.text.len - t->hop_text + 3) / 4};
}

void
turn_charge_done(struct turn *t, const struct provider_result *r)
{
	struct store_usage row = usage_of(t, &r->usage);

	if (r->err != 0 && r->usage.input_tokens + r->usage.output_tokens == 0)
		row.cost_micros = 0;
	row.provider = r->provider;
	row.provider_model = r->model;
	row.attempts = r->attempts;
	row.outcome = r->err == 0 ? "ok" : err_info(r->err)->code;
	write(t, &row);
}

void
turn_charge_cancelled(struct turn *t)
{
	struct provider_usage usage = seen(t);
	struct store_usage row = usage_of(t, &usage);

	row.outcome = "cancelled";
	write(t, &row);
}

/* ---- holds ---- */

void
turn_charge_give_back(struct turn *t)
{
	if (t->provider_call == 0)
		settle_tokens(t, 0);
	if (!t->is_holding)
		return;
	t->is_holding = false;
	hold_release(t->turns->holds, t->holds[--t->hold_count]);
}

void
turn_charge_forget(struct turn *t)
{
	turn_charge_give_back(t);
	for (size_t i = 0; i < t->hold_count; i++)
		hold_forget(t->turns->holds, t->holds[i]);
	free(t->holds);
	t->holds = NULL;
	t->hold_count = 0;
}
