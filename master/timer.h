/*
 * timer - libevent's one-shot timers, in milliseconds.
 */
#ifndef MASTER_TIMER_H
#define MASTER_TIMER_H

#include <stdint.h>

#include <event2/event.h>

/* Never NULL; event_free() it. */
struct event *timer_new(
    struct event_base *, void (*on_fire)(int fd, short what, void *arg), void *arg);
void timer_set(struct event *, uint64_t delay_ms); /* moves one that is set */

#endif
