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
	struct child *current;
	struct child *successor;
};

/* A worker of the slot became ready: the next death is replaced at once. */
void slot_worked(struct slot *);

/*
 * A worker of the slot died. Returns the milliseconds to wait before the next spawn:
 * 0 if it had been ready, else backoff_ms, doubled with each such death in a row, at
 * most backoff_max_ms: only what never worked is delayed.
 */
uint64_t slot_died(struct slot *, bool was_ready, uint64_t backoff_ms, uint64_t backoff_max_ms);

#endif
