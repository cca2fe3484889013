/*
 * ws_chat_frame - the JSON that /ws/chat sends. Pure: formats, sends nothing.
 *
 *   turn.started                    {"status":"processing","chunk":{"metadata":{..}}}
 *   text.delta, reasoning.delta,    {"status":"chunk","chunk":{"type","data","metadata"?}}
 *     knowledge, tool.result, turn.snapshot
 *   tool.call run by a server       {"status":"processing","chunk":{"type":"tool_execution",..}}
 *   tool.call of the client         {"status":"tool_call","chunk":{"tool_call_id","name",..}}
 *   turn.restarted                  {"status":"restarted","chunk":{}}
 *   turn.completed                  {"status":"complete","chunk":{},"finish_reason","usage"}
 *   turn.failed, turn.cancelled     {"status":"error","chunk":{"error","code"}}
 *
 * usage has no frame of its own: it is in turn.completed.
 */
#ifndef WORKER_API_WS_CHAT_FRAME_H
#define WORKER_API_WS_CHAT_FRAME_H

#include "common/buf.h"
#include "worker/turn/turn.h"

/* What a frame of a turn says beside the event; NULL: not known, and left out. */
struct chat_frame_of {
	const char *request_id, *turn_id, *session_id;
	const char *connection; /* who the socket is in a tool_call's claimed_by */
};

/* False: this event has no frame. */
bool chat_frame_of_event(struct buf *, const struct chat_frame_of *, const struct turn_event *);
/* The whole answer of a turn.completed as one chunk, for who does not stream. */
bool chat_frame_of_answer(struct buf *, const struct chat_frame_of *, const struct turn_event *);

/* What could not be done. request_id NULL: "unknown"; turn_id, param, message may be NULL. With
 * E_ALREADY_ANSWERED same_output is told; retry_after_s 0: not told. */
struct chat_error {
	int err;
	const char *request_id, *turn_id, *param, *message;
	bool is_same_output;
	uint32_t retry_after_s;
};
void chat_frame_of_error(struct buf *, const struct chat_error *);

/* turn_id NULL: no live turn. */
void chat_frame_joined(
    struct buf *, const char *request_id, const char *session_id, const char *turn_id);
void chat_frame_pong(struct buf *, const char *request_id);

#endif
