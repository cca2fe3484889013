/*
 * child - one living worker, as the master sees it.
 *
 *                READY               drain
 *   STARTING ------------> READY ------------> DRAINING
 *      |  start limit        |  silence (*)       |  time is up
 *      v                     v  (SIGABRT)         v
 *   KILLED <--------------------------------------+        (SIGKILL until it is gone)
 *
 * (*) not while all that it lacks is a core
 *
 * Each state has one deadline. A child ends when it has been reaped, which the
 * supervisor learns from SIGCHLD; nothing here waits for it.
 */
#ifndef MASTER_CHILD_H
#define MASTER_CHILD_H

#include <stdbool.h>
#include <stdint.h>

#include <event2/event.h>

#include "common/list.h"
#include "common/proto.h"
#include "master/slot.h"
#include "master/spawn.h"

enum child_state { CHILD_STARTING, CHILD_READY, CHILD_DRAINING, CHILD_KILLED };

enum {
	CHILD_KILL_GRACE_MS = 1000, /* between what should end a worker and SIGKILL */
	/* The same after the drain's time: many connections take long to close, longer still on a
	   machine with too much to do, and the worker may have been busy when it was told. */
	CHILD_END_GRACE_MS = 4000,
};

struct child;

/* From the event loop, each once. */
struct child_handlers {
	void (*on_ready)(void *arg, struct child *);
	void (*on_closed)(void *arg, struct child *); /* draining: it accepts no more */
};

struct child {
	struct list node; /* the supervisor's */
	struct slot *slot;
	struct shm_who who;
	pid_t pid;
	enum child_state state;
	bool was_ready;
	bool has_closed;     /* its listeners, and nobody waited in them */
	bool is_stalled;     /* aborted for its silence */
	bool is_overdue;     /* killed because a limit was passed: start or drain */
	uint32_t generation; /* of the config that it runs */
	uint64_t drain_ms;   /* drain.timeout of that config: its turns reckon with it */
	uint64_t started_ms;
	int64_t connections; /* by its last LOAD */
	uint64_t silence_max_ms;
	uint64_t heard_ms;     /* when it last said something .. */
	uint64_t had_core_ms;  /* .. and how long it had had a core by then */
	bool is_starved;       /* silent for too long since, for want of a core */
	uint64_t drain_end_ms; /* while draining */

	int proto_fd;
	struct event *on_proto, *deadline;
	const struct child_handlers *handlers;
	void *arg;
};

struct child_limits {
	uint64_t start_ms;   /* until READY */
	uint64_t silence_ms; /* between two LOADs; 0: no limit */
};

/* Takes the spawned worker over. handlers outlive it. */
struct child *child_new(struct event_base *, const struct spawned *, struct slot *,
    const struct child_limits *, const struct child_handlers *, void *arg);
void child_free(struct child **); /* after it was reaped */

/* Tells it to finish within that time, and sees to it. 0: at once. Again: the shorter time holds.
 */
void child_drain(struct child *, uint64_t timeout_ms);
void child_tell(struct child *, enum proto_type, int64_t value);
void child_hand(struct child *, int fd, enum proto_handoff); /* the fd stays the caller's */

const char *child_state_name(enum child_state);

#endif
