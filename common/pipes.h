/*
 * pipes - how workers get at the programs that the master runs as tool servers: what the two say to
 * each other.
 *
 * The master listens on a SOCK_SEQPACKET socket with a kernel-chosen abstract name, which stands in
 * the shared memory; only processes of the same user are let in. Each worker keeps one connection.
 * A program is known by a number made of what the config says of it, so that both mean the same one
 * also while a reload is under way. The worker that a program's pipes are given to is the only one
 * that speaks to it, until it dies; the master keeps the pipes.
 *
 *   worker -> master   HELLO, then WANT for each program of its config; ERA when it has found out;
 *                      RESTART when the program does not answer
 *   master -> worker   PIPES with two descriptors: the program's input, its output; GONE
 */
#ifndef COMMON_PIPES_H
#define COMMON_PIPES_H

#include <stdbool.h>
#include <stdint.h>

#include "common/conf.h"
#include "common/shm.h"

enum pipes_type { PIPES_HELLO = 1, PIPES_WANT, PIPES_ERA, PIPES_RESTART, PIPES_GIVEN, PIPES_GONE };

/* What value of PIPES_GIVEN holds, beside the era that was told last (0: none): in the life of this
 * process somebody has had the pipes, and has told what era it is of, which ends a handshake. */
enum { PIPES_ERA_MASK = 0xff, PIPES_IS_SPOKEN = 0x100, PIPES_IS_GREETED = 0x200 };

struct pipes_message {
	uint32_t type;
	uint32_t value;   /* ERA, GIVEN; of HELLO the slot */
	uint64_t program; /* pipes_program() */
	uint64_t life;    /* of the process: grows with each start */
};

/* Over all that makes it another program. */
uint64_t pipes_program(const struct conf_mcp_server *);

/* The master's end: listening, non-blocking; the name is in the shared memory then. -errno. */
int pipes_listen(struct shm *);
void pipes_publish(int fd, struct shm *); /* once more: another master had put its own there */
int pipes_accept(int fd);                 /* -EAGAIN: none; -EACCES: somebody else's, closed */
int pipes_connect(struct shm *);          /* a worker's; non-blocking. -errno */

/* 0 or -errno. fds NULL: none; else two, which stay the caller's. */
int pipes_send(int fd, const struct pipes_message *, const int *fds);
/* 1: one message, with fds[0] >= 0 two descriptors that are the caller's now (close-on-exec);
 * 0: the other end is gone; -EAGAIN: none now; other -errno. */
int pipes_recv(int fd, struct pipes_message *ret, int fds[2]);

#endif
