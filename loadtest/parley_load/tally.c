/* tally - sums, but the longest time counts. */
#include "loadtest/parley_load/tally.h"

static double
cpu_share(const struct tally *t)
{
	return t->took_us > 0 ? (double)t->measured_cpu_us / (double)t->took_us : 0;
}

void
tally_merge(struct tally *into, const struct tally *t)
{
#define X(name, what) into->name += t->name;
	TALLY_COUNTS(X)
#undef X
#define X(name, what) latency_merge(&into->name, &t->name);
	TALLY_TIMES(X)
#undef X
	into->open += t->open;
	if (t->took_us > into->took_us)
		into->took_us = t->took_us;
	if (t->ramp_us > into->ramp_us)
		into->ramp_us = t->ramp_us;
	into->cpu_us += t->cpu_us;
	into->measured_cpu_us += t->measured_cpu_us;
	into->waited_us += t->waited_us;
	if (cpu_share(t) > into->cpu_share_max)
		into->cpu_share_max = cpu_share(t);
}
