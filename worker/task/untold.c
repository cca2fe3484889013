/*
 * untold - tasks that ended and of which nobody was told, because who wrote it died before it said
 * so.
 *
 *   a worker or a host is dead -> a little later: what it ended last, from the record
 *     -> each: does the log of events know its end? -> no: take its fence, tell
 *
 * All who saw the death look. The log is asked by subscribing; the fence decides among those who
 * find nothing, so that it is told once. What somebody took from its owner (a cancellation, a time
 * limit) names no worker that wrote it, so all that is looked at as well.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "worker/task/news.h"
#include "worker/task/task_impl.h"

enum {
	LOOK_MS = 2000,      /* what the dead one had sent is committed by then, or not at all */
	AGAIN_MS = 500,      /* the record is away */
	PATIENCE_MS = 30000, /* .. so long */
	LATELY_MS = 60000,   /* ended, before the look */
	OF_WORKER_MAX = 128, /* as many as two transactions */
	OF_HOST_MAX = 500,   /* and what its log had not passed on */
	SETTLED_MS = 1000,   /* a living one has told what it wrote so long ago */
};

struct ended {
	struct id id;
	char *app_id;
	uint64_t fence;
};

struct untold {
	struct list node;
	struct tasks *tasks;
	char owner[OWNER_MAX]; /* of a host: what its workers' begin with */
	bool is_host, is_told;
	struct loop_timer look;
	struct loop_post step;
	struct events_sub sub;
	uint64_t since_ms;
	struct ended *ended;
	size_t count, next;
};

static void
untold_free(struct untold *u)
{
	loop_timer_stop(u->tasks->of.loop, &u->look);
	loop_post_cancel(u->tasks->of.loop, &u->step);
	events_unsubscribe(&u->sub);
	for (size_t i = 0; i < u->count; i++)
		free(u->ended[i].app_id);
	free(u->ended);
	list_del(&u->node);
	free(u);
}

/* ---- one after the other ---- */

static void
next(struct untold *u)
{
	u->next++;
	loop_post(u->tasks->of.loop, &u->step);
}

static void
on_whole(void *arg, int err, const struct store_task *t)
{
	struct untold *u = arg;
	struct tasks *ts = u->tasks;

	if (err == 0 && t->ended_at != 0) {
		log_info("end of a task told for a dead worker task=%s", t->id);
		news_publish_end(ts->of.events, t);
	}
	next(u);
}

static void
on_taken(void *arg, int err, const char *const *ids, size_t count)
{
	struct untold *u = arg;
	const struct ended *e = &u->ended[u->next];

	(void)ids;
	if (err != 0 || count == 0)
		next(u); /* somebody else tells it */
	else
		store_task_get(u->tasks->of.store, e->id.s, e->app_id, on_whole, u);
}

static void
on_event(struct events_sub *sub, struct event *event, struct str id)
{
	(void)id;
	/* Of no host: from the record, told to those alone who ask for this task here. */
	if ((event->flags & EVENTS_FINAL) != 0 && event->host != 0)
		container_of(sub, struct untold, sub)->is_told = true;
}

static void
on_ready(struct events_sub *sub, struct str id, bool is_gap)
{
	struct untold *u = container_of(sub, struct untold, sub);
	const struct ended *e = &u->ended[u->next];

	(void)id, (void)is_gap;
	events_unsubscribe(sub);
	if (u->is_told)
		next(u);
	else
		store_task_take_end(u->tasks->of.store, e->id.s, e->fence, on_taken, u);
}

static void
on_lost(struct events_sub *sub)
{
	struct untold *u = container_of(sub, struct untold, sub);

	events_unsubscribe(sub);
	next(u);
}

static void
on_step(struct loop_post *post)
{
	static const struct events_sub_handlers handlers = {on_event, on_ready, on_lost};
	struct untold *u = container_of(post, struct untold, step);
	char text[ID_MAX + 8];
	struct str topic;

	if (u->next == u->count) {
		untold_free(u);
		return;
	}
	snprintf(text, sizeof(text), "task:%s", u->ended[u->next].id.s);
	topic = str_of(text);
	u->is_told = false;
	events_subscribe(u->tasks->of.events, &u->sub,
	    &(struct events_sub_of){.app_id = u->ended[u->next].app_id,
		.topics = &topic,
		.topic_count = 1,
		.wants_final = true,
		.is_thorough = true},
	    &handlers);
}

/* ---- which ---- */

static void
on_ended(void *arg, int err, const struct store_task *tasks, size_t count)
{
	struct untold *u = arg;

	if (err != 0) {
		if (loop_now_ms(u->tasks->of.loop) - u->since_ms > PATIENCE_MS)
			untold_free(u);
		else
			loop_timer_set(u->tasks->of.loop, &u->look, AGAIN_MS);
		return;
	}
	u->ended = xcalloc(count + 1, sizeof(u->ended[0]));
	for (size_t i = 0; i < count; i++) {
		struct ended *e = &u->ended[u->count];

		if (!id_parse(str_of(tasks[i].id), "task", &e->id))
			continue;
		e->app_id = xstrdup(tasks[i].app_id);
		e->fence = tasks[i].fence;
		u->count++;
	}
	loop_post(u->tasks->of.loop, &u->step);
}

static void
on_look(struct loop_timer *timer)
{
	struct untold *u = container_of(timer, struct untold, look);
	struct tasks *ts = u->tasks;
	const struct store_task_ended q = {.owner = u->owner,
	    .is_prefix = u->is_host,
	    .lately_ms = LATELY_MS + (loop_now_ms(ts->of.loop) - u->since_ms),
	    .settled_ms = SETTLED_MS,
	    .limit = u->is_host ? OF_HOST_MAX : OF_WORKER_MAX};

	store_task_ended(ts->of.store, &q, on_ended, u);
}

static void
untold_new(struct tasks *ts, const char *owner, bool is_host)
{
	struct untold *u = xcalloc(1, sizeof(*u));

	u->tasks = ts;
	u->is_host = is_host;
	snprintf(u->owner, sizeof(u->owner), "%s", owner);
	u->since_ms = loop_now_ms(ts->of.loop);
	u->look.on_fire = on_look;
	u->step.run = on_step;
	list_add_tail(&ts->untold, &u->node);
	/* Not all in the same moment. */
	loop_timer_set(ts->of.loop, &u->look, LOOK_MS + ts->of.slot * 50);
}

static void
on_death(struct deaths *deaths, struct death *death, const char *owner)
{
	untold_new(container_of(deaths, struct tasks, untold_deaths), owner, false);
	death_end(death);
}

/* Of other hosts, one worker of each that lives. */
static void
on_host_over(void *arg, uint64_t host)
{
	struct tasks *ts = arg;
	char prefix[OWNER_MAX];

	if (host == ts->self.host || !shm_is_first(ts->of.shm, ts->self.who))
		return;
	owner_format_host((struct backplane_addr){.host = host}, prefix);
	untold_new(ts, prefix, true);
}

/* ---- life ---- */

void
untold_init(struct tasks *ts)
{
	list_init(&ts->untold);
	ts->untold_deaths = (struct deaths){.loop = ts->of.loop,
	    .shm = ts->of.shm,
	    .backplane = ts->of.backplane,
	    .on_death = on_death};
	deaths_start(&ts->untold_deaths);
	store_on_host_over(ts->of.store, on_host_over, ts);
}

void
untold_fini(struct tasks *ts)
{
	deaths_stop(&ts->untold_deaths);
	list_for_safe (node, &ts->untold)
		untold_free(list_entry(node, struct untold, node));
}
