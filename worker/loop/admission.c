/* admission - intervals, and what they do to the limit. */
#include "worker/loop/admission.h"

#include "common/check.h"

enum {
	QUIET_US = 5 * 1000 * 1000, /* without a refusal: the limit is lifted */

	/* The limit's change in an interval: a share off by all is 1 / so much. */
	CUT = 4,
	CUT_FAR = 2, /* where the mean wait is above FAR targets */
	FAR = 4,
	GROW = 8,
	GROW_UNUSED = 4, /* while nobody is refused */
	ALL = 1000,
};

void
admission_init(struct admission *a, uint64_t target_us, uint64_t interval_us)
{
	check(interval_us > 0);
	*a = (struct admission){
	    .target_us = target_us, .interval_us = interval_us, .limit = UINT32_MAX};
}

/* At least one. */
static uint32_t
part(uint32_t limit, uint64_t off, unsigned divisor)
{
	uint64_t n = limit * off / ALL / divisor;

	return n > 0 ? (uint32_t)n : 1;
}

/* As long as there is more work than the limit it has not had its effect yet: no further cut. */
static void
cut(struct admission *a, uint64_t share)
{
	bool is_far = a->delay_us > FAR * a->target_us;
	uint32_t less;

	a->quiet_us = 0;
	if (admission_is_limited(a) && a->live > a->limit)
		return;
	if (a->limit > a->live)
		a->limit = a->live;
	less = part(a->limit, share - ADMISSION_SHARE, is_far ? CUT_FAR : CUT);
	a->limit = a->limit > less + ADMISSION_LIMIT_MIN ? a->limit - less : ADMISSION_LIMIT_MIN;
}

static void
grow(struct admission *a, uint64_t share, uint64_t elapsed_us)
{
	uint32_t more;

	if (!admission_is_limited(a))
		return;
	a->quiet_us = a->has_refused ? 0 : a->quiet_us + elapsed_us;
	more = part(a->limit, ADMISSION_SHARE - share, a->has_refused ? GROW : GROW_UNUSED);
	if (a->quiet_us >= QUIET_US || a->limit >= UINT32_MAX - more)
		a->limit = UINT32_MAX;
	else
		a->limit += more;
}

bool
admission_waited(struct admission *a, uint64_t wait_us, uint64_t core_us, uint64_t now_us)
{
	uint64_t elapsed_us, share;

	if (a->target_us == 0)
		return false;
	if (a->began_us == 0)
		a->began_us = now_us - wait_us;
	if (wait_us > ADMISSION_CORE_TIMES * core_us)
		wait_us = ADMISSION_CORE_TIMES * core_us;
	a->waits++;
	a->sum_us += wait_us;
	if (wait_us > a->target_us) {
		a->slow_waits++;
		a->slow_us += wait_us;
	}
	elapsed_us = now_us > a->began_us ? now_us - a->began_us : 1;
	share = a->slow_us < elapsed_us ? a->slow_us * ALL / elapsed_us : ALL;
	if (elapsed_us < a->interval_us ||
	    (share > ADMISSION_SHARE && a->slow_waits < ADMISSION_WAITS_MIN))
		return false;
	a->delay_us = a->sum_us / a->waits;
	if (share > ADMISSION_SHARE)
		cut(a, share);
	else
		grow(a, share, elapsed_us);
	a->began_us = now_us;
	a->slow_us = a->sum_us = 0;
	a->slow_waits = a->waits = 0;
	a->has_refused = false;
	return true;
}

bool
admission_allows(struct admission *a)
{
	if (a->live < a->limit)
		return true;
	a->has_refused = true;
	return false;
}

void
admission_enter(struct admission *a)
{
	a->live++;
}

void
admission_leave(struct admission *a)
{
	check(a->live > 0);
	a->live--;
}
