/*
 * election - which worker of this host writes the SQLite file: the one that holds
 * the lock on `<database>.writer`.
 *
 * The kernel gives the lock up with the process, whatever ended it. The holder
 * says who it is in the shared memory.
 */
#ifndef WORKER_STORE_ELECTION_H
#define WORKER_STORE_ELECTION_H

#include <stdbool.h>

#include "common/shm.h"

struct election {
	struct shm *shm; /* NULL: this process is alone */
	struct shm_who me;
	int lock_fd; /* -1: not open */
	bool is_won;
};

/* Opens the lock file; after fork(), for the lock belongs to the open file. 0 or -errno. */
int election_init(struct election *, struct shm *, struct shm_who me, const char *database);
void election_fini(struct election *); /* gives the lock up */

/* Tries to get the lock; true when it is held. */
bool election_try(struct election *);

/* The living worker that says it holds the lock, not this one; false: nobody. */
bool election_other(const struct election *, struct shm_who *ret);

#endif
