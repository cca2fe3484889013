/*
 * sse - a server-sent event stream as the answer to a request.
 *
 * Bounded: bytes not yet taken by the socket stay in a buffer; once it holds
 * sse.max_queue sse_send() says that it is full, and the caller detaches the
 * listener. An event larger than that is sent all the same: it could never be
 * otherwise. A comment is sent after sse.keepalive_interval of silence. A client
 * that goes away is noticed at once also on a quiet stream, and one that takes
 * nothing for http.send_timeout is cut.
 */
#ifndef WORKER_SSE_SSE_H
#define WORKER_SSE_SSE_H

#include "worker/http/http.h"

struct sse;

/*
 * Answers the request with 200 text/event-stream. on_closed is called once, on the loop, when the
 * client is gone (also a stalled one); not after sse_end(). The sse is gone after either. Never
 * NULL. From here on the request's headers, query and body are gone: copy before what is needed.
 */
struct sse *sse_start(struct http_req *, void (*on_closed)(void *arg), void *arg);

/* A comment after so much silence, instead of sse.keepalive_interval. */
void sse_set_keepalive(struct sse *, uint64_t interval_ms);

/* One event. id and event may be empty; data has no newline. False: full, nothing was added. */
bool sse_send(struct sse *, struct str id, struct str event, struct str data);

/* The last event is out, then the response ends (or the connection is cut when it stalls). */
void sse_end(struct sse *);

/* Ends it in the midst: the client is told to come back after that time (EventSource does, with the
 * last id that it has). */
void sse_end_for_now(struct sse *, uint32_t come_back_ms);

/* One more event, also when it is full, then the end. */
void sse_end_with(struct sse *, struct str event, struct str data);

#endif
