/*
 * wsock - one WebSocket to the target, on a bare event: made for very many.
 *
 *      WSOCK_CLOSED -> WSOCK_DIALLING -> WSOCK_UPGRADING (-> WSOCK_GREETING) -> WSOCK_OPEN ->
 * WSOCK_CLOSED
 *
 * It holds no buffer: all sockets of a process read into one, a frame that is
 * not whole is kept as long as it is not, and so is what the kernel does not
 * take. Pings are answered here. With --greet it is open when the answer to that has
 * come. Of extensions --deflate offers one, but no message that came compressed
 * is understood: it is for sockets that say nothing.
 *
 * Lies in the caller's struct, who keeps it in place while it is not closed.
 */
#ifndef LOADTEST_PARLEY_LOAD_WSOCK_H
#define LOADTEST_PARLEY_LOAD_WSOCK_H

#include <event2/event_struct.h>

#include "loadtest/parley_load/load.h"
#include "loadtest/parley_load/ws_reader.h"

enum { WSOCK_BROKEN = 1006 }; /* closed without a close frame; RFC 6455, never on the wire */

struct wsock;

/* How it ended. */
struct wsock_end {
	int status; /* of the answer that was no upgrade; 0: it was one, or nothing was answered */
	uint16_t code;           /* of the close frame; WSOCK_BROKEN: none came */
	uint64_t retry_after_ms; /* that it asks for in its reason; 0: it does not */
};

/* Of any of them it may be closed, and opened anew. */
struct wsock_handlers {
	void (*on_open)(struct wsock *);
	void (*on_message)(struct wsock *, struct str data); /* valid during the call */
	/* Ended by the server, or it was never made. It is closed already. */
	void (*on_closed)(struct wsock *, const struct wsock_end *);
};

enum wsock_state { WSOCK_CLOSED, WSOCK_DIALLING, WSOCK_UPGRADING, WSOCK_GREETING, WSOCK_OPEN };

struct wsock { /* zeroed before first use */
	struct event event;
	struct load *load;
	const struct wsock_handlers *handlers;
	struct ws_reader reader;
	struct wsock_rest *rest; /* of the answer's head so far; then of what is to be sent */
	uint32_t life;           /* how often it was closed */
	uint8_t state;           /* enum wsock_state */
	bool is_paused;
};

/* Dials and asks for --path. */
void wsock_open(struct wsock *, struct load *, const struct wsock_handlers *);
/* The same with a small receive buffer, for who is to be slow. */
void wsock_open_small(struct wsock *, struct load *, const struct wsock_handlers *);

/* A text. Only while open. What is said from on_message leaves with the rest of that round. */
void wsock_say(struct wsock *, struct str text);
void wsock_say_goodbye(struct wsock *); /* a close frame, 1000; the server answers and closes */

void wsock_pause(struct wsock *, bool is_paused); /* reads nothing; only while open */

/* At once, as a line that breaks: no callback, and no port that lingers. Closed: nothing. */
void wsock_close(struct wsock *);

/* Our end, as "ADDRESS:PORT", in static memory. Not while closed. */
const char *wsock_address(const struct wsock *);

static inline bool
wsock_is_open(const struct wsock *w)
{
	return w->state == WSOCK_OPEN;
}

/* 503 and 1013 are refusals, everything else is a failure. */
enum outcome wsock_outcome(const struct wsock_end *);

#endif
