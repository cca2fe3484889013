/* retry - see retry.h. */
#include "worker/task/retry.h"

#include "common/err.h"

enum { LATER_MS = 1000 };

enum task_again
task_again_of(int err)
{
	switch (err) {
	case E_PROVIDER:
	case E_PROVIDER_TIMEOUT:
		return TASK_AGAIN;
	case E_RATE_LIMITED:
	case E_POOL_TIMEOUT:
	case E_UNAVAILABLE: /* a breaker is open */
	case E_STORE_UNAVAILABLE:
		return TASK_LATER;
	default:
		return TASK_NEVER;
	}
}

/* Twice as long after each attempt, give or take a half by chance, so that those who failed
 * together do not come back together. */
static uint64_t
backoff_ms(const struct task_retry *r)
{
	uint64_t ms = r->backoff_ms;

	if (r->again == TASK_LATER)
		ms = ms < LATER_MS ? ms : LATER_MS;
	else
		for (uint32_t i = 1; i < r->attempts && ms < r->backoff_max_ms; i++)
			ms *= 2;
	if (ms > r->backoff_max_ms)
		ms = r->backoff_max_ms;
	return ms / 2 + (uint64_t)((double)ms * r->dice);
}

bool
task_retry_in(const struct task_retry *r, uint64_t *ret_ms)
{
	uint64_t ms = backoff_ms(r);

	if (r->again == TASK_NEVER || (r->again == TASK_AGAIN && r->attempts >= r->attempts_max))
		return false;
	if (ms < r->retry_after_ms)
		ms = r->retry_after_ms + (uint64_t)(r->dice * 1000);
	if (r->left_ms <= 0 || ms >= (uint64_t)r->left_ms)
		return false;
	*ret_ms = ms;
	return true;
}
