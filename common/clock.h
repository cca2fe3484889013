/*
 * clock - what time it is.
 *
 * Monotonic milliseconds for every wait; wall-clock milliseconds since 1970
 * only for what people and databases see.
 */
#ifndef COMMON_CLOCK_H
#define COMMON_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/str.h"

enum { CLOCK_RFC3339_LEN = 24 }; /* 2026-01-31T12:34:56.789Z */

uint64_t clock_mono_ms(void);
uint64_t clock_mono_us(void);
int64_t clock_wall_ms(void);
uint64_t clock_core_us(void); /* that this thread had a core; only differences mean something */

/* Writes RFC 3339 UTC with milliseconds and a NUL: CLOCK_RFC3339_LEN + 1 bytes. Years 1970 to 9999.
 */
void clock_format(int64_t wall_ms, char out[CLOCK_RFC3339_LEN + 1]);

/* RFC 3339 with any offset and 0 to 9 digits of fraction; false when it is not that. */
bool clock_parse(struct str s, int64_t *ret_wall_ms);

#endif
