/* retry - see retry.h. */
#include "worker/provider/retry.h"

#include <string.h>
#include <time.h>

enum { RETRY_AFTER_MAX_S = 86400, BACKOFF_DOUBLINGS_MAX = 20 };

/* ---- what next ---- */

/* Before jitter. */
static double
backoff_ms(const struct retry_case *c)
{
	uint32_t n = c->tries - 1;
	double ms =
	    c->backoff_factor_s * 1000 *
	    (double)(UINT64_C(1) << (n < BACKOFF_DOUBLINGS_MAX ? n : BACKOFF_DOUBLINGS_MAX));

	return c->backoff_max_ms > 0 && ms > c->backoff_max_ms ? c->backoff_max_ms : ms;
}

bool
retry_may_wait(double wait_ms, uint64_t backoff_max_ms, uint64_t left_ms)
{
	return wait_ms < (double)left_ms &&
	       (backoff_max_ms == 0 || wait_ms <= (double)backoff_max_ms);
}

enum retry_step
retry_decide(const struct retry_case *c, uint32_t *ret_wait_ms)
{
	const struct failure_info *info = failure_info(c->failure);
	bool may_go_on = info->may_go_elsewhere && c->has_next;
	enum retry_step otherwise = may_go_on ? RETRY_NEXT : RETRY_NOT;
	double backoff = backoff_ms(c), wait_ms = backoff * c->dice;

	if (c->has_begun || !info->may_go_again || c->tries > c->retries_max)
		return otherwise;
	if (c->retry_after_ms > 0) {
		if (may_go_on && c->retry_after_ms > backoff)
			return RETRY_NEXT;
		wait_ms = c->retry_after_ms;
	}
	if (!retry_may_wait(wait_ms, c->backoff_max_ms, c->left_ms))
		return otherwise;
	*ret_wait_ms = (uint32_t)wait_ms;
	return RETRY_SAME;
}

/* ---- the budget ---- */

void
retry_note_call(struct tally *t, uint64_t now_ms)
{
	tally_add(t, RETRY_WINDOW_MS, 1, 0, now_ms);
}

bool
retry_take(struct tally *t, uint64_t now_ms)
{
	struct tally_counts n = tally_read(t, RETRY_WINDOW_MS, 0, now_ms);

	if (n.b >= RETRY_BUDGET_MIN && n.b * 100 >= n.a * RETRY_BUDGET_PERCENT)
		return false;
	tally_add(t, RETRY_WINDOW_MS, 0, 1, now_ms);
	return true;
}

/* ---- Retry-After ---- */

/* IMF-fixdate, and the two obsolete forms that a recipient must take. False: none of them. */
static bool
parse_date(struct str value, int64_t *ret_s)
{
	static const char *const forms[] = {
	    "%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"};
	char text[64];

	if (value.len >= sizeof(text))
		return false;
	memcpy(text, value.p, value.len);
	text[value.len] = '\0';
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		struct tm tm = {0};
		const char *end = strptime(text, forms[i], &tm);

		if (end != NULL && *end == '\0') {
			*ret_s = timegm(&tm);
			return true;
		}
	}
	return false;
}

uint32_t
retry_after_parse(struct str value, int64_t wall_ms)
{
	uint64_t seconds = 0;
	int64_t at_s, left_ms;

	if (value.len == 0)
		return 0;
	if (str_to_u64(value, &seconds))
		left_ms =
		    (int64_t)(seconds < RETRY_AFTER_MAX_S ? seconds : RETRY_AFTER_MAX_S) * 1000;
	else if (parse_date(value, &at_s))
		left_ms = at_s * 1000 - wall_ms;
	else
		return 0;
	if (left_ms < 0)
		return 0;
	return (uint32_t)(left_ms < RETRY_AFTER_MAX_S * 1000 ? left_ms : RETRY_AFTER_MAX_S * 1000);
}
