/*
 * owners - which incarnation of this host runs a turn, a call or a session's
 * live turn: from id to owner, in shared memory.
 *
 * Each incarnation writes only the table of its own row; a reader looks through
 * the rows of the living. An entry is published by one atomic store, so a
 * reader never sees half of it; a dead incarnation's entries vanish with its
 * row's number. A table holds OWNERS_MAX ids; a full one refuses.
 */
#ifndef COMMON_OWNERS_H
#define COMMON_OWNERS_H

#include "common/id.h"
#include "common/shm.h"

enum { OWNERS_MAX = 32768 };

bool owners_add(struct shm *, struct shm_who me, const struct id *); /* false: full */
void owners_remove(struct shm *, struct shm_who me, const struct id *);
bool owners_find(
    const struct shm *, const struct id *, struct shm_who *ret); /* false: nobody alive here */

/* For shm.c: the size of one row's table, and emptying it (its inhabitant is dead). */
size_t owners_shm_bytes(void);
void owners_row_clear(struct shm *, uint32_t row);

#endif
