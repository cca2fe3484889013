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
		of.tpm_limit = who->tpm;
		of.tpm = limiter_key_of("tpm", str_of(who->key_id));
	}
	of.own = limiter_key_of("key", buf_str(&name));
	buf_fini(&name);
	return of;
}

bool
rate_take(
    struct shm *shm, const struct rate_of *of, struct limiter_verdict *ret, const char **ret_unit)
{
	const struct {
		const struct limiter_key *key;
		struct limiter_rule rule;
		const char *unit;
	} windows[] = {
	    {&of->rpm, {of->rpm_limit, MINUTE_MS}, "requests per minute"},
	    {&of->rpd, {of->rpd_limit, DAY_MS}, "requests per day"},
	    {&of->own, of->rate, "requests in its window"},
	};
	const char *unit = "";
	struct limiter_verdict nearest = {.is_allowed = true, .remaining = UINT32_MAX};

	for (size_t i = 0; i < ARRAY_LEN(windows) && nearest.is_allowed; i++) {
		if (windows[i].rule.limit == 0)
			continue;
		struct limiter_verdict v =
		    limiter_take(shm, *windows[i].key, windows[i].rule, 1, clock_mono_ms());
		if (!v.is_allowed || v.remaining < nearest.remaining) {
			nearest = v;
			unit = windows[i].unit;
		}
	}
	if (!nearest.is_allowed)
		metric_add(METRIC_RATE_LIMITED,
		    of->kind == KEY_CLIENT ? LIMITED_CLIENT_KEY : LIMITED_SERVER_KEY, 0, 1);
	*ret = nearest;
	if (ret_unit != NULL)
		*ret_unit = unit;
	return nearest.is_allowed;
}

bool
rate_reserve_tokens(struct shm *shm, const struct rate_of *of, uint64_t tokens,
    uint32_t *ret_tokens, struct limiter_verdict *ret)
{
	const struct limiter_rule rule = {of->tpm_limit, MINUTE_MS};
	uint32_t cost = tokens < rule.limit ? (uint32_t)tokens : rule.limit;

	*ret = (struct limiter_verdict){.is_allowed = true};
	*ret_tokens = 0;
	if (rule.limit == 0)
		return true;
	*ret = limiter_take(shm, of->tpm, rule, cost > 0 ? cost : 1, clock_mono_ms());
	if (ret->is_allowed)
		*ret_tokens = cost > 0 ? cost : 1;
	else
		metric_add(METRIC_RATE_LIMITED, LIMITED_TOKENS, 0, 1);
	return ret->is_allowed;
}

/* What was used beyond the reservation is taken as far as the window holds it: then it is full. */
void
rate_settle_tokens(struct shm *shm, const struct rate_of *of, uint32_t reserved, uint64_t used)
{
	const struct limiter_rule rule = {of->tpm_limit, MINUTE_MS};
	uint64_t now_ms = clock_mono_ms(), more = used > reserved ? used - reserved : 0;

	if (rule.limit == 0)
		return;
	if (used < reserved)
		limiter_give(shm, of->tpm, rule, (uint32_t)(reserved - used), now_ms);
	if (more == 0)
		return;
	uint32_t left = limiter_take(shm, of->tpm, rule, 0, now_ms).remaining;
	if (left > 0)
		limiter_take(shm, of->tpm, rule, more < left ? (uint32_t)more : left, now_ms);
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
