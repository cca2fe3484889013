/* queue - a ring of references that exists while something waits. */
#include "worker/ws/queue.h"

#include <stdlib.h>

#include "common/check.h"

struct ws_ring {
	uint64_t bytes; /* not yet out */
	uint32_t first, count, cap;
	uint32_t first_out; /* bytes of the first frame that are out */
	bool is_high;
	struct ws_out *frames[]; /* cap of them, a power of two */
};

enum { RING_MIN = 4 };

static struct ws_out **
frame_at(struct ws_ring *r, uint32_t i)
{
	return &r->frames[(r->first + i) & (r->cap - 1)];
}

static struct ws_ring *
ring_new(uint32_t cap)
{
	struct ws_ring *r = xcalloc(1, sizeof(*r) + cap * sizeof(r->frames[0]));

	r->cap = cap;
	return r;
}

static void
make_room(struct ws_queue *q)
{
	struct ws_ring *old = q->ring;

	if (old == NULL) {
		q->ring = ring_new(RING_MIN);
		return;
	}
	if (old->count < old->cap)
		return;
	check(old->cap <= UINT32_MAX / 2);
	struct ws_ring *r = ring_new(old->cap * 2);
	for (uint32_t i = 0; i < old->count; i++)
		r->frames[i] = *frame_at(old, i);
	r->bytes = old->bytes;
	r->count = old->count;
	r->first_out = old->first_out;
	r->is_high = old->is_high;
	free(old);
	q->ring = r;
}

static void
free_if_empty(struct ws_queue *q)
{
	if (q->ring->count > 0)
		return;
	check(q->ring->bytes == 0);
	free(q->ring);
	q->ring = NULL;
}

uint64_t
ws_queue_bytes(const struct ws_queue *q)
{
	return q->ring != NULL ? q->ring->bytes : 0;
}

uint64_t
ws_queue_cost(const struct ws_queue *q)
{
	return q->ring != NULL ? q->ring->bytes + (uint64_t)q->ring->count * WS_QUEUE_FRAME_COST
			       : 0;
}

enum ws_queue_result
ws_queue_push(struct ws_queue *q, struct ws_out *out, const struct ws_queue_limits *limits)
{
	uint64_t cost = ws_queue_cost(q) + out->len + WS_QUEUE_FRAME_COST;

	if (limits != NULL && q->ring != NULL && cost > limits->bytes_max)
		return WS_QUEUE_FULL;
	make_room(q);
	struct ws_ring *r = q->ring;
	*frame_at(r, r->count++) = ws_out_ref(out);
	r->bytes += out->len;
	if (limits != NULL && cost > limits->high_bytes)
		r->is_high = true;
	return r->is_high ? WS_QUEUE_HIGH : WS_QUEUE_TAKEN;
}

size_t
ws_queue_peek(const struct ws_queue *q, struct iovec *iov, size_t iov_max)
{
	struct ws_ring *r = q->ring;
	size_t n = 0, skip = r != NULL ? r->first_out : 0;

	for (; r != NULL && n < r->count && n < iov_max; n++) {
		struct ws_out *out = *frame_at(r, (uint32_t)n);

		iov[n] = (struct iovec){out->bytes + skip, out->len - skip};
		skip = 0;
	}
	return n;
}

bool
ws_queue_consume(struct ws_queue *q, uint64_t bytes, const struct ws_queue_limits *limits)
{
	struct ws_ring *r = q->ring;

	check(bytes <= ws_queue_bytes(q));
	if (r == NULL)
		return false;
	r->bytes -= bytes;
	bytes += r->first_out;
	while (r->count > 0 && bytes >= (*frame_at(r, 0))->len) {
		bytes -= (*frame_at(r, 0))->len;
		ws_out_unref(frame_at(r, 0));
		r->first = (r->first + 1) & (r->cap - 1);
		r->count--;
	}
	r->first_out = (uint32_t)bytes;
	bool is_low_again = r->is_high && (r->count == 0 || ws_queue_cost(q) <= limits->low_bytes);
	if (is_low_again)
		r->is_high = false;
	free_if_empty(q);
	return is_low_again;
}

void
ws_queue_cut(struct ws_queue *q, uint64_t in_flight_bytes)
{
	struct ws_ring *r = q->ring;

	if (r == NULL)
		return;
	check(in_flight_bytes <= r->bytes);
	uint64_t kept_until = in_flight_bytes + r->first_out; /* from the start of the first */
	uint64_t at = r->bytes + r->first_out;
	while (r->count > 0) {
		struct ws_out **last = frame_at(r, r->count - 1);

		at -= (*last)->len;
		if (at < kept_until)
			break;
		r->bytes -= (*last)->len;
		ws_out_unref(last);
		r->count--;
	}
	free_if_empty(q);
}

void
ws_queue_fini(struct ws_queue *q)
{
	if (q->ring == NULL)
		return;
	for (uint32_t i = 0; i < q->ring->count; i++)
		ws_out_unref(frame_at(q->ring, i));
	free(q->ring);
	q->ring = NULL;
}
