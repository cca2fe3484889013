/*
 * arrivals - turns that come at a rate, whether the ones before are answered or
 * not (an open model): what a crowd does to a server that is too small for it.
 *
 * Each arrival takes a user who has no live turn. A turn's time counts from when
 * it was due, not from when the generator got round to it. The measured part
 * begins when every user has a session.
 */
#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/pacer.h"
#include "loadtest/parley_load/talker.h"

enum { TICK_US = 1000, AT_ONCE = 1000 };

/* Users without a live turn, a ring: who rested longest is next, so that all are used alike. */
static struct talker **rested;
static uint32_t rested_at, rested_count, opened;
static struct pacer pacer;
static struct event *timer;

static void
wait_tick(void)
{
	struct timeval tick = {0, TICK_US};

	event_add(timer, &tick);
}

static void
arrive(struct load *load, uint64_t due_us)
{
	if (rested_count == 0) {
		load->tally->unoffered++;
		return;
	}
	struct talker *t = rested[rested_at];

	if (!load_next(load))
		return;
	rested_at = (rested_at + 1) % load->users;
	rested_count--;
	talker_ask(t, due_us);
}

static void
on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct load *load = arg;
	uint64_t now_us = clock_mono_us(), due_us;

	(void)fd, (void)what;
	for (int i = 0; i < AT_ONCE && (due_us = pacer_next(&pacer, now_us)) != 0; i++)
		arrive(load, due_us);
	if (!load->is_closing)
		wait_tick();
}

static void
on_ready(struct talker *t, uint64_t retry_after_s)
{
	struct load *load = t->load;

	(void)retry_after_s; /* somebody else comes anyway */
	check(rested_count < load->users);
	rested[(rested_at + rested_count++) % load->users] = t;
	if (t->began_us != 0 || ++opened < load->users)
		return;
	load_measure(load);
	pacer = (struct pacer){.per_s = load->offered, .began_us = clock_mono_us()};
	wait_tick();
}

static void
begin(struct load *load, uint32_t user)
{
	(void)user;
	talker_begin(load, on_ready, NULL);
}

static void
start(struct load *load)
{
	rested = xcalloc(load->users, sizeof(struct talker *));
	timer = evtimer_new(load->target.base, on_tick, load);
	check(timer != NULL);
}

const struct scenario scenario_arrivals = {.name = "arrivals",
    .help = "turns at --offer a second, answered or not",
    .needs_offer = true,
    .prepares = true,
    .begin = begin,
    .start = start};
