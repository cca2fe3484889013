/* advance - see advance.h. */
#include "worker/usage/advance.h"

#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/id.h"
#include "common/list.h"
#include "common/log.h"

enum {
	ADVANCES_MAX = 64, /* per worker; further keys ask for each call */
	ASKS_MIN = 8,      /* within ASKS_MS: worth an advance */
	ASKS_MS = 1000,
	CALLS_MIN = 8,       /* an advance for fewer calls is not worth its writes */
	CALLS_FIRST = 32,    /* how many it is for at first */
	CALLS_AT_ONCE = 200, /* that one write gives holds of their own */
	STALE_MS = 1000,     /* without an answer of the record for so long: no draws */
	AGAIN_MS = 100,      /* after a write that failed */
	LOOK_MS = 100,       /* for idleness */
};

struct draw {
	struct list node; /* of the advance's list of that state */
	struct advance *from;
	enum { DRAWN, BEING_WRITTEN, WRITTEN } state;
	bool is_settling;
	bool is_over;          /* ended while BEING_WRITTEN */
	bool may_be_in_record; /* beside its usage: the hold must be released */
	uint64_t drawn_at_ms;
	char *id, *session_id, *turn_id;
	uint64_t input_tokens, output_tokens;
	int64_t cost_micros, created_at;
};

struct advance {
	struct list node;
	struct advances *all;
	char *app_id, *org_id, *key_id, *model;
	struct budget_rule key, app;
	int64_t day;
	unsigned draws; /* that point here */
	/* The row. */
	struct id id; /* empty: there is none */
	int64_t free_micros;
	struct list drawn, being_written, written;
	bool is_writing, is_giving_back, is_stale; /* stale: the row holds more than it must */
	uint64_t written_at_ms, asked_at_ms; /* the last write that succeeded; the present one */
	int64_t kept_micros;                 /* by the present one */
	/* How much it is used. */
	unsigned asks;
	uint64_t asks_since_ms, used_at_ms;
	uint64_t scarce_until_ms;             /* the record gave nothing: not asked for more */
	int64_t estimate_micros, used_micros; /* a call's; since the last write */
	struct loop_timer timer;
};

struct advances {
	struct loop *loop;
	const struct conf *conf;
	struct store *store;
	struct list list; /* the one that was used last comes first */
	unsigned count;
	bool is_draining;
};

/* ---- draws ---- */

static void
draw_free(struct draw *d)
{
	list_del(&d->node);
	d->from->draws--;
	free(d->id);
	free(d->session_id);
	free(d->turn_id);
	free(d);
}

static void
on_released(void *arg, int err)
{
	(void)arg;
	if (err != 0)
		log_info("budget not released now reason=%s", err_info(err)->code);
}

void
budget_row_release(struct store *store, const char *id)
{
	store_budget_release(store, id, on_released, NULL);
}

static struct draw *
draw_new(struct advance *a, const struct store_usage *u)
{
	struct draw *d = xcalloc(1, sizeof(*d));

	d->from = a;
	d->id = xstrdup(u->id);
	d->session_id = u->session_id != NULL ? xstrdup(u->session_id) : NULL;
	d->turn_id = u->turn_id != NULL ? xstrdup(u->turn_id) : NULL;
	d->input_tokens = u->input_tokens;
	d->output_tokens = u->output_tokens;
	d->cost_micros = u->cost_micros;
	d->created_at = u->created_at;
	d->drawn_at_ms = loop_now_ms(a->all->loop);
	list_add_tail(&a->drawn, &d->node);
	a->draws++;
	return d;
}

void
draw_settle(struct draw *d)
{
	d->is_settling = true;
	/* The two writes may arrive in either order. */
	d->may_be_in_record |= d->state == BEING_WRITTEN;
}

const char *
draw_id(const struct draw *d)
{
	return d->state == WRITTEN ? d->id : NULL;
}

static void
draw_over(struct draw *d)
{
	if (d->may_be_in_record)
		budget_row_release(d->from->all->store, d->id);
	d->from->is_stale |= d->state == DRAWN;
	draw_free(d);
}

void
draw_return(struct draw *d)
{
	if (d->state == DRAWN && !d->from->all->is_draining)
		d->from->free_micros += d->cost_micros;
	d->may_be_in_record |= d->state != DRAWN;
	if (d->state == BEING_WRITTEN)
		d->is_over = true;
	else
		draw_over(d);
}

void
draw_end(struct draw *d)
{
	if (d->state == BEING_WRITTEN)
		d->is_over = d->may_be_in_record = true;
	else
		draw_over(d);
}

/* ---- writes ---- */

static int64_t
drawn_micros(const struct advance *a)
{
	int64_t sum = 0;

	list_for (node, &a->drawn)
		sum += list_entry(node, struct draw, node)->cost_micros;
	return sum;
}

/* A call that has lasted, and will for a while, gets a hold of its own. */
static bool
wants_hold(const struct draw *d, uint64_t now_ms)
{
	return !d->is_settling && now_ms >= d->drawn_at_ms + ADVANCE_WRITE_MS;
}

static size_t
take_calls(struct advance *a, struct store_usage *calls, const struct store_usage **refs)
{
	uint64_t now_ms = loop_now_ms(a->all->loop);
	size_t n = 0;
	struct list *next;

	for (struct list *node = a->drawn.next; node != &a->drawn && n < CALLS_AT_ONCE;
	     node = next) {
		struct draw *d = list_entry(node, struct draw, node);

		next = node->next;
		if (!wants_hold(d, now_ms))
			continue;
		list_del(&d->node);
		list_add_tail(&a->being_written, &d->node);
		d->state = BEING_WRITTEN;
		calls[n] = (struct store_usage){.id = d->id,
		    .session_id = d->session_id,
		    .turn_id = d->turn_id,
		    .input_tokens = d->input_tokens,
		    .output_tokens = d->output_tokens,
		    .cost_micros = d->cost_micros,
		    .created_at = d->created_at};
		refs[n] = &calls[n];
		n++;
	}
	return n;
}

static bool
is_idle(const struct advance *a)
{
	return a->all->is_draining || a->is_giving_back ||
	       loop_now_ms(a->all->loop) >= a->used_at_ms + ADVANCE_IDLE_MS;
}

/* As much as four such spans as the last need. */
static int64_t
wanted(const struct advance *a)
{
	int64_t first = a->estimate_micros * CALLS_FIRST, used = a->used_micros * 4;

	if (is_idle(a) || loop_now_ms(a->all->loop) < a->scarce_until_ms)
		return 0;
	return first > used ? first : used;
}

static void on_advanced(void *arg, int err, int64_t amount_micros);

static void
write_row(struct advance *a)
{
	struct advances *as = a->all;
	struct store_usage calls[CALLS_AT_ONCE];
	const struct store_usage *refs[CALLS_AT_ONCE];
	int64_t now = clock_wall_ms();
	struct store_budget_advance ask = {.app_id = a->app_id,
	    .org_id = a->org_id,
	    .key_id = a->key_id,
	    .model = a->model,
	    .key_limit_micros = a->key.amount_micros,
	    .app_limit_micros = a->app.amount_micros,
	    .key_day = budget_first_day(a->key.period, now),
	    .app_day = budget_first_day(a->app.period, now),
	    .created_at = now,
	    .lapses_at = now + (int64_t)as->conf->budgets.lease_ms,
	    .want_micros = wanted(a),
	    .least_micros = a->estimate_micros * CALLS_MIN,
	    .calls = refs};

	if (a->id.s[0] == '\0')
		a->id = id_new("adv");
	ask.id = a->id.s;
	ask.count = take_calls(a, calls, refs);
	ask.free_micros = a->free_micros;
	ask.keep_micros = a->kept_micros = a->free_micros + drawn_micros(a);
	a->is_writing = true;
	a->is_stale = false;
	a->used_micros = 0;
	a->asked_at_ms = loop_now_ms(as->loop);
	store_budget_advance(as->store, &ask, on_advanced, a);
}

static void
on_advanced(void *arg, int err, int64_t amount_micros)
{
	struct advance *a = arg;
	struct draw *d;

	a->is_writing = false;
	while ((d = list_first(&a->being_written, struct draw, node)) != NULL) {
		list_del(&d->node);
		list_add_tail(err == 0 ? &a->written : &a->drawn, &d->node);
		d->state = err == 0 ? WRITTEN : DRAWN;
		d->may_be_in_record |= err != 0;
		if (d->is_over)
			draw_over(d);
	}
	if (err != 0) {
		log_info("budget advance not written reason=%s", err_info(err)->code);
		loop_timer_set(a->all->loop, &a->timer, AGAIN_MS);
		return;
	}
	check(amount_micros >= a->kept_micros);
	if (amount_micros == a->kept_micros && wanted(a) > a->free_micros)
		a->scarce_until_ms = a->asked_at_ms + ASKS_MS;
	a->free_micros += amount_micros - a->kept_micros;
	a->written_at_ms = a->asked_at_ms;
	loop_timer_set(a->all->loop, &a->timer, ADVANCE_WRITE_MS);
}

/* Nothing is anybody's: the row goes. */
static void
end_row(struct advance *a)
{
	budget_row_release(a->all->store, a->id.s);
	a->id.s[0] = '\0';
	a->free_micros = 0;
	a->is_giving_back = a->is_stale = false;
	a->asks = 0;
}

static bool
has_call_to_write(const struct advance *a)
{
	uint64_t now_ms = loop_now_ms(a->all->loop);

	list_for (node, &a->drawn)
		if (wants_hold(list_entry(node, struct draw, node), now_ms))
			return true;
	return false;
}

static void
on_timer(struct loop_timer *timer)
{
	struct advance *a = container_of(timer, struct advance, timer);

	if (a->is_writing || a->id.s[0] == '\0')
		return;
	if (is_idle(a) && a->free_micros > 0) {
		a->free_micros = 0;
		a->is_stale = true;
	}
	if (list_empty(&a->drawn) && a->free_micros == 0 && wanted(a) == 0) {
		end_row(a);
		return;
	}
	if (a->is_stale || has_call_to_write(a) || a->free_micros < wanted(a) / 2)
		write_row(a);
	else
		loop_timer_set(
		    a->all->loop, timer, list_empty(&a->drawn) ? LOOK_MS : ADVANCE_WRITE_MS);
}

/* ---- which ---- */

static bool
is_text(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static bool
is_rule(struct budget_rule a, struct budget_rule b)
{
	return a.amount_micros == b.amount_micros && a.period == b.period;
}

static bool
is_of(const struct advance *a, const struct hold_question *q)
{
	const struct store_usage *u = &q->usage;

	return a->day == budget_day(u->created_at) && is_rule(a->key, q->key) &&
	       is_rule(a->app, q->app) && is_text(a->key_id, u->key_id) &&
	       is_text(a->model, u->model) && is_text(a->app_id, u->app_id) &&
	       is_text(a->org_id, u->org_id);
}

static void
advance_free(struct advance *a)
{
	struct draw *d;

	while ((d = list_first(&a->drawn, struct draw, node)) != NULL)
		draw_free(d);
	while ((d = list_first(&a->being_written, struct draw, node)) != NULL)
		draw_free(d);
	while ((d = list_first(&a->written, struct draw, node)) != NULL)
		draw_free(d);
	loop_timer_stop(a->all->loop, &a->timer);
	list_del(&a->node);
	a->all->count--;
	free(a->app_id);
	free(a->org_id);
	free(a->key_id);
	free(a->model);
	free(a);
}

static struct advance *
advance_new(struct advances *as, const struct hold_question *q)
{
	struct advance *a = xcalloc(1, sizeof(*a));
	const struct store_usage *u = &q->usage;

	a->all = as;
	a->app_id = xstrdup(u->app_id);
	a->org_id = u->org_id != NULL ? xstrdup(u->org_id) : NULL;
	a->key_id = u->key_id != NULL ? xstrdup(u->key_id) : NULL;
	a->model = xstrdup(u->model);
	a->key = q->key;
	a->app = q->app;
	a->day = budget_day(u->created_at);
	list_init(&a->drawn);
	list_init(&a->being_written);
	list_init(&a->written);
	a->timer.on_fire = on_timer;
	as->count++;
	return a;
}

/* The one that nobody has used for longest, if it has nothing in the record. */
static bool
make_room(struct advances *as)
{
	struct advance *a;

	if (as->count < ADVANCES_MAX)
		return true;
	for (struct list *node = as->list.prev; node != &as->list; node = node->prev) {
		a = list_entry(node, struct advance, node);
		if (a->draws == 0 && a->id.s[0] == '\0' && !a->is_writing) {
			advance_free(a);
			return true;
		}
	}
	return false;
}

static struct advance *
find(struct advances *as, const struct hold_question *q)
{
	struct advance *a = NULL;

	list_for (node, &as->list) {
		a = list_entry(node, struct advance, node);
		if (is_of(a, q)) {
			list_del(&a->node);
			list_add_head(&as->list, &a->node);
			return a;
		}
	}
	if (!make_room(as))
		return NULL;
	a = advance_new(as, q);
	list_add_head(&as->list, &a->node);
	return a;
}

/* Several a second? */
static bool
is_busy(struct advance *a)
{
	uint64_t now_ms = loop_now_ms(a->all->loop);

	if (now_ms >= a->asks_since_ms + ASKS_MS) {
		a->asks_since_ms = now_ms;
		a->asks = 0;
	}
	return ++a->asks >= ASKS_MIN;
}

struct draw *
advance_draw(struct advances *as, const struct hold_question *q)
{
	struct advance *a = as->is_draining ? NULL : find(as, q);
	int64_t cost = q->usage.cost_micros;
	uint64_t now_ms = loop_now_ms(as->loop);

	if (a == NULL)
		return NULL;
	a->estimate_micros = cost;
	if (a->id.s[0] != '\0' && !a->is_giving_back && a->free_micros >= cost &&
	    now_ms < a->written_at_ms + STALE_MS) {
		a->free_micros -= cost;
		a->used_micros += cost;
		a->used_at_ms = now_ms;
		return draw_new(a, &q->usage);
	}
	if (is_busy(a) && !a->is_writing && !a->is_giving_back && now_ms >= a->scarce_until_ms) {
		a->used_at_ms = now_ms;
		write_row(a);
	}
	return NULL;
}

/* ---- life ---- */

struct advances *
advances_new(struct loop *loop, const struct conf *conf, struct store *store)
{
	struct advances *as = xcalloc(1, sizeof(*as));

	as->loop = loop;
	as->conf = conf;
	as->store = store;
	list_init(&as->list);
	return as;
}

void
advances_free(struct advances **ref)
{
	struct advances *as = *ref;
	struct advance *a;

	if (as == NULL)
		return;
	*ref = NULL;
	while ((a = list_first(&as->list, struct advance, node)) != NULL)
		advance_free(a);
	free(as);
}

void
advances_give_back(struct advances *as)
{
	list_for (node, &as->list) {
		struct advance *a = list_entry(node, struct advance, node);

		if (a->id.s[0] == '\0')
			continue;
		a->is_giving_back = true;
		loop_timer_set(as->loop, &a->timer, 0);
	}
}

void
advances_drain(struct advances *as)
{
	as->is_draining = true;
	advances_give_back(as);
}

bool
advances_are_idle(const struct advances *as)
{
	list_for (node, &as->list)
		if (list_entry(node, struct advance, node)->id.s[0] != '\0')
			return false;
	return true;
}
