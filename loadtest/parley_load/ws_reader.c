/* ws_reader - a whole frame in the input is told from there; of another one a copy is kept. */
#include "loadtest/parley_load/ws_reader.h"

#include <stdlib.h>

#include "common/check.h"

enum { HEAD_MIN = 2, LENGTH_16 = 126, LENGTH_64 = 127 };

struct ws_kept {
	size_t len, need; /* bytes that are here, and up to where it can be said how it goes on */
	bool has_told;
	uint8_t bytes[];
};

static size_t
head_bytes(uint8_t second)
{
	return HEAD_MIN + (second == LENGTH_64 ? 8 : second == LENGTH_16 ? 2 : 0);
}

static uint64_t
payload_bytes(const uint8_t *p)
{
	uint64_t len = 0;

	if (p[1] < LENGTH_16)
		return p[1];
	for (size_t i = HEAD_MIN; i < head_bytes(p[1]); i++)
		len = len << 8 | p[i];
	return len;
}

/* How many bytes must be there until more can be said of the frame that begins at p: the whole of
 * it once its head is there. 0: it may not come. */
static size_t
needed_bytes(const uint8_t *p, size_t len)
{
	if (len < HEAD_MIN)
		return HEAD_MIN;
	if ((p[0] & 0x70) != 0 || (p[1] & 0x80) != 0)
		return 0;
	size_t head = head_bytes(p[1]);
	if (len < head)
		return head;
	uint64_t payload = payload_bytes(p);
	return payload > WS_READER_PAYLOAD_MAX ? 0 : head + (size_t)payload;
}

static enum ws_reader_said
tell(const uint8_t *p, size_t len, struct ws_got *ret)
{
	size_t head = head_bytes(p[1]);

	ret->data = str_sub((const char *)p + head, len - head);
	ret->opcode = (enum ws_opcode)(p[0] & 0x0f);
	ret->is_final = (p[0] & 0x80) != 0;
	return WS_READER_FRAME;
}

static void
take(struct ws_bytes *in, size_t n)
{
	in->p += n;
	in->len -= n;
}

/* The frame that is kept goes on in *in. */
static enum ws_reader_said
next_of_kept(struct ws_reader *r, struct ws_bytes *in, struct ws_got *ret)
{
	while (in->len > 0) {
		struct ws_kept *k = r->kept;
		size_t n = k->need - k->len < in->len ? k->need - k->len : in->len;

		memcpy(k->bytes + k->len, in->p, n);
		k->len += n;
		take(in, n);
		if (k->len < k->need)
			break;
		size_t need = needed_bytes(k->bytes, k->len);
		if (need == 0)
			return WS_READER_FAULT;
		if (need == k->need) {
			k->has_told = true;
			return tell(k->bytes, k->len, ret);
		}
		r->kept = xrealloc(k, sizeof(*k) + need);
		r->kept->need = need;
	}
	return WS_READER_MORE;
}

enum ws_reader_said
ws_reader_next(struct ws_reader *r, struct ws_bytes *in, struct ws_got *ret)
{
	if (r->kept != NULL && r->kept->has_told)
		ws_reader_fini(r);
	if (in->len == 0)
		return WS_READER_MORE;
	if (r->kept != NULL)
		return next_of_kept(r, in, ret);
	size_t need = needed_bytes(in->p, in->len);
	if (need == 0)
		return WS_READER_FAULT;
	if (need <= in->len) {
		const uint8_t *p = in->p;

		take(in, need);
		return tell(p, need, ret);
	}
	r->kept = xmalloc(sizeof(*r->kept) + need);
	*r->kept = (struct ws_kept){.len = in->len, .need = need};
	memcpy(r->kept->bytes, in->p, in->len);
	take(in, in->len);
	return WS_READER_MORE;
}

void
ws_reader_fini(struct ws_reader *r)
{
	free(r->kept);
	r->kept = NULL;
}
