/*
 * upgrade - a new binary beside this master: started, waited for, given what it needs.
 *
 *              READY                  its word "taken"
 *   STARTING ----------> the new one has taken over; this master only drains
 *      |  it ends, or is not ready in time, or this one is to stop
 *      v
 *   GIVEN UP: told to drain, killed when it does not end --> this master goes on as before
 *
 * They speak over a socket pair, in packets of common/proto.h.
 */
#ifndef MASTER_UPGRADE_H
#define MASTER_UPGRADE_H

#include <stdbool.h>
#include <sys/types.h>

#include <event2/event.h>

#include "common/buf.h"
#include "master/bequest.h"

struct upgrade;

struct upgrade_order {
	const char *binary; /* its path */
	char *const *argv;
	uint64_t timeout_ms; /* until it is ready */
	uint64_t end_ms;     /* until it has ended, once it is given up */
};

/* From the event loop; after either it may be freed. */
struct upgrade_handlers {
	void (*on_ready)(void *arg, pid_t pid);           /* it waits for upgrade_hand_over() */
	void (*on_failed)(void *arg, const char *reason); /* nothing is left of it */
};

/* *bequest lacks only the socket to talk. NULL: *error says why. */
struct upgrade *upgrade_new(struct event_base *, const struct upgrade_order *, struct bequest *,
    const struct upgrade_handlers *, void *arg, struct buf *error);
/* After it is handed over, or has ended. The new master learns from the end of the socket that this
 * one has gone. */
void upgrade_free(struct upgrade **);

void upgrade_hand_over(struct upgrade *); /* all is yours */
/* After that; the fd stays the caller's. */
void upgrade_pass(struct upgrade *, uint32_t slot, int fd);
void upgrade_give_up(struct upgrade *, const char *reason); /* on_failed follows */
/* A child that is no worker has ended. */
void upgrade_child_ended(struct upgrade *, pid_t, int status);

/* ---- the other side ---- */

struct takeover;

struct takeover_handlers {
	void (*on_taken)(void *arg);      /* everything is ours; once, after takeover_say_ready() */
	void (*on_not_wanted)(void *arg); /* drain and end: the old one goes on */
	/* upgrade_pass(); the fd is closed after it. */
	void (*on_passed)(void *arg, uint32_t slot, int fd);
	void (*on_old_gone)(void *arg); /* the old master has ended */
};

/* Takes the fd over. */
struct takeover *takeover_new(
    struct event_base *, int talk_fd, const struct takeover_handlers *, void *arg);
void takeover_free(struct takeover **);
void takeover_say_ready(struct takeover *);

#endif
