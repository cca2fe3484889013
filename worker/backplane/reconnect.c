/* reconnect - see reconnect.h. */
#include "worker/backplane/reconnect.h"

uint32_t
reconnect_delay_ms(struct reconnect *r, uint64_t now_ms, uint64_t random)
{
	uint32_t top = RECONNECT_MAX_MS;

	if (r->up_since_ms != 0 && now_ms - r->up_since_ms >= RECONNECT_STABLE_MS)
		r->failures = 0;
	r->up_since_ms = 0;
	if (r->failures < 5 && (RECONNECT_FIRST_MS << r->failures) < RECONNECT_MAX_MS)
		top = (uint32_t)RECONNECT_FIRST_MS << r->failures;
	if (r->failures < UINT32_MAX)
		r->failures++;
	return RECONNECT_MIN_MS + (uint32_t)(random % (top - RECONNECT_MIN_MS + 1));
}

void
reconnect_up(struct reconnect *r, uint64_t now_ms)
{
	r->up_since_ms = now_ms > 0 ? now_ms : 1;
}
