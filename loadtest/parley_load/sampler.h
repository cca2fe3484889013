/*
 * sampler - now and then a round trip over one of many idle sockets: --sample a
 * second, of all processes. Which one is by chance, and not for the sampler to
 * say. Times go to the tally's `echo`.
 */
#ifndef LOADTEST_PARLEY_LOAD_SAMPLER_H
#define LOADTEST_PARLEY_LOAD_SAMPLER_H

#include "loadtest/parley_load/wsock.h"

/* pick: an open socket that has nothing under way; NULL: it found none this time. */
void sampler_start(struct load *, struct wsock *(*pick)(void));

/* A message came over the socket: was it the answer to a sample? */
bool sampler_take(struct wsock *, struct str message);

#endif
