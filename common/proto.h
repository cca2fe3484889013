/*
 * proto - what master and worker say to each other.
 *
 * One SOCK_SEQPACKET pair per incarnation; one struct proto_message per packet,
 * sometimes with descriptors. A message names slot and incarnation, so a dead
 * child's last word cannot be taken for its successor's.
 *
 * Draining. When the host stops, the master sets SHM_WORD_IS_DRAINING (readiness
 * answers 503 from then on, but everything is served), waits drain.pause, lets nobody
 * new into the queues, then sends DRAIN with drain.timeout. A worker that is replaced by a reload
 * gets DRAIN without the word being set: it leaves what waits in the accept queue to its successor,
 * where a stopping one accepts until EAGAIN. DRAIN with 0: end at once; it may follow an earlier
 * one. A worker that outlives its time by a second is killed. When recv says the other end is gone
 * the master is dead: exit.
 */
#ifndef COMMON_PROTO_H
#define COMMON_PROTO_H

#include <stdbool.h>
#include <stdint.h>

#include "common/shm.h"

enum proto_type {
	PROTO_READY = 1, /* worker: I accept */
	PROTO_LOAD,      /* worker, every second: I turn (connections in `value`) */
	PROTO_DRAIN,     /* master: finish; `value` is the time for it in ms */
	PROTO_HANDOFF,   /* master, with a descriptor: enum proto_handoff in `value` */
	PROTO_BYE,       /* worker: drained, about to exit */
	PROTO_CLOSED,    /* worker, draining: I accept no more, and nobody waits in my queues */
	PROTO_REOPEN,    /* master: reopen the log file */
	PROTO_CERTS,     /* master: read the certificate files again */
};

/* The descriptor is a SOCK_SEQPACKET socket to another worker: WebSockets go over it. */
enum proto_handoff {
	PROTO_GIVE, /* yours are given to it when you drain */
	PROTO_TAKE, /* it gives you its own */
};

struct proto_message {
	uint32_t type;
	uint32_t slot;
	struct shm_who who;
	int64_t value;
};

/* Non-blocking. 0, or -errno (-EAGAIN: queue full; -EPIPE: gone). */
int proto_send(int fd, const struct proto_message *);
/* 1: one message; 0: the other end is gone; -EAGAIN: none now; other -errno. */
int proto_recv(int fd, struct proto_message *ret);

/* The same with a descriptor, -1: none. Who sends it keeps his own; one that comes is the caller's.
 */
int proto_send_fd(int fd, const struct proto_message *, int passed);
int proto_recv_fd(int fd, struct proto_message *ret, int *ret_fd);

#endif
