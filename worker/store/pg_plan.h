/*
 * pg_plan - how an operation is sent to PostgreSQL in as few round trips as can be.
 *
 * Pure. The statements of an operation are not sent one by one: as many as may run
 * without knowing what those before them answered go in one batch, and their answers
 * are judged in order afterwards. That is sound where a judgement that ends the
 * operation also undoes what was run beyond it:
 *
 *   PLAIN        one batch, which is a transaction by itself: nothing is ever undone
 *   SNAPSHOT     reads of one state of the database: one batch with its own frame
 *   TRANSACTION  BEGIN, batches, COMMIT or ROLLBACK. A batch ends behind a statement
 *                whose answer may end the operation well with something written
 */
#ifndef WORKER_STORE_PG_PLAN_H
#define WORKER_STORE_PG_PLAN_H

#include "worker/store/op_wire.h"

enum pg_mode { PG_PLAIN, PG_SNAPSHOT, PG_TRANSACTION };

struct pg_statement {
	char *sql; /* NULL: not one of PostgreSQL's */
	char name[40];
	uint8_t positions[OP_VALUES_MAX]; /* of $1, $2, .. in the call's values */
	uint8_t value_count;
	bool is_write;
	bool is_batch_end;
};

struct pg_plan {
	enum pg_mode mode;
	struct pg_statement statements[OP_STATEMENTS_MAX];
};

void pg_plan_init(struct pg_plan *, const struct op *);
void pg_plan_fini(struct pg_plan *);

/* Has its connection for itself: a transaction, or slow. */
bool pg_plan_is_alone(const struct pg_plan *, const struct op *);

/* The first statement from `from` on; OP_STATEMENTS_MAX: none. */
unsigned pg_plan_next(const struct pg_plan *, unsigned from);
/* Can the batch that begins here be sent with its COMMIT? */
bool pg_plan_commits_with(const struct pg_plan *, const struct op *, unsigned from);

#endif
