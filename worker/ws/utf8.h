/*
 * utf8 - is this UTF-8, told piece by piece (RFC 3629).
 *
 * Pure. The state between two pieces is one number, and a byte that no
 * continuation could make valid is refused at that byte, not at the end of its
 * sequence. Text that is all there at once has str_is_utf8().
 */
#ifndef WORKER_WS_UTF8_H
#define WORKER_WS_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WS_UTF8_START = 6 }; /* the state before the first byte, and after each whole character */

/* False when the bytes so far cannot be the beginning of valid text; false ever after. */
bool ws_utf8_feed(uint32_t *state, const uint8_t *bytes, size_t len);

/* The text may end here: no character is cut. */
static inline bool
ws_utf8_is_whole(uint32_t state)
{
	return state == WS_UTF8_START;
}

#endif
