/*
 * utf8 - a shift-based automaton: each byte has a row of 64 bits in which the
 * next state stands at the bit whose number is the present state (Per Vognsen,
 * "Shift-based DFAs", 2021). States are multiples of 6 so that their rows do not
 * overlap; what a row does not name is BAD, which is 0 and leads only to itself.
 */
#include "worker/ws/utf8.h"

#include <string.h>

#define BAD   0
#define OK    6
#define ONE   12 /* one continuation byte is missing, any of 80..bf; of the next, two and three */
#define TWO   18
#define THREE 24
#define E0    30 /* after e0: a0..bf, shorter forms exist for the rest */
#define ED    36 /* after ed: 80..9f, the rest are surrogates */
#define F0    42 /* after f0: 90..bf, shorter forms exist for the rest */
#define F4    48 /* after f4: 80..8f, the rest is above U+10FFFF */

#define TO(from, to) ((uint64_t)(to) << (from))
#define TAIL         (TO(ONE, OK) | TO(TWO, ONE) | TO(THREE, TWO))

static const uint64_t rows[256] = {
    [0x00 ... 0x7f] = TO(OK, OK),
    [0x80 ... 0x8f] = TAIL | TO(ED, ONE) | TO(F4, TWO),
    [0x90 ... 0x9f] = TAIL | TO(ED, ONE) | TO(F0, TWO),
    [0xa0 ... 0xbf] = TAIL | TO(E0, ONE) | TO(F0, TWO),
    [0xc2 ... 0xdf] = TO(OK, ONE),
    [0xe0] = TO(OK, E0),
    [0xe1 ... 0xec] = TO(OK, TWO),
    [0xed] = TO(OK, ED),
    [0xee ... 0xef] = TO(OK, TWO),
    [0xf0] = TO(OK, F0),
    [0xf1 ... 0xf3] = TO(OK, THREE),
    [0xf4] = TO(OK, F4),
};

enum { STRIDE = 32 };

static inline uint32_t
step(uint32_t state, uint8_t byte)
{
	return (uint32_t)(rows[byte] >> state) & 63;
}

static bool
is_ascii_stride(const uint8_t *p)
{
	uint64_t words[STRIDE / 8];

	memcpy(words, p, sizeof(words));
	return ((words[0] | words[1] | words[2] | words[3]) & 0x8080808080808080) == 0;
}

bool
ws_utf8_feed(uint32_t *state, const uint8_t *p, size_t len)
{
	uint32_t s = *state;

	for (; len >= STRIDE && s != BAD; p += STRIDE, len -= STRIDE) {
		if (s == OK && is_ascii_stride(p))
			continue;
		for (size_t i = 0; i < STRIDE; i++)
			s = step(s, p[i]);
	}
	for (size_t i = 0; i < len; i++)
		s = step(s, p[i]);
	*state = s;
	return s != BAD;
}
