/*
 * pg_run - an operation on a connection: its batches sent, their results judged.
 *
 * Any number may be on one connection, in order, but only one that is a transaction
 * (pg_plan_is_alone()). The caller gets the results of the connection here, and hears when
 * the first run has ended.
 */
#ifndef WORKER_STORE_PG_RUN_H
#define WORKER_STORE_PG_RUN_H

#include "worker/store/job.h"
#include "worker/store/pg_conn.h"
#include "worker/store/pg_error.h"
#include "worker/store/pg_plan.h"

struct pg_run {
	struct list node; /* in the connection's */
	struct job *job;  /* NULL: given up, its answer is not waited for */
	const struct pg_plan *plan;
	struct buf wire; /* the call, the job's until it ends */
	struct op_call_view view;
	struct op_answer answer;
	uint64_t sent_ms;
	unsigned next;      /* the first statement that was not sent */
	uint64_t hits;      /* of the statement whose results come */
	bool is_decided;    /* a statement's answer has ended the operation, */
	bool wrote_before;  /* after something was written that counts */
	bool has_written;   /* by statements judged so far */
	bool is_committing; /* COMMIT was sent: it has succeeded, or the answer is an error */
	bool is_committed;
	bool is_ending; /* COMMIT or ROLLBACK alone was sent: the last batch */
	bool has_failed;
	enum pg_verdict verdict; /* has_failed: why, with err */
	int err;
	char failure[192]; /* for the log */
};

/* Takes the job and sends its first batch. The connection may be broken afterwards. */
struct pg_run *pg_run_new(struct pg_conn *, struct job *, const struct pg_plan *, uint64_t now_ms);
/* The job is given back to the caller, whole; NULL: it was given up. Frees the rest. */
struct job *pg_run_free(struct pg_run **);
/* Nobody waits for it any more: the job is taken out, the connection comes to its end of it. */
struct job *pg_run_abandon(struct pg_run *);

/* What the connection reports, for its first run. */
void pg_run_on_result(struct pg_conn *, struct pg_item, const PGresult *);
void pg_run_on_item_end(struct pg_conn *, struct pg_item);
/* True: the run has ended, and run->has_failed or its answer says how; else it goes on. */
bool pg_run_on_batch_end(struct pg_conn *);

struct pg_run *pg_run_first(struct pg_conn *); /* NULL: none */

#endif
