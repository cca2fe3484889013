/*
 * sqlite_writes - the way of a write to the elected writer, which may be here.
 *
 * A write is repeated, in the order in which it came, until a writer has
 * committed it or its time is over: writers die, are elected anew, and databases
 * are away for a moment. It also serves the writes of other workers while this
 * one is the writer.
 */
#ifndef WORKER_STORE_SQLITE_WRITES_H
#define WORKER_STORE_SQLITE_WRITES_H

#include "common/conf.h"
#include "worker/backplane/backplane.h"
#include "worker/loop/loop.h"
#include "worker/store/job.h"

struct sqlite_writes;

/* NULL when the lock file cannot be opened (logged). Without shared memory and backplane this
 * process is the host's only one. */
struct sqlite_writes *sqlite_writes_new(struct loop *, const struct conf *, const char *path,
    struct shm *, struct backplane *, struct store_health *);
/* Commits what this worker's writer has, answers the other workers of it; calls nobody here. */
void sqlite_writes_free(struct sqlite_writes **);
void sqlite_writes_add(struct sqlite_writes *, struct job *);
bool sqlite_writes_is_writer(const struct sqlite_writes *);

#endif
