/*
 * job - one operation on its way to the database and back.
 *
 * Private to worker/store. Owned by whoever has it in a list; it ends with
 * job_finish(), which calls the verb's decoder and frees it.
 */
#ifndef WORKER_STORE_JOB_H
#define WORKER_STORE_JOB_H

#include "common/list.h"
#include "worker/store/run.h"

struct job {
	struct list node;
	const struct op *op;
	struct buf wire; /* the call */
	store_decode *decode;
	store_callback *callback;
	void *arg;
	uint64_t seq; /* the order in which they came */
	uint64_t handle;
	uint64_t deadline_ms, started_us;
	bool is_counted;         /* as a connection in use, until its end */
	unsigned tries;          /* times that it was sent in vain (PostgreSQL) */
	size_t *in_flight;       /* counted down at its end */
	struct op_answer answer; /* of a slow read */
};

/* Takes the call over. */
struct job *job_new(struct op_call *call, store_decode *decode, store_callback *callback, void *arg,
    size_t *in_flight);
/* It has a connection (of a database file: each operation in progress counts as one). */
void job_count(struct job *);
void job_finish(struct job *, struct op_rows *);
void job_fail(struct job *, int err);
void job_drop(struct job *); /* without a word: who waits for it is gone */

/* Since when reads and writes have failed, in loop_now_ms(); 0: they work. */
struct store_health {
	uint64_t reads_since_ms, writes_since_ms;
	void (*on_failing)(struct store_health *); /* one of them has begun to */
};

/* Logs when it changes. */
void store_health_reads(struct store_health *, bool is_well, uint64_t now_ms);
void store_health_writes(struct store_health *, bool is_well, uint64_t now_ms);

#endif
