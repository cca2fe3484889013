/*
 * redis_link - one connection to Redis: commands in a pipeline, or a subscription.
 *
 *   REST -> RESOLVE -> CONNECT (and TLS) -> GREET (AUTH, SELECT, ROLE or SUBSCRIBE) -> UP
 *     ^________|___________|____________________|______________________________________|
 *
 * Whatever goes wrong, a time limit too, ends it in REST, and its owner decides when it starts
 * again. UP with channels means that Redis has acknowledged each of them. It pings
 * when nothing else is asked, so that a silent Redis is noticed within its time limit.
 */
#ifndef WORKER_BACKPLANE_REDIS_LINK_H
#define WORKER_BACKPLANE_REDIS_LINK_H

#include <hiredis/hiredis.h>

#include "common/redis_url.h"
#include "common/str.h"
#include "worker/backplane/command_queue.h"
#include "worker/loop/loop.h"

struct redis_link;
struct ssl_ctx_st;

struct redis_link_conf { /* all borrowed, as long as the link */
	const struct redis_url *url;
	struct ssl_ctx_st *tls;  /* NULL: none */
	const char *channels[2]; /* NULL: a connection for commands */
	uint64_t connect_timeout_ms, command_timeout_ms;
	size_t max_commands, max_bytes;
};

/* From the loop. on_down: what was asked and not answered has been told so; reason is borrowed. */
struct redis_link_handlers {
	void (*on_up)(void *arg);
	void (*on_down)(void *arg, const char *reason);
	void (*on_message)(void *arg, struct str payload); /* borrowed */
	void (*on_error)(void *arg, const char *text);     /* an error reply, before its asker */
};

struct redis_link *redis_link_new(
    struct loop *, const struct redis_link_conf *, const struct redis_link_handlers *, void *arg);
void redis_link_free(struct redis_link **); /* what waits is not called */

void redis_link_start(struct redis_link *); /* in REST */
/* Ends it for this reason, with on_down; in REST: nothing. */
void redis_link_fail(struct redis_link *, const char *reason);
bool redis_link_is_up(const struct redis_link *);

/* False: not up, or a queue is full; on_reply (NULL: nobody asks) is not called then. */
bool redis_link_command(
    struct redis_link *, size_t argc, const struct str *argv, command_on_reply *, void *arg);
void redis_link_forget(struct redis_link *, const void *arg); /* as command_queue_forget() */
/*
 * The last words: blocks until all that was asked is answered, but limit_ms (below 1,000) at most;
 * who asked is not called any more. A connection that is closed before takes with it what Redis has
 * not read: its next reply finds nobody, and it frees the client together with the commands behind.
 */
void redis_link_settle(struct redis_link *, uint64_t limit_ms);

#endif
