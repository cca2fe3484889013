/*
 * fake_backplane - backplane.h for several workers in one process, with a wire in
 * the test's hand: messages can be lost, refused or held, workers can die.
 *
 * Messages between two workers arrive in order, from the loop. payload.c is the
 * real one.
 */
#ifndef T_REPLAY_FAKE_BACKPLANE_H
#define T_REPLAY_FAKE_BACKPLANE_H

#include "worker/backplane/backplane.h"

/* The next `count` messages of this method between any two are lost on their way. */
void fake_backplane_lose(enum backplane_method, unsigned count);
/* .. or not taken: E_BUSY. */
void fake_backplane_refuse(enum backplane_method, unsigned count);
/* Nothing of this method arrives until it is false again. */
void fake_backplane_hold(enum backplane_method, bool is_held);
/* How many of this method have been sent since the last reset. */
unsigned fake_backplane_sent(enum backplane_method);
/* This worker hears and says nothing any more; with is_told the others are told that it is gone. */
void fake_backplane_kill(struct backplane *, bool is_told);
/* The connection between the two ends, both live: each is told that the other is gone. */
void fake_backplane_part(struct backplane *, struct backplane *);
/* The owner tables forget everything (as if they had been full). */
void fake_backplane_forget_owners(void);
void fake_backplane_reset(void);

#endif
