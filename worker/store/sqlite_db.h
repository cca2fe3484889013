/*
 * sqlite_db - one connection to the SQLite file, and operations run on it.
 *
 * Synchronous; used by one thread at a time. Opened after fork() and never kept
 * across one. Knows nothing of workers, elections and queues.
 */
#ifndef WORKER_STORE_SQLITE_DB_H
#define WORKER_STORE_SQLITE_DB_H

#include <stdbool.h>
#include <stdint.h>

#include "common/str.h"
#include "worker/store/op_wire.h"

struct sqlite_db;

/* What went wrong last, for a log line; whoever has logged it empties it. */
struct sqlite_failure {
	char text[256];
};

struct sqlite_db_conf {
	const char *path;
	bool is_writer;
	bool may_create;       /* makes the file when it is not there */
	bool is_synced_late;   /* commits survive a crash of the program, not of the machine */
	unsigned busy_wait_ms; /* how long another process's lock is waited for, once it is open */
	unsigned open_wait_ms; /* the same while it is opened; 0: two seconds, as fits a start */
	struct sqlite_failure *failure; /* told here */
};

/* 0 or E_STORE_UNAVAILABLE. */
int sqlite_db_open(const struct sqlite_db_conf *, struct sqlite_db **ret);
void sqlite_db_close(struct sqlite_db **);

/*
 * Runs an operation. 0: it ran, and answer->err is its own outcome (what it
 * changed is undone if that is not 0). E_BUSY: another process holds the lock.
 * E_STORE_UNAVAILABLE: the database fails; the connection should be replaced, and
 * an open transaction is lost.
 */
int sqlite_db_read(struct sqlite_db *, struct op_call_view *, struct op_answer *);
int sqlite_db_write(struct sqlite_db *, struct op_call_view *, struct op_answer *); /* between: */
int sqlite_db_begin(struct sqlite_db *);
/*
 * A savepoint costs more than a small operation, and only one that may fail when it has changed
 * something needs it. Should another do so, sqlite_db_write() returns SQLITE_DB_TORN: roll back,
 * and run them all again, carefully: then each has its own.
 */
enum { SQLITE_DB_TORN = 1 };
void sqlite_db_be_careful(struct sqlite_db *, bool);
int sqlite_db_commit(struct sqlite_db *); /* not 0: nothing of it happened */
void sqlite_db_rollback(struct sqlite_db *);

/* From any thread: what runs ends with E_STORE_UNAVAILABLE. */
void sqlite_db_interrupt(struct sqlite_db *);

/* Pages in the write-ahead log: all, and those not yet moved into the database. */
unsigned sqlite_db_log_pages(const struct sqlite_db *);
unsigned sqlite_db_log_pages_new(const struct sqlite_db *);
/* Moves them. is_patient: also waits for readers, so that the log starts anew. 0 or E_*. */
int sqlite_db_checkpoint(struct sqlite_db *, bool is_patient);

/* Statements that answer nothing, one after another (migrations). */
int sqlite_db_script(struct sqlite_db *, const char *sql);
/* The first column of the first row as a number; 0 when there is none. */
int sqlite_db_number(struct sqlite_db *, const char *sql, int64_t *ret);
/* How SQLite would go about it, a line per step (tests). */
void sqlite_db_explain(struct sqlite_db *, const struct op *, unsigned statement, struct buf *out);

/* "sqlite:PATH" -> PATH; NULL when the url is another database's. */
const char *sqlite_path_of(const char *url);

#endif
