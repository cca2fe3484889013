/*
 * sse - a server-sent event stream as the answer to a request.
 *
 * Bounded: bytes not yet taken by the socket stay in a buffer of at most
 * SSE_PENDING_MAX; sse_send() says when it is full, and the caller detaches the
 * listener. A comment is sent every SSE_KEEPALIVE_MS of silence. A client
 * that goes away is noticed at once also on a quiet stream.
 */
#ifndef WORKER_SSE_SSE_H
#define WORKER_SSE_SSE_H

#include "worker/http/http.h"

enum { SSE_PENDING_MAX = 256 << 10, SSE_KEEPALIVE_MS = 15000 };

struct sse;

/*
 * Answers the request with 200 text/event-stream. on_closed is called once, on the loop, when the
 * client is gone (also a stalled one); not after sse_end(). The sse is gone after either. Never
 * NULL.
 */
struct sse *sse_start(struct http_req *, void (*on_closed)(void *arg), void *arg);

/* One event. id and event may be empty; data has no newline. False: full, nothing was added. */
bool sse_send(struct sse *, struct str id, struct str event, struct str data);

/* The last event is out, then the response ends (or the connection is cut when it stalls). */
void sse_end(struct sse *);

#endif
