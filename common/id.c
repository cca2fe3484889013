/* id - ULIDs with a prefix. */
#include "common/id.h"

#include <stdio.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/crypto.h"

static const char alphabet[] = "0123456789abcdefghjkmnpqrstvwxyz";

static int
digit_of(char c)
{
	if (c >= 'A' && c <= 'Z')
		c = (char)(c | 0x20);
	const char *at = c != '\0' ? strchr(alphabet, c) : NULL;
	return at != NULL ? (int)(at - alphabet) : -1;
}

static struct id
format(const char *prefix, unsigned __int128 n)
{
	struct id id;
	int at = snprintf(id.s, sizeof(id.s), "%s_", prefix);

	check(at > 1 && at + ID_BODY_LEN < ID_MAX);
	for (int i = ID_BODY_LEN; i-- > 0; n >>= 5)
		id.s[at + i] = alphabet[(unsigned)n & 31];
	id.s[at + ID_BODY_LEN] = '\0';
	return id;
}

static unsigned __int128
append(unsigned __int128 n, const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		n = n << 8 | bytes[i];
	return n;
}

struct id
id_new(const char *prefix)
{
	unsigned __int128 n = (unsigned __int128)(uint64_t)clock_wall_ms() & 0xffffffffffffULL;
	uint8_t random[10];

	crypto_random(random, sizeof(random));
	return format(prefix, append(n, random, sizeof(random)));
}

struct id
id_of_bits(const char *prefix, const uint8_t bits[16])
{
	return format(prefix, append(0, bits, 16));
}

bool
id_parse(struct str s, const char *prefix, struct id *ret)
{
	size_t at = strlen(prefix);
	struct id id;

	if (s.len != at + 1 + ID_BODY_LEN || s.len >= ID_MAX ||
	    !str_starts(s, str_sub(prefix, at)) || s.p[at] != '_')
		return false;
	memcpy(id.s, s.p, at + 1);
	for (size_t i = at + 1; i < s.len; i++) {
		int d = digit_of(s.p[i]);

		/* 26 digits hold 130 bits: the first may only be 0 to 7. */
		if (d < 0 || (i == at + 1 && d > 7))
			return false;
		id.s[i] = alphabet[d];
	}
	id.s[s.len] = '\0';
	*ret = id;
	return true;
}

void
id_bits(const struct id *id, uint8_t out[16])
{
	const char *body = strchr(id->s, '_');
	unsigned __int128 n = 0;

	check(body != NULL && strlen(body + 1) == ID_BODY_LEN);
	for (int i = 1; i <= ID_BODY_LEN; i++)
		n = n << 5 | (unsigned)digit_of(body[i]);
	for (int i = 16; i-- > 0; n >>= 8)
		out[i] = (uint8_t)n;
}
