/*
 * server - the little HTTP/1.1 that the mock needs, on libevent's bufferevents.
 *
 * One request at a time per connection, keep-alive, bodies with a
 * Content-Length; answers whole, chunked or deliberately broken. Not a server
 * for the world: it believes its clients.
 */
#ifndef LOADTEST_MOCK_LLM_SERVER_H
#define LOADTEST_MOCK_LLM_SERVER_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/str.h"

struct server;
struct conn;

struct request { /* borrowed for the call of on_request */
	struct str method;
	struct str path;    /* without the query */
	struct str headers; /* the lines, CRLF each */
	struct str body;
};

struct str request_header(const struct request *, struct str name); /* STR_NONE: absent */

struct server_handlers {
	void (*on_request)(void *arg, struct conn *, const struct request *);
};

struct server_stats {
	uint64_t accepted, open, aborted; /* aborted: the client left before its answer was whole */
};

/* addr is "host:port", port 0 picks one. NULL with a message on standard error. */
struct server *server_new(
    struct event_base *, const char *addr, const struct server_handlers *, void *arg);
void server_free(struct server **);                /* closes every connection */
const char *server_address(const struct server *); /* as bound */
struct server_stats *server_stats(struct server *);

/* Who answers later says so: on_gone comes when the client leaves before the answer's end. */
struct conn_owner {
	void (*on_gone)(void *arg);
	void (*on_drained)(void *arg); /* all that was written has left; may be NULL */
	void *arg;
};
void conn_own(struct conn *, const struct conn_owner *);

/* A whole answer. `extra` are header lines with CRLF each, or "". */
void conn_reply(struct conn *, int status, const char *type, const char *extra, struct str body);

/* A chunked one. */
void conn_begin(struct conn *, int status, const char *type);
void conn_chunk(struct conn *, struct str bytes);
void conn_finish(struct conn *); /* the owner is forgotten; the next request may come */

/* For faults: bytes as they are, and the two ways to leave. Both forget the owner. */
void conn_raw(struct conn *, struct str bytes);
void conn_close(struct conn *); /* after what was written has left: FIN */
void conn_reset(struct conn *); /* at once: RST */

size_t conn_pending_bytes(const struct conn *);

#endif
