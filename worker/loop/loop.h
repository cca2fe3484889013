/*
 * loop - the worker's one event loop: descriptors, timers, posted work.
 *
 * It runs h2o's evloop; foreign descriptors sit in one nested epoll (or, if they are
 * busy, in h2o's own: reader.h), timers in a heap on the monotonic clock. Nobody else
 * calls epoll. All callbacks run on the loop's thread, one at a time; only loop_post()
 * may be called from another thread. All structs here are embedded in the caller's,
 * zeroed before first use, and stay valid until stopped.
 */
#ifndef WORKER_LOOP_LOOP_H
#define WORKER_LOOP_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "common/list.h"
#include "worker/loop/admission.h"

struct loop;

struct loop *loop_new(void); /* after fork() */
void loop_free(struct loop **);
void loop_run(struct loop *);  /* returns after loop_stop() */
void loop_stop(struct loop *); /* the present round is finished first */

/* How busy the core is, and how much work may be in progress: fed by the loop, off until
 * admission_init() says otherwise. Who begins work asks it, and says when the work has ended. */
struct admission *loop_admission(struct loop *);

/* Monotonic, read once per round: the same for all callbacks of one round. */
uint64_t loop_now_ms(const struct loop *);

/* Timers: one-shot, in milliseconds from loop_now_ms(). Setting again moves; stopping twice is
 * fine. */
struct loop_timer {
	void (*on_fire)(struct loop_timer *); /* container_of() gives yours */
	uint64_t due_ms;
	uint32_t heap_index; /* + 1; 0: not set */
	uint32_t round;      /* in which it was set */
};

void loop_timer_set(struct loop *, struct loop_timer *, uint64_t delay_ms);
void loop_timer_stop(struct loop *, struct loop_timer *);

static inline bool
loop_timer_is_set(const struct loop_timer *t)
{
	return t->heap_index != 0;
}

/* Descriptors: level-triggered, or with EPOLLET edge-triggered. events are EPOLLIN, EPOLLOUT,
 * EPOLLRDHUP (EPOLLERR, EPOLLHUP always). */
struct loop_watch {
	void (*on_ready)(struct loop_watch *, uint32_t events);
	int fd;
	uint32_t events;
	bool is_active;
	uint32_t index; /* the loop's */
};

/* on_ready is set by the caller. A stopped watch is never called again, not even in this round. */
void loop_watch_start(struct loop *, struct loop_watch *, int fd, uint32_t events);
void loop_watch_change(struct loop *, struct loop_watch *, uint32_t events);
void loop_watch_stop(struct loop *, struct loop_watch *); /* before the fd is closed */
/* For a library that has closed the fd already (which took it out of the epoll). */
void loop_watch_forget(struct loop *, struct loop_watch *);

/* Posted work: runs once, soon, on the loop, in order. Posting what is posted already does nothing.
 */
struct loop_post {
	void (*run)(struct loop_post *);
	struct list node;
};

void loop_post(struct loop *, struct loop_post *); /* any thread */
/* Loop's thread only; not posted: nothing happens. */
void loop_post_cancel(struct loop *, struct loop_post *);

#endif
