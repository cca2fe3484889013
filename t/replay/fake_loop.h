/*
 * fake_loop - loop.h with a clock in the test's hand, without h2o.
 *
 * It takes the place of worker/loop/loop.c in the programs of t/replay. Descriptors are
 * real (an epoll), time is not: it stands still until the test moves it. All loops of
 * the process share the clock and turn together, so two workers fit into one test.
 */
#ifndef T_REPLAY_FAKE_LOOP_H
#define T_REPLAY_FAKE_LOOP_H

#include "worker/loop/loop.h"

/* Runs what is ready now, and what that makes ready, and so on; time stands still. */
void fake_loop_settle(void);

/* Time goes on by so much: timers fire in their order, each at its time, and what they make
 * ready runs in between. */
void fake_loop_advance(uint64_t ms);

/* Turns the loops until the condition holds. Time stands still; it waits for descriptors and other
 * threads, ten seconds of the real clock at most: then false. */
bool fake_loop_run_until(bool (*is_true)(void *arg), void *arg);

/* What is pending, timers and watches of all loops. For asserting that nothing is left. */
unsigned fake_loop_timers(void);
unsigned fake_loop_watches(void);

#endif
