/*
 * listen - the listening sockets of all slots.
 *
 * A TCP address has one SO_REUSEPORT socket per slot; the kernel spreads connections
 * over them. A Unix path has one socket that all slots share. The master makes them
 * once and keeps them as long as it lives: a worker is given copies, so what waits in
 * an accept queue outlives the worker and is served by its successor. Neither is one closed
 * when a reload has fewer workers: the remaining ones accept from it.
 */
#ifndef MASTER_LISTEN_H
#define MASTER_LISTEN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/conf.h"
#include "common/handoff.h"
#include "master/inherit.h"

/* A client that has sent its SYN needs a round trip until it is in the queue: so long after the
 * door was shut. */
enum { LISTENERS_SETTLE_MS = 250 };

struct listeners;

/*
 * Opens what `listen`, `tls.listen` and `metrics.listen` name, taking inherited sockets
 * first. Port 0: the first slot's socket gets a free port and the others share it.
 * NULL: logged.
 */
struct listeners *listeners_open(const struct conf *, uint32_t slots, struct inherit *);
/* Closes the sockets and removes the paths of Unix sockets. */
void listeners_close(struct listeners **);

/* For the master that takes over: all of them, and then only our copies are closed. */
void listeners_bequeath(const struct listeners *, struct bequest *);
void listeners_leave(struct listeners **);

/* The end begins: nobody new gets into the queues, who is there or has begun a handshake stays.
 * Neither is a socket left in systemd's store. Those of a socket unit stay as they are: what comes
 * is for the next start. */
void listeners_refuse(const struct listeners *);

/* The most that a slot can have. */
uint32_t listeners_max(const struct listeners *);
/* Fills out (room for listeners_max) with what the worker of that slot listens on, being one of so
 * many; how many. Fewer workers than slots have sockets: each socket is somebody's, because one
 * that nobody accepts from would still be given its share of the connections. */
uint32_t listeners_of_slot(
    const struct listeners *, uint32_t slot, uint32_t workers, struct handoff_listener *out);

/* Sockets for more slots; fewer: nothing. */
void listeners_grow(struct listeners *, uint32_t slots);

/*
 * Writes the actual addresses to a file, one line each: "http 127.0.0.1:8080",
 * "tls ..", "metrics ..". False: logged.
 */
bool listeners_write_addresses(const struct listeners *, const char *path);

/* A master that was to take over has shut those that it did not want, and is gone: as before. */
void listeners_let_in(const struct listeners *);

/* Gives every socket to systemd's store, and no other, for the master after this one. */
void listeners_store(const struct listeners *);

#endif
