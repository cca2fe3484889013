/* gateway_money - see gateway_money.h. */
#include "worker/api/gateway_money.h"

#include "common/clock.h"
#include "common/err.h"
#include "worker/usage/refusal.h"

void
gateway_money_init(struct gateway_money *m)
{
	*m = (struct gateway_money){.id = id_new("use"), .began_at = clock_wall_ms()};
}

static struct store_usage
usage_of(const struct gateway_money *m, const struct api_call *call, const char *alias,
    const struct provider_usage *u)
{
	return (struct store_usage){
	    .id = m->id.s,
	    .app_id = call->app_id,
	    .org_id = call->app != NULL ? call->app->org : NULL,
	    .key_id = call->key_id,
	    .model = alias,
	    .input_tokens = u->input_tokens,
	    .output_tokens = u->output_tokens,
	    .cached_tokens = u->cached_tokens,
	    .is_estimated = u->is_estimated,
	    .cost_micros = providers_cost(call->api->providers, alias, u),
	    .created_at = m->began_at,
	};
}

static uint64_t
output_estimate(const struct api_call *call, enum relay_kind kind, const struct body *body)
{
	uint64_t tokens = (uint64_t)call->api->conf->budgets.output_tokens;

	if (kind == RELAY_EMBEDDINGS)
		return 0;
	if (body->output_tokens_max > 0)
		return body->output_tokens_max;
	return body->choices > 1 && body->choices < UINT32_MAX ? tokens * body->choices : tokens;
}

struct hold_question
gateway_money_question(const struct gateway_money *m, const struct api_call *call,
    const char *alias, enum relay_kind kind, const struct body *body)
{
	const struct provider_usage most = {.input_tokens = (body->text.len + 3) / 4,
	    .output_tokens = output_estimate(call, kind, body),
	    .is_estimated = true};
	struct hold_question q = {.usage = usage_of(m, call, alias, &most), .key = call->budget};

	if (call->app != NULL)
		q.app = budget_rule_of(call->app->budget.amount, call->app->budget.period);
	return q;
}

static void
refuse_over(struct api_call *call, const struct hold_refusal *r)
{
	struct buf text = BUF_INIT;

	refusal_of_budget(r, &text);
	call_reply_error_with(call, E_BUDGET_EXCEEDED, r->message, "budget",
	    json_loadb(text.data, text.len, 0, NULL));
	buf_fini(&text);
}

void
gateway_money_refuse(struct api_call *call, int err, const struct hold_refusal *r)
{
	struct http_req *req = call_req(call);

	if (req != NULL)
		http_on_gone(req, NULL, NULL);
	if (r != NULL)
		refuse_over(call, r);
	else if (err == E_FORBIDDEN)
		call_reply_error(call, err, "model",
		    "The model has no price: it cannot be used under a budget.");
	else
		call_reply_error(call, err, NULL, NULL);
}

/* What fails is not billed, also when a part of it was given; what the client has broken off is. */
static bool
is_billed(const struct relay_report *r)
{
	return r->err == 0 || (r->err == E_CANCELLED && r->attempts > 0);
}

uint64_t
gateway_money_settle(const struct gateway_money *m, const struct api_call *call, const char *alias,
    const struct relay_report *r)
{
	const struct provider_usage nothing = {0};
	bool costs = is_billed(r);
	struct store_usage row = usage_of(m, call, alias, costs ? &r->usage : &nothing);

	if (!costs)
		row.cost_micros = 0;
	row.provider = r->provider;
	row.provider_model = r->model;
	row.outcome = r->err == 0 ? "ok" : err_info(r->err)->code;
	row.attempts = r->attempts;
	row.first_ms = r->first_ms;
	row.total_ms = r->total_ms;
	usage_add(call->api->usages, &row, m->hold);
	return row.input_tokens + row.output_tokens;
}
