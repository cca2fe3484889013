/*
 * socket - one WebSocket of a client: messages in and out, pings, pressure, the
 * closing handshake, each with its time limit.
 *
 *   OPENING -> OPEN --ws_socket_close()--> CLOSING --the peer's close--> ENDING -> closed
 *              |  +----the peer's close, or a fault of its---------------> ^
 *              +-ws_socket_give()-> GIVEN --ws_socket_let_go()--> closed here, goes on elsewhere
 *
 * What the peer does not take waits in a queue. Above half of websocket.max_queue
 * the socket is slow: nothing is read any more, who sends is told, and it has
 * http.send_timeout to become empty, or is closed with 1008. A peer that says
 * nothing for websocket.ping_interval is pinged, and is dead if it then says nothing
 * for websocket.ping_timeout. Who begins a message and does not end it within
 * websocket.message_timeout is closed with 1008, however often it pings. An idle socket holds no
 * buffer and no timer of the loop.
 */
#ifndef WORKER_WS_SOCKET_H
#define WORKER_WS_SOCKET_H

#include "worker/http/upgrade.h"
#include "worker/loop/wheel.h"
#include "worker/ws/handshake.h"
#include "worker/ws/message.h"
#include "worker/ws/queue.h"

struct ws_socket;

/* on_open, on_message and on_writable are not called once it is closing. */
struct ws_handlers {
	void (*on_open)(struct ws_socket *);
	/* Whole, text valid UTF-8; borrowed. */
	void (*on_message)(struct ws_socket *, struct str data, bool is_text);
	/* After WS_SLOW, WS_FULL, or while it parts: the queue is empty. */
	void (*on_writable)(struct ws_socket *);
	void (*on_closed)(struct ws_socket *); /* last, once; the struct may be freed in it */
};

enum ws_socket_state {
	WS_SOCKET_OPENING,
	WS_SOCKET_OPEN,
	WS_SOCKET_GIVEN, /* to another process, which has not said yet that it has it */
	WS_SOCKET_CLOSING,
	WS_SOCKET_ENDING,
};

/* Embedded in the caller's struct. All of it is socket.c's. */
struct ws_socket {
	struct http_socket http;
	const struct ws_handlers *handlers;
	struct ws_message in;
	struct ws_queue out;
	struct wheel_entry
	    timer; /* of the state; when open the ping's, the pong's, or the slow peer's */
	uint64_t heard_ms;
	uint32_t in_flight; /* bytes of the queue that are being written */
	uint8_t state;
	bool is_pinged : 1, is_slow : 1;
	bool is_spared : 1;                 /* its pong is late, and something of it was unread */
	bool is_parting : 1, is_taking : 1; /* the latter: the messages of one read */
	uint16_t begun_s; /* loop time, rounded up, modulo 2^16: a message in progress; 0: none */
};

/*
 * Is this request the opening of a WebSocket? False: it was answered, 400 or 426. The accept key
 * goes to ws_socket_open().
 */
bool ws_socket_check(struct http_req *, char ret_accept[WS_ACCEPT_LEN + 1]);

/* Upgrades the request, which is gone then. protocol: what is chosen of those offered, or NULL. */
void ws_socket_open(struct ws_socket *, struct http_req *, const char *accept, const char *protocol,
    const struct ws_handlers *);

enum ws_sent {
	WS_SENT,
	WS_SLOW, /* it was taken; send no more until on_writable */
	WS_FULL, /* not taken; the same */
	WS_GONE, /* the socket is closing or not yet open */
};
enum ws_sent ws_socket_send(struct ws_socket *, struct ws_out *); /* keeps a reference of its own */

/* In order, after what is queued; a peer that does not answer is cut after
 * websocket.close_timeout. Closing already: nothing happens. */
void ws_socket_close(struct ws_socket *, uint16_t code, struct str reason);

/*
 * To another process: an idle one, between messages, with nothing on its way, not over TLS. The
 * descriptor to be sent, still ours. Nothing is read or written until it is taken back or let
 * go; who asks meanwhile finds it closed.
 *
 * Later: it parts, unless it is in the midst of a message. What the peer says is left to
 * whoever has the socket next, and on_writable is called when what was on its way is out.
 */
enum { WS_GIVE_NEVER = -1, WS_GIVE_LATER = -2 };
int ws_socket_give(struct ws_socket *);
void ws_socket_part(struct ws_socket *); /* the same, of one that will be given in a moment */
void ws_socket_stay(struct ws_socket *); /* it is read again, if it parted */
void ws_socket_take_back(struct ws_socket *);
void ws_socket_let_go(struct ws_socket *); /* on_closed follows */
/* The other side: it is open at once, without on_open. False: not taken, and the fd is the
 * caller's. */
bool ws_socket_adopt(struct ws_socket *, struct http_server *, int fd, const struct ws_handlers *);

static inline bool
ws_socket_is_open(const struct ws_socket *w)
{
	return w->state == WS_SOCKET_OPEN && !w->http.is_closing;
}

#endif
