/*
 * message - what a WebSocket peer says: bytes in, messages and the rest of RFC
 * 6455 out. Pure: no socket, no clock; who calls sends the replies.
 *
 *      WS_OPEN --ws_message_close()--> WS_CLOSING --the peer's close, or a fault--> WS_CLOSED
 *         +-----------------the peer's close, or a fault of its--------------------->  ^
 *
 * Once closed nothing more is read: bytes are eaten, so that a last close frame
 * reaches the peer before the connection is reset. While closing messages are
 * skipped and not kept.
 *
 * Between messages there is no memory but the struct itself. A message that came
 * whole in one frame and one piece is given as it lies in the input.
 */
#ifndef WORKER_WS_MESSAGE_H
#define WORKER_WS_MESSAGE_H

#include "common/str.h"
#include "worker/ws/frame.h"

enum ws_state { WS_OPEN, WS_CLOSING, WS_CLOSED };

/* RFC 6455 section 7.4.1 and the registry of IANA; only those that we say ourselves. */
enum ws_close_code {
	WS_CLOSE_NORMAL = 1000,
	WS_CLOSE_GOING_AWAY = 1001,
	WS_CLOSE_PROTOCOL = 1002,
	WS_CLOSE_NO_CODE = 1005, /* never on the wire: a close frame without a code */
	WS_CLOSE_BAD_DATA = 1007,
	WS_CLOSE_POLICY = 1008,
	WS_CLOSE_TOO_BIG = 1009,
	WS_CLOSE_INTERNAL = 1011,
	WS_CLOSE_TRY_LATER = 1013,
};

enum {
	WS_CONTROL_FRAME_MAX = 2 + WS_CONTROL_MAX, /* an outgoing one, head included */
	WS_REASON_MAX = WS_CONTROL_MAX - 2,
};

struct ws_limits {
	uint64_t frame_bytes_max;   /* payload of one data frame */
	uint64_t message_bytes_max; /* of all its frames */
};

enum ws_event_kind {
	WS_MORE,   /* all bytes are taken */
	WS_TEXT,   /* data: a whole message, valid UTF-8 */
	WS_BINARY, /* data: a whole message */
	WS_PING,   /* data: its payload; reply: the pong */
	WS_PONG,   /* data: its payload; nothing to do but to know that the peer lives */
	WS_CLOSE,  /* code, data: the reason; reply: ours, if it is not out yet. The last event */
	WS_FAIL,   /* code, data: what was wrong; reply: the close frame. The last event */
};

struct ws_event {
	struct str data; /* valid until the next call with the same struct ws_message */
	uint16_t code;
	uint8_t reply_len; /* 0: nothing to send */
	uint8_t reply[WS_CONTROL_FRAME_MAX];
};

/* Zeroed before first use. */
struct ws_message {
	struct ws_frame frame;
	struct ws_hold *hold; /* what came of something that is not whole; NULL when idle */
	uint32_t utf8;        /* of the text message in progress */
	uint8_t state;        /* enum ws_state */
	uint8_t opcode;       /* of the message in progress; 0: none */
	bool has_told;        /* the last event's data may lie in `hold` */
};

void ws_message_fini(struct ws_message *);

/*
 * The next event in *in, whose bytes are taken and changed on the way. Call it until it says
 * WS_MORE, which also gives back the memory of the last event. *ev is set in any case.
 */
enum ws_event_kind ws_message_next(
    struct ws_message *, const struct ws_limits *, struct ws_bytes *in, struct ws_event *ev);

/*
 * Our close: the frame to send, and from here on WS_CLOSING. 0 when a close frame is out already.
 * code must be one that may be on the wire; the reason is cut to what fits. May be called between
 * an event and the use of its data.
 */
size_t ws_message_close(
    struct ws_message *, uint16_t code, struct str reason, uint8_t ret_frame[WS_CONTROL_FRAME_MAX]);

static inline enum ws_state
ws_message_state(const struct ws_message *m)
{
	return (enum ws_state)m->state;
}

/* Nothing has begun that is not whole, and no memory is held. */
bool ws_message_is_idle(const struct ws_message *);

/* A peer may close with it, and so may we: 1000-1003, 1007-1014, 3000-4999. */
bool ws_close_code_is_valid(uint16_t code);

/* A whole ping or pong frame of ours; returns its length. */
size_t ws_control_frame(
    enum ws_opcode, struct str payload, uint8_t ret_frame[WS_CONTROL_FRAME_MAX]);

#endif
