/*
 * str - a borrowed piece of text: pointer and length, not terminated.
 *
 * A str owns nothing; it is valid as long as what it points into.
 */
#ifndef COMMON_STR_H
#define COMMON_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
	const char *p;
	size_t len;
};

#define STR(literal) ((struct str){(literal), sizeof(literal) - 1})
#define STR_NONE     ((struct str){NULL, 0})

static inline struct str
str_of(const char *s)
{
	return (struct str){s, s != NULL ? strlen(s) : 0};
}

static inline struct str
str_sub(const char *p, size_t len)
{
	return (struct str){p, len};
}

static inline bool
str_eq(struct str a, struct str b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.p, b.p, a.len) == 0);
}

bool str_ieq(struct str a, struct str b); /* ASCII case folded */
bool str_starts(struct str s, struct str prefix);
struct str str_trim(struct str s); /* spaces and tabs at both ends */

/* Cuts the part of *rest before the first `sep` off and returns it; all of it when there is none.
 */
struct str str_split(struct str *rest, char sep);

/* Decimal digits only, no sign, no overflow; false leaves *ret alone. */
bool str_to_u64(struct str s, uint64_t *ret);

bool str_is_utf8(struct str s); /* RFC 3629: no surrogates, no overlong forms */

#endif
