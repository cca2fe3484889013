/*
 * payload - compact payloads of the backplane: numbers in groups of seven bits, the
 * lowest first, the top bit says that another follows (LEB128); texts behind their length.
 */
#include "worker/backplane/backplane.h"

void
backplane_put_u64(struct buf *out, uint64_t n)
{
	for (; n >= 0x80; n >>= 7)
		buf_add_char(out, (char)(n | 0x80));
	buf_add_char(out, (char)n);
}

void
backplane_put_str(struct buf *out, struct str s)
{
	backplane_put_u64(out, s.len);
	buf_add_str(out, s);
}

bool
backplane_take_u64(struct str *rest, uint64_t *ret)
{
	uint64_t n = 0;

	for (size_t i = 0; i < rest->len && i < 10; i++) {
		uint64_t group = (unsigned char)rest->p[i] & 0x7f;

		if (i == 9 && group > 1)
			return false;
		n |= group << 7 * i;
		if (((unsigned char)rest->p[i] & 0x80) == 0) {
			*ret = n;
			*rest = str_sub(rest->p + i + 1, rest->len - i - 1);
			return true;
		}
	}
	return false;
}

bool
backplane_take_str(struct str *rest, struct str *ret)
{
	struct str at = *rest;
	uint64_t len;

	if (!backplane_take_u64(&at, &len) || len > at.len)
		return false;
	*ret = str_sub(at.p, len);
	*rest = str_sub(at.p + len, at.len - len);
	return true;
}
