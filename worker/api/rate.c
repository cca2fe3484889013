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
	}
	of.own = limiter_key_of("key", buf_str(&name));
	buf_fini(&name);
	return of;
}

bool
rate_take(struct shm *shm, const struct rate_of *of, struct limiter_verdict *ret)
{
	const struct {
		const struct limiter_key *key;
		struct limiter_rule rule;
	} windows[] = {
	    {&of->rpm, {of->rpm_limit, MINUTE_MS}},
	    {&of->rpd, {of->rpd_limit, DAY_MS}},
	    {&of->own, of->rate},
	};
	struct limiter_verdict nearest = {.is_allowed = true, .remaining = UINT32_MAX};

	for (size_t i = 0; i < ARRAY_LEN(windows) && nearest.is_allowed; i++) {
		if (windows[i].rule.limit == 0)
			continue;
		struct limiter_verdict v =
		    limiter_take(shm, *windows[i].key, windows[i].rule, 1, clock_mono_ms());
		if (!v.is_allowed || v.remaining < nearest.remaining)
			nearest = v;
	}
	if (!nearest.is_allowed)
		metric_add(METRIC_RATE_LIMITED,
		    of->kind == KEY_CLIENT ? LIMITED_CLIENT_KEY : LIMITED_SERVER_KEY, 0, 1);
	*ret = nearest;
	return nearest.is_allowed;
}

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
