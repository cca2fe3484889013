/*
 * task - work that outlives a request: completions, images, videos.
 *
 * A task is in the record before it is acknowledged; any worker of any host that has room claims it
 * under a lease, runs it, and writes down how it ended. A worker that dies loses its tasks to
 * others: each is run at least once, and the provider gets the same idempotency key again. What a
 * provider does in its own time (a job) is looked at on timers and holds no place meanwhile.
 *
 *   queued -> running -> succeeded | failed | cancelled | timed_out
 *      ^         |
 *      +---------+  another attempt later, or another worker
 *
 * The record decides (worker/store/tasks.h). Messages between workers only make it fast: that
 * there is something to claim, and that what one runs was cancelled.
 */
#ifndef WORKER_TASK_TASK_H
#define WORKER_TASK_TASK_H

#include "common/conf.h"
#include "worker/backplane/limits.h"
#include "worker/events/events.h"
#include "worker/provider/provider.h"
#include "worker/store/tasks.h"
#include "worker/usage/usage.h"

struct tasks;

struct tasks_of { /* borrowed */
	struct loop *loop;
	const struct conf *conf;
	struct shm *shm;
	struct backplane *backplane;
	struct store *store;
	struct providers *providers;
	struct limits *limits;
	struct holds *holds;
	struct usages *usages;
	struct events *events;
	unsigned slot;
	void (*on_outbox)(void *arg); /* webhooks of tasks were committed; NULL: nobody asks */
	void *on_outbox_arg;
};

struct tasks *tasks_new(const struct tasks_of *);
void tasks_free(struct tasks **);
/* Claims no more; what has not begun, or waits for a provider, is given back at once, what runs
 * when the time to drain is nearly over. */
void tasks_drain(struct tasks *);
bool tasks_are_idle(const struct tasks *); /* nothing is held, nothing to be written */

enum task_type { TASK_CHAT, TASK_IMAGE, TASK_VIDEO, TASK_TYPES };
const char *task_type_name(enum task_type); /* "chat.completion", .. */
bool task_type_parse(const char *name, enum task_type *ret);
bool task_state_is_last(const char *state);
/* How it has ended, as its subscribers are told; texts from the arena. False: it has not, or less
 * than TASK_END_SETTLE_MS ago: the news of it are on their way, and who heard the end before them,
 * at an earlier place, and came back would hear it twice. */
enum { TASK_END_SETTLE_MS = 4000 };
bool task_end_read(const struct store_task *, struct arena *, struct events_news *ret);

/* stripe is chosen here, and the workers are told when it is stored. As store_task_create(), but
 * what the order points at stays until on_task; E_QUEUE_FULL: tasks.max_queued of its app wait. */
void tasks_create(struct tasks *, const struct store_task_new *, store_on_task *, void *arg);
/* The task as it is afterwards; has_changed: it had not ended. Its owner hears of it at once and
 * stops the provider. E_NOT_FOUND. */
void tasks_cancel(struct tasks *, const char *id, const char *app_id, const char *reason,
    store_on_task_changed *, void *arg);
void tasks_retry(struct tasks *, const char *id, const char *app_id, bool only_retryable,
    store_on_task_changed *, void *arg);

/* The task when it has ended, or as it is after wait_ms: on_task comes once, from the loop.
 * Embedded in the caller's, zeroed; it stays until then. */
struct task_wait {
	struct tasks *tasks; /* NULL: over */
	struct list node;
	struct events_sub sub;
	struct loop_timer timer, look;
	struct id id;
	const char *app_id; /* the caller's */
	bool is_asking, is_late, is_again;
	store_on_task *on_task;
	void *arg;
};
/* app_id stays the caller's. */
void task_wait_start(struct tasks *, struct task_wait *, const struct id *, const char *app_id,
    uint32_t wait_ms, store_on_task *, void *arg);
/* Its end is not waited for any longer: on_task comes with the task as it is. */
void task_wait_hurry(struct task_wait *);

#endif
