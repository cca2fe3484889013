/*
 * bus - messages between the incarnations of one host.
 *
 * Every incarnation listens on a SOCK_SEQPACKET socket whose kernel-chosen
 * abstract name stands in its row of the shared memory; whoever has something
 * to say connects, and the connection lives as long as both. Messages between
 * two incarnations arrive in order, whole, at most once. A peer that dies is
 * noticed at once (the connection ends). Messages longer than a packet are cut
 * and put together again; the queue to each peer is bounded, overflow refused
 * and counted.
 *
 * It belongs to no event loop: bus_fd() is one epoll descriptor that becomes
 * readable when bus_step() has something to do.
 */
#ifndef COMMON_BUS_H
#define COMMON_BUS_H

#include "common/shm.h"
#include "common/str.h"

enum {
	BUS_MESSAGE_MAX = 40 << 20, /* bytes of one message */
	BUS_QUEUE_MAX = 64 << 20,   /* bytes waiting for one peer */
};

struct bus;

struct bus_handlers {
	/* One message. payload is borrowed for the call. `from` is proven by the connection. */
	void (*on_message)(void *arg, struct shm_who from, uint16_t type, struct str payload);
	/* The peer's life or the connection to it has ended; what it had not read is lost. */
	void (*on_peer_gone)(void *arg, struct shm_who peer);
};

/* NULL and errno when the socket cannot be made. Publishes its name in the row of `me`. */
struct bus *bus_new(struct shm *, struct shm_who me, const struct bus_handlers *, void *arg);
void bus_free(struct bus **);

int bus_fd(const struct bus *);
void bus_step(struct bus *); /* calls the handlers; never blocks; bounded work per call */

/*
 * Queues a message; `type` is of the modules above. Messages to oneself work too
 * and arrive in a later bus_step().
 * 0, E_GONE (no such incarnation alive), E_BUSY (queue full: counted), E_PAYLOAD_TOO_LARGE.
 */
int bus_send(struct bus *, struct shm_who to, uint16_t type, struct str payload);

/*
 * To every other READY or DRAINING incarnation; returns how many took it. on_busy (NULL: nobody
 * asks) is told, from inside, of each that lives and could not take it: send it again later.
 */
typedef void bus_on_busy(void *arg, struct shm_who);
int bus_broadcast(struct bus *, uint16_t type, struct str payload, bus_on_busy *on_busy, void *arg);

#endif
