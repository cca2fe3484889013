/*
 * quota - how many more tasks of an app may wait in the record (tasks.max_queued).
 *
 *   order -> is there a share left? --yes--> it is stored
 *               |no
 *               +-> counted, once for all orders that ask meanwhile --> stored | refused
 *
 * To count for each order would cost more than the order. A worker counts, up to the limit, and has
 * then its part of what is free for KEEP_MS, less what it has in hand: orders that the record may
 * not have counted yet. Near the limit that is a thousandth of it, or one order, and the next count
 * follows when that is stored. So one worker goes beyond the limit by that at most, and several by
 * what others store between a count and the end of its share. What is full stays so without a look
 * for twenty times as long as the count took, so that a crowd of refused orders costs the record
 * little.
 */
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/err.h"
#include "common/metric.h"
#include "worker/task/task_impl.h"

enum {
	KEEP_MS = 1000,
	FULL_MIN_MS = 50,
	FULL_MAX_MS = 1000,
	FULL_TIMES = 20,
	LEAST_OF = 1000,
	FORGET_MS = 60000, /* an app that orders nothing */
};

struct quota {
	struct tasks *tasks;
	char *app_id;
	struct list asks;
	uint64_t asked_ms, counted_ms; /* the latter 0: never */
	uint64_t full_ms;              /* what is full stays so */
	uint32_t share, in_hand, in_hand_then;
	bool is_full, is_counting;
};

static bool
is_fresh(const struct quota *r, uint64_t keep_ms)
{
	return r->counted_ms != 0 && loop_now_ms(r->tasks->of.loop) - r->counted_ms < keep_ms;
}

static void
answer_next(struct quota *r, int err)
{
	struct quota_ask *ask = list_first(&r->asks, struct quota_ask, node);

	list_del(&ask->node);
	if (err == 0) {
		r->share--;
		r->in_hand++;
		ask->quota = r;
	} else {
		metric_add(METRIC_RATE_LIMITED, LIMITED_WAITING_TASKS, 0, 1);
	}
	ask->on_quota(ask, err);
}

static void go_on(struct quota *r, bool has_just_counted);

static uint64_t
share_of(const struct quota *r, uint64_t limit, uint64_t left)
{
	uint64_t share = left / shm_workers(r->tasks->of.shm), least = 1 + limit / LEAST_OF;

	return left == 0 || share >= least ? share : least;
}

static void
note_time(struct quota *r)
{
	r->counted_ms = loop_now_ms(r->tasks->of.loop);
	r->full_ms = FULL_TIMES * (r->counted_ms - r->asked_ms);
	if (r->full_ms < FULL_MIN_MS)
		r->full_ms = FULL_MIN_MS;
	if (r->full_ms > FULL_MAX_MS)
		r->full_ms = FULL_MAX_MS;
}

static void
on_counted(void *arg, int err, uint64_t count)
{
	struct quota *r = arg;
	uint64_t limit = (uint64_t)r->tasks->of.conf->tasks.max_queued;
	/* A record that cannot count will say so to the order itself. */
	uint64_t left = err != 0 ? limit : count < limit ? limit - count : 0;
	uint64_t share = share_of(r, limit, left);

	r->is_counting = false;
	r->is_full = left == 0;
	note_time(r);
	r->share = share > r->in_hand_then ? (uint32_t)share - r->in_hand_then : 0;
	go_on(r, true);
}

static void
begin_count(struct quota *r)
{
	r->is_counting = true;
	r->asked_ms = loop_now_ms(r->tasks->of.loop);
	r->in_hand_then = r->in_hand;
	store_task_waiting(r->tasks->of.store, r->app_id,
	    (uint32_t)r->tasks->of.conf->tasks.max_queued, on_counted, r);
}

/* Where all that is free is in hand already, the next end of those counts again. */
static void
go_on(struct quota *r, bool has_just_counted)
{
	while (!list_empty(&r->asks) && !r->is_counting) {
		if (r->is_full && is_fresh(r, r->full_ms))
			answer_next(r, E_QUEUE_FULL);
		else if (!r->is_full && r->share > 0 && is_fresh(r, KEEP_MS))
			answer_next(r, 0);
		else if (has_just_counted && r->in_hand > 0)
			return;
		else
			begin_count(r);
	}
}

static struct quota *
quota_of(struct tasks *ts, const char *app_id)
{
	struct quota *r = strmap_get(ts->quotas, str_of(app_id));

	if (r != NULL)
		return r;
	r = xcalloc(1, sizeof(*r));
	r->tasks = ts;
	r->app_id = xstrdup(app_id);
	list_init(&r->asks);
	strmap_set(ts->quotas, str_of(r->app_id), r);
	return r;
}

void
quota_enter(struct tasks *ts, struct quota_ask *ask, const char *app_id)
{
	struct quota *r;

	ask->quota = NULL;
	if (ts->of.conf->tasks.max_queued == 0) {
		ask->on_quota(ask, 0);
		return;
	}
	r = quota_of(ts, app_id);
	list_add_tail(&r->asks, &ask->node);
	go_on(r, false);
}

void
quota_leave(struct quota_ask *ask)
{
	struct quota *r = ask->quota;

	if (r == NULL)
		return;
	ask->quota = NULL;
	check(r->in_hand > 0);
	r->in_hand--;
	go_on(r, false);
}

/* ---- life ---- */

static void
quota_free(struct quota *r)
{
	strmap_del(r->tasks->quotas, str_of(r->app_id));
	free(r->app_id);
	free(r);
}

static struct quota *
find_idle(struct tasks *ts)
{
	struct str key;
	void *value;

	for (size_t cursor = 0; strmap_next(ts->quotas, &cursor, &key, &value);) {
		struct quota *r = value;

		if (list_empty(&r->asks) && !r->is_counting && r->in_hand == 0 &&
		    !is_fresh(r, FORGET_MS))
			return r;
	}
	return NULL;
}

void
quotas_forget_idle(struct tasks *ts)
{
	struct quota *r;

	while ((r = find_idle(ts)) != NULL)
		quota_free(r);
}

void
quotas_init(struct tasks *ts)
{
	ts->quotas = strmap_new();
}

void
quotas_fini(struct tasks *ts)
{
	struct str key;
	void *value;
	size_t cursor = 0;

	while (strmap_next(ts->quotas, &cursor, &key, &value)) {
		quota_free(value);
		cursor = 0;
	}
	strmap_free(&ts->quotas);
}
