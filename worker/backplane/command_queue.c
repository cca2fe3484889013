/* command_queue - see command_queue.h. */
#include "worker/backplane/command_queue.h"

#include <stdlib.h>

#include "common/check.h"

enum { FIRST_ROOM = 16 };

static void
grow(struct command_queue *q)
{
	size_t room = q->room > 0 ? q->room * 2 : FIRST_ROOM;
	struct command *ring = xcalloc(room, sizeof(*ring));

	for (size_t i = 0; i < q->count; i++)
		ring[i] = q->ring[(q->first + i) % q->room];
	free(q->ring);
	q->ring = ring;
	q->room = room;
	q->first = 0;
}

bool
command_queue_push(struct command_queue *q, struct command c)
{
	if (q->count >= q->max)
		return false;
	if (q->count == q->room)
		grow(q);
	q->ring[(q->first + q->count++) % q->room] = c;
	return true;
}

bool
command_queue_pop(struct command_queue *q, struct command *ret)
{
	if (q->count == 0)
		return false;
	*ret = q->ring[q->first];
	q->first = (q->first + 1) % q->room;
	q->count--;
	return true;
}

uint64_t
command_queue_age_ms(const struct command_queue *q, uint64_t now_ms)
{
	uint64_t sent_ms = q->count > 0 ? q->ring[q->first].sent_ms : now_ms;

	return now_ms > sent_ms ? now_ms - sent_ms : 0;
}

void
command_queue_forget(struct command_queue *q, const void *arg)
{
	for (size_t i = 0; i < q->count; i++) {
		struct command *c = &q->ring[(q->first + i) % q->room];

		if (c->arg == arg)
			c->on_reply = NULL;
	}
}

void
command_queue_forget_all(struct command_queue *q)
{
	for (size_t i = 0; i < q->count; i++)
		q->ring[(q->first + i) % q->room].on_reply = NULL;
}

void
command_queue_fini(struct command_queue *q)
{
	free(q->ring);
	*q = (struct command_queue){.max = q->max};
}
