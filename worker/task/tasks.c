/*
 * tasks - all of a worker's tasks, and the verbs for who asks for some.
 */
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/metric.h"
#include "worker/task/task_impl.h"

enum {
	CANCEL_TRIES = 5,    /* each time somebody else was faster */
	WAIT_LOOK_MS = 3000, /* events may be lost; the record is asked anyway */
	WAIT_LOOK_MAX_MS = 10000,
};

/* ---- names ---- */

static const char *const type_names[TASK_TYPES] = {
    [TASK_CHAT] = "chat.completion",
    [TASK_IMAGE] = "image.generation",
    [TASK_VIDEO] = "video.generation",
};

const char *
task_type_name(enum task_type type)
{
	return type_names[type];
}

bool
task_type_parse(const char *name, enum task_type *ret)
{
	for (unsigned i = 0; i < TASK_TYPES; i++) {
		if (strcmp(name, type_names[i]) == 0) {
			*ret = (enum task_type)i;
			return true;
		}
	}
	return false;
}

bool
task_state_is_last(const char *state)
{
	return strcmp(state, "queued") != 0 && strcmp(state, "running") != 0;
}

/* splitmix64 */
double
tasks_dice(struct tasks *ts)
{
	uint64_t z = ts->dice += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return (double)((z ^ z >> 31) >> 11) / (double)(UINT64_C(1) << 53);
}

/* ---- a new one ---- */

struct asked {
	struct tasks *tasks;
	struct id id;
	char *app_id, *reason;
	struct store_task_new order;
	struct quota_ask quota;
	unsigned tries;
	store_on_task *on_task;
	store_on_task_changed *on_changed;
	void *arg;
};

static struct asked *
asked_new(struct tasks *ts, const char *app_id, void *arg)
{
	struct asked *a = xcalloc(1, sizeof(*a));

	a->tasks = ts;
	a->app_id = xstrdup(app_id);
	a->arg = arg;
	return a;
}

static void
asked_free(struct asked *a)
{
	free(a->app_id);
	free(a->reason);
	free(a);
}

static void
created(struct asked *a, int err, const struct store_task *existing)
{
	if (err == 0)
		queue_hint_all(a->tasks);
	a->on_task(a->arg, err, existing);
	asked_free(a);
}

static void
on_of_request(void *arg, int err, const struct store_task *existing)
{
	err = err == 0 ? E_DUPLICATE : err == E_NOT_FOUND ? E_BUSY : err;
	created(arg, err, err == E_DUPLICATE ? existing : NULL);
}

static void
on_created(void *arg, int err, const struct store_task *existing)
{
	struct asked *a = arg;

	quota_leave(&a->quota);
	if (err == E_BUSY && a->order.idempotency_key != NULL) /* the same, at the same moment */
		store_task_of_request(
		    a->tasks->of.store, a->app_id, a->order.idempotency_key, on_of_request, a);
	else
		created(a, err, existing);
}

/* What was ordered once is not ordered again. */
static void
on_full(void *arg, int err, const struct store_task *existing)
{
	err = err == 0 ? E_DUPLICATE : err == E_NOT_FOUND ? E_QUEUE_FULL : err;
	created(arg, err, err == E_DUPLICATE ? existing : NULL);
}

static void
on_quota(struct quota_ask *quota, int err)
{
	struct asked *a = container_of(quota, struct asked, quota);
	struct store *store = a->tasks->of.store;

	if (err == 0)
		store_task_create(store, &a->order, on_created, a);
	else if (a->order.idempotency_key != NULL)
		store_task_of_request(store, a->app_id, a->order.idempotency_key, on_full, a);
	else
		on_full(a, E_NOT_FOUND, NULL);
}

/* Of one partition the same stripe, else any. */
static uint32_t
stripe_of(const struct tasks *ts, const struct store_task_new *t)
{
	const char *text = t->partition_key != NULL ? t->partition_key : t->id;
	uint32_t h = 2166136261u;

	for (; *text != '\0'; text++)
		h = (h ^ (unsigned char)*text) * 16777619u;
	return h % (uint32_t)ts->of.conf->tasks.partitions;
}

void
tasks_create(struct tasks *ts, const struct store_task_new *t, store_on_task *on_task, void *arg)
{
	struct asked *a = asked_new(ts, t->app_id, arg);

	a->on_task = on_task;
	a->order = *t;
	a->order.stripe = stripe_of(ts, t);
	a->quota.on_quota = on_quota;
	quota_enter(ts, &a->quota, a->app_id);
}

/* ---- one that is not wanted any more ---- */

static void cancel_try(struct asked *a);

static void
on_cancel_message(void *arg, const struct backplane_call *call)
{
	struct tasks *ts = arg;
	struct str rest = call->payload, id;
	struct id task;
	struct run *run;

	if (!backplane_take_str(&rest, &id) || !id_parse(id, "task", &task) ||
	    (run = run_of(ts, task.s)) == NULL || run->state == RUN_ENDING)
		return;
	run_drop(run);
}

/* Its owner stops the provider at once; should the message be lost, when it renews its leases. */
static void
tell_owner(struct tasks *ts, const struct store_task *t)
{
	struct run *run = run_of(ts, t->id);
	struct backplane_addr owner;
	struct buf payload = BUF_INIT;

	if (run != NULL) {
		if (run->state != RUN_ENDING)
			run_drop(run);
	} else if (owner_parse(t->owner, &owner)) {
		backplane_put_str(&payload, str_of(t->id));
		backplane_cast(ts->of.backplane, owner, BACKPLANE_TASK_CANCEL, buf_str(&payload));
		buf_fini(&payload);
	}
}

static void
cancelled(struct asked *a, int err, bool has_changed, const struct store_task *t)
{
	a->on_changed(a->arg, err, has_changed, t);
	asked_free(a);
}

static void
on_cancelled_task(void *arg, int err, const struct store_task *t)
{
	struct asked *a = arg;

	if (err == 0) {
		tell_owner(a->tasks, t);
		job_cancel(a->tasks, t);
	}
	cancelled(a, err, true, t);
}

static void
on_cancelled(void *arg, int err, bool is_done)
{
	struct asked *a = arg;

	if (err != 0)
		cancelled(a, err, false, NULL);
	else if (is_done)
		store_task_get(a->tasks->of.store, a->id.s, a->app_id, on_cancelled_task, a);
	else
		cancel_try(a);
}

static void
on_to_cancel(void *arg, int err, const struct store_task *t)
{
	struct asked *a = arg;

	if (err != 0 || t->ended_at != 0) {
		cancelled(a, err, false, t);
		return;
	}
	task_change(a->tasks, t,
	    &(struct said){.state = "cancelled",
		.progress = t->progress,
		.error_code = "cancelled",
		.error_message = a->reason,
		.is_taken = true,
		.is_ended = true},
	    on_cancelled, a);
}

static void
cancel_try(struct asked *a)
{
	if (a->tries++ < CANCEL_TRIES)
		store_task_get(a->tasks->of.store, a->id.s, a->app_id, on_to_cancel, a);
	else
		cancelled(a, E_BUSY, false, NULL);
}

void
tasks_cancel(struct tasks *ts, const char *id, const char *app_id, const char *reason,
    store_on_task_changed *on_changed, void *arg)
{
	struct asked *a = asked_new(ts, app_id, arg);

	a->reason = xstrdup(reason);
	a->on_changed = on_changed;
	check(id_parse(str_of(id), "task", &a->id));
	cancel_try(a);
}

static void
on_retried(void *arg, int err, bool has_changed, const struct store_task *t)
{
	struct asked *a = arg;

	if (err == 0 && has_changed)
		queue_hint_all(a->tasks);
	a->on_changed(a->arg, err, has_changed, t);
	asked_free(a);
}

void
tasks_retry(struct tasks *ts, const char *id, const char *app_id, bool only_retryable,
    store_on_task_changed *on_changed, void *arg)
{
	struct asked *a = asked_new(ts, app_id, arg);

	a->on_changed = on_changed;
	store_task_retry(ts->of.store, id, app_id, only_retryable, on_retried, a);
}

/* ---- waiting for an end ---- */

static void wait_ask(struct task_wait *w);

static void
wait_over(struct task_wait *w)
{
	events_unsubscribe(&w->sub);
	list_del(&w->node);
	loop_timer_stop(w->tasks->of.loop, &w->timer);
	loop_timer_stop(w->tasks->of.loop, &w->look);
	w->tasks = NULL;
}

static void
on_wait_task(void *arg, int err, const struct store_task *t)
{
	struct task_wait *w = arg;

	w->is_asking = false;
	if (err == 0 && t->ended_at == 0 && !w->is_late) {
		if (w->is_again)
			wait_ask(w);
		return;
	}
	wait_over(w);
	w->on_task(w->arg, err, t);
}

static void
wait_ask(struct task_wait *w)
{
	w->is_again = w->is_asking;
	if (w->is_asking)
		return;
	w->is_asking = true;
	store_task_get(w->tasks->of.store, w->id.s, w->app_id, on_wait_task, w);
}

static void
on_wait_event(struct events_sub *sub, struct event *event, struct str id)
{
	(void)id;
	if (event->flags & EVENTS_FINAL)
		wait_ask(container_of(sub, struct task_wait, sub));
}

/* From here on nothing is missed: so now. */
static void
on_wait_ready(struct events_sub *sub, struct str id, bool is_gap)
{
	(void)id, (void)is_gap;
	wait_ask(container_of(sub, struct task_wait, sub));
}

/* The looks go on. */
static void
on_wait_lost(struct events_sub *sub)
{
	events_unsubscribe(sub);
}

static void
on_wait_late(struct loop_timer *timer)
{
	struct task_wait *w = container_of(timer, struct task_wait, timer);

	w->is_late = true;
	wait_ask(w);
}

static void
on_wait_look(struct loop_timer *timer)
{
	struct task_wait *w = container_of(timer, struct task_wait, look);

	wait_ask(w);
	loop_timer_set(w->tasks->of.loop, timer, WAIT_LOOK_MAX_MS);
}

void
task_wait_start(struct tasks *ts, struct task_wait *w, const struct id *id, const char *app_id,
    uint32_t wait_ms, store_on_task *on_task, void *arg)
{
	static const struct events_sub_handlers handlers = {
	    on_wait_event, on_wait_ready, on_wait_lost};
	char topic[ID_MAX + 8];
	struct str topics[1];

	w->tasks = ts;
	list_add_tail(&ts->waits, &w->node);
	w->id = *id;
	w->app_id = app_id;
	w->on_task = on_task;
	w->arg = arg;
	w->timer.on_fire = on_wait_late;
	w->look.on_fire = on_wait_look;
	snprintf(topic, sizeof(topic), "task:%s", id->s);
	topics[0] = str_of(topic);
	if (wait_ms == 0 || ts->is_draining) {
		w->is_late = true;
		wait_ask(w);
		return;
	}
	loop_timer_set(ts->of.loop, &w->timer, wait_ms);
	loop_timer_set(ts->of.loop, &w->look, WAIT_LOOK_MS);
	events_subscribe(ts->of.events, &w->sub,
	    &(struct events_sub_of){.app_id = app_id, .topics = topics, .topic_count = 1},
	    &handlers);
}

void
task_wait_hurry(struct task_wait *w)
{
	on_wait_late(&w->timer);
}

/* ---- life ---- */

struct tasks *
tasks_new(const struct tasks_of *of)
{
	struct tasks *ts = xcalloc(1, sizeof(*ts));

	ts->of = *of;
	ts->self = backplane_self(of->backplane);
	owner_format(ts->self, ts->owner);
	ts->dice = clock_mono_us() ^ (uint64_t)ts->self.who.number << 32;
	ts->runs = idmap_new();
	ts->by_id = strmap_new();
	list_init(&ts->writes);
	list_init(&ts->waits);
	ts->write_again.on_fire = writes_on_again;
	backplane_serve(of->backplane, BACKPLANE_TASK_CANCEL, on_cancel_message, ts);
	queue_init(ts);
	quotas_init(ts);
	untold_init(ts);
	lease_init(ts);
	return ts;
}

void
tasks_drain(struct tasks *ts)
{
	if (ts->is_draining)
		return;
	ts->is_draining = true;
	list_for (node, &ts->waits)
		task_wait_hurry(list_entry(node, struct task_wait, node));
	lease_drain(ts);
}

bool
tasks_are_idle(const struct tasks *ts)
{
	return idmap_count(ts->runs) == 0 && ts->write_count == 0 && !ts->is_claiming;
}

void
tasks_free(struct tasks **ref)
{
	struct tasks *ts = *ref;
	uint32_t cursor = 0;
	struct run *run;

	if (ts == NULL)
		return;
	*ref = NULL;
	while ((run = idmap_next(ts->runs, &cursor)) != NULL)
		run_drop(run);
	list_for_safe (node, &ts->waits)
		wait_over(list_entry(node, struct task_wait, node));
	lease_fini(ts);
	untold_fini(ts);
	queue_fini(ts);
	quotas_fini(ts);
	writes_free(ts);
	strmap_free(&ts->by_id);
	idmap_free(&ts->runs);
	free(ts);
}
