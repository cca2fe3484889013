/*
 * sqlite_db - one connection to the SQLite file, and operations run on it.
 */
#include "worker/store/sqlite_db.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"

struct statement {
	sqlite3_stmt *stmt;
	uint8_t bound_count;
	uint8_t positions[OP_VALUES_MAX]; /* of parameter i + 1 */
	int body_column;                  /* what max_bytes counts */
};

/* What holds for an operation whatever its values are. */
struct plan {
	bool is_known;
	bool may_be_torn;
	int max_rows, max_bytes; /* positions of those parameters; -1: none */
};

struct sqlite_db {
	sqlite3 *handle;
	char *path;
	struct sqlite_failure *failure;
	bool is_writer;
	uint64_t looked_ms; /* when a reader has last seen that its file is still the one */
	unsigned log_pages, moved_pages;
	struct plan plans[OP_COUNT];
	struct statement statements[OP_COUNT][OP_STATEMENTS_MAX];
	sqlite3_stmt *begin, *commit, *savepoint, *release;
	bool is_careful;
};

enum {
	OPEN_WAIT_MS = 2000,
	LOOK_MS = 500, /* a reader looks so often whether its file is still the one */
};

/* How a statement went: go on, the operation is done, or the result code is a failure. */
enum outcome { NEXT, DONE, FAILED };

/* The bounds that an operation puts on its answer. */
struct bounds {
	uint64_t rows, bytes;
};

const char *
sqlite_path_of(const char *url)
{
	return strncmp(url, "sqlite:", 7) == 0 ? url + 7 : NULL;
}

/* ---- what SQLite's result codes mean to us ---- */

static const char *
reason_of(struct sqlite_db *db, int rc)
{
	switch (rc & 0xff) {
	case SQLITE_FULL:
		return "disk full";
	case SQLITE_READONLY:
		return "read-only";
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return "corrupt";
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return "locked by another process";
	default:
		return db->handle != NULL ? sqlite3_errmsg(db->handle) : sqlite3_errstr(rc);
	}
}

static int
failure_of(struct sqlite_db *db, int rc, const char *during)
{
	snprintf(db->failure->text, sizeof(db->failure->text),
	    "reason=\"%s\" code=%d during=%s path=\"%s\"", reason_of(db, rc), rc, during, db->path);
	return (rc & 0xff) == SQLITE_BUSY || (rc & 0xff) == SQLITE_LOCKED ? E_BUSY
									  : E_STORE_UNAVAILABLE;
}

/* What only this operation suffers from: 0 when the database as a whole failed. */
static int
own_error_of(struct sqlite_db *db, const struct op *op, int rc)
{
	static const char prefix[] = "UNIQUE constraint failed: ";
	const char *message = sqlite3_errmsg(db->handle);

	switch (rc & 0xff) {
	case SQLITE_TOOBIG:
		return E_PAYLOAD_TOO_LARGE;
	case SQLITE_CONSTRAINT:
		if (strncmp(message, prefix, sizeof(prefix) - 1) == 0)
			for (int i = 0; i < OP_CONSTRAINTS_MAX; i++)
				if (op->constraints[i].columns != NULL &&
				    strcmp(message + sizeof(prefix) - 1,
					op->constraints[i].columns) == 0)
					return op->constraints[i].err;
		/* FALLTHROUGH */
	case SQLITE_ERROR:
	case SQLITE_MISMATCH:
	case SQLITE_RANGE:
		snprintf(db->failure->text, sizeof(db->failure->text), "reason=\"%s\" op=%s",
		    message, op->name);
		return E_INTERNAL;
	default:
		return 0;
	}
}

/* ---- connection ---- */

/* from_ms() and to_ms(): SQLite keeps times as the milliseconds that we speak of. */
static void
same_number(sqlite3_context *call, int argc, sqlite3_value **argv)
{
	check(argc == 1);
	sqlite3_result_value(call, argv[0]);
}

static void
now_ms(sqlite3_context *call, int argc, sqlite3_value **argv)
{
	(void)argv;
	check(argc == 0);
	sqlite3_result_int64(call, clock_wall_ms());
}

static int
on_wal(void *arg, sqlite3 *handle, const char *name, int pages)
{
	struct sqlite_db *db = arg;

	(void)handle;
	(void)name;
	if ((unsigned)pages < db->log_pages)
		db->moved_pages = 0; /* it has started anew */
	db->log_pages = (unsigned)pages;
	return SQLITE_OK;
}

static int
add_functions(sqlite3 *handle)
{
	const int flags = SQLITE_UTF8 | SQLITE_INNOCUOUS, same = flags | SQLITE_DETERMINISTIC;
	int rc = sqlite3_create_function(handle, "from_ms", 1, same, NULL, same_number, NULL, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_create_function(
		    handle, "to_ms", 1, same, NULL, same_number, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_create_function(handle, "now_ms", 0, flags, NULL, now_ms, NULL, NULL);
	return rc;
}

static int
exec(struct sqlite_db *db, const char *sql)
{
	return sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
}

/* The cache sizes are small because every worker has such a connection. */
static int
set_pragmas(struct sqlite_db *db, const struct sqlite_db_conf *conf)
{
	int rc =
	    exec(db, "PRAGMA mmap_size = 0; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;"
		     "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;");

	if (rc == SQLITE_OK)
		rc = exec(
		    db, conf->is_writer ? "PRAGMA cache_size = -4096" : "PRAGMA cache_size = -512");
	if (rc == SQLITE_OK && conf->is_writer)
		rc = exec(db, conf->is_synced_late
				  ? "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
				  : "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;");
	if (rc == SQLITE_OK && !conf->is_writer)
		rc = exec(db, "PRAGMA query_only = ON");
	return rc;
}

static int
prepare(struct sqlite_db *db, const char *sql, sqlite3_stmt **ret)
{
	return sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, ret, NULL);
}

static int
prepare_frame(struct sqlite_db *db)
{
	int rc = prepare(db, "BEGIN IMMEDIATE", &db->begin);

	if (rc == SQLITE_OK)
		rc = prepare(db, "COMMIT", &db->commit);
	if (rc == SQLITE_OK)
		rc = prepare(db, "SAVEPOINT op", &db->savepoint);
	if (rc == SQLITE_OK)
		rc = prepare(db, "RELEASE op", &db->release);
	return rc;
}

/* Its statistics of memory, which nobody asks for, cost a mutex at every allocation. */
static void
configure_library(void)
{
	sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

int
sqlite_db_open(const struct sqlite_db_conf *conf, struct sqlite_db **ret)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct sqlite_db *db = xcalloc(1, sizeof(*db));
	/* Also readers open for writing: the shared index of the log is made by whoever comes
	 * first. */
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE |
		    (conf->may_create ? SQLITE_OPEN_CREATE : 0);
	int rc;

	pthread_once(&once, configure_library);
	db->path = xstrdup(conf->path);
	db->failure = conf->failure;
	db->is_writer = conf->is_writer;
	rc = sqlite3_open_v2(conf->path, &db->handle, flags, NULL);
	/* Who comes first makes the index of the log, under a lock: a start waits for it. */
	if (rc == SQLITE_OK)
		rc = sqlite3_busy_timeout(
		    db->handle, conf->open_wait_ms != 0 ? (int)conf->open_wait_ms : OPEN_WAIT_MS);
	if (rc == SQLITE_OK)
		rc = add_functions(db->handle);
	if (rc == SQLITE_OK)
		rc = set_pragmas(db, conf);
	if (rc == SQLITE_OK)
		rc = prepare_frame(db);
	if (rc == SQLITE_OK)
		rc = sqlite3_busy_timeout(db->handle, (int)conf->busy_wait_ms);
	if (rc != SQLITE_OK) {
		failure_of(db, rc, "open");
		sqlite_db_close(&db);
		return E_STORE_UNAVAILABLE;
	}
	/* Checkpoints are the writer's business, between batches. */
	sqlite3_wal_autocheckpoint(db->handle, 0);
	sqlite3_wal_hook(db->handle, on_wal, db);
	*ret = db;
	return 0;
}

void
sqlite_db_close(struct sqlite_db **ref)
{
	struct sqlite_db *db = *ref;

	if (db == NULL)
		return;
	*ref = NULL;
	for (unsigned i = 0; i < OP_COUNT; i++)
		for (unsigned j = 0; j < OP_STATEMENTS_MAX; j++)
			sqlite3_finalize(db->statements[i][j].stmt);
	sqlite3_finalize(db->begin);
	sqlite3_finalize(db->commit);
	sqlite3_finalize(db->savepoint);
	sqlite3_finalize(db->release);
	sqlite3_close(db->handle);
	free(db->path);
	free(db);
}

/* ---- one statement ---- */

static int
prepare_statement(
    struct sqlite_db *db, const struct op *op, const struct op_statement *st, struct statement *ret)
{
	struct statement s = {.body_column = -1};
	int rc = prepare(db, st->sql, &s.stmt);

	if (rc != SQLITE_OK)
		return rc;
	s.bound_count = (uint8_t)sqlite3_bind_parameter_count(s.stmt);
	for (int i = 0; i < s.bound_count; i++) {
		const char *name = sqlite3_bind_parameter_name(s.stmt, i + 1);
		int position = op_position(op, st, str_of(name + 1));

		check(position >= 0);
		s.positions[i] = (uint8_t)position;
	}
	for (int i = 0; i < sqlite3_column_count(s.stmt); i++)
		if (strcmp(sqlite3_column_name(s.stmt, i), "body") == 0)
			s.body_column = i;
	*ret = s;
	return SQLITE_OK;
}

static int
bind_value(sqlite3_stmt *stmt, int i, const struct op_value *v)
{
	switch (v->type) {
	case OP_INT:
		return sqlite3_bind_int64(stmt, i, v->number);
	case OP_TEXT:
		return sqlite3_bind_text64(
		    stmt, i, v->bytes.p, v->bytes.len, SQLITE_STATIC, SQLITE_UTF8);
	case OP_BLOB:
		return sqlite3_bind_blob64(stmt, i, v->bytes.p, v->bytes.len, SQLITE_STATIC);
	case OP_NULL:
		break;
	}
	return sqlite3_bind_null(stmt, i);
}

static struct op_value
column_value(sqlite3_stmt *stmt, int i)
{
	switch (sqlite3_column_type(stmt, i)) {
	case SQLITE_INTEGER:
		return (struct op_value){.type = OP_INT, .number = sqlite3_column_int64(stmt, i)};
	case SQLITE_NULL:
		return (struct op_value){.type = OP_NULL};
	case SQLITE_BLOB:
		return (struct op_value){.type = OP_BLOB,
		    .bytes = str_sub(
			sqlite3_column_blob(stmt, i), (size_t)sqlite3_column_bytes(stmt, i))};
	default:
		return (struct op_value){.type = OP_TEXT,
		    .bytes = str_sub((const char *)sqlite3_column_text(stmt, i),
			(size_t)sqlite3_column_bytes(stmt, i))};
	}
}

static void
add_row(struct op_answer *answer, sqlite3_stmt *stmt)
{
	answer->columns = (unsigned)sqlite3_column_count(stmt);
	check(answer->columns <= OP_VALUES_MAX);
	for (unsigned i = 0; i < answer->columns; i++) {
		struct op_value v = column_value(stmt, (int)i);

		op_answer_add(answer, &v);
	}
	answer->rows++;
}

static uint64_t
row_bytes(const struct statement *s)
{
	return s->body_column < 0 ? 0 : (uint64_t)sqlite3_column_bytes(s->stmt, s->body_column);
}

/* Rows into the answer until its bounds; the first row always fits. */
static int
collect(struct statement *s, struct bounds bounds, bool is_kept, struct op_answer *answer,
    uint64_t *ret_rows)
{
	uint64_t rows = 0, bytes = 0;
	int rc;

	while ((rc = sqlite3_step(s->stmt)) == SQLITE_ROW) {
		rows++;
		if (!is_kept)
			continue;
		bytes += row_bytes(s);
		if (rows > bounds.rows || (rows > 1 && bytes > bounds.bytes)) {
			answer->is_cut = true;
			rc = SQLITE_DONE;
			break;
		}
		add_row(answer, s->stmt);
	}
	*ret_rows = rows;
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int
step_all(struct sqlite_db *db, struct statement *s, const struct op_statement *st,
    const struct op_call_view *view, struct bounds bounds, struct op_answer *answer,
    uint64_t *ret_hits)
{
	bool is_kept = st->is_answer || st->expect == OP_NONE || st->expect == OP_DONE_IF_ROW;
	uint64_t rows = 0, changes = 0;
	int rc = SQLITE_OK;

	for (int i = 0; i < s->bound_count && rc == SQLITE_OK; i++)
		rc = bind_value(s->stmt, i + 1, &view->values[s->positions[i]]);
	if (rc == SQLITE_OK)
		rc = collect(s, bounds, is_kept, answer, &rows);
	if (rc == SQLITE_OK && !sqlite3_stmt_readonly(s->stmt))
		changes = (uint64_t)sqlite3_changes64(db->handle);
	sqlite3_reset(s->stmt);
	sqlite3_clear_bindings(s->stmt);
	if (st->is_answer)
		answer->changes += changes;
	*ret_hits = rows > changes ? rows : changes;
	return rc;
}

static enum outcome
judge(const struct op_statement *st, uint64_t hits, struct op_answer *answer)
{
	if (st->expect == OP_DONE_IF_ROW)
		return hits > 0 ? DONE : NEXT;
	if ((st->expect == OP_ONE && hits == 0) || (st->expect == OP_NONE && hits > 0)) {
		answer->err = st->err;
		return DONE;
	}
	return NEXT;
}

/* ---- one operation ---- */

/* May it fail when it has changed something, as far as one can see? */
static bool
may_be_torn(const struct op *op)
{
	bool has_written = false;

	for (unsigned i = 0; i < OP_STATEMENTS_MAX && op->statements[i].sql != NULL; i++) {
		const struct op_statement *st = &op->statements[i];
		bool is_write = st->sql[0] != '\0' && strncmp(st->sql, "SELECT", 6) != 0;
		bool may_fail = st->expect == OP_ONE || st->expect == OP_NONE ||
				(is_write && op->constraints[0].columns != NULL);

		if (may_fail && (has_written || (is_write && st->each > 0)))
			return true;
		has_written |= is_write;
	}
	return false;
}

static const struct plan *
plan_of(struct sqlite_db *db, const struct op *op)
{
	static const struct op_statement none = {.each = 0};
	struct plan *plan = &db->plans[op_index(op)];

	if (!plan->is_known)
		*plan = (struct plan){.is_known = true,
		    .may_be_torn = may_be_torn(op),
		    .max_rows = op_position(op, &none, STR("max_rows")),
		    .max_bytes = op_position(op, &none, STR("max_bytes"))};
	return plan;
}

static struct bounds
bounds_of(struct sqlite_db *db, const struct op_call_view *view)
{
	const struct plan *plan = plan_of(db, view->op);
	struct bounds b = {UINT64_MAX, UINT64_MAX};

	if (plan->max_rows >= 0)
		b.rows = (uint64_t)view->values[plan->max_rows].number;
	if (plan->max_bytes >= 0)
		b.bytes = (uint64_t)view->values[plan->max_bytes].number;
	return b;
}

static enum outcome
run_statement(struct sqlite_db *db, struct op_call_view *view, unsigned index,
    struct op_answer *answer, int *ret_rc)
{
	const struct op_statement *st = &view->op->statements[index];
	struct statement *s = &db->statements[op_index(view->op)][index];
	struct bounds bounds = bounds_of(db, view);
	struct str rows = STR_NONE;
	uint64_t times = 1, hits = 0;
	int rc = s->stmt != NULL ? SQLITE_OK : prepare_statement(db, view->op, st, s);

	if (st->each > 0) {
		times = view->groups[st->each - 1].count;
		rows = view->groups[st->each - 1].rows;
	}
	for (uint64_t i = 0; i < times && rc == SQLITE_OK; i++) {
		if (st->each > 0)
			op_call_take_row(view, st->each - 1, &rows);
		rc = step_all(db, s, st, view, bounds, answer, &hits);
	}
	*ret_rc = rc;
	return rc != SQLITE_OK ? FAILED : judge(st, hits, answer);
}

static int
run_op(struct sqlite_db *db, struct op_call_view *view, struct op_answer *answer)
{
	enum outcome outcome = NEXT;
	int rc = SQLITE_OK;

	op_answer_clear(answer);
	for (unsigned i = 0; outcome == NEXT && i < OP_STATEMENTS_MAX; i++) {
		if (view->op->statements[i].sql == NULL)
			break;
		if (view->op->statements[i].sql[0] != '\0')
			outcome = run_statement(db, view, i, answer, &rc);
	}
	if (outcome != FAILED)
		return 0;
	op_answer_clear(answer);
	if ((answer->err = own_error_of(db, view->op, rc)) != 0)
		return 0;
	return failure_of(db, rc, view->op->name);
}

/* Once through a statement of the transaction's frame. */
static int
step_frame(sqlite3_stmt *stmt)
{
	int rc = sqlite3_step(stmt);

	sqlite3_reset(stmt);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/*
 * A file that was deleted or replaced under us takes writes and gives answers as ever, which
 * nobody will see again: that is no record.
 */
static int
still_there(struct sqlite_db *db)
{
	int has_moved = 0;

	sqlite3_file_control(db->handle, "main", SQLITE_FCNTL_HAS_MOVED, &has_moved);
	if (!has_moved)
		return 0;
	snprintf(db->failure->text, sizeof(db->failure->text),
	    "reason=\"the file was moved or deleted\" path=\"%s\"", db->path);
	return E_STORE_UNAVAILABLE;
}

int
sqlite_db_read(struct sqlite_db *db, struct op_call_view *view, struct op_answer *answer)
{
	uint64_t now_ms = clock_mono_ms();
	int rc, err;

	check(!view->op->is_write);
	if (now_ms - db->looked_ms >= LOOK_MS) {
		if ((err = still_there(db)) != 0)
			return err;
		db->looked_ms = now_ms;
	}
	if (view->op->statements[1].sql == NULL)
		return run_op(db, view, answer);
	/* Several statements see one state of the database. */
	if ((rc = exec(db, "BEGIN")) != SQLITE_OK)
		return failure_of(db, rc, "begin");
	err = run_op(db, view, answer);
	sqlite_db_rollback(db);
	return err;
}

void
sqlite_db_be_careful(struct sqlite_db *db, bool is_careful)
{
	db->is_careful = is_careful;
}

/* Some failures have ended the whole transaction already. */
static int
write_bare(struct sqlite_db *db, struct op_call_view *view, struct op_answer *answer)
{
	sqlite3_int64 before = sqlite3_total_changes64(db->handle);
	int err = run_op(db, view, answer);

	if (err != 0 || sqlite3_get_autocommit(db->handle))
		return err != 0 ? err : E_STORE_UNAVAILABLE;
	return answer->err != 0 && sqlite3_total_changes64(db->handle) != before ? SQLITE_DB_TORN
										 : 0;
}

static int
write_in_savepoint(struct sqlite_db *db, struct op_call_view *view, struct op_answer *answer)
{
	int rc = step_frame(db->savepoint), err;

	if (rc != SQLITE_OK)
		return failure_of(db, rc, "savepoint");
	err = run_op(db, view, answer);
	if (err != 0 || sqlite3_get_autocommit(db->handle))
		return err != 0 ? err : E_STORE_UNAVAILABLE;
	if (answer->err != 0)
		rc = exec(db, "ROLLBACK TO op");
	if (rc == SQLITE_OK)
		rc = step_frame(db->release);
	return rc == SQLITE_OK ? 0 : failure_of(db, rc, "release");
}

int
sqlite_db_write(struct sqlite_db *db, struct op_call_view *view, struct op_answer *answer)
{
	check(db->is_writer);
	if (db->is_careful || plan_of(db, view->op)->may_be_torn)
		return write_in_savepoint(db, view, answer);
	return write_bare(db, view, answer);
}

int
sqlite_db_begin(struct sqlite_db *db)
{
	int rc = still_there(db);

	if (rc != 0)
		return rc;
	rc = step_frame(db->begin);
	return rc == SQLITE_OK ? 0 : failure_of(db, rc, "begin");
}

int
sqlite_db_commit(struct sqlite_db *db)
{
	int rc = step_frame(db->commit);

	if (rc == SQLITE_OK)
		return 0;
	rc = failure_of(db, rc, "commit");
	sqlite_db_rollback(db);
	return rc;
}

void
sqlite_db_rollback(struct sqlite_db *db)
{
	if (!sqlite3_get_autocommit(db->handle))
		exec(db, "ROLLBACK");
}

void
sqlite_db_interrupt(struct sqlite_db *db)
{
	sqlite3_interrupt(db->handle);
}

/* ---- the log ---- */

unsigned
sqlite_db_log_pages(const struct sqlite_db *db)
{
	return db->log_pages;
}

unsigned
sqlite_db_log_pages_new(const struct sqlite_db *db)
{
	return db->log_pages - db->moved_pages;
}

int
sqlite_db_checkpoint(struct sqlite_db *db, bool is_patient)
{
	int in_log = 0, moved = 0;
	int rc = sqlite3_wal_checkpoint_v2(db->handle, NULL,
	    is_patient ? SQLITE_CHECKPOINT_RESTART : SQLITE_CHECKPOINT_PASSIVE, &in_log, &moved);

	if (rc == SQLITE_OK || (rc & 0xff) == SQLITE_BUSY)
		db->moved_pages =
		    moved > 0 && (unsigned)moved < db->log_pages ? (unsigned)moved : db->log_pages;
	return rc == SQLITE_OK ? 0 : failure_of(db, rc, "checkpoint");
}

/* ---- for migrations and tests ---- */

int
sqlite_db_script(struct sqlite_db *db, const char *sql)
{
	int rc = exec(db, sql);

	return rc == SQLITE_OK ? 0 : failure_of(db, rc, "script");
}

int
sqlite_db_number(struct sqlite_db *db, const char *sql, int64_t *ret)
{
	sqlite3_stmt *stmt = NULL;
	int64_t number = 0;
	int rc = prepare(db, sql, &stmt);

	if (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
		number = sqlite3_column_int64(stmt, 0);
		rc = SQLITE_DONE;
	}
	sqlite3_finalize(stmt);
	if (rc != SQLITE_DONE)
		return failure_of(db, rc, "number");
	*ret = number;
	return 0;
}

void
sqlite_db_explain(struct sqlite_db *db, const struct op *op, unsigned statement, struct buf *out)
{
	char *sql = xasprintf("EXPLAIN QUERY PLAN %s", op->statements[statement].sql);
	sqlite3_stmt *stmt = NULL;

	check(prepare(db, sql, &stmt) == SQLITE_OK);
	while (sqlite3_step(stmt) == SQLITE_ROW)
		buf_printf(out, "%s\n", (const char *)sqlite3_column_text(stmt, 3));
	sqlite3_finalize(stmt);
	free(sql);
}
