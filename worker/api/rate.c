/* rate - see rate.h. */
#include "worker/api/rate.h"

#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/metric.h"

enum { MINUTE_MS = 60 * 1000, DAY_MS = 24 * 60 * MINUTE_MS };

struct rate_of
rate_of_key(const struct principal *who, const char *network)
{
	struct rate_of of = {.kind = who->kind, .rate = who->rate};
	struct buf name = BUF_INIT;

	buf_add_cstr(&name, who->key_id);
	if (who->kind == KEY_CLIENT) {
		buf_add_char(&name, '/');
		buf_add_cstr(&name, who->device_id != NULL ? who->device_id : network);
	} else {
		of.rpm_limit = who->rpm;
		of.rpd_limit = who->rpd;
		of.rpm = limiter_key_of("rpm", str_of(who->key_id));
		of.rpd = limiter_key_of("rpd", str_of(who->key_id));
		of.tpm = token_limit_of(str_of(who->key_id), who->tpm);
	}
	of.own = limiter_key_of("key", buf_str(&name));
	buf_fini(&name);
	return of;
}

/* ---- requests ---- */

static void
add_window(struct rate_ask *r, struct limiter_key key, struct limiter_rule rule, const char *unit)
{
	uint32_t cost = r->cost > 0 ? r->cost : 1;

	if (rule.limit == 0)
		return;
	r->units[r->ask.count] = unit;
	r->ask.windows[r->ask.count++] = (struct limit_window){key, rule, cost};
}

static void
choose_verdict(struct rate_ask *r)
{
	struct limiter_verdict nearest = {.is_allowed = true, .remaining = UINT32_MAX};

	r->unit = "";
	for (size_t i = 0; i < r->ask.decided; i++) {
		const struct limiter_verdict *v = &r->ask.verdicts[i];

		if (!v->is_allowed || v->remaining < nearest.remaining) {
			nearest = *v;
			r->unit = r->units[i];
		}
	}
	if (!nearest.is_allowed)
		metric_add(METRIC_RATE_LIMITED, r->limited, 0, 1);
	r->verdict = nearest;
}

static void
on_decided(struct limit_ask *ask)
{
	struct rate_ask *r = container_of(ask, struct rate_ask, ask);

	choose_verdict(r);
	r->on_decided(r);
}

bool
rate_take(struct limits *limits, const struct rate_of *of, struct rate_ask *r)
{
	const struct limiter_rule minute = {of->rpm_limit, MINUTE_MS},
				  day = {of->rpd_limit, DAY_MS};

	r->limited = of->kind == KEY_CLIENT ? LIMITED_CLIENT_KEY : LIMITED_SERVER_KEY;
	r->ask.on_decided = on_decided;
	r->ask.count = 0;
	add_window(r, of->rpm, minute, "requests per minute");
	add_window(r, of->rpd, day, "requests per day");
	add_window(r, of->own, of->rate, "requests in its window");
	if (!limits_take(limits, &r->ask))
		return false;
	choose_verdict(r);
	return true;
}

void
rate_cancel(struct rate_ask *r)
{
	limits_cancel(&r->ask);
}

/* ---- addresses ---- */

bool
rate_take_address(
    struct shm *shm, const struct conf *conf, const char *network, struct limiter_verdict *ret)
{
	const struct limiter_rule rule = {
	    (uint32_t)conf->limits.address_limit, (uint32_t)conf->limits.address_window_ms};

	*ret = (struct limiter_verdict){.is_allowed = true};
	if (rule.limit == 0)
		return true;
	*ret =
	    limiter_take(shm, limiter_key_of("address", str_of(network)), rule, 1, clock_mono_ms());
	if (!ret->is_allowed)
		metric_add(METRIC_RATE_LIMITED, LIMITED_ADDRESS, 0, 1);
	return ret->is_allowed;
}
