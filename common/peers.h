/*
 * peers - how many connections each client address has open, over all workers of the host.
 *
 * Each incarnation counts in the table of its own row, so what a dead one had is gone with
 * it; who enters adds up the rows. The sum never passes the limit; of several that
 * enter at once at its edge, more may be refused than need be. When a table has no
 * place for an address (16 in each of 512 buckets), it is let in uncounted: refusing would let
 * whoever has many addresses shut everybody else out.
 */
#ifndef COMMON_PEERS_H
#define COMMON_PEERS_H

#include "common/shm.h"

enum { PEERS_LIMIT_MAX = 65535 };

/* One more connection of the address whose hash this is. False: it has `limit` (1 to
 * PEERS_LIMIT_MAX) of them. *ret_place is for peers_leave(), 0: not counted. */
bool peers_enter(
    struct shm *, struct shm_who me, uint64_t address_hash, uint32_t limit, uint16_t *ret_place);
void peers_leave(struct shm *, struct shm_who me, uint16_t place); /* 0: nothing */

/* For shm.c: the size of one row's table, and emptying it (its inhabitant is dead). */
size_t peers_shm_bytes(void);
void peers_row_clear(struct shm *, uint32_t row);

#endif
