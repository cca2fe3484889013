/* load - users begin at the ramp's rate; the loop ends when nothing more can be done. */
#include "loadtest/parley_load/load.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/pacer.h"
#include "loadtest/parley_load/self.h"

enum { RAMP_TICK_MS = 5, RAMP_AT_ONCE = 500, LOOK_MS = 50, SOURCE_SOCKETS_MAX = 13000 };

struct run {
	struct load load;
	const struct scenario *scenario;
	struct pacer ramp;
	struct event *ramp_timer;
	struct event *duration_timer; /* from where the measured part begins */
	struct event *look_timer;     /* at the crowd */
	struct self self;
	uint32_t begun;
	bool is_holding;
};

static struct run run;

static void
end_if_over(void)
{
	struct tally *t = run.load.tally;
	bool all_gone = t->gone >= run.load.users;

	if (!all_gone && (!run.load.is_closing || t->started > t->done))
		return;
	if (run.scenario->holds && !all_gone) {
		t->standing = t->done;
		t->is_standing = true;
	} else {
		event_base_loopbreak(run.load.target.base);
	}
}

bool
load_next(struct load *load)
{
	if (load->is_closing || load->crowd->is_full)
		return false;
	load->tally->started++;
	if (load->tally->started >= load->goal)
		load->is_closing = true;
	return true;
}

void
load_done(struct load *load, enum outcome outcome, uint64_t began_us, uint64_t first_us)
{
	struct tally *t = load->tally;
	uint64_t took_us = clock_mono_us() - began_us;

	switch (outcome) {
	case LOAD_WHOLE:
		latency_add(&t->whole, took_us);
		if (first_us != 0)
			latency_add(&t->first, first_us - began_us);
		break;
	case LOAD_FAILED:
		t->failed++;
		break;
	case LOAD_REFUSED:
		t->refused++;
		latency_add(&t->refusal, took_us);
		break;
	}
	t->done++;
	end_if_over();
}

void
load_gone(struct load *load)
{
	load->tally->gone++;
	end_if_over();
}

enum outcome
load_outcome(int status)
{
	return status == 503                   ? LOAD_REFUSED
	       : status >= 200 && status < 300 ? LOAD_WHOLE
					       : LOAD_FAILED;
}

void
load_stands(struct load *load)
{
	load->tally->standing = load->users;
	load->tally->is_standing = true;
}

void
load_measure(struct load *load)
{
	struct timeval duration = {(time_t)load->options->duration_s, 0};

	load->tally->began_us = clock_mono_us();
	self_measure(&run.self);
	if (load->options->duration_s > 0)
		event_add(run.duration_timer, &duration);
}

/* ---- time ---- */

struct later {
	void (*fn)(void *arg);
	void *arg;
};

static void
on_later(evutil_socket_t fd, short what, void *arg)
{
	struct later later = *(struct later *)arg;

	(void)fd, (void)what;
	free(arg);
	later.fn(later.arg);
}

void
load_after(struct load *load, uint64_t delay_ms, void (*fn)(void *arg), void *arg)
{
	struct later *later = xmalloc(sizeof(*later));
	struct timeval delay = {(time_t)(delay_ms / 1000), (suseconds_t)(delay_ms % 1000 * 1000)};

	*later = (struct later){fn, arg};
	int failed = event_base_once(load->target.base, -1, EV_TIMEOUT, on_later, later, &delay);
	check(failed == 0);
}

uint64_t
load_think_ms(const struct load *load, uint64_t began_us)
{
	double pace_ms = load->options->pace_s * 1e3 * (0.5 + (double)random() / RAND_MAX);
	double passed_ms = (double)(clock_mono_us() - began_us) / 1e3;

	return pace_ms > passed_ms ? (uint64_t)(pace_ms - passed_ms) : 0;
}

static void
on_stop(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	event_base_loopbreak(run.load.target.base);
}

/* The second time at once. */
static void
on_told(evutil_socket_t fd, short what, void *arg)
{
	if (!run.scenario->finishes || run.load.is_closing) {
		on_stop(fd, what, arg);
		return;
	}
	run.load.is_closing = true;
	end_if_over();
}

static void
on_duration(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	run.load.is_closing = true;
	end_if_over();
}

static void
on_hold_over(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	run.load.is_ending = true;
}

/* All stand: what comes now is measured apart from how they got there. */
static void
hold(void)
{
	struct timeval length = {(time_t)run.load.options->hold_s, 0};

	run.is_holding = true;
	if (run.scenario->holds)
		run.load.tally->ramp_us = clock_mono_us() - run.load.tally->began_us;
	load_measure(&run.load);
	if (run.scenario->holds && length.tv_sec > 0)
		event_base_once(run.load.target.base, -1, EV_TIMEOUT, on_hold_over, NULL, &length);
	if (run.scenario->hold != NULL)
		run.scenario->hold(&run.load);
}

static void
on_look(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	if (run.load.crowd->is_full && !run.load.is_closing) {
		run.load.is_closing = true;
		end_if_over();
	}
	if (run.load.crowd->is_standing && !run.is_holding)
		hold();
	if (run.load.is_ending && (run.scenario->is_idle == NULL || run.scenario->is_idle()))
		event_base_loopbreak(run.load.target.base);
}

static void
on_ramp(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	uint64_t now_us = clock_mono_us();
	struct timeval tick = {0, RAMP_TICK_MS * 1000};

	for (int i = 0; i < RAMP_AT_ONCE && run.begun < run.load.users && !run.load.is_closing &&
			(run.ramp.per_s <= 0 || pacer_next(&run.ramp, now_us) != 0);
	     i++)
		run.scenario->begin(&run.load, run.begun++);
	if (run.begun < run.load.users && !run.load.is_closing)
		event_add(run.ramp_timer, &tick);
}

/* ---- the process ---- */

static uint64_t
share(uint64_t total, uint32_t process, uint32_t processes)
{
	return total / processes + (process < total % processes);
}

static void
init_target(struct conn_target *target, const struct options *o, uint64_t sockets, uint32_t process)
{
	bool is_loopback = strncmp(o->host, "127.", 4) == 0;
	uint32_t needed = (uint32_t)((sockets + SOURCE_SOCKETS_MAX - 1) / SOURCE_SOCKETS_MAX);
	uint32_t sources = o->sources > 0 ? o->sources : needed;
	bool is_small = o->sources == 0 && sockets * o->processes <= SOURCE_SOCKETS_MAX;

	target->host = o->host;
	target->key = o->key;
	target->header = o->header;
	target->port = o->port;
	target->source_count = is_loopback && !is_small ? sources : 0;
	target->source_first = process * sources;
}

static void
start(void)
{
	struct event_base *base = run.load.target.base;
	const struct options *o = run.load.options;
	struct timeval limit = {(time_t)o->limit_s, 0}, look = {0, LOOK_MS * 1000};

	event_add(evsignal_new(base, SIGTERM, on_told, NULL), NULL);
	event_add(evsignal_new(base, SIGINT, on_told, NULL), NULL);
	event_add(evtimer_new(base, on_stop, NULL), &limit);
	run.duration_timer = evtimer_new(base, on_duration, NULL);
	run.look_timer = event_new(base, -1, EV_PERSIST, on_look, NULL);
	event_add(run.look_timer, &look);
	self_start(&run.self, base, run.load.tally);
	run.ramp = (struct pacer){.per_s = o->rate / o->processes, .began_us = clock_mono_us()};
	run.ramp_timer = evtimer_new(base, on_ramp, NULL);
	run.load.tally->began_us = clock_mono_us();
	self_measure(&run.self);
	if (!run.scenario->prepares)
		load_measure(&run.load);
	if (run.scenario->start != NULL)
		run.scenario->start(&run.load);
	event_active(run.ramp_timer, EV_TIMEOUT, 0);
}

void
load_run(const struct options *o, const struct scenario *scenario, uint32_t process,
    const struct crowd *crowd, struct tally *tally)
{
	uint64_t goal = share(o->count, process, o->processes);
	uint64_t users = share(o->users, process, o->processes);

	if (o->count > 0 && goal == 0)
		return;
	/* Connections that are to be made at a rate each have a user of their own. */
	if (scenario->holds && o->rate > 0 && o->count > 0)
		users = goal;
	run.scenario = scenario;
	run.load = (struct load){.options = o,
	    .tally = tally,
	    .crowd = crowd,
	    .users = (uint32_t)users,
	    .goal = o->count > 0 ? goal : UINT64_MAX,
	    .offered = o->offered / o->processes,
	    .process = process};
	srandom(process + 1);
	/* Some users have a second connection, or open a session on one. */
	init_target(
	    &run.load.target, o, scenario->holds && o->count > 0 ? goal : users * 2, process);
	run.load.target.base = event_base_new();
	run.load.target.tally = tally;
	check(run.load.target.base != NULL);
	run.load.other = run.load.target;
	if (o->other_port != 0) {
		run.load.other.host = o->other_host;
		run.load.other.port = o->other_port;
	}
	start();
	event_base_dispatch(run.load.target.base);
	tally->took_us = clock_mono_us() - tally->began_us;
	self_stop(&run.self);
}
