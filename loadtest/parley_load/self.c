/* self - a timer that looks at the clock, getrusage, and the scheduler's own account. */
#include "loadtest/parley_load/self.h"

#include <stdio.h>
#include <sys/resource.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/str.h"

enum { TICK_US = 10000, MISSED_MAX = 1000 };

static uint64_t
used_us(void)
{
	struct rusage u;
	int failed = getrusage(RUSAGE_SELF, &u);

	check(failed == 0);
	return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000 +
	       (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* The second number of schedstat, in ns; 0 where the kernel does not say. */
static uint64_t
waited_us(void)
{
	FILE *f = fopen("/proc/self/schedstat", "re");
	char text[96] = "";

	if (f == NULL)
		return 0;
	size_t len = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	struct str rest = {text, len}, waited;
	uint64_t ns = 0;

	str_split(&rest, ' ');
	waited = str_split(&rest, ' ');
	str_to_u64(waited, &ns);
	return ns / 1000;
}

static void
wait_tick(struct self *self)
{
	struct timeval tick = {0, TICK_US};

	event_base_update_cache_time(event_get_base(self->timer));
	self->due_us = clock_mono_us() + TICK_US;
	event_add(self->timer, &tick);
}

static void
on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct self *self = arg;
	uint64_t now_us = clock_mono_us(),
		 late_us = now_us > self->due_us ? now_us - self->due_us : 0;

	(void)fd, (void)what;
	latency_add(&self->tally->lag, late_us);
	/* The ticks that a long delay has swallowed were late, too. */
	for (int i = 0; i < MISSED_MAX && late_us > TICK_US; i++) {
		late_us -= TICK_US;
		latency_add(&self->tally->lag, late_us);
	}
	wait_tick(self);
}

void
self_start(struct self *self, struct event_base *base, struct tally *tally)
{
	self->tally = tally;
	self->timer = evtimer_new(base, on_tick, self);
	check(self->timer != NULL);
	wait_tick(self);
}

void
self_measure(struct self *self)
{
	self->cpu_before_us = used_us();
	self->waited_before_us = waited_us();
	self->tally->lag = (struct latency){0};
}

void
self_stop(struct self *self)
{
	self->tally->cpu_us = used_us();
	self->tally->measured_cpu_us = self->tally->cpu_us - self->cpu_before_us;
	self->tally->waited_us = waited_us() - self->waited_before_us;
	event_del(self->timer);
}
