/*
 * message - frames become messages here: order of fragments, sizes, UTF-8, and
 * the closing handshake.
 */
#include "worker/ws/message.h"

#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "worker/ws/utf8.h"

/* Exists only while a message or a control frame is cut by the end of the input, or a message by
 * the end of a frame. */
struct ws_hold {
	size_t len, cap; /* of the message */
	uint8_t control_len;
	uint8_t control[WS_CONTROL_MAX];
	uint8_t message[];
};

enum { HOLD_MIN = 256 };

static void
drop_hold(struct ws_message *m)
{
	free(m->hold);
	m->hold = NULL;
}

static size_t
held_bytes(const struct ws_message *m)
{
	return m->hold != NULL ? m->hold->len : 0;
}

/* Room for `more` bytes, doubled each time, but not beyond `most`, the length that the message will
 * have if that is known. */
static struct ws_hold *
hold_for(struct ws_message *m, size_t more, uint64_t most)
{
	struct ws_hold *h = m->hold;
	size_t len = held_bytes(m), cap = h != NULL ? h->cap : 0;

	if (h != NULL && len + more <= cap)
		return h;
	size_t need = len + more;
	cap = cap * 2 > HOLD_MIN ? cap * 2 : HOLD_MIN;
	if (cap > most)
		cap = (size_t)most;
	if (cap < need)
		cap = need;
	m->hold = xrealloc(h, sizeof(*h) + cap);
	if (h == NULL) {
		m->hold->len = 0;
		m->hold->control_len = 0;
	}
	m->hold->cap = cap;
	return m->hold;
}

static void
hold_part(struct ws_message *m, struct ws_bytes part)
{
	bool is_length_known = ws_frame_is_final(&m->frame);
	struct ws_hold *h = hold_for(
	    m, part.len, is_length_known ? held_bytes(m) + part.len + m->frame.left : UINT64_MAX);

	memcpy(h->message + h->len, part.p, part.len);
	h->len += part.len;
}

/* The data of the last event is not needed any more. */
static void
forget_told(struct ws_message *m)
{
	bool has_told = m->has_told;

	m->has_told = false;
	if (m->hold == NULL)
		return;
	if (has_told)
		m->hold->control_len = 0;
	if (m->hold->control_len == 0 && (m->opcode == 0 || m->state != WS_OPEN))
		drop_hold(m);
}

static enum ws_event_kind
tell(struct ws_message *m, struct ws_event *ev, enum ws_event_kind kind, struct ws_bytes data)
{
	ev->data = str_sub(data.len > 0 ? (const char *)data.p : "", data.len);
	m->has_told = true;
	return kind;
}

size_t
ws_control_frame(enum ws_opcode opcode, struct str payload, uint8_t ret_frame[WS_CONTROL_FRAME_MAX])
{
	check(opcode >= WS_OP_CLOSE);
	size_t head_len = ws_frame_format_head(opcode, payload.len, ret_frame);
	if (payload.len > 0)
		memcpy(ret_frame + head_len, payload.p, payload.len);
	return head_len + payload.len;
}

bool
ws_close_code_is_valid(uint16_t code)
{
	return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
	       (code >= 3000 && code <= 4999);
}

/* Cut between characters. */
static struct str
fitting_reason(struct str reason)
{
	if (reason.len <= WS_REASON_MAX)
		return reason;
	reason.len = WS_REASON_MAX;
	while (reason.len > 0 && ((uint8_t)reason.p[reason.len] & 0xc0) == 0x80)
		reason.len--;
	return reason;
}

static size_t
close_frame(uint16_t code, struct str reason, uint8_t ret_frame[WS_CONTROL_FRAME_MAX])
{
	char payload[WS_CONTROL_MAX] = {(char)(code >> 8), (char)code};

	if (code == WS_CLOSE_NO_CODE)
		return ws_control_frame(WS_OP_CLOSE, STR_NONE, ret_frame);
	check(ws_close_code_is_valid(code));
	reason = fitting_reason(reason);
	if (reason.len > 0)
		memcpy(payload + 2, reason.p, reason.len);
	return ws_control_frame(WS_OP_CLOSE, str_sub(payload, 2 + reason.len), ret_frame);
}

size_t
ws_message_close(
    struct ws_message *m, uint16_t code, struct str reason, uint8_t ret_frame[WS_CONTROL_FRAME_MAX])
{
	check(ws_close_code_is_valid(code));
	if (m->state != WS_OPEN)
		return 0;
	m->state = WS_CLOSING;
	return close_frame(code, reason, ret_frame);
}

static enum ws_event_kind
fail(struct ws_message *m, struct ws_event *ev, enum ws_close_code code, const char *fault)
{
	ev->code = (uint16_t)code;
	ev->data = str_of(fault);
	if (m->state == WS_OPEN)
		ev->reply_len = (uint8_t)close_frame(ev->code, ev->data, ev->reply);
	m->state = WS_CLOSED;
	drop_hold(m);
	return WS_FAIL;
}

/* A head is whole: may this frame come now, and is it small enough? */
static enum ws_event_kind
begin_frame(struct ws_message *m, const struct ws_limits *limits, struct ws_event *ev)
{
	enum ws_opcode op = ws_frame_opcode(&m->frame);

	if (ws_frame_is_control(&m->frame))
		return WS_MORE;
	if (op == WS_OP_CONTINUATION && m->opcode == 0)
		return fail(m, ev, WS_CLOSE_PROTOCOL, "continuation of nothing");
	if (op != WS_OP_CONTINUATION && m->opcode != 0)
		return fail(m, ev, WS_CLOSE_PROTOCOL, "a message within a message");
	if (m->state == WS_OPEN) {
		if (m->frame.left > limits->frame_bytes_max)
			return fail(m, ev, WS_CLOSE_TOO_BIG, "frame is too big");
		if (m->frame.left > limits->message_bytes_max ||
		    held_bytes(m) > limits->message_bytes_max - m->frame.left)
			return fail(m, ev, WS_CLOSE_TOO_BIG, "message is too big");
	}
	if (op != WS_OP_CONTINUATION) {
		m->opcode = (uint8_t)op;
		m->utf8 = WS_UTF8_START;
	}
	return WS_MORE;
}

/* Part of a data frame has come, perhaps the last. */
static enum ws_event_kind
take_data(struct ws_message *m, struct ws_bytes part, struct ws_event *ev)
{
	bool is_frame_done = m->frame.left == 0;
	bool is_last = is_frame_done && ws_frame_is_final(&m->frame);
	bool is_text = m->opcode == WS_OP_TEXT, is_kept = m->state == WS_OPEN;

	if (is_kept && is_text && !ws_utf8_feed(&m->utf8, part.p, part.len))
		return fail(m, ev, WS_CLOSE_BAD_DATA, "text is not UTF-8");
	if (is_kept && part.len > 0 && (!is_last || held_bytes(m) > 0))
		hold_part(m, part);
	if (is_frame_done)
		ws_frame_end(&m->frame);
	if (!is_last)
		return WS_MORE;
	m->opcode = 0;
	if (!is_kept)
		return WS_MORE;
	if (is_text && !ws_utf8_is_whole(m->utf8))
		return fail(m, ev, WS_CLOSE_BAD_DATA, "text ends within a character");
	if (held_bytes(m) > 0)
		part = (struct ws_bytes){m->hold->message, m->hold->len};
	return tell(m, ev, is_text ? WS_TEXT : WS_BINARY, part);
}

static enum ws_event_kind
take_close(struct ws_message *m, struct ws_bytes payload, struct ws_event *ev)
{
	uint32_t utf8 = WS_UTF8_START;
	uint16_t code = WS_CLOSE_NO_CODE;

	if (payload.len == 1)
		return fail(m, ev, WS_CLOSE_PROTOCOL, "close frame with half a code");
	if (payload.len >= 2) {
		code = (uint16_t)(payload.p[0] << 8 | payload.p[1]);
		if (!ws_close_code_is_valid(code))
			return fail(m, ev, WS_CLOSE_PROTOCOL, "close code that may not be sent");
		payload.p += 2;
		payload.len -= 2;
	}
	if (!ws_utf8_feed(&utf8, payload.p, payload.len) || !ws_utf8_is_whole(utf8))
		return fail(m, ev, WS_CLOSE_BAD_DATA, "close reason is not UTF-8");
	ev->code = code;
	if (m->state == WS_OPEN)
		ev->reply_len = (uint8_t)close_frame(code, STR_NONE, ev->reply);
	m->state = WS_CLOSED;
	return tell(m, ev, WS_CLOSE, payload);
}

/* Part of a control frame has come, perhaps the last. */
static enum ws_event_kind
take_control(struct ws_message *m, struct ws_bytes part, struct ws_event *ev)
{
	struct ws_bytes payload = part;

	if (m->frame.left > 0 || (m->hold != NULL && m->hold->control_len > 0)) {
		struct ws_hold *h = hold_for(m, 0, 0);

		if (part.len > 0)
			memcpy(h->control + h->control_len, part.p, part.len);
		h->control_len = (uint8_t)(h->control_len + part.len);
		payload = (struct ws_bytes){h->control, h->control_len};
	}
	if (m->frame.left > 0)
		return WS_MORE;
	enum ws_opcode op = ws_frame_opcode(&m->frame);
	ws_frame_end(&m->frame);
	if (op == WS_OP_CLOSE)
		return take_close(m, payload, ev);
	enum ws_event_kind kind = tell(m, ev, op == WS_OP_PING ? WS_PING : WS_PONG, payload);
	if (kind == WS_PING && m->state == WS_OPEN)
		ev->reply_len = (uint8_t)ws_control_frame(WS_OP_PONG, ev->data, ev->reply);
	return kind;
}

/* What there is of the present frame; WS_MORE also when the frame says nothing by itself. */
static enum ws_event_kind
take_payload(struct ws_message *m, struct ws_bytes *in, struct ws_event *ev)
{
	struct ws_bytes part = ws_frame_take_payload(&m->frame, in);

	return ws_frame_is_control(&m->frame) ? take_control(m, part, ev) : take_data(m, part, ev);
}

enum ws_event_kind
ws_message_next(
    struct ws_message *m, const struct ws_limits *limits, struct ws_bytes *in, struct ws_event *ev)
{
	enum ws_event_kind kind = WS_MORE;

	ev->data = STR_NONE;
	ev->code = 0;
	ev->reply_len = 0;
	forget_told(m);
	while (kind == WS_MORE && m->state != WS_CLOSED) {
		if (!m->frame.is_open) {
			const char *fault = ws_frame_take_head(&m->frame, in);

			if (fault != NULL)
				return fail(m, ev, WS_CLOSE_PROTOCOL, fault);
			if (!m->frame.is_open)
				return WS_MORE;
			kind = begin_frame(m, limits, ev);
		} else if (in->len == 0 && m->frame.left > 0) {
			return WS_MORE;
		} else {
			kind = take_payload(m, in, ev);
		}
	}
	if (m->state == WS_CLOSED && kind == WS_MORE)
		in->len = 0;
	return kind;
}

bool
ws_message_is_idle(const struct ws_message *m)
{
	return m->frame.head_len == 0 && m->opcode == 0 && m->hold == NULL;
}

void
ws_message_fini(struct ws_message *m)
{
	drop_hold(m);
}
