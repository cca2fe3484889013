/*
 * bodies - how many bytes of request bodies this worker holds, and what becomes of more.
 *
 * A body is held whole before its request is known to be allowed, and until it is answered.
 * Counted are: of HTTP/1 those of requests in progress, exactly, and those that come in, as of
 * the last look (BODIES_LOOK_MS); of HTTP/2 all, exactly (frames.c). Above http.max_bodies nobody
 * begins a body that is not small, and of those that come in the newest are told 503.
 */
#ifndef WORKER_HTTP_BODIES_H
#define WORKER_HTTP_BODIES_H

#include "worker/http/server.h"

enum { BODIES_LOOK_MS = 100, BODIES_SMALL = 64 << 10 };

bool bodies_are_too_many(const struct http_server *);
/* Of HTTP/1, when its head is there. False: there is no room for a body of so many bytes. */
bool bodies_may_begin(struct http_server *, uint64_t bytes);
void bodies_hold(struct http_req *);   /* its request is dispatched */
void bodies_let_go(struct http_req *); /* it is not needed any more; again: nothing happens */
void bodies_stop(struct http_server *);

#endif
