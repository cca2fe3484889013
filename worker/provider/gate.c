/* gate - see gate.h. */
#include "worker/provider/gate.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/limiter.h"
#include "common/metric.h"

enum { MINUTE_MS = 60000 };

struct gate {
	struct loop *loop;
	const struct conf_provider_http_client *conf;
	struct client_pool *pool;
	struct places *places;
	struct shm *shm;
	struct shm_who me;
	unsigned label;
	struct limits *limits; /* NULL: of this host alone */
	struct limiter_key minute_key;
	uint64_t minute_again_ms; /* all hosts' minute is spent until then */
	uint32_t hint, waiting_count, inside_count;
	struct list waiting, asking, full;
	struct loop_timer timer;
	struct loop_post post;
	bool is_shown; /* that somebody waits, to the other workers */
};

/* ---- one ticket ---- */

static void
ticket_out(struct gate *g, struct gate_ticket *t)
{
	list_del(&t->node);
	if (t->at == GATE_WAITING || t->at == GATE_ASKING) {
		g->waiting_count--;
		metric_gauge(METRIC_PROVIDER_WAITING, g->label, 0, -1);
	}
	t->at = GATE_OUTSIDE;
}

static void
note_wait(const struct gate *g, const struct gate_ticket *t)
{
	metric_observe_us(METRIC_PROVIDER_QUEUE_WAIT_SECONDS, g->label,
	    (loop_now_ms(g->loop) - t->since_ms) * 1000);
}

static void
ticket_refuse(
    struct gate *g, struct gate_ticket *t, enum gate_refusal refusal, uint32_t retry_after_ms)
{
	static const unsigned reasons[] = {[GATE_TIMEOUT] = PROVIDER_REJECT_POOL_TIMEOUT,
	    [GATE_QUEUE_FULL] = PROVIDER_REJECT_QUEUE_FULL,
	    [GATE_MINUTE_SPENT] = PROVIDER_REJECT_MINUTE};

	ticket_out(g, t);
	note_wait(g, t);
	metric_add(METRIC_PROVIDER_REJECTED, g->label, reasons[refusal], 1);
	if (refusal == GATE_MINUTE_SPENT)
		metric_add(METRIC_RATE_LIMITED, LIMITED_PROVIDER, 0, 1);
	t->on_refused(t, refusal, retry_after_ms);
}

static void
ticket_open(struct gate *g, struct gate_ticket *t, int place)
{
	ticket_out(g, t);
	note_wait(g, t);
	t->at = GATE_INSIDE;
	t->place = place;
	g->inside_count++;
	metric_gauge(METRIC_PROVIDER_CALLS, g->label, 0, 1);
	t->on_open(t);
}

/* ---- the first one that waits ---- */

static void on_minute(struct limit_ask *);

enum minute { MINUTE_TAKEN, MINUTE_ASKED, MINUTE_SPENT };

/* A share of the minute, or when there will be one, or the answer comes later. */
static enum minute
take_minute(struct gate *g, struct gate_ticket *t, uint64_t now_ms, uint32_t *ret_retry_after_ms)
{
	struct limiter_rule rule = {(uint32_t)g->conf->requests_per_minute, MINUTE_MS};
	struct limit_ask *ask = &t->minute;

	if (g->shm == NULL || rule.limit == 0)
		return MINUTE_TAKEN;
	if (now_ms < g->minute_again_ms) {
		*ret_retry_after_ms = (uint32_t)(g->minute_again_ms - now_ms);
		return MINUTE_SPENT;
	}
	*ask = (struct limit_ask){.count = 1, .on_decided = on_minute};
	ask->windows[0] = (struct limit_window){g->minute_key, rule, 1};
	if (g->limits == NULL)
		ask->verdicts[0] = limiter_take(g->shm, g->minute_key, rule, 1, now_ms);
	else if (!limits_take(g->limits, ask))
		return MINUTE_ASKED;
	*ret_retry_after_ms = ask->verdicts[0].retry_after_ms;
	return ask->verdicts[0].is_allowed ? MINUTE_TAKEN : MINUTE_SPENT;
}

static bool
is_late(const struct gate *g, const struct gate_ticket *t, uint64_t now_ms, uint64_t wait_ms)
{
	return now_ms + wait_ms >= t->since_ms + (uint64_t)g->conf->pool_timeout_ms;
}

/* A place for this one, or -1. */
static int
take_place(struct gate *g, const struct gate_ticket *t, uint64_t now_ms)
{
	if (client_pool_in_use(g->pool) >= (uint64_t)g->conf->max_connections ||
	    places_has_older(g->places, g->shm, g->me, t->since_ms, now_ms))
		return -1;
	return places_take(
	    g->places, (uint32_t)g->conf->concurrent_requests, g->shm, g->me, &g->hint);
}

/* False: it goes on waiting. */
static bool
refuse_if_late(struct gate *g, struct gate_ticket *t, uint64_t now_ms, uint32_t retry_after_ms)
{
	if (!is_late(g, t, now_ms, retry_after_ms))
		return false;
	ticket_refuse(g, t, retry_after_ms > 0 ? GATE_MINUTE_SPENT : GATE_TIMEOUT, retry_after_ms);
	return true;
}

/* False: it goes on waiting. */
static bool
serve(struct gate *g, struct gate_ticket *t, uint64_t now_ms)
{
	uint32_t retry_after_ms = 0;
	int place = take_place(g, t, now_ms);
	enum minute minute = MINUTE_SPENT;

	if (place >= 0)
		minute = take_minute(g, t, now_ms, &retry_after_ms);
	if (minute == MINUTE_TAKEN) {
		ticket_open(g, t, place);
		return true;
	}
	if (minute == MINUTE_ASKED) {
		list_del(&t->node);
		list_add_tail(&g->asking, &t->node);
		t->at = GATE_ASKING;
		t->place = place;
		return true;
	}
	if (place >= 0)
		places_give(g->places, place, g->me);
	return refuse_if_late(g, t, now_ms, retry_after_ms);
}

/* Back to where it was among those that wait. */
static void
wait_again(struct gate *g, struct gate_ticket *t)
{
	struct list *before = g->waiting.next;

	list_del(&t->node);
	while (before != &g->waiting &&
	       list_entry(before, struct gate_ticket, node)->since_ms <= t->since_ms)
		before = before->next;
	list_add_tail(before, &t->node);
	t->at = GATE_WAITING;
}

/* All hosts' minute has answered; from the loop. */
static void
on_minute(struct limit_ask *ask)
{
	struct gate_ticket *t = container_of(ask, struct gate_ticket, minute);
	const struct limiter_verdict *v = &ask->verdicts[0];
	struct gate *g = t->gate;
	uint64_t now_ms = loop_now_ms(g->loop);

	check(t->at == GATE_ASKING);
	loop_post(g->loop, &g->post);
	if (v->is_allowed) {
		ticket_open(g, t, t->place);
		return;
	}
	places_give(g->places, t->place, g->me);
	g->minute_again_ms = now_ms + v->retry_after_ms;
	wait_again(g, t);
	refuse_if_late(g, t, now_ms, v->retry_after_ms);
}

/* ---- time ---- */

static void
show_waiting(struct gate *g, const struct gate_ticket *first, uint64_t now_ms)
{
	/* One that waits for a connection of its own worker stands in nobody's way. */
	bool is_waiting =
	    first != NULL && client_pool_in_use(g->pool) < (uint64_t)g->conf->max_connections;

	if (is_waiting || g->is_shown)
		places_wait(g->places, g->me, is_waiting ? first->since_ms : 0, now_ms);
	g->is_shown = is_waiting;
}

static void
run(struct gate *g)
{
	uint64_t now_ms = loop_now_ms(g->loop);
	struct gate_ticket *t;

	while ((t = list_first(&g->full, struct gate_ticket, node)) != NULL)
		ticket_refuse(g, t, GATE_QUEUE_FULL, 0);
	while (
	    (t = list_first(&g->waiting, struct gate_ticket, node)) != NULL && serve(g, t, now_ms))
		;
	t = list_first(&g->waiting, struct gate_ticket, node);
	show_waiting(g, t, now_ms);
	if (t != NULL)
		loop_timer_set(g->loop, &g->timer, GATE_LOOK_MS);
	else
		loop_timer_stop(g->loop, &g->timer);
}

static void
on_timer(struct loop_timer *timer)
{
	run(container_of(timer, struct gate, timer));
}

static void
on_post(struct loop_post *post)
{
	run(container_of(post, struct gate, post));
}

/* ---- verbs ---- */

void
gate_enter(struct gate *g, struct gate_ticket *t)
{
	check(t->at == GATE_OUTSIDE);
	t->gate = g;
	t->since_ms = loop_now_ms(g->loop);
	if (g->conf->max_queue > 0 && g->waiting_count >= (uint64_t)g->conf->max_queue) {
		t->at = GATE_FULL;
		list_add_tail(&g->full, &t->node);
	} else {
		t->at = GATE_WAITING;
		list_add_tail(&g->waiting, &t->node);
		g->waiting_count++;
		metric_gauge(METRIC_PROVIDER_WAITING, g->label, 0, 1);
	}
	loop_post(g->loop, &g->post);
}

void
gate_leave(struct gate *g, struct gate_ticket *t)
{
	if (t->at == GATE_OUTSIDE)
		return;
	if (t->at == GATE_INSIDE) {
		places_give(g->places, t->place, g->me);
		g->inside_count--;
		metric_gauge(METRIC_PROVIDER_CALLS, g->label, 0, -1);
		t->at = GATE_OUTSIDE;
	} else {
		if (t->at == GATE_ASKING) {
			limits_cancel(&t->minute);
			places_give(g->places, t->place, g->me);
		}
		ticket_out(g, t);
	}
	loop_post(g->loop, &g->post);
}

uint32_t
gate_waiting(const struct gate *g)
{
	return g->waiting_count;
}

/* ---- life ---- */

struct gate *
gate_new(struct loop *loop, const struct conf_provider *conf, struct client_pool *pool,
    struct places *places, struct shm *shm, struct shm_who me, unsigned label)
{
	struct gate *g = xcalloc(1, sizeof(*g));

	check(conf->http_client.concurrent_requests <= PLACES_MAX);
	g->loop = loop;
	g->conf = &conf->http_client;
	g->pool = pool;
	g->places = places;
	g->shm = shm;
	g->me = me;
	g->label = label;
	g->minute_key = limiter_key_of("rpm", str_of(conf->name));
	g->timer.on_fire = on_timer;
	g->post.run = on_post;
	list_init(&g->waiting);
	list_init(&g->asking);
	list_init(&g->full);
	return g;
}

void
gate_use_limits(struct gate *g, struct limits *limits)
{
	g->limits = limits;
}

void
gate_free(struct gate **gp)
{
	struct gate *g = *gp;

	if (g == NULL)
		return;
	*gp = NULL;
	check(list_empty(&g->waiting) && list_empty(&g->asking) && list_empty(&g->full) &&
	      g->inside_count == 0);
	loop_timer_stop(g->loop, &g->timer);
	loop_post_cancel(g->loop, &g->post);
	if (g->is_shown)
		places_wait(g->places, g->me, 0, loop_now_ms(g->loop));
	free(g);
}
