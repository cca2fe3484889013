/* frame - one byte of a head at a time, eight bytes of a payload. */
#include "worker/ws/frame.h"

#include <endian.h>
#include <string.h>

#include "common/check.h"

enum { KEY_AT = WS_HEAD_IN_MAX - 4, LENGTH_16 = 126, LENGTH_64 = 127 };

/* Bytes of the length beyond the second byte of the head. */
static unsigned
length_bytes(uint8_t second)
{
	unsigned code = second & 0x7f;

	return code == LENGTH_16 ? 2 : code == LENGTH_64 ? 8 : 0;
}

static const char *
check_first(uint8_t first)
{
	unsigned op = first & 0x0f;

	if ((first & 0x70) != 0)
		return "reserved bits are set";
	if ((op > WS_OP_BINARY && op < WS_OP_CLOSE) || op > WS_OP_PONG)
		return "reserved opcode";
	if (op >= WS_OP_CLOSE && (first & 0x80) == 0)
		return "fragmented control frame";
	return NULL;
}

static const char *
check_second(const struct ws_frame *f)
{
	if ((f->head[1] & 0x80) == 0)
		return "frame is not masked";
	if (ws_frame_is_control(f) && (f->head[1] & 0x7f) > WS_CONTROL_MAX)
		return "control frame is too long";
	return NULL;
}

/* All bytes of the length are there. */
static const char *
read_length(struct ws_frame *f)
{
	unsigned n = length_bytes(f->head[1]);
	uint64_t len = n == 0 ? f->head[1] & 0x7f : 0;

	for (unsigned i = 0; i < n; i++)
		len = len << 8 | f->head[2 + i];
	if (len > INT64_MAX)
		return "length has its highest bit set";
	if ((n == 2 && len < LENGTH_16) || (n == 8 && len <= UINT16_MAX))
		return "length is not in its shortest form";
	f->left = len;
	return NULL;
}

/* One more byte has come. */
static const char *
look_at_head(struct ws_frame *f)
{
	const char *fault = NULL;

	if (f->head_len == 1)
		return check_first(f->head[0]);
	if (f->head_len == 2)
		fault = check_second(f);
	unsigned key_at = 2 + length_bytes(f->head[1]);
	if (fault == NULL && f->head_len == key_at)
		fault = read_length(f);
	if (f->head_len == key_at + 4) {
		memmove(f->head + KEY_AT, f->head + key_at, 4);
		f->is_open = true;
	}
	return fault;
}

const char *
ws_frame_take_head(struct ws_frame *f, struct ws_bytes *in)
{
	const char *fault = NULL;

	check(!f->is_open);
	while (in->len > 0 && !f->is_open && fault == NULL) {
		f->head[f->head_len++] = *in->p++;
		in->len--;
		fault = look_at_head(f);
	}
	return fault;
}

struct ws_bytes
ws_frame_take_payload(struct ws_frame *f, struct ws_bytes *in)
{
	struct ws_bytes taken = *in;

	check(f->is_open);
	if (taken.len > f->left)
		taken.len = (size_t)f->left;
	ws_unmask(taken.p, taken.len, f->head + KEY_AT);
	f->left -= taken.len;
	in->len -= taken.len;
	if (taken.len > 0)
		in->p += taken.len;
	return taken;
}

void
ws_frame_end(struct ws_frame *f)
{
	check(f->is_open && f->left == 0);
	f->is_open = false;
	f->head_len = 0;
}

size_t
ws_frame_format_head(enum ws_opcode opcode, uint64_t len, uint8_t ret_head[WS_HEAD_OUT_MAX])
{
	check(opcode < WS_OP_CLOSE || len <= WS_CONTROL_MAX);
	ret_head[0] = (uint8_t)(0x80 | opcode);
	if (len < LENGTH_16) {
		ret_head[1] = (uint8_t)len;
		return 2;
	}
	if (len <= UINT16_MAX) {
		uint16_t be = htobe16((uint16_t)len);

		ret_head[1] = LENGTH_16;
		memcpy(ret_head + 2, &be, sizeof(be));
		return 4;
	}
	uint64_t be = htobe64(len);
	ret_head[1] = LENGTH_64;
	memcpy(ret_head + 2, &be, sizeof(be));
	return 10;
}

void
ws_unmask(uint8_t *p, size_t len, uint8_t key[4])
{
	uint32_t key32;
	uint64_t key64, word;

	memcpy(&key32, key, sizeof(key32));
	key64 = (uint64_t)key32 << 32 | key32;
	for (; len >= sizeof(word); p += sizeof(word), len -= sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		word ^= key64;
		memcpy(p, &word, sizeof(word));
	}
	for (size_t i = 0; i < len; i++)
		p[i] ^= key[i % 4];
	/* Whole words leave the key as it is; the rest turns it. */
	uint8_t turned[4];
	for (size_t i = 0; i < sizeof(turned); i++)
		turned[i] = key[(len + i) % 4];
	memcpy(key, turned, sizeof(turned));
}
