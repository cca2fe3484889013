/*
 * bequest - what a master leaves to the one that takes over from it: descriptors that
 * stay open across the exec, and one variable of the environment that says what they are.
 *
 *   PARLEY_BEQUEST=talk 5 / shm 6 / lock 7 / control 8 / listen 9 http 0 127.0.0.1:8080 / ..
 *
 * (a line each). A listening socket is told by the text that the configuration has for its address,
 * so that one of port 0 is found again.
 */
#ifndef MASTER_BEQUEST_H
#define MASTER_BEQUEST_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"

enum bequest_fd { BEQUEST_TALK, BEQUEST_SHM, BEQUEST_LOCK, BEQUEST_CONTROL, BEQUEST_FDS };

struct bequest_listener {
	int fd;
	unsigned kind; /* the listener's, as listen.c numbers it */
	bool is_foreign;
	char *address; /* as configured */
};

struct bequest {
	int fds[BEQUEST_FDS];
	char *run_dir;
	struct bequest_listener *listeners;
	size_t listener_count;
};

void bequest_init(struct bequest *);
void bequest_fini(struct bequest *); /* closes nothing */

/* The giver's. */
void bequest_add_listener(
    struct bequest *, int fd, unsigned kind, bool is_foreign, const char *address);
void bequest_write(const struct bequest *, struct buf *out); /* the variable's value */
/* All its descriptors, for who closes the others; ret_fds has room for BEQUEST_FDS and one for each
 * listener. */
size_t bequest_fds(const struct bequest *, int *ret_fds);

#define BEQUEST_VARIABLE "PARLEY_BEQUEST"

/* The taker's: out of the environment, once. False: nobody left anything. What is not as it should
 * be ends the process: nobody but a master writes it. */
bool bequest_take(struct bequest *);

#endif
