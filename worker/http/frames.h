/*
 * frames - the frames of HTTP/2 as h2o reads them: counted, and streams that hang are ended.
 *
 * h2o 2.2.5 answers every PING and SETTINGS, takes empty frames without end, and waits for
 * bodies and windows for ever. See frames.c for how its frames are seen.
 */
#ifndef WORKER_HTTP_FRAMES_H
#define WORKER_HTTP_FRAMES_H

#include "worker/http/server.h"

void frames_watch(struct http_server *); /* this server's connections are looked at */
bool frames_are_seen(void);              /* h2o calls our function: checked at start */

/* Of an answer over HTTP/2: it waits in h2o for its stream's window, or for the connection's. */
bool frames_wait_for_window(const struct http_req *);
uint64_t frames_sent_bytes(const struct http_req *); /* of the body, so far */
/* A request is gone: the bytes of bodies are counted anew. */
void frames_recount(struct http_conn *);

/* The connection ends after the requests that it has: GOAWAY, which names no last one yet, and a
 * second, which does, when none is in progress or too many came after the first. */
void frames_say_goodbye(struct http_conn *);
void frames_part(struct http_conn *);

/* RST_STREAM. The request is disposed of inside. */
void frames_reset(struct http_req *);

#endif
