/* position - see position.h. */
#include "worker/events/position.h"

#include <stdio.h>
#include <string.h>

enum { HEX_MAX = 16 };

static uint32_t
find(const struct position *p, uint64_t host)
{
	uint32_t i = 0;

	while (i < p->count && p->hosts[i].host != host)
		i++;
	return i;
}

uint64_t
position_get(const struct position *p, uint64_t host)
{
	uint32_t i = find(p, host);

	return i < p->count ? p->hosts[i].number : 0;
}

void
position_set(struct position *p, uint64_t host, uint64_t number)
{
	uint32_t i = find(p, host);

	if (i == p->count && p->count < POSITION_HOSTS)
		p->count++;
	if (i == POSITION_HOSTS)
		i--;
	memmove(&p->hosts[1], &p->hosts[0], i * sizeof(p->hosts[0]));
	p->hosts[0].host = host;
	p->hosts[0].number = number;
}

void
position_merge(struct position *p, const struct position *other)
{
	for (uint32_t i = other->count; i-- > 0;) {
		uint64_t host = other->hosts[i].host;

		if (position_get(p, host) < other->hosts[i].number)
			position_set(p, host, other->hosts[i].number);
	}
	if (p->at_ms < other->at_ms)
		p->at_ms = other->at_ms;
}

bool
position_covers(const struct position *p, const struct position *other)
{
	for (uint32_t i = 0; i < other->count; i++)
		if (position_get(p, other->hosts[i].host) < other->hosts[i].number)
			return false;
	return true;
}

size_t
position_format(const struct position *p, char out[POSITION_TEXT_MAX])
{
	size_t len = (size_t)snprintf(out, POSITION_TEXT_MAX, "%llx", (unsigned long long)p->at_ms);

	for (uint32_t i = 0; i < p->count; i++)
		len += (size_t)snprintf(out + len, POSITION_TEXT_MAX - len, "-%llx.%llx",
		    (unsigned long long)p->hosts[i].host, (unsigned long long)p->hosts[i].number);
	return len;
}

static bool
take_hex(struct str s, uint64_t *ret)
{
	uint64_t n = 0;

	if (s.len == 0 || s.len > HEX_MAX)
		return false;
	for (size_t i = 0; i < s.len; i++) {
		char c = s.p[i];

		if (c >= '0' && c <= '9')
			n = n << 4 | (unsigned)(c - '0');
		else if (c >= 'a' && c <= 'f')
			n = n << 4 | (unsigned)(c - 'a' + 10);
		else
			return false;
	}
	*ret = n;
	return true;
}

bool
position_parse(struct str s, struct position *ret)
{
	struct position p = {.count = 0};
	uint64_t at;

	if (s.len == 0 || s.p[s.len - 1] == '-' || !take_hex(str_split(&s, '-'), &at) ||
	    at > INT64_MAX)
		return false;
	p.at_ms = (int64_t)at;
	while (s.len > 0) {
		struct str pair = str_split(&s, '-');
		struct str host = str_split(&pair, '.');

		if (p.count == POSITION_HOSTS || !take_hex(host, &p.hosts[p.count].host) ||
		    !take_hex(pair, &p.hosts[p.count].number))
			return false;
		p.count++;
	}
	*ret = p;
	return true;
}
