/*
 * wheel - a ring of lists; the hand moves one slot per tick.
 *
 * An entry sits in slot due_tick % slots, whatever the number of turns until
 * then: the hand leaves those of a later turn where they are. One timer of the
 * loop moves the hand, and only while entries exist.
 */
#include "worker/loop/wheel.h"

#include <stdlib.h>

#include "common/check.h"

struct wheel {
	struct loop *loop;
	struct loop_timer timer;
	uint64_t started_ms; /* when tick 0 began */
	uint32_t tick_ms;
	uint32_t slot_count;
	uint32_t hand; /* the last tick that was worked off */
	size_t count;
	struct list slots[];
};

static uint32_t
wheel_tick_at(const struct wheel *w, uint64_t ms)
{
	return (uint32_t)((ms - w->started_ms) / w->tick_ms);
}

static void
wheel_arm(struct wheel *w)
{
	uint64_t next_ms = w->started_ms + (uint64_t)(w->hand + 1) * w->tick_ms;
	uint64_t now_ms = loop_now_ms(w->loop);

	loop_timer_set(w->loop, &w->timer, next_ms > now_ms ? next_ms - now_ms : 0);
}

/* Fires what is due in one slot. A callback may set or stop any entry, also those in `due`. */
static void
wheel_fire_slot(struct wheel *w, uint32_t tick)
{
	struct list *slot = &w->slots[tick % w->slot_count];
	struct list due = LIST_INIT(due);

	list_for_safe (node, slot) {
		if (list_entry(node, struct wheel_entry, node)->due_tick == tick) {
			list_del(node);
			list_add_tail(&due, node);
		}
	}
	while (!list_empty(&due)) {
		struct wheel_entry *e = list_first(&due, struct wheel_entry, node);

		list_del(&e->node);
		w->count--;
		e->on_fire(e);
	}
}

static void
wheel_on_tick(struct loop_timer *t)
{
	struct wheel *w = container_of(t, struct wheel, timer);
	uint32_t now = wheel_tick_at(w, loop_now_ms(w->loop));

	while (w->hand != now && w->count > 0)
		wheel_fire_slot(w, ++w->hand);
	w->hand = now;
	if (w->count > 0)
		wheel_arm(w);
}

void
wheel_set(struct wheel *w, struct wheel_entry *e, uint64_t delay_ms)
{
	uint64_t due_ms = loop_now_ms(w->loop) + delay_ms;

	check(e->on_fire != NULL);
	wheel_stop(w, e);
	if (w->count == 0 && !loop_timer_is_set(&w->timer))
		w->hand = wheel_tick_at(w, loop_now_ms(w->loop));
	/* + 1: the tick that is under way has begun before now. */
	e->due_tick = wheel_tick_at(w, due_ms) + 1;
	list_add_tail(&w->slots[e->due_tick % w->slot_count], &e->node);
	w->count++;
	if (!loop_timer_is_set(&w->timer))
		wheel_arm(w);
}

void
wheel_stop(struct wheel *w, struct wheel_entry *e)
{
	if (!wheel_is_set(e))
		return;
	list_del(&e->node);
	w->count--;
}

struct wheel *
wheel_new(struct loop *loop, uint32_t tick_ms, uint32_t slots)
{
	struct wheel *w;

	check(tick_ms > 0 && slots > 0);
	w = xcalloc(1, sizeof(*w) + slots * sizeof(w->slots[0]));
	w->loop = loop;
	w->tick_ms = tick_ms;
	w->slot_count = slots;
	w->started_ms = loop_now_ms(loop);
	w->timer.on_fire = wheel_on_tick;
	for (uint32_t i = 0; i < slots; i++)
		list_init(&w->slots[i]);
	return w;
}

void
wheel_free(struct wheel **wp)
{
	struct wheel *w = *wp;

	if (w == NULL)
		return;
	*wp = NULL;
	loop_timer_stop(w->loop, &w->timer);
	for (uint32_t i = 0; i < w->slot_count; i++) {
		list_for_safe (node, &w->slots[i])
			list_del(node);
	}
	free(w);
}
