/*
 * pg_queue - operations that wait for a connection, and who of them is next.
 */
#include "worker/store/pg_queue.h"

#include "common/check.h"

static enum pg_lane
lane_of(const struct op *op)
{
	if (op->is_first)
		return PG_FIRST;
	return op->is_slow ? PG_SLOW : PG_COMMON;
}

static struct job *
first_of(const struct pg_queue *q, enum pg_lane lane)
{
	return list_first(&q->lanes[lane], struct job, node);
}

static void
take(struct pg_queue *q, struct job *job)
{
	list_del(&job->node);
	q->count--;
}

void
pg_queue_init(struct pg_queue *q, unsigned connections)
{
	unsigned left_to_others = connections / 4 > 0 ? connections / 4 : 1;

	check(connections > 0);
	*q = (struct pg_queue){.slow_max = connections > 1 ? connections - left_to_others : 1};
	for (int i = 0; i < PG_LANES; i++)
		list_init(&q->lanes[i]);
}

void
pg_queue_add(struct pg_queue *q, struct job *job)
{
	struct list *lane = &q->lanes[lane_of(job->op)], *before = lane->prev;

	while (before != lane && list_entry(before, struct job, node)->seq > job->seq)
		before = before->prev;
	list_add_head(before, &job->node);
	q->count++;
}

/* Of those that are not FIRST. */
static struct job *
next_other(const struct pg_queue *q)
{
	struct job *common = first_of(q, PG_COMMON);
	struct job *slow = q->slow < q->slow_max ? first_of(q, PG_SLOW) : NULL;

	if (common == NULL || (slow != NULL && slow->seq < common->seq))
		return slow;
	return common;
}

struct job *
pg_queue_next(const struct pg_queue *q)
{
	struct job *first = first_of(q, PG_FIRST), *other = next_other(q);

	if (first == NULL || (other != NULL && q->ahead >= PG_AHEAD_MAX))
		return other;
	return first;
}

void
pg_queue_start(struct pg_queue *q, struct job *job)
{
	if (!job->op->is_first || next_other(q) == NULL)
		q->ahead = 0;
	else
		q->ahead++;
	if (job->op->is_slow)
		q->slow++;
	take(q, job);
}

void
pg_queue_ended(struct pg_queue *q, const struct op *op)
{
	if (!op->is_slow)
		return;
	check(q->slow > 0);
	q->slow--;
}

struct job *
pg_queue_take_late(struct pg_queue *q, uint64_t now_ms)
{
	for (int i = 0; i < PG_LANES; i++) {
		struct job *job = first_of(q, i);

		if (job != NULL && now_ms >= job->deadline_ms) {
			take(q, job);
			return job;
		}
	}
	return NULL;
}

struct job *
pg_queue_take_any(struct pg_queue *q)
{
	for (int i = 0; i < PG_LANES; i++) {
		struct job *job = first_of(q, i);

		if (job != NULL) {
			take(q, job);
			return job;
		}
	}
	return NULL;
}

uint64_t
pg_queue_deadline_ms(const struct pg_queue *q)
{
	uint64_t deadline_ms = UINT64_MAX;

	for (int i = 0; i < PG_LANES; i++) {
		const struct job *job = first_of(q, i);

		if (job != NULL && job->deadline_ms < deadline_ms)
			deadline_ms = job->deadline_ms;
	}
	return deadline_ms;
}
