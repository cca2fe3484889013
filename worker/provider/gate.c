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
	struct limiter_key minute_key;
	uint32_t hint, waiting_count, inside_count;
	struct list waiting, full;
	struct loop_timer timer;
	struct loop_post post;
	bool is_shown; /* that somebody waits, to the other workers */
};

/* ---- one ticket ---- */

static void
ticket_out(struct gate *g, struct gate_ticket *t)
{
	list_del(&t->node);
	if (t->at == GATE_WAITING) {
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

/* A share of the minute, or when there will be one. */
static bool
take_minute(struct gate *g, uint64_t now_ms, uint32_t *ret_retry_after_ms)
{
	struct limiter_rule rule = {(uint32_t)g->conf->requests_per_minute, MINUTE_MS};

	if (g->shm == NULL || rule.limit == 0)
		return true;
	struct limiter_verdict v = limiter_take(g->shm, g->minute_key, rule, 1, now_ms);
	*ret_retry_after_ms = v.retry_after_ms;
	return v.is_allowed;
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
serve(struct gate *g, struct gate_ticket *t, uint64_t now_ms)
{
	uint32_t retry_after_ms = 0;
	int place = take_place(g, t, now_ms);

	if (place >= 0 && take_minute(g, now_ms, &retry_after_ms)) {
		ticket_open(g, t, place);
		return true;
	}
	if (place >= 0)
		places_give(g->places, place, g->me);
	if (!is_late(g, t, now_ms, retry_after_ms))
		return false;
	ticket_refuse(g, t, retry_after_ms > 0 ? GATE_MINUTE_SPENT : GATE_TIMEOUT, retry_after_ms);
	return true;
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
	list_init(&g->full);
	return g;
}

void
gate_free(struct gate **gp)
{
	struct gate *g = *gp;

	if (g == NULL)
		return;
	*gp = NULL;
	check(list_empty(&g->waiting) && list_empty(&g->full) && g->inside_count == 0);
	loop_timer_stop(g->loop, &g->timer);
	loop_post_cancel(g->loop, &g->post);
	if (g->is_shown)
		places_wait(g->places, g->me, 0, loop_now_ms(g->loop));
	free(g);
}
