/* usage - see usage.h. */
#include "worker/usage/usage.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/arena.h"
#include "common/check.h"
#include "common/err.h"
#include "common/list.h"
#include "common/log.h"
#include "common/metric.h"

/* PROMPT_MS: what an advance covered leaves it with its usage. */
enum { AGAIN_MS = 500, AGAIN_MAX_MS = 32000, PROMPT_MS = 20 };

struct row {
	struct list node;
	struct arena arena;
	struct store_usage usage;
	uint64_t hold;
	unsigned refusals; /* of it alone: it goes alone again */
	/* How many others the record had taken when it refused this one, alone or not, for the
	 * first time; one more than that. 0: never. */
	uint64_t refused_at;
};

struct usages {
	struct loop *loop;
	const struct conf *conf;
	struct store *store;
	struct holds *holds;
	struct list waiting, written; /* written: asked of the record, one batch at a time */
	size_t count;                 /* in both */
	size_t most;                  /* that go at once; halved by a refusal, doubled again */
	uint64_t taken;               /* by the record */
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

/* ---- what the record does not take ---- */

/* Not for now, as when it is away, but for what it was asked. */
static bool
is_refusal(int err)
{
	return err == E_INTERNAL || err == E_INVALID_VALUE || err == E_PAYLOAD_TOO_LARGE;
}

/* What was held for it becomes its usage when the hold's lease is over. */
static void
lose(struct usages *us, struct row *r, int err)
{
	const struct store_usage *u = &r->usage;

	log_error("usage refused id=%s app=%s key=%s model=%s turn=%s input=%" PRIu64
		  " output=%" PRIu64 " cost_micros=%" PRId64 " reason=%s",
	    u->id, log_quote(str_of(u->app_id)).s, u->key_id != NULL ? u->key_id : "-",
	    log_quote(str_of(u->model)).s, u->turn_id != NULL ? u->turn_id : "-", u->input_tokens,
	    u->output_tokens, u->cost_micros, err_info(err)->code);
	metric_add(METRIC_USAGE_REFUSED, 0, 0, 1);
	hold_forget(us->holds, r->hold);
	row_free(us, r);
}

/*
 * A row that was refused alone is the reason itself, if its values are, or if the record has taken
 * others since: a table that nobody may write would refuse all of them. Until that is known it
 * waits behind the others.
 */
static void
refused_alone(struct usages *us, struct row *r, int err)
{
	bool takes_others = us->taken >= r->refused_at;

	if (err != E_INTERNAL || takes_others || (r->refusals > 0 && us->is_draining)) {
		lose(us, r, err);
		return;
	}
	list_del(&r->node);
	list_add_tail(&us->waiting, &r->node);
	r->refusals++;
}

/* From the last: they stay in order. */
static void
take_back(struct usages *us)
{
	struct row *r;

	while (!list_empty(&us->written)) {
		r = list_entry(us->written.prev, struct row, node);
		list_del(&r->node);
		list_add_head(&us->waiting, &r->node);
	}
}

static uint64_t
again_ms(const struct row *r)
{
	return r->refusals < 7 ? AGAIN_MS << (r->refusals - 1) : AGAIN_MAX_MS;
}

/* Halves until the row that it is for is alone. */
static void
on_refused(struct usages *us, int err)
{
	struct row *first = list_first(&us->written, struct row, node), *next;
	size_t n = 0;

	check(first != NULL);
	list_for (node, &us->written) {
		struct row *r = list_entry(node, struct row, node);

		if (r->refused_at == 0)
			r->refused_at = us->taken + 1;
		n++;
	}
	if (n == 1) {
		refused_alone(us, first, err);
	} else {
		take_back(us);
		us->most = (n + 1) / 2;
	}
	if ((next = list_first(&us->waiting, struct row, node)) != NULL)
		loop_timer_set(us->loop, &us->timer, next->refusals > 0 ? again_ms(next) : 0);
}

/* ---- writing ---- */

static void
on_written(void *arg, int err)
{
	struct usages *us = arg;
	struct row *r;

	if (is_refusal(err)) {
		on_refused(us, err);
		return;
	}
	if (err != 0) {
		log_warn("usage not written rows=%zu reason=%s", us->count, err_info(err)->code);
		take_back(us);
		loop_timer_set(us->loop, &us->timer, AGAIN_MS);
		return;
	}
	us->most *= 2;
	while ((r = list_first(&us->written, struct row, node)) != NULL) {
		us->taken++;
		hold_forget(us->holds, r->hold);
		row_free(us, r);
	}
	if (!list_empty(&us->waiting))
		loop_timer_set(us->loop, &us->timer, 0);
}

static size_t
batch(struct usages *us)
{
	size_t max = (size_t)us->conf->usage.batch;

	if (us->most == 0 || us->most > max)
		us->most = max;
	return us->most;
}

static void
on_timer(struct loop_timer *timer)
{
	struct usages *us = container_of(timer, struct usages, timer);
	size_t max = batch(us), n = 0;
	const struct store_usage **rows;
	struct row *r;

	if (!list_empty(&us->written) || list_empty(&us->waiting))
		return;
	rows = xcalloc(max, sizeof(*rows));
	while (n < max && (r = list_first(&us->waiting, struct row, node)) != NULL) {
		if (r->refusals > 0 && n > 0)
			break;
		list_del(&r->node);
		list_add_tail(&us->written, &r->node);
		rows[n++] = &r->usage;
		if (r->refusals > 0)
			break;
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
