/*
 * catch_up - a subscriber that was not there before, or was elsewhere: what it has missed, each
 * once, then what is new.
 *
 *   START --the log is read, other hosts' lists have come--> OVER --all are as far--> gone
 *     what comes live meanwhile is held                        | what it knows already is left out
 *
 * It is attached to its topics from the start, so that nothing falls between what was and what
 * comes; `floor` is how far it has been told, host by host.
 */
#include <stdlib.h>

#include "worker/events/events_impl.h"

enum {
	HELD_STEP = 16,
	ROUND_MAX = 16,   /* subscribers that the log is read for in one round of the loop */
	FINAL_BACK = 2048 /* so far back: what ended before was in the record when it was asked */
};

static void
drop_far(struct events_catch_up *c)
{
	struct queued *q;

	while ((q = list_first(&c->far_events, struct queued, node)) != NULL) {
		list_del(&q->node);
		event_unref(&q->event);
		free(q);
	}
}

void
catch_up_free(struct events_catch_up **ref)
{
	struct events_catch_up *c = *ref;

	if (c == NULL)
		return;
	*ref = NULL;
	list_del(&c->node);
	list_del(&c->far_node);
	idmap_remove(c->sub->events->catch_ups, c->handle);
	for (uint32_t i = 0; i < c->held_count; i++)
		event_unref(&c->held[i]);
	free(c->held);
	drop_far(c);
	free(c);
}

/* ---- telling ---- */

static bool
tell_now(struct events_catch_up *c, struct event *e)
{
	struct events *ev = c->sub->events;
	uint64_t handle = c->handle;
	char id[POSITION_TEXT_MAX];

	c->floor.at_ms = clock_wall_ms();
	events_tell(c->sub, e, str_sub(id, position_format(&c->floor, id)));
	return idmap_get(ev->catch_ups, handle) == c;
}

/* False: the subscriber is gone, and this with it. */
static bool
tell(struct events_catch_up *c, struct event *e)
{
	if (e->host == ENDS_HOST)
		return tell_now(c, e);
	if (e->number > position_get(&c->floor, e->host))
		position_set(&c->floor, e->host, e->number);
	else if (!c->is_thorough)
		return true;
	return tell_now(c, e);
}

/* The same for one that the hub tells all: what the hub has told, this one knows or does not want.
 */
static bool
tell_live(struct events_catch_up *c, struct event *e)
{
	position_merge(&c->floor, &c->sub->events->told);
	return tell_now(c, e);
}

static bool
is_of(const struct events_sub *sub, const struct event *e)
{
	struct events *ev = sub->events;
	struct str names[EVENT_LOG_KEYS] = {e->topic, e->also};

	for (int k = 0; k < EVENT_LOG_KEYS; k++) {
		struct events_topic *t = events_topic_find(ev, e->app, names[k]);

		for (uint16_t i = 0; t != NULL && i < sub->link_count; i++)
			if (sub->links[i].topic == t)
				return true;
	}
	return false;
}

static bool
may_be_of(const struct events_sub *sub, const uint64_t keys[EVENT_LOG_KEYS])
{
	for (uint16_t i = 0; i < sub->link_count; i++)
		for (int k = 0; k < EVENT_LOG_KEYS; k++)
			if (sub->links[i].topic->key == keys[k])
				return true;
	return false;
}

static struct event *
read_event(struct events *ev, uint64_t number)
{
	struct buf bytes = BUF_INIT;
	struct event *e = NULL;

	if (event_log_read(ev->shm, number, &bytes))
		e = event_parse(buf_str(&bytes), ev->host, number);
	buf_fini(&bytes);
	return e;
}

/* ---- this host's log ---- */

/* False: the subscriber is gone. */
static bool
tell_from_log(struct events_catch_up *c, uint64_t from, uint64_t end, int64_t since_ms)
{
	struct events *ev = c->sub->events;
	uint64_t keys[EVENT_LOG_KEYS];
	bool is_there = true;

	for (uint64_t n = from; n < end && is_there; n++) {
		enum event_log_at at = event_log_look(ev->shm, n, keys);
		struct event *e = NULL;

		c->is_gap = c->is_gap || at == EVENT_LOG_LOST;
		if (at == EVENT_LOG_EVENT && may_be_of(c->sub, keys)) {
			e = read_event(ev, n);
			c->is_gap = c->is_gap || e == NULL;
		}
		if (e != NULL && e->at_ms >= since_ms && is_of(c->sub, e))
			is_there = tell(c, e);
		event_unref(&e);
	}
	return is_there;
}

/* The last of each topic, if it is final: who comes late hears how it ended. */
static bool
tell_final(struct events_catch_up *c, uint64_t end)
{
	struct events *ev = c->sub->events;
	uint64_t keys[EVENT_LOG_KEYS], oldest = event_log_oldest(ev->shm);
	struct event *e = NULL;
	bool is_there = true;

	if (!c->is_thorough && oldest + FINAL_BACK < end)
		oldest = end - FINAL_BACK;
	for (uint64_t n = end; n-- > oldest && e == NULL;) {
		if (event_log_look(ev->shm, n, keys) == EVENT_LOG_EVENT && may_be_of(c->sub, keys))
			e = read_event(ev, n);
		if (e != NULL && !is_of(c->sub, e))
			event_unref(&e);
	}
	if (e != NULL && (e->flags & EVENTS_FINAL) != 0)
		is_there = tell(c, e);
	event_unref(&e);
	return is_there;
}

static bool
read_log(struct events_catch_up *c)
{
	struct events *ev = c->sub->events;
	uint64_t after = position_get(&c->after, ev->host), end = ev->cursor;
	uint64_t oldest = event_log_oldest(ev->shm);
	int64_t since_ms = 0;
	bool is_there = true;

	c->is_log_read = true;
	if (c->is_resumed) {
		if (after > 0 && after + 1 < oldest)
			c->is_gap = true;
		if (after == 0 && ev->far == NULL) { /* it was at a host that we know nothing of */
			c->is_gap = true;
			since_ms = c->after.at_ms;
		}
		is_there = tell_from_log(c, after + 1 > oldest ? after + 1 : oldest, end, since_ms);
	} else if (c->wants_final) {
		is_there = tell_final(c, end);
	}
	if (is_there && position_get(&c->floor, ev->host) < end - 1)
		position_set(&c->floor, ev->host, end - 1);
	return is_there;
}

/* ---- its end ---- */

static bool
tell_far(struct events_catch_up *c)
{
	struct queued *q;
	bool is_there = true;

	while (is_there && (q = list_first(&c->far_events, struct queued, node)) != NULL) {
		struct event *e = q->event;

		list_del(&q->node);
		free(q);
		is_there = tell(c, e);
		event_unref(&e);
	}
	return is_there;
}

static bool
tell_held(struct events_catch_up *c)
{
	bool is_there = true;

	for (uint32_t i = 0; i < c->held_count && is_there; i++) {
		struct event *e = event_ref(c->held[i]);

		is_there = tell(c, e);
		event_unref(&e);
	}
	return is_there;
}

static void
finish(struct events_catch_up *c)
{
	struct events_sub *sub = c->sub;
	struct events *ev = sub->events;
	uint64_t handle = c->handle;
	char id[POSITION_TEXT_MAX];

	if (c->is_quiet && c->is_gap) { /* it cannot be told all, and does not ask what it missed */
		metric_add(METRIC_EVENTS_GAPS, 0, 0, 1);
		sub->handlers->on_lost(sub);
		return;
	}
	if (!tell_far(c))
		return;
	position_merge(&c->floor, &c->after);
	if (!c->is_unanswered)
		position_merge(&c->floor, &c->horizon);
	c->floor.at_ms = clock_wall_ms();
	c->is_over = true;
	if (!c->is_quiet)
		sub->handlers->on_ready(
		    sub, str_sub(id, position_format(&c->floor, id)), c->is_gap);
	if (idmap_get(ev->catch_ups, handle) != c || !tell_held(c))
		return;
	if (position_covers(&ev->told, &c->floor))
		catch_up_free(&sub->catch_up);
}

void
catch_up_run(struct events *ev)
{
	struct events_catch_up *c;

	if (list_empty(&ev->waiting))
		return;
	events_pull(ev);
	for (int i = 0; i < ROUND_MAX; i++) {
		c = list_first(&ev->waiting, struct events_catch_up, node);
		if (c == NULL)
			return;
		list_del(&c->node);
		if (!c->is_log_read && !read_log(c))
			continue;
		if (c->far_waiting == 0)
			finish(c);
	}
	if (!list_empty(&ev->waiting))
		events_pump_soon(ev); /* others get the loop between */
}

static void
wait_for_turn(struct events_catch_up *c)
{
	struct events *ev = c->sub->events;

	if (!list_linked(&c->node))
		list_add_tail(&ev->waiting, &c->node);
	events_pump_soon(ev);
}

void
catch_up_far_event(struct events_catch_up *c, struct event *e)
{
	struct queued *q = xcalloc(1, sizeof(*q));

	/* Of each host in its order, whatever topic they came from. */
	struct list *before = c->far_events.prev;
	q->event = e;
	while (before != &c->far_events) {
		const struct event *b = list_entry(before, struct queued, node)->event;

		if (b->host < e->host || (b->host == e->host && b->number <= e->number))
			break;
		before = before->prev;
	}
	list_insert_between(&q->node, before, before->next);
}

void
catch_up_far_done(struct events_catch_up *c)
{
	check(c->far_waiting > 0);
	if (--c->far_waiting == 0)
		wait_for_turn(c);
}

/* ---- live meanwhile ---- */

static void
hold(struct events_catch_up *c, struct event *e)
{
	if (c->held_count == EVENTS_HELD_MAX) {
		metric_add(METRIC_EVENTS_GAPS, 0, 0, 1);
		c->sub->handlers->on_lost(c->sub);
		return;
	}
	if (c->held_count % HELD_STEP == 0)
		c->held = xrealloc(c->held, (c->held_count + HELD_STEP) * sizeof(c->held[0]));
	c->held[c->held_count++] = event_ref(e);
}

void
catch_up_take(struct events_sub *sub, struct event *e)
{
	struct events_catch_up *c = sub->catch_up;
	struct events *ev = sub->events;

	if (!c->is_over) {
		hold(c, e);
		return;
	}
	if (e->host != ENDS_HOST && e->number <= position_get(&c->floor, e->host))
		return;
	if (!tell_live(c, e))
		return;
	if (position_covers(&ev->told, &c->floor))
		catch_up_free(&sub->catch_up);
}

/* ---- its beginning ---- */

static struct events_catch_up *
catch_up_new(struct events_sub *sub)
{
	struct events *ev = sub->events;
	struct events_catch_up *c = xcalloc(1, sizeof(*c));

	c->sub = sub;
	c->handle = idmap_add(ev->catch_ups, c);
	list_init(&c->far_events);
	sub->catch_up = c;
	return c;
}

static void
begin(struct events_catch_up *c)
{
	struct events *ev = c->sub->events;

	if (ev->far != NULL)
		far_catch_up(ev->far, c);
	if (c->far_waiting == 0 || !c->is_log_read)
		wait_for_turn(c);
}

void
catch_up_start(struct events_sub *sub, const struct events_sub_of *of)
{
	struct events_catch_up *c = catch_up_new(sub);
	struct events *ev = sub->events;

	c->wants_final = of->wants_final;
	c->is_thorough = of->is_thorough;
	c->is_resumed = of->after.len > 0 && position_parse(of->after, &c->after);
	c->is_gap = of->after.len > 0 && !c->is_resumed;
	if (c->is_resumed && position_get(&c->after, ev->host) >= event_log_next(ev->shm))
		c->is_resumed = false; /* not a position of ours */
	if (c->is_resumed)
		c->floor = c->after;
	sub->after_ms = c->is_resumed ? c->after.at_ms : 0;
	begin(c);
}

void
catch_up_again(struct events_sub *sub)
{
	struct events_catch_up *c;

	if (sub->catch_up != NULL && !sub->catch_up->is_over)
		return; /* it asks anyway */
	struct position floor = sub->catch_up != NULL ? sub->catch_up->floor : sub->events->told;
	position_merge(&floor, &sub->events->told);
	catch_up_free(&sub->catch_up);
	c = catch_up_new(sub);
	c->floor = c->after = floor;
	c->is_resumed = c->is_log_read = c->is_quiet = true;
	begin(c);
}
