/* holds - see holds.h. */
#include "worker/usage/holds.h"

#include <stdlib.h>

#include "common/arena.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/idmap.h"
#include "common/list.h"
#include "common/log.h"
#include "common/metric.h"
#include "common/money.h"
#include "worker/usage/advance.h"

enum { RENEW_BATCH = 500, LOSE_LOOK_MS_MAX = 5000 };
/* Advances of others are given back within ADVANCE_IDLE_MS; some of those meant here are of the
 * dead. */
enum { AGAIN_MS = 50, AGAIN_MAX = 30 };

enum hold_state { HOLD_ASKED, HOLD_REFUSED, HOLD_HELD };

struct hold {
	struct list node;
	struct holds *holds;
	uint64_t handle;
	enum hold_state state;
	bool is_released; /* before the record had answered */
	struct budget_rule key, app;
	int early;             /* the answer that needs no asking */
	struct draw *draw;     /* NULL: the record's */
	struct loop_post post; /* of an early answer */
	struct store_budget_hold
	    ask; /* with texts of its own; asked again while advances come back */
	struct arena texts;
	struct loop_timer again;
	unsigned again_count;
	hold_on_answer *on_answer;
	void *arg;
};

struct holds {
	struct loop *loop;
	const struct conf *conf;
	struct store *store;
	struct list all;
	struct advances *advances;
	struct idmap *handles;
	struct loop_timer renew, lose;
	uint64_t lose_from_ms; /* not before */
	bool is_losing;
};

static int64_t
lapses_at(const struct holds *hs)
{
	return clock_wall_ms() + (int64_t)hs->conf->budgets.lease_ms;
}

static void
hold_free(struct hold *h)
{
	struct holds *hs = h->holds;

	idmap_remove(hs->handles, h->handle);
	loop_post_cancel(hs->loop, &h->post);
	loop_timer_stop(hs->loop, &h->again);
	list_del(&h->node);
	arena_fini(&h->texts);
	free(h);
	if (list_empty(&hs->all))
		loop_timer_stop(hs->loop, &hs->renew);
}

/* ---- giving back ---- */

/* When it fails the lease runs out, and the estimate is spent. */
static void
release(struct hold *h)
{
	if (h->draw != NULL)
		draw_return(h->draw);
	else
		budget_row_release(h->holds->store, h->ask.usage.id);
	hold_free(h);
}

/* The record is being asked, and answers for sure. */
static bool
is_being_asked(const struct hold *h)
{
	return h->state == HOLD_ASKED && !loop_timer_is_set(&h->again);
}

void
hold_release(struct holds *hs, uint64_t handle)
{
	struct hold *h = idmap_get(hs->handles, handle);

	if (h == NULL)
		return;
	if (h->state == HOLD_HELD || h->draw != NULL)
		release(h);
	else if (is_being_asked(h))
		h->is_released = true;
	else
		hold_free(h);
}

void
hold_forget(struct holds *hs, uint64_t handle)
{
	struct hold *h = idmap_get(hs->handles, handle);

	if (h == NULL)
		return;
	if (h->draw != NULL)
		draw_end(h->draw);
	hold_free(h);
}

bool
hold_settle(struct holds *hs, uint64_t handle)
{
	struct hold *h = idmap_get(hs->handles, handle);

	if (h == NULL)
		return false;
	if (h->draw != NULL)
		draw_settle(h->draw);
	return h->draw == NULL;
}

/* ---- asking ---- */

static void
format_message(const struct hold_refusal *r, struct buf *out)
{
	char amount[MONEY_TEXT_MAX], spent[MONEY_TEXT_MAX], held[MONEY_TEXT_MAX],
	    asked[MONEY_TEXT_MAX], time[CLOCK_RFC3339_LEN + 1];

	buf_printf(out,
	    "The %s's budget of %s %s%s is used up: %s is spent, %s is reserved for calls in "
	    "progress, and this call may cost %s.",
	    r->is_app ? "app" : "key", money_format(r->rule.amount_micros, amount),
	    r->rule.period == BUDGET_TOTAL ? "in " : "a ", budget_period_name(r->rule.period),
	    money_format(r->spent_micros, spent), money_format(r->held_micros, held),
	    money_format(r->asked_micros, asked));
	if (r->ends_at == 0)
		return;
	clock_format(r->ends_at, time);
	buf_printf(out, " It begins anew at %s.", time);
}

static void
tell_refusal(
    const struct hold *h, const struct store_budget_state *state, hold_on_answer *tell, void *arg)
{
	struct hold_refusal r = {
	    .is_app = state->is_app,
	    .rule = state->is_app ? h->app : h->key,
	    .spent_micros = state->spent_micros,
	    .held_micros = state->held_micros,
	    .asked_micros = h->ask.usage.cost_micros,
	};
	struct buf message = BUF_INIT;

	r.ends_at = budget_end_ms(r.rule.period, h->ask.usage.created_at);
	format_message(&r, &message);
	r.message = message.data;
	tell(arg, E_BUDGET_EXCEEDED, &r);
	buf_fini(&message);
}

/* Would it fit if no advance were held? */
static bool
is_worth_waiting(const struct hold *h, const struct store_budget_state *state)
{
	int64_t limit = state->is_app ? h->app.amount_micros : h->key.amount_micros;

	return h->again_count < AGAIN_MAX && state->advanced_micros > 0 &&
	       state->spent_micros + state->held_micros - state->advanced_micros <=
		   limit - h->ask.usage.cost_micros;
}

static void
wait_for_advances(struct hold *h)
{
	h->again_count++;
	advances_give_back(h->holds->advances);
	loop_timer_set(h->holds->loop, &h->again, AGAIN_MS);
}

static void
on_held(void *arg, int err, const struct store_budget_state *state)
{
	struct hold *h = arg;
	hold_on_answer *tell = h->is_released ? NULL : h->on_answer;

	if (err == 0 && tell != NULL) {
		h->state = HOLD_HELD;
		tell(h->arg, 0, NULL);
		return;
	}
	if (err == E_BUDGET_EXCEEDED && tell != NULL && is_worth_waiting(h, state)) {
		wait_for_advances(h);
		return;
	}
	h->state = HOLD_REFUSED;
	if (tell != NULL && err == E_BUDGET_EXCEEDED)
		tell_refusal(h, state, tell, h->arg);
	else if (tell != NULL)
		tell(h->arg, E_STORE_UNAVAILABLE, NULL);
	/* Without an answer it may be held all the same. */
	if (err == E_BUDGET_EXCEEDED)
		hold_free(h);
	else
		release(h);
}

static void
ask_again(struct loop_timer *timer)
{
	struct hold *h = container_of(timer, struct hold, again);

	store_budget_hold(h->holds->store, &h->ask, on_held, h);
}

static void
answer_early(struct loop_post *post)
{
	struct hold *h = container_of(post, struct hold, post);
	hold_on_answer *tell = h->on_answer;
	void *arg = h->arg;
	int err = h->early;

	if (err == 0)
		h->state = HOLD_HELD;
	else
		hold_free(h);
	tell(arg, err, NULL);
}

bool
hold_is_needed(const struct hold_question *q)
{
	return q->key.amount_micros > 0 || q->app.amount_micros > 0;
}

static const char *
keep(struct hold *h, const char *text)
{
	return text != NULL ? arena_strdup(&h->texts, str_of(text)) : NULL;
}

static void
ask_store(struct hold *h, const struct hold_question *q)
{
	int64_t now = q->usage.created_at;

	h->ask = (struct store_budget_hold){
	    .usage = q->usage,
	    .key_limit_micros = q->key.amount_micros,
	    .app_limit_micros = q->app.amount_micros,
	    .key_day = budget_first_day(q->key.period, now),
	    .app_day = budget_first_day(q->app.period, now),
	    .lapses_at = lapses_at(h->holds),
	};
	h->ask.usage.id = keep(h, q->usage.id);
	h->ask.usage.app_id = keep(h, q->usage.app_id);
	h->ask.usage.org_id = keep(h, q->usage.org_id);
	h->ask.usage.key_id = keep(h, q->usage.key_id);
	h->ask.usage.session_id = keep(h, q->usage.session_id);
	h->ask.usage.turn_id = keep(h, q->usage.turn_id);
	h->ask.usage.model = keep(h, q->usage.model);
	store_budget_hold(h->holds->store, &h->ask, on_held, h);
}

static void
answer_soon(struct hold *h, int err)
{
	h->early = err;
	loop_post(h->holds->loop, &h->post);
}

static struct hold *
hold_new(struct holds *hs, const struct hold_question *q, hold_on_answer *on_answer, void *arg)
{
	struct hold *h = xcalloc(1, sizeof(*h));

	h->holds = hs;
	h->key = q->key;
	h->app = q->app;
	h->on_answer = on_answer;
	h->arg = arg;
	h->handle = idmap_add(hs->handles, h);
	h->post.run = answer_early;
	h->again.on_fire = ask_again;
	if (list_empty(&hs->all))
		loop_timer_set(hs->loop, &hs->renew, hs->conf->budgets.lease_ms / 3);
	list_add_tail(&hs->all, &h->node);
	return h;
}

uint64_t
hold_ask(struct holds *hs, const struct hold_question *q, hold_on_answer *on_answer, void *arg)
{
	struct hold *h;

	check(q->usage.id != NULL && q->usage.app_id != NULL);
	h = hold_new(hs, q, on_answer, arg);
	if (q->usage.cost_micros < 0) {
		h->state = HOLD_REFUSED;
		answer_soon(h, E_FORBIDDEN);
	} else if ((h->draw = advance_draw(hs->advances, q)) != NULL)
		answer_soon(h, 0);
	else
		ask_store(h, q);
	return h->handle;
}

/* ---- leases ---- */

static void
on_renewed(void *arg, int err)
{
	(void)arg;
	if (err != 0)
		log_warn("budget leases not renewed reason=%s", err_info(err)->code);
}

/* NULL: it has no row. */
static const char *
id_in_record(const struct hold *h)
{
	if (h->state != HOLD_HELD)
		return NULL;
	return h->draw != NULL ? draw_id(h->draw) : h->ask.usage.id;
}

static void
on_renew(struct loop_timer *timer)
{
	struct holds *hs = container_of(timer, struct holds, renew);
	const char *ids[RENEW_BATCH];
	size_t n = 0;

	list_for (node, &hs->all) {
		const char *id = id_in_record(list_entry(node, struct hold, node));

		if (id != NULL)
			ids[n++] = id;
		if (n < RENEW_BATCH)
			continue;
		store_budget_renew(hs->store, ids, n, lapses_at(hs), on_renewed, NULL);
		n = 0;
	}
	if (n > 0)
		store_budget_renew(hs->store, ids, n, lapses_at(hs), on_renewed, NULL);
	loop_timer_set(hs->loop, &hs->renew, hs->conf->budgets.lease_ms / 3);
}

/* ---- leases that have run out ---- */

static void
wait_a_lease(struct holds *hs)
{
	hs->lose_from_ms = loop_now_ms(hs->loop) + hs->conf->budgets.lease_ms;
}

static void
on_lost(void *arg, int err, uint64_t count)
{
	struct holds *hs = arg;

	hs->is_losing = false;
	if (err != 0)
		wait_a_lease(hs);
	else if (count > 0) {
		metric_add(METRIC_BUDGET_LOST, 0, 0, count);
		log_info(
		    "budget holds of dead workers spent count=%llu", (unsigned long long)count);
	}
}

static void
on_lose(struct loop_timer *timer)
{
	struct holds *hs = container_of(timer, struct holds, lose);
	uint64_t look_ms = hs->conf->budgets.lease_ms / 2;

	if (!store_is_elected(hs->store) || !store_is_available(hs->store))
		wait_a_lease(hs);
	else if (!hs->is_losing && loop_now_ms(hs->loop) >= hs->lose_from_ms) {
		hs->is_losing = true;
		store_budget_lose(hs->store, clock_wall_ms(), on_lost, hs);
	}
	loop_timer_set(hs->loop, timer, look_ms < LOSE_LOOK_MS_MAX ? look_ms : LOSE_LOOK_MS_MAX);
}

/* ---- life ---- */

struct holds *
holds_new(struct loop *loop, const struct conf *conf, struct store *store)
{
	struct holds *hs = xcalloc(1, sizeof(*hs));

	hs->loop = loop;
	hs->conf = conf;
	hs->store = store;
	hs->handles = idmap_new();
	hs->advances = advances_new(loop, conf, store);
	list_init(&hs->all);
	hs->renew.on_fire = on_renew;
	hs->lose.on_fire = on_lose;
	wait_a_lease(hs);
	loop_timer_set(loop, &hs->lose, conf->budgets.lease_ms / 2);
	return hs;
}

void
holds_drain(struct holds *hs)
{
	advances_drain(hs->advances);
}

bool
holds_are_drained(const struct holds *hs)
{
	return advances_are_idle(hs->advances);
}

void
holds_free(struct holds **ref)
{
	struct holds *hs = *ref;
	struct hold *h;

	if (hs == NULL)
		return;
	*ref = NULL;
	while ((h = list_first(&hs->all, struct hold, node)) != NULL)
		hold_free(h);
	loop_timer_stop(hs->loop, &hs->renew);
	loop_timer_stop(hs->loop, &hs->lose);
	advances_free(&hs->advances);
	idmap_free(&hs->handles);
	free(hs);
}
