/*
 * sqlite_reads - this worker's own reading of the SQLite file, on the loop.
 *
 * Meant for what an index answers in microseconds.
 */
#ifndef WORKER_STORE_SQLITE_READS_H
#define WORKER_STORE_SQLITE_READS_H

#include "worker/loop/loop.h"
#include "worker/store/job.h"

struct sqlite_reads;

/* NULL when the file cannot be opened (logged). */
struct sqlite_reads *sqlite_reads_new(struct loop *, const char *path, struct store_health *);
void sqlite_reads_free(struct sqlite_reads **); /* what waits is dropped */
void sqlite_reads_add(struct sqlite_reads *, struct job *);

#endif
