/*
 * ws_message_fuzz - a WebSocket peer that sends anything: whole, octet by octet
 * and in odd pieces it must be heard as the same, within the limits, and nothing
 * may be held that is over.
 *
 * The first byte of the input: bit 0 small limits, bit 1 we close after the first
 * event, the rest the seed of the pieces. With bit 2 the remainder is not the
 * wire but (first byte, length, payload) triples that are framed and masked here,
 * so that a fuzzer gets past the heads.
 */
#include "t/unit/worker/ws/peer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SMALL = 1, WE_CLOSE = 2, FRAMED = 4 };

static const struct ws_limits small = {.frame_bytes_max = 50, .message_bytes_max = 80};
static const struct ws_limits large = {.frame_bytes_max = 1 << 20, .message_bytes_max = 1 << 20};

static void
check_event(const struct ws_limits *limits, enum ws_event_kind kind, const struct ws_event *ev)
{
	if (kind == WS_TEXT || kind == WS_CLOSE)
		check(str_is_utf8(ev->data));
	if (kind == WS_TEXT || kind == WS_BINARY)
		check(ev->data.len <= limits->message_bytes_max);
	else
		check(ev->data.len <= WS_CONTROL_MAX);
	check(kind != WS_CLOSE || ev->code == WS_CLOSE_NO_CODE || ws_close_code_is_valid(ev->code));
	check(kind != WS_FAIL || ws_close_code_is_valid(ev->code));
}

struct listener {
	struct ws_message m;
	const struct ws_limits *limits;
	struct buf said;
	bool will_close;
	bool is_over; /* the last event was told */
};

static void
hear(struct listener *l, struct str bytes)
{
	uint8_t *copy = xmalloc(bytes.len > 0 ? bytes.len : 1), frame[WS_CONTROL_FRAME_MAX];
	struct ws_bytes in = {copy, bytes.len};
	struct ws_event ev;
	enum ws_event_kind kind;

	if (bytes.len > 0)
		memcpy(copy, bytes.p, bytes.len);
	while ((kind = ws_message_next(&l->m, l->limits, &in, &ev)) != WS_MORE) {
		check(!l->is_over);
		if (l->will_close)
			ws_message_close(&l->m, WS_CLOSE_NORMAL, STR_NONE, frame);
		l->will_close = false;
		check_event(l->limits, kind, &ev);
		peer_show_event(&l->said, kind, &ev);
		l->is_over = kind == WS_CLOSE || kind == WS_FAIL;
		check(l->is_over == (ws_message_state(&l->m) == WS_CLOSED));
	}
	check(in.len == 0);
	check(!l->is_over || l->m.hold == NULL);
	free(copy);
}

/* `pieces`: 0 whole, 1 octets, else the seed of their lengths. Returns what was heard. */
static struct buf
hear_all(struct str wire, uint8_t flags, uint32_t pieces)
{
	struct listener l = {
	    .limits = flags & SMALL ? &small : &large, .will_close = (flags & WE_CLOSE) != 0};
	uint32_t seed = pieces;

	while (wire.len > 0) {
		seed = seed * 1664525 + 1013904223;
		size_t len = pieces == 0 ? wire.len : pieces == 1 ? 1 : 1 + (seed >> 20) % 40;

		if (len > wire.len)
			len = wire.len;
		hear(&l, str_sub(wire.p, len));
		wire = str_sub(wire.p + len, wire.len - len);
	}
	ws_message_fini(&l.m);
	return l.said;
}

static void
frame_input(struct str in, struct buf *wire)
{
	while (in.len >= 2) {
		uint8_t first = (uint8_t)in.p[0];
		size_t len = (uint8_t)in.p[1];

		in = str_sub(in.p + 2, in.len - 2);
		if (len > in.len)
			len = in.len;
		peer_frame(wire, first, str_sub(in.p, len));
		in = str_sub(in.p + len, in.len - len);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf wire = BUF_INIT;

	if (size == 0)
		return 0;
	if (data[0] & FRAMED)
		frame_input(str_sub((const char *)data + 1, size - 1), &wire);
	else
		buf_add(&wire, data + 1, size - 1);
	struct buf whole = hear_all(buf_str(&wire), data[0], 0);
	struct buf octets = hear_all(buf_str(&wire), data[0], 1);
	struct buf pieces = hear_all(buf_str(&wire), data[0], 2u + (data[0] >> 3));
	check(str_eq(buf_str(&whole), buf_str(&octets)));
	check(str_eq(buf_str(&whole), buf_str(&pieces)));
	buf_fini(&whole);
	buf_fini(&octets);
	buf_fini(&pieces);
	buf_fini(&wire);
	return 0;
}
