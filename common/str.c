/* str - the few operations on borrowed text. */
#include "common/str.h"

static char
lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

bool
str_ieq(struct str a, struct str b)
{
	if (a.len != b.len)
		return false;
	for (size_t i = 0; i < a.len; i++) {
		if (lower(a.p[i]) != lower(b.p[i]))
			return false;
	}
	return true;
}

bool
str_starts(struct str s, struct str prefix)
{
	return s.len >= prefix.len && str_eq(str_sub(s.p, prefix.len), prefix);
}

struct str
str_trim(struct str s)
{
	while (s.len > 0 && (*s.p == ' ' || *s.p == '\t')) {
		s.p++;
		s.len--;
	}
	while (s.len > 0 && (s.p[s.len - 1] == ' ' || s.p[s.len - 1] == '\t'))
		s.len--;
	return s;
}

struct str
str_split(struct str *rest, char sep)
{
	const char *at = rest->len > 0 ? memchr(rest->p, sep, rest->len) : NULL;
	struct str head = *rest;

	if (at == NULL) {
		*rest = STR_NONE;
		return head;
	}
	head.len = (size_t)(at - head.p);
	rest->p += head.len + 1;
	rest->len -= head.len + 1;
	return head;
}

bool
str_to_u64(struct str s, uint64_t *ret)
{
	uint64_t n = 0;

	if (s.len == 0)
		return false;
	for (size_t i = 0; i < s.len; i++) {
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
		if (__builtin_mul_overflow(n, 10, &n) ||
		    __builtin_add_overflow(n, (uint64_t)(s.p[i] - '0'), &n))
			return false;
	}
	*ret = n;
	return true;
}

/* Bytes that follow the lead byte c, or -1; *min and *max bound the first of them. */
static int
utf8_follow(unsigned char c, unsigned char *min, unsigned char *max)
{
	*min = 0x80;
	*max = 0xbf;
	if (c < 0x80)
		return 0;
	if (c >= 0xc2 && c <= 0xdf)
		return 1;
	if (c >= 0xe0 && c <= 0xef) {
		*min = c == 0xe0 ? 0xa0 : 0x80;
		*max = c == 0xed ? 0x9f : 0xbf;
		return 2;
	}
	if (c >= 0xf0 && c <= 0xf4) {
		*min = c == 0xf0 ? 0x90 : 0x80;
		*max = c == 0xf4 ? 0x8f : 0xbf;
		return 3;
	}
	return -1;
}

bool
str_is_utf8(struct str s)
{
	const unsigned char *p = (const unsigned char *)s.p, *end = p + s.len;

	while (p < end) {
		unsigned char min, max;
		int n = utf8_follow(*p++, &min, &max);

		if (n < 0 || end - p < n)
			return false;
		for (int i = 0; i < n; i++, p++) {
			if (*p < min || *p > max)
				return false;
			min = 0x80;
			max = 0xbf;
		}
	}
	return true;
}
