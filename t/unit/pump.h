/*
 * pump - runs the loop until something has become true, for a bounded time.
 */
#ifndef T_UNIT_PUMP_H
#define T_UNIT_PUMP_H

#include "common/check.h"
#include "common/clock.h"
#include "worker/loop/loop.h"

enum { PUMP_LIMIT_MS = 60000, PUMP_STEP_MS = 2 };

struct pump {
	struct loop_timer timer;
	struct loop *loop;
	bool (*is_true)(void *arg);
	void *arg;
	uint64_t until_ms;
	bool result;
};

static inline void
pump_on_fire(struct loop_timer *t)
{
	struct pump *p = container_of(t, struct pump, timer);

	p->result = p->is_true(p->arg);
	if (p->result || clock_mono_ms() > p->until_ms)
		loop_stop(p->loop);
	else
		loop_timer_set(p->loop, t, PUMP_STEP_MS);
}

/* False: it has not become true in time. */
static inline bool
pump_until(struct loop *loop, bool (*is_true)(void *), void *arg)
{
	struct pump p = {.loop = loop, .is_true = is_true, .arg = arg};

	p.timer.on_fire = pump_on_fire;
	p.until_ms = clock_mono_ms() + PUMP_LIMIT_MS;
	loop_timer_set(loop, &p.timer, 0);
	loop_run(loop);
	loop_timer_stop(loop, &p.timer);
	return p.result;
}

#endif
