/* refusal - see refusal.h. */
#include "worker/usage/refusal.h"

#include "common/clock.h"
#include "common/money.h"

void
refusal_message(const struct limiter_verdict *v, const char *unit, struct buf *out)
{
	uint32_t seconds = (v->retry_after_ms + 999) / 1000;

	buf_printf(out, "Too many requests with this key: it has %u %s; try again in %u s.",
	    v->limit, unit, seconds > 0 ? seconds : 1);
}

void
refusal_of_limit(const struct limiter_verdict *v, const char *unit, struct buf *out)
{
	char time[CLOCK_RFC3339_LEN + 1];

	clock_format(clock_wall_ms() + v->retry_after_ms, time);
	buf_printf(out,
	    "{\"of\":\"key\",\"unit\":\"%s\",\"amount\":%u,\"remaining\":%u,\"resets_at\":\"%s\"}",
	    unit, v->limit, v->remaining, time);
}

static void
add_money(struct buf *out, const char *name, int64_t micros)
{
	char text[MONEY_TEXT_MAX];

	buf_printf(out, ",\"%s\":%s", name, money_format(micros, text));
}

void
refusal_of_budget(const struct hold_refusal *r, struct buf *out)
{
	char time[CLOCK_RFC3339_LEN + 1];

	buf_printf(out, "{\"of\":\"%s\",\"period\":\"%s\"", r->is_app ? "app" : "key",
	    budget_period_name(r->rule.period));
	add_money(out, "amount", r->rule.amount_micros);
	add_money(out, "spent", r->spent_micros);
	add_money(out, "reserved", r->held_micros);
	add_money(out, "requested", r->asked_micros);
	if (r->ends_at != 0) {
		clock_format(r->ends_at, time);
		buf_printf(out, ",\"resets_at\":\"%s\"}", time);
	} else
		buf_add_cstr(out, ",\"resets_at\":null}");
}
