/*
 * spawn - forks one worker: the only place where a struct handoff is made.
 */
#ifndef MASTER_SPAWN_H
#define MASTER_SPAWN_H

#include <stdbool.h>
#include <sys/types.h>

#include "common/conf.h"
#include "common/shm.h"
#include "master/listen.h"

struct spawn_order {
	const struct conf *conf;
	struct shm *shm;
	const struct listeners *listeners;
	uint32_t slot, workers; /* how many there are to be */
};

struct spawned {
	pid_t pid;
	struct shm_who who;
	int proto_fd; /* the master's end; the caller closes it */
};

/*
 * Claims a row, forks, and runs worker_main() in the child, which keeps only standard
 * input, output and error, the log, the shared memory, its slot's sockets and its end of
 * the proto pair, and dies with the master. False: logged, nothing was left behind.
 */
bool spawn_worker(const struct spawn_order *, struct spawned *ret);

/*
 * Forks a child that runs job(conf) and exits with its result; waits for it. The result,
 * or -1 when it could not be run or died by a signal (logged).
 */
int spawn_job(const char *name, int (*job)(const struct conf *), const struct conf *);

/* In a child: closes every descriptor that is not among those, which it sorts. */
void spawn_close_others(int *keep, size_t count);

#endif
