/* usage - see usage.h. */
#include "worker/usage/usage.h"

#include <stdlib.h>

#include "common/arena.h"
#include "common/check.h"
#include "common/err.h"
#include "common/list.h"
#include "common/log.h"
#include "common/metric.h"

/* PROMPT_MS: what an advance covered leaves it with its usage. */
enum { AGAIN_MS = 500, PROMPT_MS = 20 };

struct row {
	struct list node;
	struct arena arena;
	struct store_usage usage;
	uint64_t hold;
};

struct usages {
	struct loop *loop;
	const struct conf *conf;
	struct store *store;
	struct holds *holds;
	struct list waiting, written; /* written: asked of the record, one batch at a time */
	size_t count;                 /* in both */
	bool is_draining;
	struct loop_timer timer;
};

void
usage_count(const struct store_usage *u)
{
	unsigned label = metric_label(LABEL_MODEL, str_of(u->model));

	metric_add(METRIC_TOKENS, label, TOKENS_INPUT, u->input_tokens);
	metric_add(METRIC_TOKENS, label, TOKENS_OUTPUT, u->output_tokens);
	metric_add(METRIC_TOKENS, label, TOKENS_CACHED, u->cached_tokens);
	if (u->cost_micros > 0)
		metric_add(METRIC_COST, label, 0, (uint64_t)u->cost_micros);
}

static void
row_free(struct usages *us, struct row *r)
{
	list_del(&r->node);
	us->count--;
	arena_fini(&r->arena);
	free(r);
}

static const char *
keep(struct row *r, const char *text)
{
	return text != NULL ? arena_strdup(&r->arena, str_of(text)) : NULL;
}

/* ---- writing ---- */

static void
on_written(void *arg, int err)
{
	struct usages *us = arg;
	struct row *r;

	if (err != 0) {
		log_warn("usage not written rows=%zu reason=%s", us->count, err_info(err)->code);
		while (!list_empty(&us->written)) { /* from the last: they stay in order */
			r = list_entry(us->written.prev, struct row, node);
			list_del(&r->node);
			list_add_head(&us->waiting, &r->node);
		}
		loop_timer_set(us->loop, &us->timer, AGAIN_MS);
		return;
	}
	while ((r = list_first(&us->written, struct row, node)) != NULL) {
		hold_forget(us->holds, r->hold);
		row_free(us, r);
	}
	if (!list_empty(&us->waiting))
		loop_timer_set(us->loop, &us->timer, 0);
}

static void
on_timer(struct loop_timer *timer)
{
	struct usages *us = container_of(timer, struct usages, timer);
	size_t max = (size_t)us->conf->usage.batch, n = 0;
	const struct store_usage **rows;
	struct row *r;

	if (!list_empty(&us->written) || list_empty(&us->waiting))
		return;
	rows = xcalloc(max, sizeof(*rows));
	while (n < max && (r = list_first(&us->waiting, struct row, node)) != NULL) {
		list_del(&r->node);
		list_add_tail(&us->written, &r->node);
		rows[n++] = &r->usage;
	}
	store_usage_add(us->store, rows, n, on_written, us);
	free(rows);
}

/* What is held of a budget is somebody else's money until this is written. */
static uint64_t
wait_ms(const struct usages *us, uint64_t hold)
{
	uint64_t interval_ms = us->conf->usage.interval_ms;

	if (hold_settle(us->holds, hold) || us->is_draining)
		return 0;
	return hold != 0 && interval_ms > PROMPT_MS ? PROMPT_MS : interval_ms;
}

static void
write_within(struct usages *us, uint64_t delay_ms)
{
	uint64_t due_ms = loop_now_ms(us->loop) + delay_ms;

	if (!loop_timer_is_set(&us->timer) || us->timer.due_ms > due_ms)
		loop_timer_set(us->loop, &us->timer, delay_ms);
}

static void
add(struct usages *us, const struct store_usage *u, uint64_t hold)
{
	struct row *r = xcalloc(1, sizeof(*r));

	r->hold = hold;
	r->usage = *u;
	r->usage.id = keep(r, u->id);
	r->usage.app_id = keep(r, u->app_id);
	r->usage.org_id = keep(r, u->org_id);
	r->usage.key_id = keep(r, u->key_id);
	r->usage.session_id = keep(r, u->session_id);
	r->usage.turn_id = keep(r, u->turn_id);
	r->usage.model = keep(r, u->model);
	r->usage.provider = keep(r, u->provider);
	r->usage.provider_model = keep(r, u->provider_model);
	r->usage.outcome = keep(r, u->outcome);
	list_add_tail(&us->waiting, &r->node);
	us->count++;
	write_within(us, wait_ms(us, hold));
}

void
usage_add(struct usages *us, const struct store_usage *u, uint64_t hold)
{
	usage_count(u);
	add(us, u, hold);
}

void
usage_add_late(struct usages *us, const struct store_usage *u)
{
	add(us, u, 0);
}

void
usages_drain(struct usages *us)
{
	us->is_draining = true;
	loop_timer_set(us->loop, &us->timer, 0);
}

bool
usages_have_room(const struct usages *us)
{
	return us->count < (size_t)us->conf->usage.max_queue;
}

bool
usages_are_idle(const struct usages *us)
{
	return us->count == 0;
}

/* ---- life ---- */

struct usages *
usages_new(struct loop *loop, const struct conf *conf, struct store *store, struct holds *holds)
{
	struct usages *us = xcalloc(1, sizeof(*us));

	us->loop = loop;
	us->conf = conf;
	us->store = store;
	us->holds = holds;
	list_init(&us->waiting);
	list_init(&us->written);
	us->timer.on_fire = on_timer;
	return us;
}

void
usages_free(struct usages **ref)
{
	struct usages *us = *ref;
	struct row *r;

	if (us == NULL)
		return;
	*ref = NULL;
	if (us->count > 0)
		log_error("usage lost rows=%zu", us->count);
	loop_timer_stop(us->loop, &us->timer);
	while ((r = list_first(&us->written, struct row, node)) != NULL)
		row_free(us, r);
	while ((r = list_first(&us->waiting, struct row, node)) != NULL)
		row_free(us, r);
	free(us);
}
