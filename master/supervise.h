/*
 * supervise - keeps one good worker in every slot: starts them, replaces the dead,
 * rolls a new configuration through the slots, drains them at the end.
 *
 *   RUNNING --stop--> PAUSING --pause is over--> SETTLING --> DRAINING --last one reaped--> STOPPED
 *      (PAUSING still serves and still replaces the dead; a second stop skips it and SETTLING,
 *      in which nobody new gets into the queues and who has begun a handshake ends it)
 *
 * A reload is a trial first: the new configuration is adopted when the first worker
 * that runs it is ready, and given up when that one dies before. Then slot by slot:
 * a successor starts beside the current worker, becomes the current one when it is
 * ready, and the old one drains. More workers: their slots are filled as soon as it is
 * adopted; fewer: those of the surplus slots drain last, when others accept from their sockets.
 */
#ifndef MASTER_SUPERVISE_H
#define MASTER_SUPERVISE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <event2/event.h>

#include "common/conf.h"
#include "common/shm.h"
#include "master/listen.h"

struct supervise;

enum supervise_phase {
	PHASE_RUNNING,
	PHASE_PAUSING,
	PHASE_SETTLING,
	PHASE_DRAINING,
	PHASE_STOPPED,
};

/* From the event loop. */
struct supervise_handlers {
	void (*on_ready)(void *arg); /* every slot's worker has been ready, for the first time */
	void (*on_reloaded)(void *arg, bool is_adopted); /* the last slot, or given up */
	void (*on_settling)(void *arg);                  /* nobody is to be let in any more */
	void (*on_closed)(void *arg);                    /* .. and no worker accepts any more */
	void (*on_stopped)(void *arg);                   /* no worker is left after a stop */
	void (*on_change)(void *arg);                    /* workers came, went, or changed state */
	void (*on_other_ended)(void *arg, pid_t, int status); /* a child that is no worker */
};

/* Takes the conf over, which means so many workers. base, shm, listeners, handlers outlive it. */
struct supervise *supervise_new(struct event_base *, struct shm *, struct listeners *,
    struct conf *, uint32_t workers, const struct supervise_handlers *, void *arg);
void supervise_free(struct supervise **); /* workers that are left are killed and reaped */

void supervise_start(struct supervise *);
void supervise_stop(struct supervise *); /* again: at once */
/* Takes the conf over; false (and not taken) while another reload is under way or it stops. At most
 * as many workers as the shared memory has slots. */
bool supervise_reload(struct supervise *, struct conf *, uint32_t workers);
/* The host goes on with another master's workers: ours drain and leave their queues to those, then
 * on_stopped. give (NULL: nobody takes them): called here for each slot, with a socket to its
 * worker for that master's supervise_take(); the fd is not kept by either. */
typedef void supervise_give(void *arg, uint32_t slot, int fd);
void supervise_retire(struct supervise *, supervise_give *give, void *arg);
void supervise_take(struct supervise *, uint32_t slot, int fd);
/* A master that shared the memory has ended: what its workers left there is cleaned up. */
void supervise_other_gone(struct supervise *);
void supervise_reopen_logs(struct supervise *);
void supervise_reap(struct supervise *); /* after SIGCHLD */

const struct conf *supervise_conf(const struct supervise *); /* the adopted one */
enum supervise_phase supervise_phase(const struct supervise *);
bool supervise_is_reloading(const struct supervise *);
uint32_t supervise_ready_count(const struct supervise *); /* slots with a ready worker */

#endif
