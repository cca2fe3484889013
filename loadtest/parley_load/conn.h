/*
 * conn - one HTTP/1.1 client connection with keep-alive, one request at a time.
 *
 * Callbacks run on the libevent loop; a new request may be made from on_done.
 */
#ifndef LOADTEST_PARLEY_LOAD_CONN_H
#define LOADTEST_PARLEY_LOAD_CONN_H

#include <event2/event.h>
#include <stdbool.h>

#include "common/str.h"

struct conn;
struct tally;

struct conn_handlers {
	void (*on_data)(void *arg, struct str bytes); /* of the body, as it comes; may be NULL */
	/* status 0: the connection failed or was closed before the end of the answer. */
	void (*on_done)(void *arg, int status);
};

struct conn_target {
	struct event_base *base;
	const char *host; /* IPv4 address */
	uint16_t port;
	const char *key;    /* bearer token, or NULL */
	const char *header; /* one more, "Name: value", or NULL */
	struct tally *tally;

	/* Connections leave from 127.0.x.y by turns, as one address has only so many ports. 0: the
	 * system chooses. */
	uint32_t source_count, source_first, source_next;
};

struct conn *conn_new(struct conn_target *, const struct conn_handlers *, void *arg);
void conn_free(struct conn **);

/* Connects if need be, also when the connection was idle for so long that the server may be about
 * to close it. body empty: none. */
void conn_request(struct conn *, const char *method, const char *path, struct str body);
/* Likewise, with more headers, each ended by CRLF. */
void conn_send(
    struct conn *, const char *method, const char *path, const char *headers, struct str body);
/* An event stream from after the event of that id; "" or NULL: from its beginning. */
void conn_follow(struct conn *, const char *path, const char *last_event_id);

/* Reads no more than so many bytes a second, into small buffers, as a peer on a bad line does; 0:
 * as fast as it can again. Before the connection is made. */
void conn_slow(struct conn *, uint32_t bytes_per_s);
int conn_status(const struct conn *);             /* of the answer that is coming in */
const char *conn_session(const struct conn *);    /* Mcp-Session-Id, as given last; "": none */
uint64_t conn_retry_after_s(const struct conn *); /* of the last answer; 0: none was given */
/* A socket that is to be connected to the target, bound to its source; ends the program when no
 * descriptor is left. For those who speak something else. */
int conn_open_socket(struct conn_target *);

/* The local end of a socket or of the connection that carries the request, as "ADDRESS:PORT", in
 * static memory; of a connection that is closed "-". */
const char *conn_socket_address(int fd);
const char *conn_address(const struct conn *);

/* Not from on_data. */
void conn_close(struct conn *); /* the next request connects anew, perhaps to another worker */

#endif
