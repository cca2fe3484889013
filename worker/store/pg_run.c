/*
 * pg_run - an operation on a connection: its batches sent, their results judged.
 *
 *   (BEGIN) batch -> judge -> next batch .. -> (COMMIT | ROLLBACK) -> end
 *
 * Results of statements behind the one that decided are read and forgotten.
 */
#include "worker/store/pg_run.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/err.h"

enum kind { BEGIN, PREPARE, STATEMENT, LAST_ROW, COMMIT, ROLLBACK };
enum { BOOL_OID = 16, BYTEA_OID = 17, INT8_OID = 20, INT2_OID = 21, INT4_OID = 23 };

struct pg_run *
pg_run_first(struct pg_conn *c)
{
	return list_first(&c->runs, struct pg_run, node);
}

/* ---- sending ---- */

static struct pg_item
item(enum kind kind, unsigned number)
{
	return (struct pg_item){(uint8_t)kind, (uint8_t)number};
}

static void
send_values(struct pg_conn *c, struct pg_run *run, unsigned i, enum kind kind)
{
	const struct pg_statement *s = &run->plan->statements[i];
	const char *values[OP_VALUES_MAX];
	int lengths[OP_VALUES_MAX], formats[OP_VALUES_MAX];
	char numbers[OP_VALUES_MAX][24];

	for (int n = 0; n < s->value_count; n++) {
		const struct op_value *v = &run->view.values[s->positions[n]];

		formats[n] = v->type == OP_BLOB;
		lengths[n] = (int)v->bytes.len;
		values[n] = v->type == OP_NULL ? NULL : v->bytes.p;
		if (v->type == OP_INT) {
			snprintf(numbers[n], sizeof(numbers[n]), "%" PRId64, v->number);
			values[n] = numbers[n];
		} else if (v->type == OP_BLOB && v->bytes.len == 0) {
			values[n] = "";
		}
	}
	pg_conn_run(c, item(kind, i), s->name, s->value_count, values, lengths, formats);
}

static void
send_statement(struct pg_conn *c, struct pg_run *run, unsigned i)
{
	const struct op_statement *st = &run->view.op->statements[i];
	const struct pg_statement *s = &run->plan->statements[i];
	unsigned index = op_index(run->view.op);
	struct str rows;

	if ((c->prepared[index] & UINT64_C(1) << i) == 0) {
		pg_conn_prepare(c, item(PREPARE, i), s->name, s->sql);
		c->prepared[index] |= UINT64_C(1) << i;
	}
	if (st->each == 0) {
		send_values(c, run, i, LAST_ROW);
		return;
	}
	rows = run->view.groups[st->each - 1].rows;
	for (uint64_t n = run->view.groups[st->each - 1].count; n > 0; n--) {
		op_call_take_row(&run->view, st->each - 1, &rows);
		send_values(c, run, i, n > 1 ? STATEMENT : LAST_ROW);
	}
}

static void
send_batch(struct pg_conn *c, struct pg_run *run)
{
	unsigned i = run->next;
	bool is_last = pg_plan_commits_with(run->plan, run->view.op, i);

	if (i == pg_plan_next(run->plan, 0) && run->plan->mode == PG_TRANSACTION)
		pg_conn_exec(c, item(BEGIN, 0), "BEGIN");
	else if (run->plan->mode == PG_SNAPSHOT)
		pg_conn_exec(c, item(BEGIN, 0), "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
	for (;; i = pg_plan_next(run->plan, i + 1)) {
		send_statement(c, run, i);
		if (run->plan->statements[i].is_batch_end)
			break;
	}
	run->next = pg_plan_next(run->plan, i + 1);
	if (run->plan->mode != PG_PLAIN && is_last) {
		run->is_committing = true;
		pg_conn_exec(c, item(COMMIT, 0), "COMMIT");
	}
	pg_conn_sync(c);
}

static void
send_end(struct pg_conn *c, struct pg_run *run, bool is_commit)
{
	run->is_ending = true;
	run->is_committing = is_commit;
	pg_conn_exec(c, item(is_commit ? COMMIT : ROLLBACK, 0), is_commit ? "COMMIT" : "ROLLBACK");
	pg_conn_sync(c);
}

/* ---- results ---- */

static void
fail_run(
    struct pg_run *run, enum pg_verdict verdict, int err, const char *sqlstate, const char *message)
{
	/* Values are in the messages of class 22. */
	bool is_safe = sqlstate == NULL || strncmp(sqlstate, "22", 2) != 0;

	run->has_failed = true;
	run->verdict = verdict;
	run->err = err;
	snprintf(run->failure, sizeof(run->failure), "%s %s", sqlstate != NULL ? sqlstate : "-----",
	    is_safe && message != NULL ? message : "");
}

static void
forget_prepared(struct pg_conn *c, const struct pg_run *run, struct pg_item it)
{
	c->prepared[op_index(run->view.op)] &= ~(UINT64_C(1) << it.number);
}

/* A statement that was thought lost. */
static bool
is_there_already(const PGresult *res)
{
	const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);

	return sqlstate != NULL && strcmp(sqlstate, "42P05") == 0;
}

/* The first error is the one that counts; the others follow from it. */
static void
take_error(struct pg_conn *c, struct pg_run *run, struct pg_item it, const PGresult *res)
{
	const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
	enum pg_verdict verdict;
	int err;

	/* Behind the decision only what it undoes can have gone wrong, but the connection itself.
	 */
	if (run->has_failed || (run->is_decided && !run->is_ending && sqlstate != NULL))
		return;
	verdict =
	    pg_error_judge(run->view.op, sqlstate, PQresultErrorField(res, PG_DIAG_CONSTRAINT_NAME),
		run->job == NULL || run->job->tries > 0, &err);
	if (sqlstate != NULL && strncmp(sqlstate, "26", 2) == 0)
		forget_prepared(c, run, it);
	fail_run(run, verdict, err, sqlstate, PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY));
}

static unsigned
hex_digit(char c)
{
	return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

/* As bytea_output = hex has it: two lower-case digits a byte. */
static size_t
hex_bytes(const char *hex, char *out)
{
	size_t n = 0;

	for (; hex[0] != '\0' && hex[1] != '\0'; hex += 2)
		out[n++] = (char)(hex_digit(hex[0]) << 4 | hex_digit(hex[1]));
	return n;
}

static void
add_value(struct op_answer *answer, const PGresult *res, int row, int column)
{
	const char *text = PQgetvalue(res, row, column);
	struct op_value v = {.type = OP_TEXT};
	char *bytes = NULL;

	if (PQgetisnull(res, row, column)) {
		v.type = OP_NULL;
	} else if (PQftype(res, column) == BOOL_OID) {
		v = (struct op_value){.type = OP_INT, .number = text[0] == 't'};
	} else if (PQftype(res, column) == INT8_OID || PQftype(res, column) == INT4_OID ||
		   PQftype(res, column) == INT2_OID) {
		v = (struct op_value){.type = OP_INT, .number = strtoll(text, NULL, 10)};
	} else if (PQftype(res, column) == BYTEA_OID && strncmp(text, "\\x", 2) == 0) {
		v.type = OP_BLOB;
		bytes = xmalloc(strlen(text) / 2 + 1);
		v.bytes = str_sub(bytes, hex_bytes(text + 2, bytes));
	} else {
		v.bytes = str_sub(text, (size_t)PQgetlength(res, row, column));
	}
	op_answer_add(answer, &v);
	free(bytes);
}

static uint64_t
bound_of(const struct op_call_view *view, struct str name)
{
	static const struct op_statement none = {.each = 0};
	int i = op_position(view->op, &none, name);

	return i < 0 ? UINT64_MAX : (uint64_t)view->values[i].number;
}

/* Rows into the answer until its bounds; the first row always fits. */
static void
keep_rows(struct pg_run *run, const PGresult *res)
{
	uint64_t rows_max = bound_of(&run->view, STR("max_rows"));
	uint64_t bytes_max = bound_of(&run->view, STR("max_bytes")), bytes = 0;
	int rows = PQntuples(res), columns = PQnfields(res), body = PQfnumber(res, "body");

	check(columns <= OP_VALUES_MAX);
	for (int row = 0; row < rows; row++) {
		if (body >= 0)
			bytes += (uint64_t)PQgetlength(res, row, body);
		if ((uint64_t)row >= rows_max || (row > 0 && bytes > bytes_max)) {
			run->answer.is_cut = true;
			return;
		}
		run->answer.columns = (unsigned)columns;
		run->answer.rows++;
		for (int column = 0; column < columns; column++)
			add_value(&run->answer, res, row, column);
	}
}

static void
take_rows(struct pg_run *run, unsigned i, const PGresult *res)
{
	const struct op_statement *st = &run->view.op->statements[i];
	uint64_t rows = (uint64_t)PQntuples(res), changes = 0;

	if (run->is_decided)
		return;
	if (run->plan->statements[i].is_write)
		changes = strtoull(PQcmdTuples((PGresult *)res), NULL, 10);
	if (st->is_answer || st->expect == OP_NONE || st->expect == OP_DONE_IF_ROW)
		keep_rows(run, res);
	if (st->is_answer)
		run->answer.changes += changes;
	run->hits = rows > changes ? rows : changes;
	run->has_written = run->has_written || changes > 0;
}

void
pg_run_on_result(struct pg_conn *c, struct pg_item it, const PGresult *res)
{
	struct pg_run *run = pg_run_first(c);

	check(run != NULL);
	switch (PQresultStatus(res)) {
	case PGRES_PIPELINE_ABORTED: /* behind an error */
		if (it.kind == PREPARE)
			forget_prepared(c, run, it);
		break;
	case PGRES_COMMAND_OK:
		if (it.kind == COMMIT)
			run->is_committed = strcmp(PQcmdStatus((PGresult *)res), "COMMIT") == 0;
		/* FALLTHROUGH */
	case PGRES_TUPLES_OK:
		if (it.kind == STATEMENT || it.kind == LAST_ROW)
			take_rows(run, it.number, res);
		break;
	default:
		if (it.kind == PREPARE && !is_there_already(res))
			forget_prepared(c, run, it);
		take_error(c, run, it, res);
	}
}

/* ---- judging ---- */

void
pg_run_on_item_end(struct pg_conn *c, struct pg_item it)
{
	struct pg_run *run = pg_run_first(c);
	const struct op_statement *st;

	check(run != NULL);
	if (it.kind != LAST_ROW || run->is_decided || run->has_failed)
		return;
	st = &run->view.op->statements[it.number];
	if (st->expect == OP_DONE_IF_ROW && run->hits > 0) {
		run->is_decided = true;
		run->wrote_before = run->has_written;
	} else if ((st->expect == OP_ONE && run->hits == 0) ||
		   (st->expect == OP_NONE && run->hits > 0)) {
		run->is_decided = true;
		run->answer.err = st->err;
	}
}

static bool
is_in_transaction(struct pg_conn *c)
{
	PGTransactionStatusType status = PQtransactionStatus(c->pq);

	return status == PQTRANS_INTRANS || status == PQTRANS_INERROR;
}

/* Of a commit that the server took for a rollback, nothing happened. */
static void
end_commit(struct pg_run *run)
{
	if (run->is_committing && !run->is_committed && !run->has_failed)
		fail_run(run, PG_REPEAT, E_STORE_UNAVAILABLE, NULL, "not committed");
}

bool
pg_run_on_batch_end(struct pg_conn *c)
{
	struct pg_run *run = pg_run_first(c);

	check(run != NULL);
	if (run->plan->mode == PG_PLAIN)
		return true;
	if (run->is_ending || (run->is_committing && !run->has_failed)) {
		end_commit(run);
		return true;
	}
	if (run->has_failed || run->job == NULL) {
		if (!is_in_transaction(c))
			return true;
		send_end(c, run, false);
	} else if (run->is_decided) {
		send_end(c, run, run->answer.err == 0 && run->wrote_before);
	} else if (run->next < OP_STATEMENTS_MAX) {
		send_batch(c, run);
	} else {
		send_end(c, run, true);
	}
	return false;
}

/* ---- life ---- */

struct pg_run *
pg_run_new(struct pg_conn *c, struct job *job, const struct pg_plan *plan, uint64_t now_ms)
{
	struct pg_run *run = xcalloc(1, sizeof(*run));

	run->job = job;
	run->plan = plan;
	run->wire = job->wire;
	job->wire = BUF_INIT;
	check(op_call_read(buf_str(&run->wire), &run->view));
	run->sent_ms = now_ms;
	run->next = pg_plan_next(plan, 0);
	list_add_tail(&c->runs, &run->node);
	send_batch(c, run);
	return run;
}

struct job *
pg_run_abandon(struct pg_run *run)
{
	struct job *job = run->job;

	run->job = NULL;
	return job;
}

struct job *
pg_run_free(struct pg_run **ref)
{
	struct pg_run *run = *ref;
	struct job *job = run->job;

	*ref = NULL;
	list_del(&run->node);
	if (job != NULL)
		job->wire = run->wire;
	else
		buf_fini(&run->wire);
	op_answer_fini(&run->answer);
	free(run);
	return job;
}
