/*
 * inherit - listening sockets that systemd gives us: of a socket unit, or of the
 * master before us, kept in the file descriptor store.
 *
 * Which of our addresses a socket belongs to is told by the address that it is
 * bound to; names are only for people.
 */
#ifndef MASTER_INHERIT_H
#define MASTER_INHERIT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/netaddr.h"

struct inherit;

/* Takes LISTEN_FDS out of the environment. Never NULL; usually empty. */
struct inherit *inherit_new(void);
/* Closes what nobody took, with a warning: its address is not in the configuration. */
void inherit_free(struct inherit **);

/* The next listening socket that is bound to that address, now the caller's; -1: none (left).
 * *ret_is_foreign: of a socket unit, not of the store. */
int inherit_take(struct inherit *, const struct netaddr *, bool *ret_is_foreign);

/* Puts a socket into systemd's store, if there is one; takes all of that name out. */
void inherit_store(int fd, const char *name);
void inherit_forget(const char *name);

#endif
