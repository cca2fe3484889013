/*
 * wheel - many cheap and coarse timeouts: connections, idle streams, sessions.
 *
 * Setting, moving and stopping are O(1) and allocate nothing; an entry fires at
 * or up to one tick after its time. The loop's heap (loop.h) is for the few that
 * need milliseconds. The wheel ticks only while something is in it.
 */
#ifndef WORKER_LOOP_WHEEL_H
#define WORKER_LOOP_WHEEL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/list.h"
#include "worker/loop/loop.h"

struct wheel;

/* Embedded in the caller's struct, zeroed before first use. */
struct wheel_entry {
	void (*on_fire)(struct wheel_entry *); /* taken out before the call; may set itself again */
	struct list node;
	uint32_t due_tick;
};

/* Delays longer than tick_ms * slots work too; they are looked at once per turn of the wheel. */
struct wheel *wheel_new(struct loop *, uint32_t tick_ms, uint32_t slots);
void wheel_free(struct wheel **); /* what is in it never fires */

void wheel_set(struct wheel *, struct wheel_entry *, uint64_t delay_ms); /* moves a set one */
void wheel_stop(struct wheel *, struct wheel_entry *);                   /* not set: fine */

static inline bool
wheel_is_set(const struct wheel_entry *e)
{
	return list_linked(&e->node);
}

#endif
