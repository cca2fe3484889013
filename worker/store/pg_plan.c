/*
 * pg_plan - how an operation is sent to PostgreSQL in as few round trips as can be.
 */
#include "worker/store/pg_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
init_statement(struct pg_statement *s, const struct op *op, unsigned i)
{
	struct buf sql = BUF_INIT;

	s->value_count = (uint8_t)op_postgres_text(op, &op->statements[i], s->positions, &sql);
	if (sql.len == 0) {
		buf_fini(&sql);
		return;
	}
	s->sql = buf_take(&sql, &(size_t){0});
	snprintf(s->name, sizeof(s->name), "%s_%u", op->name, i);
	s->is_write = strncmp(s->sql, "SELECT ", 7) != 0;
}

unsigned
pg_plan_next(const struct pg_plan *plan, unsigned from)
{
	while (from < OP_STATEMENTS_MAX && plan->statements[from].sql == NULL)
		from++;
	return from;
}

/* A row ends the operation well: what was written until then counts, and nothing behind it. */
static void
mark_batches(struct pg_plan *plan, const struct op *op)
{
	bool has_written = false;

	for (unsigned i = pg_plan_next(plan, 0); i < OP_STATEMENTS_MAX;) {
		struct pg_statement *s = &plan->statements[i];
		unsigned next = pg_plan_next(plan, i + 1);

		has_written = has_written || s->is_write;
		s->is_batch_end = next == OP_STATEMENTS_MAX ||
				  (op->statements[i].expect == OP_DONE_IF_ROW && has_written);
		i = next;
	}
}

/* Would an outcome of some statement undo what another one has written? */
static bool
may_undo(const struct pg_plan *plan, const struct op *op)
{
	unsigned writes = 0, verdicts = 0;

	for (unsigned i = 0; i < OP_STATEMENTS_MAX; i++) {
		if (plan->statements[i].sql == NULL)
			continue;
		writes += plan->statements[i].is_write;
		verdicts += op->statements[i].expect != OP_ANY;
		if (op->statements[i].expect == OP_NONE && plan->statements[i].is_write)
			return true;
	}
	return verdicts > 0 && writes > 0 &&
	       pg_plan_next(plan, pg_plan_next(plan, 0) + 1) < OP_STATEMENTS_MAX;
}

void
pg_plan_init(struct pg_plan *plan, const struct op *op)
{
	bool has_several;

	*plan = (struct pg_plan){.mode = PG_PLAIN};
	for (unsigned i = 0; i < OP_STATEMENTS_MAX && op->statements[i].sql != NULL; i++)
		init_statement(&plan->statements[i], op, i);
	mark_batches(plan, op);
	has_several = pg_plan_next(plan, pg_plan_next(plan, 0) + 1) < OP_STATEMENTS_MAX;
	if (!op->is_write && has_several)
		plan->mode = PG_SNAPSHOT;
	else if (may_undo(plan, op))
		plan->mode = PG_TRANSACTION;
}

void
pg_plan_fini(struct pg_plan *plan)
{
	for (unsigned i = 0; i < OP_STATEMENTS_MAX; i++)
		free(plan->statements[i].sql);
	*plan = (struct pg_plan){.mode = PG_PLAIN};
}

bool
pg_plan_is_alone(const struct pg_plan *plan, const struct op *op)
{
	return plan->mode != PG_PLAIN || op->is_slow;
}

bool
pg_plan_commits_with(const struct pg_plan *plan, const struct op *op, unsigned from)
{
	if (plan->mode == PG_SNAPSHOT)
		return true;
	for (unsigned i = from; i < OP_STATEMENTS_MAX; i++) {
		if (plan->statements[i].sql == NULL)
			continue;
		if (op->statements[i].expect != OP_ANY)
			return false;
		if (plan->statements[i].is_batch_end)
			return pg_plan_next(plan, i + 1) == OP_STATEMENTS_MAX;
	}
	return false;
}
