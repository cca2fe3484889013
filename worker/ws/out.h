/*
 * out - a frame on its way out, as it is on the wire. Shared and counted: one
 * that goes to many sockets exists once.
 *
 * Of one thread: the count is not atomic.
 */
#ifndef WORKER_WS_OUT_H
#define WORKER_WS_OUT_H

#include "common/str.h"
#include "worker/ws/frame.h"

struct ws_out {
	uint32_t refs;
	uint32_t len;
	uint8_t bytes[];
};

/* One reference, the caller's. The payload is copied, once, and is below 4 GiB; never NULL. */
struct ws_out *ws_out_new(enum ws_opcode, struct str payload);
/* Already has its head, or is the rest of one. */
struct ws_out *ws_out_of_frame(const uint8_t *frame, size_t len);

struct ws_out *ws_out_ref(struct ws_out *);
void ws_out_unref(struct ws_out **); /* NULL is fine; sets NULL */

#endif
