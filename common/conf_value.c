/* conf_value - parsing and formatting of single values. */
#include "common/conf_value.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"

struct unit {
	const char *name;
	uint64_t factor;
};

/* Largest first: the formatter takes the first that divides. */
static const struct unit duration_units[] = {
    {"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
static const struct unit size_units[] = {
    {"TiB", 1ULL << 40}, {"GiB", 1ULL << 30}, {"MiB", 1ULL << 20}, {"KiB", 1ULL << 10}, {"B", 1}};

bool
conf_parse_bool(struct str s, bool *ret)
{
	static const struct {
		struct str text;
		bool value;
	} words[] = {{STR("true"), true}, {STR("false"), false}, {STR("yes"), true},
	    {STR("no"), false}, {STR("on"), true}, {STR("off"), false}, {STR("1"), true},
	    {STR("0"), false}};

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (str_ieq(s, words[i].text)) {
			*ret = words[i].value;
			return true;
		}
	}
	return false;
}

bool
conf_parse_int(struct str s, int64_t *ret)
{
	bool is_negative = s.len > 0 && *s.p == '-';
	uint64_t n;

	if (is_negative)
		s = str_sub(s.p + 1, s.len - 1);
	if (!str_to_u64(s, &n) || n > INT64_MAX)
		return false;
	*ret = is_negative ? -(int64_t)n : (int64_t)n;
	return true;
}

bool
conf_parse_float(struct str s, double *ret)
{
	char text[64], *end;

	/* Decimal notation only: strtod also reads hexadecimal, infinities and nan. */
	if (s.len == 0 || s.len >= sizeof(text))
		return false;
	for (size_t i = 0; i < s.len; i++) {
		if (strchr("0123456789.eE+-", s.p[i]) == NULL || s.p[i] == '\0')
			return false;
	}
	memcpy(text, s.p, s.len);
	text[s.len] = '\0';
	double value = strtod(text, &end);
	if (*end != '\0' || value > 1e300 || value < -1e300)
		return false;
	*ret = value;
	return true;
}

/* Digits followed by one of the units. */
static bool
parse_with_unit(struct str s, const struct unit *units, size_t count, uint64_t *ret)
{
	size_t digits = 0;
	uint64_t n;

	while (digits < s.len && s.p[digits] >= '0' && s.p[digits] <= '9')
		digits++;
	if (!str_to_u64(str_sub(s.p, digits), &n))
		return false;
	struct str name = str_sub(s.p + digits, s.len - digits);
	for (size_t i = 0; i < count; i++) {
		if (!str_eq(name, str_of(units[i].name)))
			continue;
		/* Kept below 2^63, so that sums and signed copies are safe. */
		if (__builtin_mul_overflow(n, units[i].factor, &n) || n > INT64_MAX)
			return false;
		*ret = n;
		return true;
	}
	return false;
}

bool
conf_parse_duration(struct str s, uint64_t *ret_ms)
{
	if (str_eq(s, STR("0"))) {
		*ret_ms = 0;
		return true;
	}
	return parse_with_unit(s, duration_units, ARRAY_LEN(duration_units), ret_ms);
}

bool
conf_parse_size(struct str s, uint64_t *ret_bytes)
{
	uint64_t n;

	if (str_to_u64(s, &n) && n <= INT64_MAX) {
		*ret_bytes = n;
		return true;
	}
	return parse_with_unit(s, size_units, ARRAY_LEN(size_units), ret_bytes);
}

static void
format_with_unit(struct buf *out, uint64_t n, const struct unit *units, size_t count)
{
	size_t i = 0;

	while (i < count - 1 && n % units[i].factor != 0)
		i++;
	buf_printf(out, "%llu%s", (unsigned long long)(n / units[i].factor), units[i].name);
}

void
conf_format_duration(struct buf *out, uint64_t ms)
{
	if (ms == 0)
		buf_add_char(out, '0');
	else
		format_with_unit(out, ms, duration_units, ARRAY_LEN(duration_units));
}

void
conf_format_size(struct buf *out, uint64_t bytes)
{
	/* Plain bytes have no unit. */
	if (bytes % 1024 != 0 || bytes == 0)
		buf_printf(out, "%llu", (unsigned long long)bytes);
	else
		format_with_unit(out, bytes, size_units, ARRAY_LEN(size_units));
}

void
conf_format_float(struct buf *out, double value)
{
	char text[40];

	snprintf(text, sizeof(text), "%.15g", value);
	if (strtod(text, NULL) != value)
		snprintf(text, sizeof(text), "%.17g", value);
	buf_add_cstr(out, text);
}
