/*
 * signals - which signal asks for what.
 *
 *   TERM INT   drain and stop; again: at once
 *   HUP        reload            USR1   reopen logs
 *   USR2       upgrade           CHLD   a worker ended
 *
 * The verbs run from the event loop, not from a signal handler.
 */
#ifndef MASTER_SIGNALS_H
#define MASTER_SIGNALS_H

#include <event2/event.h>

struct signals;

struct signals_verbs {
	void (*stop)(void *arg);
	void (*reload)(void *arg);
	void (*reopen)(void *arg);
	void (*upgrade)(void *arg);
	void (*reap)(void *arg);
};

/* SIGPIPE is ignored from now on. Never NULL. verbs and arg outlive it. */
struct signals *signals_new(struct event_base *, const struct signals_verbs *, void *arg);
void signals_free(struct signals **);

/*
 * Around a fork: all signals are blocked before; the child makes every signal default
 * again (but SIGPIPE, which stays ignored) before it lets them in, or a handler of the
 * parent's would run in it and speak through the parent's descriptors.
 */
void signals_block(void);
void signals_unblock(void);
void signals_reset_in_child(void);

#endif
