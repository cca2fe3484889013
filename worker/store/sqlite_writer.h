/*
 * sqlite_writer - the one thread of the host that writes the SQLite file.
 *
 * Lives in the elected worker. Writes are pushed on the loop and come back on the
 * loop; between, the thread gathers them into transactions, of which each write is
 * there whole or not at all, and a write is done when its transaction is committed. It also moves
 * the write-ahead log into the database.
 */
#ifndef WORKER_STORE_SQLITE_WRITER_H
#define WORKER_STORE_SQLITE_WRITER_H

#include "common/buf.h"
#include "common/list.h"
#include "worker/loop/loop.h"
#include "worker/store/sqlite_db.h"

struct sqlite_writer;

/* Embedded in the caller's, which stays until on_done. */
struct sqlite_write {
	struct str wire;      /* the call; the caller's bytes */
	uint64_t deadline_ms; /* monotonic: not begun after it */
	void (*on_done)(struct sqlite_write *);

	/* For on_done: 0, and `answer` has the operation's outcome in its wire form; or E_BUSY,
	 * E_STORE_UNAVAILABLE: nothing of it happened, it may be tried again. */
	int err;
	struct buf answer; /* freed by the caller */

	struct list node; /* the writer's */
};

struct sqlite_writer_conf {
	const char *path;
	bool is_synced_late;
	uint64_t gather_ms; /* the longest that a write waits for company */
	size_t queue_max;
};

struct sqlite_writer *sqlite_writer_new(struct loop *, const struct sqlite_writer_conf *);
/* Commits what is queued, calls on_done for it, and ends the thread. */
void sqlite_writer_free(struct sqlite_writer **);

/* Loop's thread. 0, or E_BUSY: the queue is full. */
int sqlite_writer_push(struct sqlite_writer *, struct sqlite_write *);

#endif
