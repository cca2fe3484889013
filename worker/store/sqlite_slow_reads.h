/*
 * sqlite_slow_reads - reads that walk many rows, in a thread of their own, so that
 * they hold neither the loop nor the writer. The thread starts with the first.
 */
#ifndef WORKER_STORE_SQLITE_SLOW_READS_H
#define WORKER_STORE_SQLITE_SLOW_READS_H

#include "worker/loop/loop.h"
#include "worker/store/job.h"

struct sqlite_slow_reads;

struct sqlite_slow_reads *sqlite_slow_reads_new(struct loop *, const char *path);
/* Breaks off what runs; what waits is dropped. */
void sqlite_slow_reads_free(struct sqlite_slow_reads **);
void sqlite_slow_reads_add(struct sqlite_slow_reads *, struct job *);

#endif
