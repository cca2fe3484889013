/* admission - intervals, and what they do to the limit. */
#include "worker/loop/admission.h"

#include "common/check.h"

enum {
	QUIET_US = 5 * 1000 * 1000, /* without a refusal: the limit is lifted */

	/* Parts of the limit, as shifts. With an interval of 100 ms: from twice too much to right
	 * in under a second, and a sawtooth of 3 to 6 % after that. */
	CUT_SHIFT = 4, /* just above the target; twice and four times as much far above it */
	GROW_SHIFT = 5,
	GROW_UNUSED_SHIFT = 3, /* while nobody is refused */
};

void
admission_init(struct admission *a, uint64_t target_us, uint64_t interval_us)
{
	check(interval_us > 0);
	*a = (struct admission){.target_us = target_us,
	    .interval_us = interval_us,
	    .min_us = UINT64_MAX,
	    .limit = UINT32_MAX};
}

static uint32_t
part(uint32_t limit, unsigned shift)
{
	return limit >> shift > 0 ? limit >> shift : 1;
}

/* As long as there is more work than the limit it has not had its effect yet: no further cut. */
static void
cut(struct admission *a)
{
	unsigned shift = CUT_SHIFT;

	if (admission_is_limited(a) && a->live > a->limit)
		return;
	if (!admission_is_limited(a) || a->limit > a->live)
		a->limit = a->live;
	for (uint64_t us = 2 * a->target_us; us < a->min_us && shift > CUT_SHIFT - 2; us *= 2)
		shift--;
	a->limit = a->limit > part(a->limit, shift) ? a->limit - part(a->limit, shift) : 0;
	if (a->limit < ADMISSION_LIMIT_MIN)
		a->limit = ADMISSION_LIMIT_MIN;
}

static void
grow(struct admission *a, uint64_t elapsed_us)
{
	uint32_t more;

	if (!admission_is_limited(a))
		return;
	a->quiet_us = a->has_refused ? 0 : a->quiet_us + elapsed_us;
	more = part(a->limit, a->has_refused ? GROW_SHIFT : GROW_UNUSED_SHIFT);
	if (a->quiet_us >= QUIET_US || a->limit >= UINT32_MAX - more)
		a->limit = UINT32_MAX;
	else
		a->limit += more;
}

static void
end_interval(struct admission *a, uint64_t now_us)
{
	if (a->min_us > a->target_us) {
		cut(a);
		a->quiet_us = 0;
	} else {
		grow(a, now_us - a->began_us);
	}
	a->delay_us = a->min_us;
	a->began_us = now_us;
	a->min_us = UINT64_MAX;
	a->rounds = 0;
	a->has_refused = false;
}

bool
admission_round(struct admission *a, uint64_t round_us, uint64_t now_us)
{
	if (a->target_us == 0)
		return false;
	if (a->began_us == 0)
		a->began_us = now_us;
	a->rounds++;
	if (round_us < a->min_us)
		a->min_us = round_us;
	if (now_us - a->began_us < a->interval_us ||
	    (a->min_us > a->target_us && a->rounds < ADMISSION_ROUNDS_MIN))
		return false;
	end_interval(a, now_us);
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
