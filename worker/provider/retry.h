/*
 * retry - when and where an attempt that has failed is followed by another.
 * Pure: takes the time and the dice.
 */
#ifndef WORKER_PROVIDER_RETRY_H
#define WORKER_PROVIDER_RETRY_H

#include <stdint.h>

#include "common/str.h"

/* The value of Retry-After in ms: seconds or an HTTP date (RFC 9110, 10.2.3). What is neither, or
 * in the past: 0. A day at most. */
uint32_t retry_after_parse(struct str value, int64_t wall_ms);

#endif
