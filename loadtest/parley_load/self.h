/*
 * self - does the generator keep up? How late its loop is, how much of a core it
 * used, and how long it was ready to run and was not let.
 */
#ifndef LOADTEST_PARLEY_LOAD_SELF_H
#define LOADTEST_PARLEY_LOAD_SELF_H

#include <event2/event.h>

#include "loadtest/parley_load/tally.h"

struct self {
	struct tally *tally;
	struct event *timer;
	uint64_t due_us;
	uint64_t cpu_before_us, waited_before_us; /* where the measured part begins */
};

void self_start(struct self *, struct event_base *, struct tally *);
void self_measure(struct self *); /* the measured part begins */
void self_stop(struct self *);

#endif
