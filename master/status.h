/*
 * status - what `parleyd status` shows: the workers of this host and a few totals.
 */
#ifndef MASTER_STATUS_H
#define MASTER_STATUS_H

#include "common/buf.h"
#include "master/supervise.h"

/* A table for people, from the shared memory's rows and metrics. */
void status_write(const struct shm *, const struct supervise *, struct buf *out);

/* One line for systemd: "running, 4 of 4 workers ready". */
void status_write_line(const struct shm *, const struct supervise *, struct buf *out);

#endif
