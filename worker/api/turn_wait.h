/*
 * turn_wait - requests that wait for a turn and get no stream of it.
 *
 *   a result   POST .../turns without stream: its answer. Of a drain it is told when the time is up
 *              and the turn, which another worker has, still runs: 503 draining; the same
 *              request_id finds the turn.
 *   news       GET .../turns/{turn}?wait=: a long poll. A drain answers it early, as things are,
 *              a few at a time (farewell.h); the next one waits elsewhere.
 */
#ifndef WORKER_API_TURN_WAIT_H
#define WORKER_API_TURN_WAIT_H

#include "worker/api/call.h"

struct turn_waits;

/* Both take the call, whose session_id and turn_id are set. */
void turn_wait_for_result(struct api_call *, struct http_req *, uint64_t originator);
void turn_wait_for_news(struct api_call *, struct http_req *, uint32_t wait_ms); /* 0: at once */

struct turn_waits *turn_waits_new(struct api *);
void turn_waits_drain(struct turn_waits *);
void turn_waits_free(struct turn_waits **); /* nobody waits any more */

#endif
