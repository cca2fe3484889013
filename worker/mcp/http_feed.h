/*
 * http_feed - a transfer from an upstream, on its way from a request to messages: its bytes, and
 * what its end means to what it is for. What is asked for, and how, is http_link.c's, who alone
 * uses this.
 *
 * The one of a call lives on for a moment when the call was answered, so that the connection can be
 * used again.
 *
 *   feed    for
 *   CALL    a request; its answer, and what is said before that. A legacy server may end the stream
 *           before it has answered, if it has given its events ids: it is asked for the rest
 *   NOTE    a message that has no answer
 *   STREAM  GET: what a legacy server says unasked; of 2024-11-05 all that it says
 *   LEAVE   DELETE: our session there
 */
#ifndef WORKER_MCP_HTTP_FEED_H
#define WORKER_MCP_HTTP_FEED_H

#include "worker/mcp/upstream_impl.h"
#include "worker/provider/sse_parse.h"

enum feed_kind { FEED_CALL, FEED_NOTE, FEED_STREAM, FEED_LEAVE };

struct http_link {
	struct upstream *upstream;
	struct client_pool *pool;
	char *session;           /* Mcp-Session-Id; NULL: none */
	uint32_t session_number; /* of the present one, or of the next; from 1 */
	char *post_url;          /* of 2024-11-05; NULL: conf->url */
	struct feed_in *stream;
	struct list feeds;
	struct loop_timer stream_timer;
	struct loop_post begin;
};

struct feed_in {
	struct list node;
	struct upstream *upstream;
	struct call *call; /* FEED_CALL, until it was answered */
	enum feed_kind kind;
	uint64_t transfer;
	int status;
	uint32_t session_number; /* that the request named; 0: none */
	bool is_sse, is_awaited, keeps_session;
	bool is_feeding, is_dead; /* freed when the bytes at hand are done with */
	bool is_too_large;
	unsigned resumes; /* how often the rest of its stream was asked for */
	struct sse_parse events;
	struct buf body;
	struct loop_timer timer; /* it lingers, is to be resumed, or its endpoint is awaited */
};

/* Its link's; transfer is the caller's to start, with these handlers. */
struct feed_in *http_feed_new(struct upstream *, enum feed_kind);
extern const struct client_handlers http_feed_handlers;
/* Its transfer is cancelled; from inside of its own bytes it goes when they are done with. */
void http_feed_free(struct feed_in *);
void http_feed_release(struct call *); /* of struct transport */
/* The link's stream is no more; status 0: it never had a head. */
void http_feed_end_stream(struct upstream *, int status);

/* ---- http_link.c ---- */

/* Of a call's stream, from its last event on. */
void http_link_ask_rest(struct feed_in *);

#endif
