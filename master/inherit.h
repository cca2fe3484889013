/*
 * inherit - listening sockets that systemd gives us: of a socket unit, or of the
 * master before us, kept in the file descriptor store; or that this master itself gives
 * us, from which we take over.
 *
 * Which of our addresses a socket of systemd's belongs to is told by the address that it is
 * bound to; names are only for people. A master says what its configuration had for it.
 */
#ifndef MASTER_INHERIT_H
#define MASTER_INHERIT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/netaddr.h"
#include "master/bequest.h"

struct inherit;

/* Takes LISTEN_FDS out of the environment; bequest not NULL: what is in it, which outlives this.
 * Never NULL; usually empty. */
struct inherit *inherit_new(const struct bequest *);
/* Closes what nobody took, with a warning: its address is not in the configuration. */
void inherit_free(struct inherit **);

struct inherit_wish {
	struct netaddr address;
	const char *text; /* of the configuration */
	unsigned kind;    /* the listener's */
};

/* The next listening socket of that address, now the caller's; -1: none (left).
 * *ret_is_foreign: of a socket unit, not of the store. */
int inherit_take(struct inherit *, const struct inherit_wish *, bool *ret_is_foreign);

/* Of those that nobody took: no new client reaches them over TCP from now on; who is in their
 * queues is for the old master's workers to accept. How many they are. */
uint32_t inherit_shut(const struct inherit *);
/* The same for Unix sockets. It cannot be taken back: the old master must not need them any more.
 */
void inherit_remove_paths(const struct inherit *);

/* Puts a socket into systemd's store, if there is one; takes all of that name out. */
void inherit_store(int fd, const char *name);
void inherit_forget(const char *name);

#endif
