/*
 * turns - conversations, one turn after the other as fast as they are answered;
 * and the same questions asked of the provider directly, for comparison.
 */
#include "common/clock.h"
#include "loadtest/parley_load/talker.h"

static void
ask_next(void *arg)
{
	struct talker *t = arg;

	if (load_next(t->load))
		talker_ask(t, clock_mono_us());
}

/* Who was refused waits as it was told; the others ask at once. */
static void
on_ready(struct talker *t, uint64_t retry_after_s)
{
	if (retry_after_s > 0)
		load_after(t->load, retry_after_s * 1000, ask_next, t);
	else
		ask_next(t);
}

static void
begin(struct load *load, uint32_t user)
{
	(void)user;
	talker_begin(load, on_ready, NULL);
}

static void
begin_direct(struct load *load, uint32_t user)
{
	(void)user;
	talker_begin_direct(load, on_ready);
}

const struct scenario scenario_turns = {
    .name = "turns", .help = "conversations, turn after turn", .begin = begin};
const struct scenario scenario_direct = {
    .name = "direct", .help = "the same questions to the mock itself", .begin = begin_direct};
