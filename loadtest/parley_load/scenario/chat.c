/*
 * chat - people: a turn, some thought, another turn. The time between the
 * beginnings of two turns is --pace, half of it more or less; a slow answer
 * takes from the time to think. Nobody begins in step.
 */
#include <stdlib.h>

#include "common/clock.h"
#include "loadtest/parley_load/talker.h"

static void
ask(void *arg)
{
	struct talker *t = arg;

	if (load_next(t->load))
		talker_ask(t, clock_mono_us());
}

static void
on_ready(struct talker *t, uint64_t retry_after_s)
{
	const struct options *o = t->load->options;
	uint64_t wait_ms;

	if (t->began_us == 0) /* the very first one */
		wait_ms = (uint64_t)(o->pace_s * 1e3 * (double)random() / RAND_MAX);
	else
		wait_ms = load_think_ms(t->load, t->began_us);
	load_after(t->load, wait_ms + retry_after_s * 1000, ask, t);
}

static void
begin(struct load *load, uint32_t user)
{
	(void)user;
	talker_begin(load, on_ready, NULL);
}

const struct scenario scenario_chat = {
    .name = "chat", .help = "turns at a pace, with time to think between them", .begin = begin};
