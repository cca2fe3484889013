/*
 * reader - waits for one descriptor to be readable, in h2o's own epoll.
 *
 * What a loop_watch (loop.h) does for EPOLLIN, without the nested epoll: a wake-up
 * costs one epoll_wait() instead of two. For descriptors that are read all the time
 * and watched for long: to start and to stop costs more. Level-triggered; the end of
 * the stream and errors are readable, too.
 */
#ifndef WORKER_LOOP_READER_H
#define WORKER_LOOP_READER_H

#include "worker/loop/loop.h"

struct st_h2o_socket_t;

/* Zeroed before first use; valid until stopped. on_readable is set by the caller. */
struct loop_reader {
	void (*on_readable)(struct loop_reader *);
	struct st_h2o_socket_t *socket; /* the loop's; NULL: not started */
};

/* fd: it becomes non-blocking; it remains the caller's. */
void loop_reader_start(struct loop *, struct loop_reader *, int fd);
/* Before fd is closed. Never called again, not even in this round; not started: nothing. */
void loop_reader_stop(struct loop_reader *);

static inline bool
loop_reader_is_active(const struct loop_reader *r)
{
	return r->socket != NULL;
}

#endif
