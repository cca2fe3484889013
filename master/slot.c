/*
 * slot - the wait between a death and the next spawn.
 */
#include "master/slot.h"

void
slot_worked(struct slot *s)
{
	s->early_deaths = 0;
}

uint64_t
slot_died(struct slot *s, bool was_ready, uint64_t backoff_ms, uint64_t backoff_max_ms)
{
	uint64_t delay_ms = backoff_ms;

	if (was_ready) {
		s->early_deaths = 0;
		return 0;
	}
	for (uint32_t i = 0; i < s->early_deaths && delay_ms < backoff_max_ms; i++)
		delay_ms *= 2;
	s->early_deaths++;
	return delay_ms < backoff_max_ms ? delay_ms : backoff_max_ms;
}
