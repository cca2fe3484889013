/*
 * aside - what a tool asks the turn's model while it runs (sampling of MCP), beside the turn.
 *
 * It is no part of what was said: neither the history nor listeners hear of it. It costs what any
 * call of a model costs: tokens and money are reserved before, and it has a row of usage of its
 * own, which counts as the turn's.
 *
 *   TOKENS -> MONEY -> MODEL -> answered      a refusal, or a failure of the model: told to the
 * tool
 *      \__________\______\-- the tool's call ends: cancelled
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "worker/turn/turn_impl.h"

struct aside {
	struct list node; /* turn->asides */
	struct turn *turn;
	uint64_t handle, call, hold;
	bool has_reserved;
	struct token_ask tokens;
	json_t *messages;
	uint32_t max_tokens;
	struct buf text;
	char id[ID_MAX + 16]; /* of its usage */
	int64_t began_at;
	uint64_t began_ms, first_ms;
	tool_on_aside *on_answer;
	void *arg;
	struct loop_post refuse;
	const char *refusal;
};

/* ---- its cost ---- */

static uint64_t
input_estimate(const struct aside *a)
{
	return (json_dumpb(a->messages, NULL, 0, JSON_COMPACT) + 3) / 4;
}

static struct store_usage
usage_of(const struct aside *a, const struct provider_usage *u)
{
	return turn_usage_row(a->turn, a->id, a->began_at, u);
}

static void
settle_tokens(struct aside *a, uint64_t used)
{
	struct turn *t = a->turn;

	if (!a->has_reserved)
		return;
	a->has_reserved = false;
	tokens_settle(t->turns->limits, &t->key_tokens, a->tokens.tokens, used);
}

/* A call was made. */
static void
charge(struct aside *a, struct store_usage *row)
{
	struct turn *t = a->turn;
	uint64_t hold = a->hold;

	row->first_ms = a->first_ms;
	row->total_ms = loop_now_ms(t->turns->loop) - a->began_ms;
	if (row->total_ms < row->first_ms)
		row->total_ms = row->first_ms;
	t->usage.input_tokens += row->input_tokens;
	t->usage.output_tokens += row->output_tokens;
	t->usage.cached_tokens += row->cached_tokens;
	t->usage.is_estimated |= row->is_estimated;
	if (row->cost_micros < 0 || t->usage.cost_micros < 0)
		t->usage.cost_micros = -1;
	else
		t->usage.cost_micros += row->cost_micros;
	settle_tokens(a, row->input_tokens + row->output_tokens);
	a->hold = 0;
	if (hold != 0)
		hold_settle(t->turns->holds, hold);
	usage_add(t->turns->usages, row, hold);
}

static void
charge_cancelled(struct aside *a)
{
	struct provider_usage seen = {.is_estimated = true,
	    .input_tokens = input_estimate(a),
	    .output_tokens = (a->text.len + 3) / 4};
	struct store_usage row = usage_of(a, &seen);

	row.outcome = "cancelled";
	charge(a, &row);
}

/* ---- the end ---- */

static void
aside_free(struct aside *a)
{
	struct turns *ts = a->turn->turns;

	tokens_cancel(&a->tokens);
	if (a->call != 0) {
		provider_cancel(ts->providers, a->call);
		charge_cancelled(a);
	}
	settle_tokens(a, 0);
	if (a->hold != 0)
		hold_release(ts->holds, a->hold);
	loop_post_cancel(ts->loop, &a->refuse);
	list_del(&a->node);
	idmap_remove(ts->asides, a->handle);
	json_decref(a->messages);
	buf_fini(&a->text);
	free(a);
}

static void
answer(struct aside *a, const struct tool_aside *said)
{
	tool_on_aside *on_answer = a->on_answer;
	void *arg = a->arg;
	struct buf text = a->text; /* said has it */

	a->text = BUF_INIT;
	aside_free(a);
	on_answer(arg, said);
	buf_fini(&text);
}

static void
fail(struct aside *a, int err, const char *why)
{
	answer(a, &(struct tool_aside){.err = err, .why = why != NULL ? why : err_info(err)->text});
}

static void
run_refuse(struct loop_post *post)
{
	struct aside *a = container_of(post, struct aside, refuse);

	fail(a, E_RATE_LIMITED, NULL);
}

/* ---- the model ---- */

static void
on_text(void *arg, struct str text)
{
	struct aside *a = arg;
	uint64_t max = a->turn->turns->conf->turns.max_answer_bytes;

	if (a->first_ms == 0)
		a->first_ms = loop_now_ms(a->turn->turns->loop) - a->began_ms + 1;
	if (max == 0 || a->text.len + text.len <= max)
		buf_add_str(&a->text, text);
}

static void
on_restarted(void *arg)
{
	buf_clear(&((struct aside *)arg)->text);
}

static void
on_done(void *arg, const struct provider_result *r)
{
	struct aside *a = arg;
	struct store_usage row = usage_of(a, &r->usage);

	a->call = 0;
	if (r->err != 0 && row.input_tokens + row.output_tokens == 0)
		row.cost_micros = 0;
	row.provider = r->provider;
	row.provider_model = r->model;
	row.attempts = r->attempts;
	row.outcome = r->err == 0 ? "ok" : err_info(r->err)->code;
	charge(a, &row);
	if (r->err != 0)
		fail(a, r->err, r->message);
	else
		answer(a, &(struct tool_aside){.text = buf_str(&a->text),
			      .model = r->model,
			      .is_cut = r->finish == PROVIDER_FINISH_LENGTH});
}

static uint32_t
time_left_ms(const struct turn *t)
{
	uint64_t now = loop_now_ms(t->turns->loop), due = t->total_timer.due_ms;

	if (!loop_timer_is_set(&t->total_timer))
		return UINT32_MAX;
	return due <= now ? 1 : due - now < UINT32_MAX ? (uint32_t)(due - now) : UINT32_MAX;
}

static void
call_model(struct aside *a)
{
	static const struct provider_handlers handlers = {on_text, NULL, on_done, on_restarted};
	struct turn *t = a->turn;
	struct provider_request request = {
	    .model = t->model,
	    .messages = a->messages,
	    .max_tokens = a->max_tokens,
	    .timeout_ms = time_left_ms(t),
	    .request_id = t->http_request_id,
	    .traceparent = t->traceparent,
	};

	t->usage.calls++;
	a->call = provider_call(t->turns->providers, &request, &handlers, a);
}

/* ---- before it ---- */

static void
on_held(void *arg, int err, const struct hold_refusal *refusal)
{
	struct aside *a = arg;

	if (err == 0) {
		call_model(a);
		return;
	}
	a->hold = 0;
	fail(a, err, refusal != NULL ? refusal->message : NULL);
}

static void
hold_money(struct aside *a)
{
	struct turn *t = a->turn;
	struct turns *ts = t->turns;
	struct hold_question q = {.key = t->key_budget};
	struct provider_usage most = {
	    .output_tokens = (uint64_t)ts->conf->budgets.output_tokens, .is_estimated = true};

	if (t->app != NULL)
		q.app = budget_rule_of(t->app->budget.amount, t->app->budget.period);
	if (ts->holds == NULL || !hold_is_needed(&q)) {
		call_model(a);
		return;
	}
	if (a->max_tokens > 0 && a->max_tokens < most.output_tokens)
		most.output_tokens = a->max_tokens;
	most.input_tokens = input_estimate(a);
	q.usage = usage_of(a, &most);
	a->hold = hold_ask(ts->holds, &q, on_held, a);
}

static void
take_tokens(struct aside *a)
{
	a->has_reserved = a->tokens.verdict.is_allowed;
	if (a->has_reserved)
		hold_money(a);
	else
		loop_post(a->turn->turns->loop, &a->refuse);
}

static void
on_tokens(struct token_ask *tokens)
{
	take_tokens(container_of(tokens, struct aside, tokens));
}

static uint64_t
ask(void *self, json_t *messages, uint32_t max_tokens, tool_on_aside *on_answer, void *arg)
{
	struct turn *t = self;
	struct aside *a = xcalloc(1, sizeof(*a));

	check(t->state == TURN_STATE_TOOLS);
	a->turn = t;
	a->messages = json_incref(messages);
	a->max_tokens = max_tokens;
	a->on_answer = on_answer;
	a->arg = arg;
	a->began_at = clock_wall_ms();
	a->began_ms = loop_now_ms(t->turns->loop);
	a->refuse.run = run_refuse;
	a->tokens.on_decided = on_tokens;
	snprintf(a->id, sizeof(a->id), "%s.a%u", t->id.s, ++t->aside_count);
	list_add_tail(&t->asides, &a->node);
	uint64_t handle = a->handle = idmap_add(t->turns->asides, a);
	if (t->key_tokens.limit == 0)
		hold_money(a);
	else if (tokens_reserve(t->turns->limits, &t->key_tokens, input_estimate(a), &a->tokens))
		take_tokens(a);
	return handle;
}

static void
cancel(void *self, uint64_t handle)
{
	struct turn *t = self;
	struct aside *a = handle != 0 ? idmap_get(t->turns->asides, handle) : NULL;

	if (a != NULL)
		aside_free(a);
}

struct tool_caller
turn_caller(struct turn *t)
{
	return (struct tool_caller){t, ask, cancel};
}

void
turn_drop_asides(struct turn *t)
{
	struct aside *a;

	while ((a = list_first(&t->asides, struct aside, node)) != NULL)
		aside_free(a);
}
