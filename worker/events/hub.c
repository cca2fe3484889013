/* hub - see events.h. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "worker/events/events_impl.h"

enum {
	BATCH = 256,    /* subscribers told in one round of the loop */
	PULL_MAX = 256, /* events taken from the log ahead */
	LOOK_MS = 1000, /* if nobody wakes us */
	SOON_MS = 5,
	GIVE_UP_MS = 500, /* a number that nobody writes */
};

static const char far_key_name[] = "\nfar";

/* ---- topics ---- */

void
events_topic_name(struct str app, struct str topic, struct buf *out)
{
	buf_clear(out);
	buf_add_str(out, app);
	buf_add_char(out, '\n');
	buf_add_str(out, topic);
}

struct events_topic *
events_topic_find(struct events *ev, struct str app, struct str topic)
{
	if (topic.len == 0)
		return NULL;
	events_topic_name(app, topic, &ev->scratch);
	return strmap_get(ev->topics, buf_str(&ev->scratch));
}

void
events_want(struct events *ev, uint64_t key, bool is_wanted)
{
	uint32_t *count = &ev->wants[key % EVENTS_WANT_BITS];

	check(is_wanted || *count > 0);
	*count += is_wanted ? 1 : (uint32_t)-1;
	if (*count == (is_wanted ? 1 : 0))
		event_log_want(ev->shm, ev->who, key, is_wanted);
}

static struct events_topic *
topic_get(struct events *ev, struct str app, struct str name)
{
	struct events_topic *t = events_topic_find(ev, app, name);

	if (t != NULL)
		return t;
	t = xcalloc(1, sizeof(*t));
	list_init(&t->links);
	events_topic_name(app, name, &ev->scratch);
	t->name = xstrndup(ev->scratch.data, ev->scratch.len);
	t->key = event_log_key(buf_str(&ev->scratch));
	t->asked_ms = loop_now_ms(ev->loop); /* by who lets it be heard */
	strmap_set(ev->topics, str_of(t->name), t);
	events_want(ev, t->key, true);
	if (ev->far != NULL)
		far_want(ev->far, t, true);
	return t;
}

static void
topic_put(struct events *ev, struct events_topic *t)
{
	if (!list_empty(&t->links))
		return;
	if (ev->topic == t)
		ev->topic = NULL;
	if (ev->far != NULL)
		far_want(ev->far, t, false);
	events_want(ev, t->key, false);
	strmap_del(ev->topics, str_of(t->name));
	free(t->name);
	free(t);
}

/* ---- subscribers ---- */

static bool
is_for_everybody(struct str topic)
{
	return str_starts(topic, STR("model:")) || str_eq(topic, STR("providers")) ||
	       str_eq(topic, STR("navigation-state")) || str_eq(topic, STR("notifications"));
}

static void
link_add(struct events_sub *sub, struct str app, struct str name)
{
	struct events_topic *t = topic_get(sub->events, app, name);
	struct events_link *l = &sub->links[sub->link_count++];

	l->topic = t;
	l->sub = sub;
	t->is_ended = false; /* others were told, this one was not: the record is asked again */
	list_add_tail(&t->links, &l->of_topic);
}

void
events_subscribe(struct events *ev, struct events_sub *sub, const struct events_sub_of *of,
    const struct events_sub_handlers *handlers)
{
	size_t count = 0;

	check(sub->events == NULL && of->topic_count > 0);
	for (size_t i = 0; i < of->topic_count; i++)
		count += (is_for_everybody(of->topics[i]) ? 1 : 0) + (of->app_id != NULL ? 1 : 0);
	sub->events = ev;
	sub->handlers = handlers;
	sub->links = xcalloc(count > 0 ? count : 1, sizeof(sub->links[0]));
	sub->link_count = 0;
	for (size_t i = 0; i < of->topic_count; i++) {
		check(of->topics[i].len > 0 && of->topics[i].len <= EVENTS_TOPIC_MAX);
		if (is_for_everybody(of->topics[i]))
			link_add(sub, STR(""), of->topics[i]);
		if (of->app_id != NULL)
			link_add(sub, str_of(of->app_id), of->topics[i]);
	}
	list_add_tail(&ev->subs, &sub->node);
	metric_gauge_set(METRIC_EVENTS_SUBSCRIPTIONS, 0, 0, (int64_t)++ev->sub_count);
	catch_up_start(sub, of);
}

void
events_unsubscribe(struct events_sub *sub)
{
	struct events *ev = sub->events;

	if (ev == NULL)
		return;
	catch_up_free(&sub->catch_up);
	for (uint16_t i = 0; i < sub->link_count; i++) {
		struct events_link *l = &sub->links[i];

		if (ev->next == &l->of_topic)
			ev->next = l->of_topic.next;
		list_del(&l->of_topic);
		topic_put(ev, l->topic);
	}
	free(sub->links);
	list_del(&sub->node);
	metric_gauge_set(METRIC_EVENTS_SUBSCRIPTIONS, 0, 0, (int64_t)--ev->sub_count);
	sub->events = NULL;
	sub->links = NULL;
	sub->link_count = sub->end_count = 0;
}

size_t
events_sub_count(const struct events *ev)
{
	return ev->sub_count;
}

/* Each is told from the loop; it closes itself in it, and perhaps others. */
void
events_all_lost(struct events *ev)
{
	struct events_sub *sub;
	size_t count = ev->sub_count;
	struct list all;

	metric_add(METRIC_EVENTS_GAPS, 0, 0, 1);
	list_init(&all);
	while ((sub = list_first(&ev->subs, struct events_sub, node)) != NULL) {
		list_del(&sub->node);
		list_add_tail(&all, &sub->node);
	}
	log_warn("events missed: subscribers=%zu are told to come back", count);
	while ((sub = list_first(&all, struct events_sub, node)) != NULL) {
		list_del(&sub->node);
		list_add_tail(&ev->subs, &sub->node);
		sub->handlers->on_lost(sub);
	}
}

void
events_tell(struct events_sub *sub, struct event *e, struct str id)
{
	if (sub->last_number == e->number && sub->last_host == e->host)
		return; /* it hears both topics */
	sub->last_number = e->number;
	sub->last_host = e->host;
	if (!ends_may_tell(sub, e))
		return;
	metric_add(METRIC_EVENTS_DELIVERED, 0, 0, 1);
	sub->handlers->on_event(sub, e, id);
}

/* ---- from the log ---- */

static void
push(struct events *ev, struct event *e)
{
	struct queued *q = xcalloc(1, sizeof(*q));

	q->event = e;
	list_add_tail(&ev->queue, &q->node);
	ev->queue_count++;
}

static bool
is_wanted(const struct events *ev, const uint64_t keys[EVENT_LOG_KEYS])
{
	for (int i = 0; i < EVENT_LOG_KEYS; i++)
		if (keys[i] != 0 && ev->wants[keys[i] % EVENTS_WANT_BITS] > 0)
			return true;
	return false;
}

static void
take(struct events *ev, uint64_t number)
{
	uint64_t keys[EVENT_LOG_KEYS];
	struct event *e;

	buf_clear(&ev->scratch);
	if (!event_log_read(ev->shm, number, &ev->scratch)) {
		/* Overwritten: the next look finds that it is lost. Spoilt: nobody else says so. */
		if (event_log_look(ev->shm, number, keys) == EVENT_LOG_EVENT && ev->sub_count > 0)
			events_all_lost(ev);
		return;
	}
	e = event_parse(buf_str(&ev->scratch), ev->host, number);
	if (e != NULL)
		push(ev, e);
	else
		log_error("event malformed number=%llu", (unsigned long long)number);
}

/* False: somebody is writing it. */
static bool
wait_for_writer(struct events *ev)
{
	uint64_t now_ms = loop_now_ms(ev->loop);

	if (ev->soon != ev->cursor) {
		ev->soon = ev->cursor;
		ev->soon_since_ms = now_ms;
	}
	if (now_ms - ev->soon_since_ms >= GIVE_UP_MS) {
		event_log_give_up(ev->shm, ev->cursor);
		ev->cursor++;
		return true;
	}
	loop_timer_set(ev->loop, &ev->look, SOON_MS);
	return false;
}

void
events_pull(struct events *ev)
{
	uint64_t keys[EVENT_LOG_KEYS];

	while (ev->queue_count < PULL_MAX) {
		switch (event_log_look(ev->shm, ev->cursor, keys)) {
		case EVENT_LOG_END:
			return;
		case EVENT_LOG_SOON:
			if (!wait_for_writer(ev))
				return;
			break;
		case EVENT_LOG_LOST:
			ev->cursor = event_log_oldest(ev->shm);
			if (ev->sub_count > 0)
				events_all_lost(ev);
			break;
		case EVENT_LOG_EVENT:
			if (is_wanted(ev, keys))
				take(ev, ev->cursor);
			ev->cursor++;
			break;
		case EVENT_LOG_NOTHING:
			ev->cursor++;
		}
	}
}

void
events_queue(struct events *ev, struct event *e)
{
	if (ev->queue_count < EVENTS_QUEUE_MAX) {
		push(ev, e);
		events_pump_soon(ev);
		return;
	}
	event_unref(&e);
	events_all_lost(ev);
}

/* ---- to the subscribers ---- */

static void
set_told(struct events *ev, uint64_t host, uint64_t number)
{
	if (host != ENDS_HOST && position_get(&ev->told, host) < number)
		position_set(&ev->told, host, number);
	ev->told.at_ms = clock_wall_ms();
	ev->id_len = position_format(&ev->told, ev->id);
}

static void
enter_topic(struct events *ev)
{
	const struct event *e = ev->now;

	ev->topic = events_topic_find(ev, e->app, ev->key_index == 0 ? e->topic : e->also);
	ev->next = ev->topic != NULL ? ev->topic->links.next : NULL;
	if (ev->topic != NULL && ev->key_index == 0)
		ev->topic->is_ended = (e->flags & EVENTS_FINAL) != 0;
}

static bool
begin_next(struct events *ev)
{
	struct queued *q = list_first(&ev->queue, struct queued, node);

	if (q == NULL) {
		events_pull(ev);
		q = list_first(&ev->queue, struct queued, node);
	}
	if (q == NULL) {
		set_told(ev, ev->host, ev->cursor - 1);
		return false;
	}
	list_del(&q->node);
	ev->queue_count--;
	ev->now = q->event;
	free(q);
	set_told(ev, ev->now->host, ev->now->number);
	ev->key_index = 0;
	enter_topic(ev);
	return true;
}

static void
tell_one(struct events *ev)
{
	struct events_link *l = list_entry(ev->next, struct events_link, of_topic);

	ev->next = ev->next->next;
	if (l->sub->catch_up != NULL)
		catch_up_take(l->sub, ev->now);
	else
		events_tell(l->sub, ev->now, str_sub(ev->id, ev->id_len));
}

/* One step; false: there is nothing to tell. */
static bool
step(struct events *ev)
{
	if (ev->now == NULL)
		return begin_next(ev);
	if (ev->topic != NULL && ev->next != &ev->topic->links) {
		tell_one(ev);
	} else if (++ev->key_index < EVENT_LOG_KEYS) {
		enter_topic(ev);
	} else {
		ev->topic = NULL;
		ev->next = NULL;
		event_unref(&ev->now);
	}
	return true;
}

static void
on_pump(struct loop_post *post)
{
	struct events *ev = container_of(post, struct events, pump);
	int n = 0;

	event_log_awake(ev->shm, ev->who);
	while (n < BATCH && step(ev))
		n++;
	catch_up_run(ev);
	if (ev->far != NULL)
		far_look(ev->far);
	if (n == BATCH)
		loop_post(ev->loop, &ev->pump);
}

void
events_pump_soon(struct events *ev)
{
	loop_post(ev->loop, &ev->pump);
}

static void
on_look(struct loop_timer *t)
{
	struct events *ev = container_of(t, struct events, look);

	loop_timer_set(ev->loop, t, LOOK_MS);
	events_pump_soon(ev);
}

static void
on_news(void *arg, const struct backplane_call *call)
{
	(void)call;
	events_pump_soon(arg);
}

/* ---- publishing ---- */

static void
wake(struct events *ev, uint32_t row)
{
	struct backplane_addr to = {ev->host, {row, 0}};
	struct shm_row_info info;

	if (row == ev->who.row) {
		events_pump_soon(ev);
		return;
	}
	if (!shm_row_get(ev->shm, row, &info) || !event_log_wake(ev->shm, row))
		return;
	to.who = info.who;
	if (backplane_cast(ev->backplane, to, BACKPLANE_EVENTS_NEWS, STR_NONE) != 0)
		metric_add(
		    METRIC_EVENTS_WAKES_LOST, 0, 0, 1); /* it looks by itself, LOOK_MS later */
}

static void
wake_all(struct events *ev, const uint64_t keys[EVENT_LOG_KEYS])
{
	uint64_t far = event_log_key(STR(far_key_name));

	for (uint32_t row = 0; row < shm_rows_used(ev->shm); row++)
		if (event_log_wants(ev->shm, row, keys[0]) ||
		    event_log_wants(ev->shm, row, keys[1]) || event_log_wants(ev->shm, row, far))
			wake(ev, row);
}

static uint64_t
key_of(struct events *ev, const char *app, const char *topic)
{
	if (topic == NULL || topic[0] == '\0')
		return 0;
	events_topic_name(str_of(app), str_of(topic), &ev->scratch);
	return event_log_key(buf_str(&ev->scratch));
}

void
events_cut(struct events_news *n, struct buf *text)
{
	if (n->payload.len <= EVENTS_PAYLOAD_MAX)
		return;
	buf_add_cstr(text, "{\"is_cut\":true,\"see\":\"");
	buf_add_json_escaped(text, str_of(n->topic));
	buf_add_cstr(text, "\"}");
	n->payload = buf_str(text);
}

void
events_publish(struct events *ev, const struct events_news *news)
{
	const char *app = news->app_id != NULL ? news->app_id : "";
	const uint64_t keys[EVENT_LOG_KEYS] = {
	    key_of(ev, app, news->topic), key_of(ev, app, news->also)};
	struct events_news n = *news;
	struct buf bytes = BUF_INIT, cut = BUF_INIT;

	check(strlen(n.topic) <= EVENTS_TOPIC_MAX && keys[0] != 0);
	check(n.also == NULL || strlen(n.also) <= EVENTS_TOPIC_MAX);
	events_cut(&n, &cut);
	event_format(&n, clock_wall_ms(), &bytes);
	if (event_log_add(ev->shm, ev->who, keys, buf_str(&bytes)) == 0)
		log_error("event not published name=%s reason=log_stuck", n.name);
	else
		metric_add(METRIC_EVENTS_PUBLISHED, 0, 0, 1);
	wake_all(ev, keys);
	buf_fini(&bytes);
	buf_fini(&cut);
}

/* ---- the hub ---- */

struct events *
events_new(const struct events_of *of)
{
	struct events *ev = xcalloc(1, sizeof(*ev));

	ev->loop = of->loop;
	ev->conf = of->conf;
	ev->shm = of->shm;
	ev->who = of->who;
	ev->backplane = of->backplane;
	ev->host = shm_host_id(of->shm);
	ev->topics = strmap_new();
	ev->catch_ups = idmap_new();
	list_init(&ev->subs);
	list_init(&ev->queue);
	list_init(&ev->waiting);
	ev->pump.run = on_pump;
	ev->look.on_fire = on_look;
	ev->cursor = event_log_next(ev->shm);
	set_told(ev, ev->host, ev->cursor - 1);
	backplane_serve(ev->backplane, BACKPLANE_EVENTS_NEWS, on_news, ev);
	loop_timer_set(ev->loop, &ev->look, LOOK_MS);
	ev->far = far_new(ev);
	return ev;
}

void
events_free(struct events **ref)
{
	struct events *ev = *ref;
	struct queued *q;

	if (ev == NULL)
		return;
	*ref = NULL;
	check(ev->sub_count == 0);
	far_free(&ev->far);
	loop_post_cancel(ev->loop, &ev->pump);
	loop_timer_stop(ev->loop, &ev->look);
	while ((q = list_first(&ev->queue, struct queued, node)) != NULL) {
		list_del(&q->node);
		event_unref(&q->event);
		free(q);
	}
	event_unref(&ev->now);
	strmap_free(&ev->topics);
	idmap_free(&ev->catch_ups);
	buf_fini(&ev->scratch);
	free(ev);
}
