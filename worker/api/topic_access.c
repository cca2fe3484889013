/* topic_access - see topic_access.h. */
#include "worker/api/topic_access.h"

#include <stdlib.h>

#include "common/arena.h"
#include "common/check.h"
#include "worker/store/tasks.h"

struct topic_check {
	struct api *api;
	struct arena arena;
	enum key_kind kind;
	const char *app_id;
	const struct str *topics;
	size_t count, next;
	struct task_end {
		struct task_end *next;
		struct events_news news;
		int64_t at_ms;
	} * ends; /* of tasks that are over: told to who subscribes now */
	topics_on_checked *on_checked;
	void *arg;
};

bool
topics_split(struct str list, struct str out[TOPIC_ACCESS_MAX], size_t max, size_t *ret_count)
{
	size_t n = 0;

	if (max > TOPIC_ACCESS_MAX)
		max = TOPIC_ACCESS_MAX;
	while (list.len > 0) {
		struct str topic = str_trim(str_split(&list, ','));

		if (topic.len == 0)
			continue;
		if (n == max || topic.len > EVENTS_TOPIC_MAX)
			return false;
		out[n++] = topic;
	}
	*ret_count = n;
	return n > 0;
}

static void
finish(struct topic_check *c, int err)
{
	struct topic_check was = *c;

	free(c);
	was.on_checked(
	    was.arg, err, err != 0 && was.next < was.count ? was.topics[was.next] : STR_NONE);
	for (const struct task_end *e = was.ends; err == 0 && e != NULL; e = e->next)
		events_tell_end(was.api->events, &e->news, e->at_ms);
	arena_fini(&was.arena);
}

static void check_next(struct topic_check *);

static void
on_session(void *arg, int err, const struct store_session *session)
{
	struct topic_check *c = arg;

	if (err == 0 && strcmp(session->app_id, c->app_id) != 0)
		err = E_NOT_FOUND;
	if (err != 0) {
		finish(c, err);
		return;
	}
	c->next++;
	check_next(c);
}

static void
on_task(void *arg, int err, const struct store_task *task)
{
	struct topic_check *c = arg;
	struct task_end end = {.next = c->ends};

	if (err != 0) {
		finish(c, err);
		return;
	}
	if (task_end_read(task, &c->arena, &end.news)) {
		end.at_ms = task->ended_at;
		c->ends = arena_alloc(&c->arena, sizeof(*c->ends));
		*c->ends = end;
	}
	c->next++;
	check_next(c);
}

enum verdict { ALLOWED, ASKED, REFUSED, UNKNOWN };

static enum verdict
ask_record(struct topic_check *c, struct str topic)
{
	struct str kind = str_split(&topic, ':');
	struct id id;

	if (str_eq(kind, STR("session")) && c->app_id != NULL && id_parse(topic, "sess", &id)) {
		store_session_get(
		    c->api->store, arena_strdup(&c->arena, id_str(&id)), on_session, c);
		return ASKED;
	}
	if (str_eq(kind, STR("task")) && c->app_id != NULL && id_parse(topic, "task", &id)) {
		store_task_get(
		    c->api->store, arena_strdup(&c->arena, id_str(&id)), c->app_id, on_task, c);
		return ASKED;
	}
	return UNKNOWN;
}

static bool
is_one_of(struct str topic, const char *const *names)
{
	for (; *names != NULL; names++)
		if (str_eq(topic, str_of(*names)))
			return true;
	return false;
}

static enum verdict
judge(struct topic_check *c, struct str topic)
{
	static const char *const everybodys[] = {
	    "providers", "navigation-state", "notifications", NULL};
	static const char *const of_app[] = {"spend", "webhooks", NULL};

	if (is_one_of(topic, everybodys) || str_starts(topic, STR("model:")))
		return ALLOWED;
	if (is_one_of(topic, of_app) || str_starts(topic, STR("tasks:")) ||
	    str_starts(topic, STR("webhook:")))
		return c->kind == KEY_SERVER ? ALLOWED : REFUSED;
	return ask_record(c, topic);
}

static void
check_next(struct topic_check *c)
{
	while (c->next < c->count) {
		switch (judge(c, c->topics[c->next])) {
		case ALLOWED:
			c->next++;
			break;
		case ASKED:
			return;
		case REFUSED:
			finish(c, E_FORBIDDEN);
			return;
		case UNKNOWN:
			finish(c, E_NOT_FOUND);
			return;
		}
	}
	finish(c, 0);
}

void
topics_check(struct api *api, enum key_kind kind, const char *app_id, const struct str *topics,
    size_t count, topics_on_checked *on_checked, void *arg)
{
	struct topic_check *c = xcalloc(1, sizeof(*c));
	struct str *own;

	c->api = api;
	c->kind = kind;
	c->app_id = app_id != NULL ? arena_strdup(&c->arena, str_of(app_id)) : NULL;
	own = arena_alloc(&c->arena, count * sizeof(*own));
	for (size_t i = 0; i < count; i++)
		own[i] = str_of(arena_strdup(&c->arena, topics[i]));
	c->topics = own;
	c->count = count;
	c->on_checked = on_checked;
	c->arg = arg;
	check_next(c);
}
