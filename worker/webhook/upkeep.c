/*
 * upkeep - what one worker of all does for the outbox: it counts, lets die what is too old or whose
 * endpoint wants no more, and removes what nobody will look at any more.
 */
#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/webhook/webhook_impl.h"

enum { INTERVAL_MS = 5000, ROWS = 1000, ENDPOINT_KEPT_MS = 30 * 86400 * 1000LL };

static void
rest(struct webhooks *w)
{
	uint64_t delay_ms = INTERVAL_MS;

	w->is_keeping = false;
	if (w->is_draining)
		return;
	if (w->conf->sweep_interval_ms < delay_ms)
		delay_ms = w->conf->sweep_interval_ms;
	loop_timer_set(w->loop, &w->upkeep, delay_ms);
}

static void sweep(struct webhooks *w);

static void
on_swept(void *arg, int err, uint64_t count)
{
	struct webhooks *w = arg;

	if (err == E_STORE_UNAVAILABLE) /* which says so itself; the next round is soon enough */
		log_debug("webhooks not swept yet");
	else if (err != 0)
		log_warn("webhooks not swept reason=%s", err_info(err)->code);
	if (err == 0 && count >= ROWS && !w->is_draining)
		sweep(w);
	else
		rest(w);
}

static void
sweep(struct webhooks *w)
{
	int64_t now = clock_wall_ms();
	struct store_webhook_sweep s = {
	    .delivered_before = now - (int64_t)w->conf->retention_ms,
	    .dead_before = now - (int64_t)w->conf->dead_retention_ms,
	    .pending_before = now - (int64_t)w->conf->max_age_ms,
	    .endpoints_before = now - ENDPOINT_KEPT_MS,
	    .limit = ROWS,
	};

	store_webhook_sweep(w->store, &s, on_swept, w);
}

static void
show(uint64_t pending, uint64_t dead, uint64_t open)
{
	metric_gauge_set(METRIC_WEBHOOKS_PENDING, 0, 0, (int64_t)pending);
	metric_gauge_set(METRIC_WEBHOOKS_DEAD, 0, 0, (int64_t)dead);
	metric_gauge_set(METRIC_WEBHOOK_BREAKERS_OPEN, 0, 0, (int64_t)open);
}

static void
on_counted(void *arg, int err, const struct store_webhook_counts *counts)
{
	struct webhooks *w = arg;
	uint64_t now_ms = loop_now_ms(w->loop);

	if (err == 0)
		show(counts->pending, counts->dead, counts->open);
	if (w->is_draining || now_ms - w->swept_ms < w->conf->sweep_interval_ms) {
		rest(w);
		return;
	}
	w->swept_ms = now_ms;
	sweep(w);
}

static void
on_timer(struct loop_timer *timer)
{
	struct webhooks *w = container_of(timer, struct webhooks, upkeep);

	if (!store_is_elected(w->store)) {
		show(0, 0, 0);
		rest(w);
		return;
	}
	w->is_keeping = true;
	store_webhook_count(w->store, on_counted, w);
}

void
upkeep_start(struct webhooks *w)
{
	w->upkeep.on_fire = on_timer;
	loop_timer_set(w->loop, &w->upkeep, INTERVAL_MS / 5);
}

void
upkeep_stop(struct webhooks *w)
{
	loop_timer_stop(w->loop, &w->upkeep);
	show(0, 0, 0);
}
