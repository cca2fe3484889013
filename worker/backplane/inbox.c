/* inbox - see inbox.h. */
#include "worker/backplane/inbox.h"

#include "worker/backplane/owner.h"

enum { HOST_LEN = 8 };

void
inbox_channel(const char *prefix, struct backplane_addr to, struct buf *out)
{
	char addr[OWNER_MAX];

	owner_format(to, addr);
	buf_clear(out);
	buf_printf(out, "%sin:%s", prefix, addr);
}

void
inbox_channel_of_all(const char *prefix, struct buf *out)
{
	buf_clear(out);
	buf_printf(out, "%sall", prefix);
}

void
inbox_format(const struct inbox_message *m, struct buf *out)
{
	buf_add_char(out, INBOX_VERSION);
	for (int shift = 56; shift >= 0; shift -= 8)
		buf_add_char(out, (char)(m->from.host >> shift));
	backplane_put_u64(out, m->from.who.row);
	backplane_put_u64(out, m->from.who.number);
	backplane_put_u64(out, m->method);
	buf_add_str(out, m->payload);
}

bool
inbox_parse(struct str s, struct inbox_message *ret)
{
	struct inbox_message m = {.method = 0};
	uint64_t row, number, method;

	if (s.len <= 1 + HOST_LEN || s.p[0] != INBOX_VERSION)
		return false;
	for (size_t i = 1; i <= HOST_LEN; i++)
		m.from.host = m.from.host << 8 | (unsigned char)s.p[i];
	struct str rest = str_sub(s.p + 1 + HOST_LEN, s.len - 1 - HOST_LEN);
	if (!backplane_take_u64(&rest, &row) || !backplane_take_u64(&rest, &number) ||
	    !backplane_take_u64(&rest, &method) || row > UINT32_MAX || number == 0 ||
	    number > UINT32_MAX || method >= BACKPLANE_METHOD_COUNT)
		return false;
	m.from.who = (struct shm_who){(uint32_t)row, (uint32_t)number};
	m.method = (uint16_t)method;
	m.payload = rest;
	*ret = m;
	return true;
}
