/* clock - CLOCK_MONOTONIC, CLOCK_REALTIME and RFC 3339. */
#include "common/clock.h"

#include <stdio.h>
#include <time.h>

#include "common/check.h"

uint64_t
clock_mono_us(void)
{
	struct timespec ts;

	check(clock_gettime(CLOCK_MONOTONIC, &ts) == 0);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

uint64_t
clock_mono_ms(void)
{
	return clock_mono_us() / 1000;
}

uint64_t
clock_core_us(void)
{
	struct timespec ts;

	check(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts) == 0);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

int64_t
clock_wall_ms(void)
{
	struct timespec ts;

	check(clock_gettime(CLOCK_REALTIME, &ts) == 0);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void
clock_format(int64_t wall_ms, char out[CLOCK_RFC3339_LEN + 1])
{
	time_t s = (time_t)(wall_ms / 1000);
	struct tm tm;

	check(wall_ms >= 0 && gmtime_r(&s, &tm) != NULL && tm.tm_year + 1900 <= 9999);
	size_t n = strftime(out, CLOCK_RFC3339_LEN + 1, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out + n, CLOCK_RFC3339_LEN + 1 - n, ".%03uZ", (unsigned)(wall_ms % 1000) % 1000u);
}

/* Reads exactly n digits at *s and steps over them. */
static bool
take_digits(struct str *s, size_t n, int *ret)
{
	uint64_t v;

	if (s->len < n || !str_to_u64(str_sub(s->p, n), &v))
		return false;
	s->p += n;
	s->len -= n;
	*ret = (int)v;
	return true;
}

static bool
take_char(struct str *s, const char *any_of)
{
	if (s->len == 0 || *s->p == '\0' || strchr(any_of, *s->p) == NULL)
		return false;
	s->p++;
	s->len--;
	return true;
}

static bool
take_fraction(struct str *s, int64_t *ret_ms)
{
	int64_t ms = 0;
	int digits = 0, d;

	*ret_ms = 0;
	if (!take_char(s, "."))
		return true;
	while (digits < 9 && take_digits(s, 1, &d)) {
		if (digits++ < 3)
			ms = ms * 10 + d;
	}
	for (int i = digits; i < 3; i++)
		ms *= 10;
	*ret_ms = ms;
	return digits > 0;
}

static bool
take_offset(struct str *s, int *ret_minutes)
{
	int hours, minutes;
	bool is_west = s->len > 0 && *s->p == '-';

	*ret_minutes = 0;
	if (take_char(s, "Zz"))
		return true;
	if (!take_char(s, "+-") || !take_digits(s, 2, &hours) || !take_char(s, ":") ||
	    !take_digits(s, 2, &minutes) || hours > 23 || minutes > 59)
		return false;
	*ret_minutes = (is_west ? -1 : 1) * (hours * 60 + minutes);
	return true;
}

bool
clock_parse(struct str s, int64_t *ret_wall_ms)
{
	struct tm tm = {0};
	int64_t fraction_ms;
	int offset_minutes;

	if (!take_digits(&s, 4, &tm.tm_year) || !take_char(&s, "-") ||
	    !take_digits(&s, 2, &tm.tm_mon) || !take_char(&s, "-") ||
	    !take_digits(&s, 2, &tm.tm_mday) || !take_char(&s, "Tt ") ||
	    !take_digits(&s, 2, &tm.tm_hour) || !take_char(&s, ":") ||
	    !take_digits(&s, 2, &tm.tm_min) || !take_char(&s, ":") ||
	    !take_digits(&s, 2, &tm.tm_sec) || !take_fraction(&s, &fraction_ms) ||
	    !take_offset(&s, &offset_minutes) || s.len > 0)
		return false;
	if (tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 ||
	    tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60)
		return false;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	/* timegm() would take the 31st of April for the 1st of May. */
	struct tm day = {.tm_year = tm.tm_year, .tm_mon = tm.tm_mon, .tm_mday = tm.tm_mday};
	timegm(&day);
	if (day.tm_mday != tm.tm_mday)
		return false;
	*ret_wall_ms = ((int64_t)timegm(&tm) - offset_minutes * 60) * 1000 + fraction_ms;
	return true;
}
