/*
 * handoff - what crosses the fork into a worker. Plain data: descriptors,
 * pointers to the parsed config and the shared memory, numbers.
 */
#ifndef COMMON_HANDOFF_H
#define COMMON_HANDOFF_H

#include <stdint.h>

#include "common/conf.h"
#include "common/shm.h"

struct handoff_listener {
	int fd;          /* bound and listening, non-blocking */
	bool is_tls;     /* from tls.listen */
	bool is_metrics; /* from metrics.listen: only /metrics */
	bool is_unix;
	bool is_loopback; /* the bound address is loopback or a Unix path */
};

struct handoff {
	const struct conf *conf;
	struct shm *shm;
	uint32_t slot;
	struct shm_who who;
	const struct handoff_listener *listeners;
	uint32_t listener_count;
	int master_fd; /* proto.h */
	int master_pid;
};

/* The door into a worker process (worker/main.c). Returns its exit status. */
int worker_main(const struct handoff *);

/*
 * Two more doors, for what the master starts but the worker tree knows how to do
 * (worker/migrate_main.c, worker/key_main.c). Each runs in a process of its own:
 * a child before the first worker, or `parleyd migrate` and `parleyd key ..`.
 */
int worker_migrate(const struct conf *); /* 0, or an exit status; errors are logged */
/* argv[0] is the verb: create, list, revoke. Answers on stdout; returns the exit status. */
int worker_key_command(const struct conf *, int argc, char **argv);

#endif
