/* task_watch - see task_watch.h. */
#include "worker/api/task_watch.h"

#include <stdlib.h>

#include "common/arena.h"
#include "common/check.h"
#include "common/id.h"

enum {
	STEP_MS = 1000,
	AGAIN_MS = 10000, /* the record is asked for each */
	STEP_MAX = 50,    /* in one step */
};

struct task_watch {
	struct api *api;
	struct loop_timer timer;
	size_t asking;
};

static void
on_task(void *arg, int err, const struct store_task *task)
{
	struct task_watch *w = arg;
	struct arena arena = ARENA_INIT;
	struct events_news end;

	w->asking--;
	if (err == 0 && task_end_read(task, &arena, &end))
		events_tell_end(w->api->events, &end, task->ended_at);
	arena_fini(&arena);
}

static void
ask(struct task_watch *w, const struct events_asked *a)
{
	struct str topic = a->topic;
	struct arena arena = ARENA_INIT;
	struct id id;

	str_split(&topic, ':');
	if (id_parse(topic, "task", &id)) {
		w->asking++;
		store_task_get(w->api->store, id.s, arena_strdup(&arena, a->app), on_task, w);
	}
	arena_fini(&arena);
}

static void
on_timer(struct loop_timer *t)
{
	struct task_watch *w = container_of(t, struct task_watch, timer);
	struct events_asked asked[STEP_MAX];
	size_t count = 0;

	loop_timer_set(w->api->loop, t, STEP_MS);
	if (w->asking == 0 && store_is_available(w->api->store))
		count = events_topics_to_ask(
		    w->api->events, STR("task:"), AGAIN_MS, asked, ARRAY_LEN(asked));
	for (size_t i = 0; i < count; i++)
		ask(w, &asked[i]);
}

void
task_watch_drain(struct task_watch *w)
{
	loop_timer_stop(w->api->loop, &w->timer);
}

struct task_watch *
task_watch_new(struct api *api)
{
	struct task_watch *w = xcalloc(1, sizeof(*w));

	w->api = api;
	w->timer.on_fire = on_timer;
	loop_timer_set(api->loop, &w->timer, STEP_MS);
	return w;
}

void
task_watch_free(struct task_watch **ref)
{
	struct task_watch *w = *ref;

	if (w == NULL)
		return;
	*ref = NULL;
	check(w->asking == 0);
	loop_timer_stop(w->api->loop, &w->timer);
	free(w);
}
