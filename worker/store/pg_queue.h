/*
 * pg_queue - operations that wait for a connection, and who of them is next.
 *
 * Pure: takes the time, does no I/O. Three lanes, each in the order in which they came:
 *
 *   FIRST   what ends a turn or renews a lease (op.is_first). It goes before the others, but of
 *           PG_AHEAD_MAX in a row one of the others is served, if any waits: reads do not starve
 *   COMMON  everything else
 *   SLOW    reads of many rows. They never hold the last connections: a quarter, one at least, is
 *           left to the others where there is more than one
 */
#ifndef WORKER_STORE_PG_QUEUE_H
#define WORKER_STORE_PG_QUEUE_H

#include "worker/store/job.h"

enum pg_lane { PG_FIRST, PG_COMMON, PG_SLOW, PG_LANES };

enum { PG_AHEAD_MAX = 8 };

struct pg_queue {
	struct list lanes[PG_LANES];
	unsigned count;    /* of all lanes */
	unsigned ahead;    /* served of FIRST in a row, while others waited */
	unsigned slow_max; /* connections */
	unsigned slow;     /* started and not ended */
};

void pg_queue_init(struct pg_queue *, unsigned connections);

/* By its seq: one that is repeated stands where it stood. */
void pg_queue_add(struct pg_queue *, struct job *);
/* The one to be served next; NULL: none, or slow ones that must wait for slow ones. */
struct job *pg_queue_next(const struct pg_queue *);
/* It gets a connection: no longer waits. pg_queue_ended() is owed. */
void pg_queue_start(struct pg_queue *, struct job *);
void pg_queue_ended(struct pg_queue *, const struct op *);

/* One whose time is over, taken out; NULL: none. */
struct job *pg_queue_take_late(struct pg_queue *, uint64_t now_ms);
/* Any of them, taken out; NULL: none left. */
struct job *pg_queue_take_any(struct pg_queue *);
/* When the first one's time is over; UINT64_MAX: nobody waits. */
uint64_t pg_queue_deadline_ms(const struct pg_queue *);

#endif
