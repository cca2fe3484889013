/*
 * peer - the other end, for tests: writes a client's frames, and notes what
 * message.h makes of them as one line of text:
 *
 *      text(hi) ping(x)>pong(x) close(1000,bye)>close(1000)
 *
 * What follows '>' is the reply, read back from its bytes. Bytes that are not
 * printable, and ( ) \, are \xNN; of what is long there is the length and a sum.
 */
#ifndef T_UNIT_WORKER_WS_PEER_H
#define T_UNIT_WORKER_WS_PEER_H

#include <stdlib.h>

#include "common/buf.h"
#include "common/check.h"
#include "worker/ws/message.h"

enum { PEER_FIN = 0x80, PEER_SHOWN_MAX = 130 };

/* A masked frame with the length in its shortest form; the key differs from frame to frame. */
static inline void
peer_frame(struct buf *wire, uint8_t first, struct str payload)
{
	uint32_t key32 = 0x9d37a1c5u * (uint32_t)(wire->len + 1);
	uint8_t head[WS_HEAD_OUT_MAX], key[4];
	size_t head_len = ws_frame_format_head(WS_OP_BINARY, payload.len, head);

	memcpy(key, &key32, sizeof(key));
	head[0] = first;
	head[1] |= 0x80;
	buf_add(wire, head, head_len);
	buf_add(wire, key, sizeof(key));
	char *masked = buf_reserve(wire, payload.len);
	for (size_t i = 0; i < payload.len; i++)
		masked[i] = (char)((uint8_t)payload.p[i] ^ key[i % 4]);
	wire->len += payload.len;
	wire->data[wire->len] = '\0';
}

static inline void
peer_show(struct buf *said, struct str s)
{
	uint32_t sum = 2166136261u; /* FNV-1a */

	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.p[i];

		sum = (sum ^ c) * 16777619u;
		if (s.len > PEER_SHOWN_MAX)
			continue;
		if (c < 0x20 || c > 0x7e || strchr("()\\", c) != NULL)
			buf_printf(said, "\\x%02x", c);
		else
			buf_add_char(said, (char)c);
	}
	if (s.len > PEER_SHOWN_MAX)
		buf_printf(said, "%zu bytes, sum %08x", s.len, sum);
}

static inline void
peer_show_closing(struct buf *said, const char *what, unsigned code, struct str reason)
{
	buf_printf(said, "%s(%u", what, code);
	if (reason.len > 0) {
		buf_add_char(said, ',');
		peer_show(said, reason);
	}
	buf_add_char(said, ')');
}

/* Reads our frame as a client would; the reason of a close after a failure is left out. */
static inline void
peer_show_reply(struct buf *said, const struct ws_event *ev)
{
	const uint8_t *f = ev->reply;
	struct str payload = str_sub((const char *)f + 2, ev->reply_len - 2u);

	check(ev->reply_len >= 2 && f[1] == payload.len);
	buf_add_char(said, '>');
	if (f[0] == (PEER_FIN | WS_OP_PONG)) {
		buf_add_cstr(said, "pong(");
		peer_show(said, payload);
		buf_add_char(said, ')');
	} else {
		check(f[0] == (PEER_FIN | WS_OP_CLOSE) && payload.len != 1);
		check(str_is_utf8(
		    str_sub(payload.p + (payload.len ? 2 : 0), payload.len ? payload.len - 2 : 0)));
		peer_show_closing(said, "close",
		    payload.len ? (unsigned)(f[2] << 8 | f[3]) : WS_CLOSE_NO_CODE, STR_NONE);
	}
}

static inline void
peer_show_event(struct buf *said, enum ws_event_kind kind, const struct ws_event *ev)
{
	static const char *const names[] = {
	    [WS_TEXT] = "text", [WS_BINARY] = "binary", [WS_PING] = "ping", [WS_PONG] = "pong"};

	if (said->len > 0)
		buf_add_char(said, ' ');
	if (kind == WS_FAIL) {
		check(ev->data.len > 0);
		buf_printf(said, "fail(%u)", ev->code);
	} else if (kind == WS_CLOSE) {
		peer_show_closing(said, "close", ev->code, ev->data);
	} else {
		buf_printf(said, "%s(", names[kind]);
		peer_show(said, ev->data);
		buf_add_char(said, ')');
	}
	if (ev->reply_len > 0)
		peer_show_reply(said, ev);
}

/* Feeds the bytes as one piece, in memory of just that size, and notes the events. */
static inline void
peer_say(struct ws_message *m, const struct ws_limits *limits, struct str bytes, struct buf *said)
{
	uint8_t *copy = xmalloc(bytes.len > 0 ? bytes.len : 1);
	struct ws_bytes in = {copy, bytes.len};
	struct ws_event ev;
	enum ws_event_kind kind;

	if (bytes.len > 0)
		memcpy(copy, bytes.p, bytes.len);
	while ((kind = ws_message_next(m, limits, &in, &ev)) != WS_MORE)
		peer_show_event(said, kind, &ev);
	check(in.len == 0 && ev.reply_len == 0);
	free(copy);
}

#endif
