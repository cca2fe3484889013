/*
 * id - names of things: `<prefix>_<26 characters>`.
 *
 * The 26 characters are 128 bits in Crockford's base32, lower case: 48 bits
 * of wall-clock milliseconds, then 80 random bits (the ULID layout), so ids
 * of one kind sort by time and cannot be guessed.
 */
#ifndef COMMON_ID_H
#define COMMON_ID_H

#include <stdbool.h>

#include "common/str.h"

enum {
	ID_BODY_LEN = 26,
	ID_MAX = 32
}; /* ID_MAX: longest id with its NUL; prefixes up to 4 characters */

struct id {
	char s[ID_MAX]; /* NUL-terminated; empty: none */
};

/* "sess", "turn", "msg", "call", "task", "app", "key", "wh" */
struct id id_new(const char *prefix);

/* Is this text an id of that kind? Copies it when it is. Upper case is taken as lower. */
bool id_parse(struct str s, const char *prefix, struct id *ret);

/* The 128 bits of a valid id, big-endian: the key of maps in shared memory, and half the size where
 * many are kept. */
void id_bits(const struct id *, uint8_t out[16]);
struct id id_of_bits(const char *prefix, const uint8_t bits[16]);

static inline struct str
id_str(const struct id *id)
{
	return str_of(id->s);
}

#endif
