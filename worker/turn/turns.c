/*
 * turns - the turns of this worker: how they are found, how long an ended one is
 * kept for replay, and what happens to all of them when the worker stops.
 */
#include <stdlib.h>

#include "common/log.h"
#include "common/metric.h"
#include "common/region.h"
#include "worker/turn/turn_impl.h"

static void on_retain(struct loop_timer *);
static void on_drain_end(struct loop_timer *);
static void on_refuse(struct loop_timer *);

enum {
	FOLLOWER_PATIENCE_MS = 5000, /* beyond retention, for followers that have not got the end */
	DRAIN_MARGIN_MS = 1000,      /* the last events and commits go out within drain.timeout */
	/* Requests that were let in before the drain still come in. */
	DRAIN_TAKING_MS = 2000,
	DRAIN_TAKING_PART = 4, /* of a short timeout */
	/* A worker that is replaced is not left by those who have a connection to it: each ends
	 * with its next answer, but that may be the one after a long stream. */
	REPLACED_TAKING_PART = 2,
};

/* ---- gaps ---- */

struct turn_gap *
turn_gap_open(struct turns *ts, uint64_t handle)
{
	struct turn_gap *gap = xcalloc(1, sizeof(*gap));

	gap->turns = ts;
	gap->handle = handle;
	list_add_tail(&ts->gaps, &gap->node);
	return gap;
}

struct turns *
turn_gap_close(void *arg, uint64_t *ret_handle)
{
	struct turn_gap *gap = arg;
	struct turns *ts = gap->turns;

	*ret_handle = gap->handle;
	list_del(&gap->node);
	free(gap);
	return ts;
}

struct turn *
turn_gap_turn(void *gap)
{
	uint64_t handle;
	struct turns *ts = turn_gap_close(gap, &handle);

	return idmap_get(ts->handles, handle);
}

/* ---- one turn's place ---- */

static void
count_entries(const struct turns *ts)
{
	region_entries(REGION_SESSIONS, strmap_count(ts->by_id));
}

struct turn *
turn_new(struct turns *ts)
{
	struct turn *t = xcalloc(1, sizeof(*t));

	t->turns = ts;
	t->handle = idmap_add(ts->handles, t);
	t->id = id_new("turn");
	t->state = TURN_STATE_OPEN;
	t->requested_ms = loop_now_ms(ts->loop);
	t->fence = 1;
	list_init(&t->followers);
	list_init(&t->asks);
	list_init(&t->servings);
	list_init(&t->asides);
	feed_init(&t->feed, ts->conf->turns.feed_max_bytes);
	return t;
}

void
turn_publish(struct turn *t)
{
	struct turns *ts = t->turns;

	check(strmap_set(ts->by_id, id_str(&t->id), t) == NULL);
	count_entries(ts);
	if (!backplane_own(ts->backplane, &t->id))
		log_warn("turn owners full turn=%s", t->id.s);
	ts->live++;
	admission_enter(loop_admission(ts->loop));
	metric_gauge(METRIC_TURNS_LIVE, 0, 0, 1);
}

static void
count_not_live(struct turns *ts)
{
	check(ts->live > 0);
	ts->live--;
	admission_leave(loop_admission(ts->loop));
	metric_gauge(METRIC_TURNS_LIVE, 0, 0, -1);
}

void
turn_unpublish(struct turn *t)
{
	struct turns *ts = t->turns;

	check(strmap_del(ts->by_id, id_str(&t->id)) == t);
	count_entries(ts);
	backplane_disown(ts->backplane, &t->id);
	count_not_live(ts);
}

struct turn *
turn_by_id(struct turns *ts, const struct id *session_id, const struct id *turn_id)
{
	struct turn *t = strmap_get(ts->by_id, id_str(turn_id));

	return t != NULL && str_eq(id_str(&t->session_id), id_str(session_id)) ? t : NULL;
}

bool
turn_exists_here(struct turns *ts, const char *turn_id)
{
	return strmap_get(ts->by_id, str_of(turn_id)) != NULL;
}

/* Another host's, or one of a former life of this one: by its host, as those that live beside it
 * there declare its turns lost. */
bool
owner_is_dead(const struct turns *ts, struct backplane_addr owner)
{
	if (owner.host != ts->self.host)
		return store_is_host_over(ts->store, owner.host);
	return !shm_is_alive(ts->shm, owner.who);
}

/* ---- the end of one turn ---- */

void
turn_release_work(struct turn *t)
{
	struct loop *loop = t->turns->loop;

	turn_cancel_call(t);
	turn_close_menu(t);
	turn_drop_calls(t);
	turn_knowledge_fini(t);
	loop_timer_stop(loop, &t->progress_timer);
	loop_timer_stop(loop, &t->total_timer);
	loop_timer_stop(loop, &t->tool_timer);
	loop_timer_stop(loop, &t->gone_timer);
	buf_fini(&t->history);
	json_decref(t->messages);
	t->messages = NULL;
	json_decref(t->tools);
	t->tools = NULL;
	json_decref(t->input);
	t->input = NULL;
	if (t->is_unrecorded)
		return; /* the next attempt still needs what is in the arena */
	loop_timer_stop(loop, &t->retry_timer);
	turn_charge_forget(t);
	turn_save_fini(t);
	arena_fini(&t->arena);
	t->app_id = t->org_id = t->key_id = t->request_id = t->model = t->system = NULL;
}

static void
turn_free(struct turn *t)
{
	struct turns *ts = t->turns;

	check(list_empty(&t->followers) && list_empty(&t->asks));
	t->is_unrecorded = false;
	turn_release_work(t);
	loop_post_cancel(ts->loop, &t->flush);
	announce_forget(t);
	feed_fini(&t->feed);
	free(t->err_message);
	json_decref(t->exceeded_json);
	free(t->result_json);
	free(t->calls_json);
	free(t->model_name);
	idmap_remove(ts->handles, t->handle);
	free(t);
}

static void
run_reap(struct loop_post *post)
{
	struct turn *t = container_of(post, struct turn, reap);

	follow_drop_all(t);
	ask_drop_all(t);
	turn_free(t);
}

void
turn_free_later(struct turn *t)
{
	t->reap.run = run_reap;
	loop_post(t->turns->loop, &t->reap);
}

/* ---- retention ---- */

static void
forget(struct turn *t)
{
	struct turns *ts = t->turns;

	list_del(&t->retained_node);
	ts->retained_bytes -= t->retained_bytes;
	ts->retained_count--;
	check(strmap_del(ts->by_id, id_str(&t->id)) == t);
	count_entries(ts);
	backplane_disown(ts->backplane, &t->id);
	turn_free_later(t);
}

static bool
may_forget(const struct turn *t, uint64_t now)
{
	if (t->is_unrecorded)
		return false;
	return list_empty(&t->followers) || now >= t->retained_until_ms + FOLLOWER_PATIENCE_MS;
}

static void
set_retain_timer(struct turns *ts, uint64_t now)
{
	struct turn *first = list_first(&ts->retained, struct turn, retained_node);

	if (first == NULL)
		return;
	uint64_t due = first->retained_until_ms > now ? first->retained_until_ms - now : 0;
	/* One that may not go yet is looked at again now and then. */
	loop_timer_set(ts->loop, &ts->retain_timer, due > 100 ? due : 100);
}

static void
on_retain(struct loop_timer *timer)
{
	struct turns *ts = container_of(timer, struct turns, retain_timer);
	uint64_t now = loop_now_ms(ts->loop);

	list_for_safe (node, &ts->retained) {
		struct turn *t = list_entry(node, struct turn, retained_node);

		if (t->retained_until_ms > now)
			break;
		if (may_forget(t, now))
			forget(t);
	}
	set_retain_timer(ts, now);
}

static bool
are_too_many_retained(const struct turns *ts)
{
	uint64_t max_bytes = ts->conf->turns.feed_total_bytes;

	return (max_bytes > 0 && ts->retained_bytes > max_bytes) ||
	       ts->retained_count > (size_t)ts->conf->turns.max_retained;
}

/*
 * Above the limits those that ended first go first. Each has a place among the owners in shared
 * memory, of which there are OWNERS_MAX: the live ones and their calls need theirs more.
 */
static void
keep_within_total(struct turns *ts)
{
	list_for_safe (node, &ts->retained) {
		struct turn *t = list_entry(node, struct turn, retained_node);

		if (!are_too_many_retained(ts))
			return;
		if (!t->is_unrecorded && list_empty(&t->followers))
			forget(t);
	}
}

void
turn_retain(struct turn *t)
{
	struct turns *ts = t->turns;
	uint64_t now = loop_now_ms(ts->loop);

	count_not_live(ts);
	t->retained_until_ms = now + ts->conf->turns.retain_events_ms;
	t->retained_bytes = sizeof(*t) + t->feed.bytes + t->feed.text.len;
	ts->retained_bytes += t->retained_bytes;
	ts->retained_count++;
	list_add_tail(&ts->retained, &t->retained_node);
	if (!loop_timer_is_set(&ts->retain_timer))
		set_retain_timer(ts, now);
	keep_within_total(ts);
}

/* ---- all turns ---- */

struct turns *
turns_new(struct loop *loop, const struct conf *conf, struct shm *shm, struct backplane *backplane,
    struct store *store, struct providers *providers, const struct turns_money *money,
    struct knowledge *knowledge)
{
	struct turns *ts = xcalloc(1, sizeof(*ts));

	ts->loop = loop;
	ts->conf = conf;
	ts->shm = shm;
	ts->backplane = backplane;
	ts->store = store;
	ts->providers = providers;
	ts->holds = money->holds;
	ts->usages = money->usages;
	ts->limits = money->limits;
	ts->knowledge = knowledge;
	ts->self = backplane_self(backplane);
	owner_format(ts->self, ts->owner);
	ts->handles = idmap_new();
	ts->by_id = strmap_new();
	ts->calls = tool_calls_new();
	ts->listeners = idmap_new();
	ts->asides = idmap_new();
	list_init(&ts->retained);
	list_init(&ts->gaps);
	ts->retain_timer.on_fire = on_retain;
	ts->drain_timer.on_fire = on_drain_end;
	ts->refuse_timer.on_fire = on_refuse;
	route_init(ts);
	follow_init(ts);
	listener_init(ts);
	remote_init(ts);
	lost_init(ts);
	announce_init(ts);
	return ts;
}

void
turns_use_events(struct turns *ts, struct events *events)
{
	ts->events = events;
}

void
turns_use_runner(struct turns *ts, const struct tool_runner *runner)
{
	ts->runner = runner;
}

void
turns_use_hooks(struct turns *ts, const struct turn_hooks *hooks)
{
	ts->hooks = *hooks;
}

void
turns_free(struct turns **ret)
{
	struct turns *ts = *ret;
	uint32_t cursor = 0;

	if (ts == NULL)
		return;
	listener_fini(ts);
	remote_fini(ts);
	for (struct turn *t; (t = idmap_next(ts->handles, &cursor)) != NULL;) {
		if (list_linked(&t->retained_node))
			list_del(&t->retained_node);
		loop_post_cancel(ts->loop, &t->reap);
		follow_drop_all(t);
		ask_drop_all(t);
		turn_free(t);
	}
	lost_fini(ts);
	follow_fini(ts);
	route_fini(ts);
	announce_fini(ts);
	loop_timer_stop(ts->loop, &ts->retain_timer);
	loop_timer_stop(ts->loop, &ts->drain_timer);
	loop_timer_stop(ts->loop, &ts->refuse_timer);
	list_for_safe (node, &ts->gaps)
		free(list_entry(node, struct turn_gap, node));
	strmap_free(&ts->by_id);
	idmap_free(&ts->handles);
	idmap_free(&ts->listeners);
	idmap_free(&ts->asides);
	idmap_free(&ts->question_handles);
	tool_calls_free(&ts->calls);
	free(ts);
	*ret = NULL;
}

uint32_t
turns_live(const struct turns *ts)
{
	return ts->live;
}

static void
on_drain_end(struct loop_timer *timer)
{
	struct turns *ts = container_of(timer, struct turns, drain_timer);
	uint32_t cursor = 0;

	for (struct turn *t; (t = idmap_next(ts->handles, &cursor)) != NULL;)
		turn_fail(t, E_DRAINING, NULL);
}

static void
on_refuse(struct loop_timer *timer)
{
	struct turns *ts = container_of(timer, struct turns, refuse_timer);
	uint32_t cursor = 0;

	ts->is_refusing = true;
	for (struct turn *t; (t = idmap_next(ts->handles, &cursor)) != NULL;)
		turn_on_drain(t);
}

static uint64_t
taking_ms(const struct turns *ts)
{
	uint64_t timeout_ms = ts->conf->drain.timeout_ms, part_ms = timeout_ms / DRAIN_TAKING_PART;

	if (atomic_load(shm_word(ts->shm, SHM_WORD_IS_DRAINING)) == 0)
		return timeout_ms / REPLACED_TAKING_PART;
	return part_ms < DRAIN_TAKING_MS ? part_ms : DRAIN_TAKING_MS;
}

void
turns_drain(struct turns *ts)
{
	uint64_t timeout_ms = ts->conf->drain.timeout_ms, margin_ms = timeout_ms / 10;

	if (ts->is_draining)
		return;
	ts->is_draining = true;
	if (margin_ms > DRAIN_MARGIN_MS)
		margin_ms = DRAIN_MARGIN_MS;
	loop_timer_set(ts->loop, &ts->drain_timer, timeout_ms - margin_ms);
	loop_timer_set(ts->loop, &ts->refuse_timer, taking_ms(ts));
}
