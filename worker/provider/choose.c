/* choose - see choose.h. */
#include "worker/provider/choose.h"

/* Where the step that begins at i ends. */
static size_t
step_end(const struct choose_target *t, size_t count, size_t i)
{
	size_t end = i + 1;

	while (t[i].weight > 0 && end < count && t[end].weight > 0)
		end++;
	return end;
}

/* Is a's load for its weight below b's? */
static bool
is_lighter(const struct choose_target *a, const struct choose_target *b)
{
	return (uint64_t)a->outstanding * b->weight < (uint64_t)b->outstanding * a->weight;
}

static bool
is_level(const struct choose_target *a, const struct choose_target *b)
{
	return !is_lighter(a, b) && !is_lighter(b, a);
}

/* The lightest of a step; -1: none of it may be asked. */
static int
lightest_of(const struct choose_target *t, size_t from, size_t end)
{
	int best = -1;

	for (size_t i = from; i < end; i++) {
		if (t[i].may_be_asked && (best < 0 || is_lighter(&t[i], &t[best])))
			best = (int)i;
	}
	return best;
}

static int
choose_level(const struct choose_target *t, size_t from, size_t end, int best, double dice)
{
	double sum = 0, at;

	for (size_t i = from; i < end; i++) {
		if (t[i].may_be_asked && is_level(&t[i], &t[best]))
			sum += t[i].weight;
	}
	at = sum * dice;
	for (size_t i = from; i < end; i++) {
		if (!t[i].may_be_asked || !is_level(&t[i], &t[best]))
			continue;
		if (at < t[i].weight)
			return (int)i;
		at -= t[i].weight;
	}
	return best;
}

int
choose_target(const struct choose_target *t, size_t count, double dice)
{
	for (size_t i = 0, end; i < count; i = end) {
		end = step_end(t, count, i);
		int best = lightest_of(t, i, end);

		if (best >= 0)
			return end - i > 1 ? choose_level(t, i, end, best, dice) : best;
	}
	return -1;
}
