/*
 * redis_limiter - the limiter over a Redis, as workers of two hosts use it, without servers around
 * it.
 */
#ifndef LOADTEST_PARLEY_MICRO_REDIS_LIMITER_H
#define LOADTEST_PARLEY_MICRO_REDIS_LIMITER_H

/* Prints decisions per second of 1, 2 and 8 processes, and by how much a limit was missed. 0, or 1
 * when it was missed. */
int redis_limiter(const char *url);

#endif
