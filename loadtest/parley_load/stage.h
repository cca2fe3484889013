/*
 * stage - one turn of this process for many to follow. It waits for a client's
 * tool, so that all can gather; then, if it is let go, it streams its tokens.
 *
 *      open -> up (waits for the tool) -> let go -> streaming -> over
 */
#ifndef LOADTEST_PARLEY_LOAD_STAGE_H
#define LOADTEST_PARLEY_LOAD_STAGE_H

#include "loadtest/parley_load/event_reader.h"
#include "loadtest/parley_load/user.h"

struct stage_handlers {
	void (*on_up)(void *arg);
	void (*on_over)(void *arg, int status); /* NULL: not of interest */
};

struct stage { /* zeroed before first use */
	struct load *load;
	const struct stage_handlers *handlers;
	void *arg;
	struct conn *stream, *post;
	struct buf seen; /* until the call is there */
	char session[USER_SESSION_MAX];
	char turn[EVENT_READER_TURN];
	char path[160]; /* of its events */
	char call[48];
	bool is_up;
};

/* Opens it, or opens it anew once it is over. */
void stage_open(struct stage *, struct load *, const struct stage_handlers *, void *arg);
void stage_let_go(struct stage *);

#endif
