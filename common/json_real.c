/*
 * json_real - see json_real.h. The shortest of 15, 16 and 17 digits that gives the same double:
 * 17 always do (IEEE 754).
 */
#include "common/json_real.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DIGITS_MIN = 15, DIGITS_MAX = 17, REAL_MAX = 40 };

/* After the closing quote. */
static const char *
string_end(const char *p)
{
	for (p++; *p != '\0' && *p != '"'; p++) {
		if (*p == '\\' && p[1] != '\0')
			p++;
	}
	return *p == '"' ? p + 1 : p;
}

/* 1e-05 is 1e-5, 1e+20 is 1e20; what was a real stays one: 3 is 3.0. Returns the length; there is
 * room for two more. */
static size_t
tidy(char *real)
{
	char *e = strchr(real, 'e'), *digits;
	size_t len = strlen(real);

	if (e == NULL) {
		if (strchr(real, '.') != NULL)
			return len;
		real[len++] = '.';
		real[len++] = '0';
		real[len] = '\0';
		return len;
	}
	digits = e[1] == '-' ? e + 2 : e + 1;
	e = digits + strspn(digits, "+0");
	memmove(digits, e, strlen(e) + 1);
	return len - (size_t)(e - digits);
}

/* Writes the number [p, end) to dst, which may be where it stands. Returns its length. */
static size_t
put_number(char *dst, const char *p, const char *end)
{
	size_t len = (size_t)(end - p);
	char real[REAL_MAX];

	if (len < DIGITS_MAX || len >= REAL_MAX || strcspn(p, ".eE") >= len) {
		memmove(dst, p, len);
		return len;
	}
	double value = strtod(p, NULL);
	for (int digits = DIGITS_MIN; digits <= DIGITS_MAX; digits++) {
		snprintf(real, sizeof(real) - 2, "%.*g", digits, value);
		if (strtod(real, NULL) == value)
			break;
	}
	size_t shorter = tidy(real);
	if (shorter >= len) {
		memmove(dst, p, len);
		return len;
	}
	memcpy(dst, real, shorter);
	return shorter;
}

void
json_shorten_reals(char *text)
{
	const char *p = text;
	char *out = text;

	while (*p != '\0') {
		const char *end = p + 1;

		if (*p == '"') {
			end = string_end(p);
		} else if (*p == '-' || (*p >= '0' && *p <= '9')) {
			end = p + strspn(p, "0123456789+-.eE");
			out += put_number(out, p, end);
			p = end;
			continue;
		}
		if (out != p)
			memmove(out, p, (size_t)(end - p));
		out += end - p;
		p = end;
	}
	*out = '\0';
}
