/*
 * frame - the frames of RFC 6455 as a server sees them: reads masked ones from
 * wherever the bytes were split, writes the heads of unmasked ones.
 *
 * Pure, holds no bytes but those of a head that is not whole. What frames mean
 * together (messages, closing) is message.h.
 *
 *      input      | head 6..14 |  payload, `left` to come  | head ..
 *      is_open    false        true                        false
 */
#ifndef WORKER_WS_FRAME_H
#define WORKER_WS_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ws_opcode {
	WS_OP_CONTINUATION = 0,
	WS_OP_TEXT = 1,
	WS_OP_BINARY = 2,
	WS_OP_CLOSE = 8,
	WS_OP_PING = 9,
	WS_OP_PONG = 10,
};

enum {
	WS_HEAD_IN_MAX = 14,  /* 2, length 8, key 4 */
	WS_HEAD_OUT_MAX = 10, /* 2, length 8 */
	WS_CONTROL_MAX = 125, /* payload of a control frame */
};

/* Bytes that are eaten from the front; the caller's memory, changed by unmasking. */
struct ws_bytes {
	uint8_t *p;
	size_t len;
};

/* Zeroed before first use. */
struct ws_frame {
	uint64_t left;                /* payload that has not been taken */
	uint8_t head[WS_HEAD_IN_MAX]; /* as on the wire; once open, the key is in the last four */
	uint8_t head_len;
	bool is_open;
};

/*
 * Takes bytes of a head from *in; is_open says that it is whole, otherwise *in is used up. NULL, or
 * what is wrong with it in a few words: a protocol error, told at the first byte that shows it.
 */
const char *ws_frame_take_head(struct ws_frame *, struct ws_bytes *in);

/* Cuts what there is of the payload off *in, unmasks it in place and returns it. With left == 0
 * afterwards that was all, and ws_frame_end() makes ready for the next head. */
struct ws_bytes ws_frame_take_payload(struct ws_frame *, struct ws_bytes *in);
void ws_frame_end(struct ws_frame *);

/* Of an open frame. */
static inline enum ws_opcode
ws_frame_opcode(const struct ws_frame *f)
{
	return (enum ws_opcode)(f->head[0] & 0x0f);
}

static inline bool
ws_frame_is_final(const struct ws_frame *f)
{
	return (f->head[0] & 0x80) != 0;
}

static inline bool
ws_frame_is_control(const struct ws_frame *f)
{
	return (f->head[0] & 0x08) != 0;
}

/* The head of a final, unmasked frame: returns its length, 2, 4 or 10. */
size_t ws_frame_format_head(
    enum ws_opcode, uint64_t payload_bytes, uint8_t ret_head[WS_HEAD_OUT_MAX]);

/* XOR with the key as it stands before the first byte; turns it for the byte after the last. */
void ws_unmask(uint8_t *p, size_t len, uint8_t key[4]);

#endif
