/*
 * choose - the target of an alias that is asked next. Pure: takes the dice.
 *
 * Targets are a chain: the first that may be asked is. Neighbours whose weight is above 0 are
 * equal deployments, one step of the chain: among them the one with the fewest calls in progress
 * for its weight, and by weighted chance among those that are level. What was tried is not tried
 * again.
 */
#ifndef WORKER_PROVIDER_CHOOSE_H
#define WORKER_PROVIDER_CHOOSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct choose_target {
	uint32_t weight;      /* 0: a step of its own */
	uint32_t outstanding; /* calls in progress */
	bool may_be_asked;    /* its breaker lets it, and it was not tried */
};

/* An index, or -1: none. dice: 0 <= dice < 1. */
int choose_target(const struct choose_target *, size_t count, double dice);

#endif
