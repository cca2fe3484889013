/* tokens - see tokens.h. */
#include "worker/usage/tokens.h"

#include "common/list.h"
#include "common/metric.h"

enum { MINUTE_MS = 60 * 1000 };

struct token_limit
token_limit_of(struct str key_id, uint32_t limit)
{
	return (struct token_limit){limiter_key_of("tpm", key_id), limit};
}

static void
take_verdict(struct token_ask *r)
{
	r->verdict = (struct limiter_verdict){.is_allowed = true, .remaining = UINT32_MAX};
	if (r->ask.decided > 0)
		r->verdict = r->ask.verdicts[0];
	if (r->verdict.is_allowed)
		return;
	r->tokens = 0;
	metric_add(METRIC_RATE_LIMITED, LIMITED_TOKENS, 0, 1);
}

static void
on_decided(struct limit_ask *ask)
{
	struct token_ask *r = container_of(ask, struct token_ask, ask);

	take_verdict(r);
	r->on_decided(r);
}

bool
tokens_reserve(
    struct limits *limits, const struct token_limit *of, uint64_t tokens, struct token_ask *r)
{
	uint32_t cost = tokens < of->limit ? (uint32_t)tokens : of->limit;

	r->ask.on_decided = on_decided;
	r->ask.count = r->ask.decided = 0;
	r->tokens = 0;
	if (of->limit > 0) {
		r->tokens = cost > 0 ? cost : 1;
		r->ask.windows[r->ask.count++] =
		    (struct limit_window){of->key, {of->limit, MINUTE_MS}, r->tokens};
		if (!limits_take(limits, &r->ask))
			return false;
	}
	take_verdict(r);
	return true;
}

void
tokens_cancel(struct token_ask *r)
{
	limits_cancel(&r->ask);
}

void
tokens_settle(struct limits *limits, const struct token_limit *of, uint32_t reserved, uint64_t used)
{
	struct limit_window w = {of->key, {of->limit, MINUTE_MS}, 0};
	uint64_t more = used > reserved ? used - reserved : 0;

	if (of->limit == 0)
		return;
	if (used < reserved) {
		w.cost = (uint32_t)(reserved - used);
		limits_give(limits, &w);
	} else if (more > 0) {
		w.cost = more < of->limit ? (uint32_t)more : of->limit;
		limits_fill(limits, &w);
	}
}
