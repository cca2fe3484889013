/* owner - three numbers in hex, with points between them. */
#include "worker/backplane/owner.h"

#include <inttypes.h>
#include <stdio.h>

void
owner_format(struct backplane_addr a, char out[OWNER_MAX])
{
	snprintf(out, OWNER_MAX, "%016" PRIx64 ".%x.%x", a.host, a.who.row, a.who.number);
}

void
owner_format_host(struct backplane_addr a, char out[OWNER_MAX])
{
	snprintf(out, OWNER_MAX, "%016" PRIx64 ".", a.host);
}

/* Lower-case hex digits up to the next point or the end. */
static bool
take_hex(struct str *rest, uint64_t max, uint64_t *ret)
{
	struct str part = str_split(rest, '.');
	uint64_t v = 0;

	if (part.len == 0 || part.len > 16)
		return false;
	for (size_t i = 0; i < part.len; i++) {
		char c = part.p[i];

		if (c >= '0' && c <= '9')
			v = v << 4 | (uint64_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			v = v << 4 | (uint64_t)(c - 'a' + 10);
		else
			return false;
	}
	*ret = v;
	return v <= max;
}

bool
owner_parse(const char *text, struct backplane_addr *ret)
{
	struct str rest = str_of(text);
	uint64_t host, row, number;

	if (rest.len == 0 || rest.p[rest.len - 1] == '.') /* splitting forgives a last point */
		return false;
	if (!take_hex(&rest, UINT64_MAX, &host) || !take_hex(&rest, UINT32_MAX, &row) ||
	    !take_hex(&rest, UINT32_MAX, &number) || rest.len > 0)
		return false;
	*ret = (struct backplane_addr){host, {(uint32_t)row, (uint32_t)number}};
	return true;
}

bool
owner_equal(struct backplane_addr a, struct backplane_addr b)
{
	return a.host == b.host && a.who.row == b.who.row && a.who.number == b.who.number;
}
