/*
 * slot - a place for one worker: it outlives every worker that runs in it.
 *
 *        spawn                 READY
 *   EMPTY ----> current STARTING ----> current READY
 *     ^  (delay)     |                   |
 *     +--------------+-------------------+   death: after slot_died() ms
 *
 * A reload runs a second worker, the successor, beside the current one until it is
 * ready; then it is the current one and the old one drains, belonging to no slot.
 * Pure: how long to wait after a death is decided here, by whom it is waited for
 * is not.
 */
#ifndef MASTER_SLOT_H
#define MASTER_SLOT_H

#include <stdbool.h>
#include <stdint.h>

struct child;

struct slot {
	uint32_t index;
	uint32_t early_deaths; /* in a row, of workers that never became ready */
	uint32_t crashes;      /* in a row, of workers that were ready and soon died */
	struct child *current;
	struct child *successor;
};

/* A worker of the slot became ready: the next death is replaced at once. */
void slot_worked(struct slot *);

/* A worker of the slot has lived for SLOT_CALM_MS: no series of crashes any more. */
void slot_is_calm(struct slot *);

struct slot_death {
	bool was_ready;
	uint64_t uptime_ms;
	bool was_killed; /* by somebody's SIGKILL: no fault of its own, and no part of a series */
};

enum {
	SLOT_CALM_MS = 10000,
	SLOT_CRASHES = 3, /* so many in a row, each after less than that, are no accident */
};

/*
 * A worker of the slot died. Returns the milliseconds to wait before the next spawn: 0 if it had
 * been ready and is not one of a series (something, an input perhaps, kills them again and again),
 * else backoff_ms, doubled with each such death in a row, at most backoff_max_ms.
 */
uint64_t slot_died(
    struct slot *, const struct slot_death *, uint64_t backoff_ms, uint64_t backoff_max_ms);

static inline bool
slot_is_crashing(const struct slot *s)
{
	return s->crashes >= SLOT_CRASHES;
}

#endif
