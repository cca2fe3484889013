/*
 * stream - an answer that goes out bit by bit, for worker/sse.
 *
 * Bounded: what the socket has not taken waits in a buffer of at most max_bytes and the
 * piece that went beyond it: one that is larger than all of the buffer must get out, too. A
 * client that goes away is noticed at once, one that takes nothing for
 * http.send_timeout is cut. An idle stream gives its buffers back, also h2o's copy of
 * the request: after http_stream_start() headers, query and body are gone.
 */
#ifndef WORKER_HTTP_STREAM_H
#define WORKER_HTTP_STREAM_H

#include "worker/http/http.h"

struct http_stream;

/* Answers 200 with this content type. on_closed: once, when the client is gone; not after
 * http_stream_end(). The stream is gone after either. kind: KIND_SSE .. of the metrics. */
struct http_stream *http_stream_start(struct http_req *, const char *content_type, unsigned kind,
    size_t max_bytes, void (*on_closed)(void *arg), void *arg);

/* The queue is below its limit: one more piece fits, whatever its size. */
bool http_stream_has_room(struct http_stream *);
/* Called each time when a queue that was found without room is empty again. */
void http_stream_on_room(struct http_stream *, void (*on_room)(void *arg));
void http_stream_send(struct http_stream *, struct str bytes);
void http_stream_end(struct http_stream *); /* after what was sent; the stream is gone */
/* The answer is broken off, so that the client cannot take it for whole; the stream is gone,
 * without on_closed. */
void http_stream_abort(struct http_stream *);
bool http_stream_is_idle(const struct http_stream *); /* nothing waits for the socket */
struct loop *http_stream_loop(const struct http_stream *);
struct wheel *http_stream_wheel(const struct http_stream *); /* the server's, for coarse timeouts */

/* For request.c. */
void http_stream_cut(struct http_stream *);
void http_stream_dispose(struct http_stream *);

#endif
