/*
 * farewell - how those who are connected are told to go: how many at once, until when,
 * and when they may come back.
 *
 * Only numbers: what is a socket, and how it is told, is the caller's business.
 */
#ifndef WORKER_API_FAREWELL_H
#define WORKER_API_FAREWELL_H

#include <stddef.h>
#include <stdint.h>

#include "common/conf.h"

enum { FAREWELL_STEP_MS = 20 };

/* So many of `count` in each step: spread over drain.spread, at least one, at most 256, because all
 * of them come back somewhere. */
uint32_t farewell_batch(const struct conf *, size_t count);

/* From the beginning of the drain until whoever is still there must be told: shortly before
 * drain.timeout, so that it gets out. */
uint64_t farewell_end_ms(const struct conf *);

/* A random part of drain.come_back. */
uint32_t farewell_come_back_ms(const struct conf *);

#endif
