/*
 * status - the state of this host, for `parleyd status`: workers, connections, turns,
 * providers, the backplane, the store.
 */
#ifndef MASTER_STATUS_H
#define MASTER_STATUS_H

#include "common/buf.h"
#include "master/supervise.h"

/*
 * One JSON object, from the shared memory's rows and metrics and from /proc; status_view.h reads
 * it. Counters are totals since the start, memory is in bytes, times are in what their names say.
 * Nothing waits, nothing is asked. Appended.
 */
void status_write(const struct shm *, const struct supervise *, struct buf *out);

/* One line for systemd: "running, 4 of 4 workers ready". */
void status_write_line(const struct shm *, const struct supervise *, struct buf *out);

#endif
