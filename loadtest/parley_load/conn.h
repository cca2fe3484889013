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

struct conn_handlers {
	void (*on_data)(void *arg, struct str bytes); /* of the body, as it comes */
	/* status 0: the connection failed or was closed before the end of the answer. */
	void (*on_done)(void *arg, int status);
};

struct conn_target {
	struct event_base *base;
	const char *host; /* IPv4 address */
	uint16_t port;
	const char *key; /* bearer token, or NULL */
};

struct conn *conn_new(const struct conn_target *, const struct conn_handlers *, void *arg);
void conn_free(struct conn **);

/* Connects if need be. body empty: none. */
void conn_request(struct conn *, const char *method, const char *path, struct str body);
void conn_close(struct conn *); /* the next request connects anew, perhaps to another worker */

#endif
