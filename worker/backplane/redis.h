/*
 * redis - Redis as this worker sees it: one connection for commands, one for its inbox.
 *
 *   AWAY  not connected: both are tried again, with back-off and jitter
 *   FULL  connected, messages pass, but it refuses to write (OOM, MISCONF, an ACL): it is asked
 *         once a second whether it does again
 *   UP    all of it works
 *
 * The two live and end together, so that both always speak to the same server.
 */
#ifndef WORKER_BACKPLANE_REDIS_H
#define WORKER_BACKPLANE_REDIS_H

#include "common/conf.h"
#include "worker/backplane/redis_link.h"

struct redis;

enum redis_state { REDIS_AWAY, REDIS_FULL, REDIS_UP };

struct redis_handlers {
	/* Told of each change, and of each attempt that failed (AWAY again); reason (of AWAY and
	 * FULL) is borrowed. */
	void (*on_state)(void *arg, enum redis_state was, enum redis_state is, const char *reason);
	void (*on_message)(void *arg, struct str payload);
};

/* NULL: the configuration cannot work (logged). channels and conf are borrowed. */
struct redis *redis_new(struct loop *, const struct conf_backplane *, const char *own_channel,
    const char *channel_of_all, const struct redis_handlers *, void *arg);
void redis_free(struct redis **); /* redis_say_last() */
/* Sends what waits, for a tenth of a second at most; calls nobody, and is good for no more. */
void redis_say_last(struct redis *);

enum redis_state redis_state(const struct redis *);
const char *redis_reason(const struct redis *); /* why it is not UP; "" when it never was */

/* False: AWAY, or a queue is full. */
bool redis_command(
    struct redis *, size_t argc, const struct str *argv, command_on_reply *, void *arg);
void redis_forget(struct redis *, const void *arg); /* as command_queue_forget() */

#endif
