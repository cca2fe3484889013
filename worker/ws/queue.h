/*
 * queue - frames that wait for a slow reader, with a limit.
 *
 * Pure. Holds references, copies nothing; empty it is one pointer. The caller
 * writes what ws_queue_peek() shows and says afterwards how much went out.
 *
 *      0 ....... low ......... high ......... max
 *                 |              |             +-- FULL: not taken, close the socket (1008)
 *                 |              +-- HIGH: taken; send no more until
 *                 +-- ws_queue_consume() says so
 *
 * A frame counts its bytes that are not out, and WS_QUEUE_FRAME_COST for itself,
 * so that tiny frames are bounded, too. A frame that is shared counts in each.
 */
#ifndef WORKER_WS_QUEUE_H
#define WORKER_WS_QUEUE_H

#include <stdbool.h>
#include <sys/uio.h>

#include "worker/ws/out.h"

enum { WS_QUEUE_FRAME_COST = 64 };

struct ws_queue_limits { /* low <= high <= max */
	uint64_t low_bytes, high_bytes, bytes_max;
};

/* Zeroed before first use. */
struct ws_queue {
	struct ws_ring *ring; /* NULL: empty */
};

enum ws_queue_result { WS_QUEUE_TAKEN, WS_QUEUE_HIGH, WS_QUEUE_FULL };

void ws_queue_fini(struct ws_queue *); /* lets all go; empty and usable afterwards */

/*
 * Takes a reference of its own, unless it is full. Into an empty queue a frame of any size goes, or
 * it could never be sent. limits NULL: it is taken in any case (a last close frame).
 */
enum ws_queue_result ws_queue_push(
    struct ws_queue *, struct ws_out *, const struct ws_queue_limits *);

/* The bytes to write next, in at most iov_max pieces; returns how many. They stay where they are
 * until consumed. */
size_t ws_queue_peek(const struct ws_queue *, struct iovec *iov, size_t iov_max);

/* So many bytes of those are out. True when it was HIGH and now is low: send again. */
bool ws_queue_consume(struct ws_queue *, uint64_t bytes, const struct ws_queue_limits *);

/* Drops the frames of which no byte is out or among the first `in_flight_bytes`, which are being
 * written: to make place for a close frame. */
void ws_queue_cut(struct ws_queue *, uint64_t in_flight_bytes);

static inline bool
ws_queue_is_empty(const struct ws_queue *q)
{
	return q->ring == NULL;
}

uint64_t ws_queue_bytes(const struct ws_queue *); /* of frames, not yet out */
uint64_t ws_queue_cost(const struct ws_queue *);  /* what the limits are held against */

#endif
