/*
 * timer - evtimer with milliseconds.
 */
#include "master/timer.h"

#include "common/check.h"

struct event *
timer_new(struct event_base *base, void (*on_fire)(int fd, short what, void *arg), void *arg)
{
	struct event *timer = evtimer_new(base, on_fire, arg);

	check(timer != NULL);
	return timer;
}

void
timer_set(struct event *timer, uint64_t delay_ms)
{
	struct timeval tv = {(time_t)(delay_ms / 1000), (suseconds_t)(delay_ms % 1000 * 1000)};

	check(evtimer_add(timer, &tv) == 0);
}
