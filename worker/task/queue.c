/*
 * queue - what this worker claims, when, and in whose turn it runs.
 *
 * Nobody polls: a worker claims when it has a place and was told that there may be something (a
 * task was stored, one it waited for has ended, its last claim was full), and to be sure every
 * tasks.look_interval. The host's places are shared out evenly over its workers. Ahead of that it
 * claims as many as it has ended in the last half second, so that short tasks do not wait for a
 * round trip and long ones are not kept from idle workers.
 *
 * While there is plenty everyone claims from stripes of its own, so that no two look at the same
 * rows; when those have none, from all.
 */
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/task/task_impl.h"

enum {
	WAKE_GAP_MS = 20, /* between two words to all others */
	LATELY_MS = 500,
	SUSPECT_LOSSES =
	    2, /* one more and it has failed: one at a time, so that no other dies with it */
};

struct run *
run_of(struct tasks *ts, const char *id)
{
	return strmap_get(ts->by_id, str_of(id));
}

/* ---- room ---- */

/* This worker's share of the host's places. */
static unsigned
places(const struct tasks *ts)
{
	unsigned workers = shm_workers(ts->of.shm), all = (unsigned)ts->of.conf->tasks.concurrency;

	workers += workers == 0;
	return (all + ts->of.slot % workers) / workers;
}

static unsigned
ahead(struct tasks *ts)
{
	uint64_t now = loop_now_ms(ts->of.loop);
	unsigned most = (unsigned)ts->of.conf->tasks.prefetch;

	if (now - ts->lately_ms > LATELY_MS) {
		ts->ended_lately = now - ts->lately_ms > 2 * LATELY_MS ? 0 : ts->ended_lately / 2;
		ts->lately_ms = now;
	}
	return ts->ended_lately < most ? ts->ended_lately : most;
}

static unsigned
room(struct tasks *ts)
{
	unsigned most = places(ts), waiting_max = (unsigned)ts->of.conf->tasks.max_waiting;

	if (ts->is_draining || most == 0 || ts->waiting_count >= waiting_max)
		return 0;
	most += ahead(ts);
	return most > ts->active_count + ts->ready_count ? most - ts->active_count - ts->ready_count
							 : 0;
}

/* ---- claiming ---- */

static void claim(struct tasks *ts);

static void
take(struct tasks *ts, const struct store_task *t)
{
	struct run *run;

	if (run_of(ts, t->id) != NULL) /* the record has given it to somebody and back to us */
		run_drop(run_of(ts, t->id));
	run = run_new(ts, t);
	run->is_suspect = t->losses >= SUSPECT_LOSSES;
	list_add_tail(&ts->ready, &run->node);
	ts->ready_count++;
}

static void
give_all_back(struct tasks *ts, const struct store_task *tasks, size_t count)
{
	for (size_t i = 0; i < count; i++)
		task_change(ts, &tasks[i], &(struct said){.state = "queued"}, NULL, NULL);
}

static void
on_claimed(void *arg, int err, const struct store_task *tasks, size_t count, uint32_t apps)
{
	struct tasks *ts = arg;
	bool was_full = count >= ts->claimed_for, was_all = !ts->claimed_stripes;

	ts->is_claiming = false;
	if (err != 0)
		return; /* the look comes again */
	if (ts->is_draining) {
		give_all_back(ts, tasks, count);
		return;
	}
	for (size_t i = 0; i < count; i++)
		take(ts, &tasks[i]);
	ts->is_busy = was_full;
	if (was_full) {
		ts->may_be_more = true;
		queue_hint_all(ts);
	} else if (!was_all || (count > 0 && apps > 1)) {
		ts->may_be_more = true;
	}
	queue_go_on(ts);
}

/* Stripes of our own only while there was plenty. */
static void
claim(struct tasks *ts)
{
	uint32_t all = (uint32_t)ts->of.conf->tasks.partitions, workers = shm_workers(ts->of.shm);
	struct store_task_claim c = {.owner = ts->owner,
	    .limit = room(ts),
	    .stripe_to = all,
	    .lease_ms = ts->of.conf->tasks.lease_ms};

	if (ts->is_claiming || c.limit == 0)
		return;
	ts->may_be_more = false;
	ts->claimed_stripes = ts->is_busy && workers > 1 && workers <= all;
	if (ts->claimed_stripes) {
		c.stripe_from = all * (ts->of.slot % workers) / workers;
		c.stripe_to = all * (ts->of.slot % workers + 1) / workers;
	}
	ts->is_claiming = true;
	ts->claimed_for = c.limit;
	store_task_claim(ts->of.store, &c, on_claimed, ts);
}

static void
on_claim_post(struct loop_post *post)
{
	claim(container_of(post, struct tasks, claim_post));
}

void
queue_hint(struct tasks *ts)
{
	ts->may_be_more = true;
	if (!ts->is_claiming && room(ts) > 0)
		loop_post(ts->of.loop, &ts->claim_post);
}

static void
on_look(struct loop_timer *timer)
{
	struct tasks *ts = container_of(timer, struct tasks, look);
	uint64_t ms = ts->of.conf->tasks.look_interval_ms;

	queue_hint(ts);
	loop_timer_set(
	    ts->of.loop, timer, ms - ms / 5 + (uint64_t)ts->self.who.row * 37 % (ms / 3 + 1));
}

/* The next look comes no later than that. */
void
queue_later(struct tasks *ts, uint64_t delay_ms)
{
	uint64_t due_ms = loop_now_ms(ts->of.loop) + delay_ms;

	if (!loop_timer_is_set(&ts->look) || due_ms < ts->look.due_ms)
		loop_timer_set(ts->of.loop, &ts->look, delay_ms);
}

/* ---- telling others ---- */

static void
wake_others(struct tasks *ts)
{
	ts->woken_ms = loop_now_ms(ts->of.loop);
	backplane_broadcast(ts->of.backplane, BACKPLANE_TASK_WAKE, STR(""), NULL, NULL);
}

static void
on_wake_later(struct loop_timer *timer)
{
	wake_others(container_of(timer, struct tasks, wake_later));
}

static void
on_wake(void *arg, const struct backplane_call *call)
{
	(void)call;
	queue_hint(arg);
}

void
queue_hint_all(struct tasks *ts)
{
	uint64_t now = loop_now_ms(ts->of.loop);

	queue_hint(ts);
	if (loop_timer_is_set(&ts->wake_later))
		return;
	if (now - ts->woken_ms >= WAKE_GAP_MS)
		wake_others(ts);
	else
		loop_timer_set(ts->of.loop, &ts->wake_later, WAKE_GAP_MS - (now - ts->woken_ms));
}

/* ---- places ---- */

static unsigned
active_of_app(const struct tasks *ts, const char *app_id)
{
	unsigned n = 0;

	list_for (node, &ts->active)
		n += strcmp(list_entry(node, struct run, node)->task.app_id, app_id) == 0;
	return n;
}

/* The first of the app that has the fewest running here. */
static struct run *
next_ready(struct tasks *ts)
{
	struct run *best = NULL;
	unsigned best_count = 0;

	list_for (node, &ts->ready) {
		struct run *run = list_entry(node, struct run, node);
		unsigned n;

		if (run->is_suspect && ts->suspects > 0)
			continue;
		if (best != NULL && strcmp(best->task.app_id, run->task.app_id) == 0)
			continue;
		n = active_of_app(ts, run->task.app_id);
		if (best == NULL || n < best_count) {
			best = run;
			best_count = n;
		}
	}
	return best;
}

static void
give_place(struct tasks *ts, struct run *run)
{
	list_del(&run->node);
	ts->ready_count--;
	list_add_tail(&ts->active, &run->node);
	ts->active_count++;
	ts->suspects += run->is_suspect;
	run->has_place = true;
	metric_gauge(METRIC_TASKS_RUNNING, 0, 0, 1);
	run_start(run);
}

void
run_place_give(struct run *run)
{
	struct tasks *ts = run->tasks;

	list_del(&run->node);
	if (run->has_place) {
		ts->active_count--;
		ts->suspects -= run->is_suspect;
		metric_gauge(METRIC_TASKS_RUNNING, 0, 0, -1);
	} else if (run->state == RUN_READY) {
		ts->ready_count--;
	}
	ts->waiting_count -= run->is_waiting;
	run->has_place = run->is_waiting = false;
}

void
queue_go_on(struct tasks *ts)
{
	unsigned most = places(ts);
	struct run *run;

	while (!ts->is_draining && ts->active_count < most && (run = next_ready(ts)) != NULL)
		give_place(ts, run);
	/* In batches: not for each place that becomes free. */
	if (ts->may_be_more && !ts->is_claiming && room(ts) > ahead(ts) / 2)
		loop_post(ts->of.loop, &ts->claim_post);
}

/* Its claim was answered to nobody: the answer was lost. */
void
queue_adopt(struct tasks *ts, const struct store_task *t)
{
	if (ts->is_draining || ts->is_claiming || run_of(ts, t->id) != NULL)
		return;
	take(ts, t);
	queue_go_on(ts);
}

/* ---- life ---- */

void
queue_init(struct tasks *ts)
{
	list_init(&ts->ready);
	list_init(&ts->active);
	list_init(&ts->waiting);
	ts->claim_post.run = on_claim_post;
	ts->look.on_fire = on_look;
	ts->wake_later.on_fire = on_wake_later;
	backplane_serve(ts->of.backplane, BACKPLANE_TASK_WAKE, on_wake, ts);
	loop_timer_set(ts->of.loop, &ts->look, 100);
}

void
queue_fini(struct tasks *ts)
{
	loop_post_cancel(ts->of.loop, &ts->claim_post);
	loop_timer_stop(ts->of.loop, &ts->look);
	loop_timer_stop(ts->of.loop, &ts->wake_later);
}
