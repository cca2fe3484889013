/*
 * slot - the wait between a death and the next spawn.
 */
#include "master/slot.h"

void
slot_worked(struct slot *s)
{
	s->early_deaths = 0;
}

void
slot_is_calm(struct slot *s)
{
	s->crashes = 0;
}

static uint64_t
doubled(uint64_t ms, uint32_t times, uint64_t max_ms)
{
	for (uint32_t i = 0; i < times && ms < max_ms; i++)
		ms *= 2;
	return ms < max_ms ? ms : max_ms;
}

uint64_t
slot_died(struct slot *s, const struct slot_death *d, uint64_t backoff_ms, uint64_t backoff_max_ms)
{
	if (!d->was_ready)
		return doubled(backoff_ms, s->early_deaths++, backoff_max_ms);
	s->early_deaths = 0;
	if (d->was_killed)
		return 0;
	s->crashes = d->uptime_ms < SLOT_CALM_MS ? s->crashes + 1 : 1;
	if (!slot_is_crashing(s))
		return 0;
	return doubled(backoff_ms, s->crashes - SLOT_CRASHES, backoff_max_ms);
}
