/* latency - cells that double in width every LATENCY_STEPS / 2. */
#include "loadtest/parley_load/latency.h"

enum { HALF = LATENCY_STEPS / 2 };

/* Values below LATENCY_STEPS have a cell each; above, the top six bits name the cell. */
static unsigned
cell_of(uint64_t us)
{
	if (us < LATENCY_STEPS)
		return (unsigned)us;
	unsigned shift = 63 - (unsigned)__builtin_clzll(us) - 5;
	unsigned cell = shift * HALF + (unsigned)(us >> shift);

	return cell < LATENCY_CELLS ? cell : LATENCY_CELLS - 1;
}

static uint64_t
upper_of(unsigned cell)
{
	if (cell < LATENCY_STEPS)
		return cell;
	unsigned shift = cell / HALF - 1;

	return ((uint64_t)(cell % HALF + HALF) + 1) << shift;
}

void
latency_add(struct latency *l, uint64_t us)
{
	l->cells[cell_of(us)]++;
	l->count++;
	l->sum_us += us;
	if (us > l->max_us)
		l->max_us = us;
}

uint64_t
latency_percentile(const struct latency *l, double percent)
{
	uint64_t want = (uint64_t)((double)l->count * percent / 100.0), seen = 0;

	for (unsigned i = 0; i < LATENCY_CELLS && l->count > 0; i++) {
		seen += l->cells[i];
		if (seen > want || seen == l->count)
			return upper_of(i) < l->max_us ? upper_of(i) : l->max_us;
	}
	return l->max_us;
}

void
latency_merge(struct latency *into, const struct latency *l)
{
	for (unsigned i = 0; i < LATENCY_CELLS; i++)
		into->cells[i] += l->cells[i];
	into->count += l->count;
	into->sum_us += l->sum_us;
	if (l->max_us > into->max_us)
		into->max_us = l->max_us;
}

double
latency_mean(const struct latency *l)
{
	return l->count > 0 ? (double)l->sum_us / (double)l->count : 0;
}
