/*
 * turn_stream - a turn's events as server-sent events to one client.
 */
#ifndef WORKER_API_TURN_STREAM_H
#define WORKER_API_TURN_STREAM_H

#include "worker/api/call.h"

/*
 * Answers the call, and ends it, with the events of call->session_id, call->turn_id after
 * after_seq until the last is out or the client is gone. originator: as for turn_attach().
 */
void turn_stream_start(
    struct api_call *, struct http_req *, uint64_t after_seq, uint64_t originator);

struct turn_streams;

struct turn_streams *turn_streams_new(struct api *);
void turn_streams_free(struct turn_streams **); /* none is left */
void turn_streams_drain(struct turn_streams *);

#endif
