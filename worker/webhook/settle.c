/*
 * settle - results, on their way to the record: many in one write, one write at a time. One that
 * failed may have been committed: the same is written again under the same number. While the
 * record is away they wait here; their leases may end meanwhile, then somebody sends them again.
 */
#include <stdlib.h>

#include "common/err.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/webhook/webhook_impl.h"

static void settle_soon(struct webhooks *w, uint64_t delay_ms);

/* ---- what an endpoint's results come to ---- */

static struct store_webhook_tally *
tally_of(struct store_webhook_tally *tallies, size_t *count, const char *endpoint_id)
{
	for (size_t i = 0; i < *count; i++)
		if (strcmp(tallies[i].endpoint_id, endpoint_id) == 0)
			return &tallies[i];
	tallies[*count] = (struct store_webhook_tally){.endpoint_id = endpoint_id};
	return &tallies[(*count)++];
}

static void
add_up(struct store_webhook_tally *t, const struct message *m)
{
	bool is_delivered = strcmp(m->state, "delivered") == 0;

	t->delivered += is_delivered;
	t->failed += !is_delivered;
	t->dead += strcmp(m->state, "dead") == 0;
	t->is_gone = t->is_gone || m->is_gone;
	t->last_status = m->status;
	t->last_error = m->error;
	if (is_delivered) {
		t->had_success = true;
		t->failures = 0;
	} else {
		t->failures += m->is_fault;
	}
}

static int
by_endpoint(const void *a, const void *b)
{
	const struct store_webhook_tally *x = a, *y = b;

	return strcmp(x->endpoint_id, y->endpoint_id);
}

/* ---- what the record says then ---- */

static void
hear(struct webhooks *w, const struct store_webhook_endpoint *e)
{
	struct target *t = strmap_get(w->targets, str_of(e->id));
	bool is_open = e->probe_at != 0;

	if (t == NULL)
		return;
	if (is_open && !t->told_open)
		log_info("webhook breaker open endpoint=%s failures=%llu status=%d error=%s", e->id,
		    (unsigned long long)e->failures, e->last_status,
		    e->last_error != NULL ? e->last_error : "-");
	if (t->told_open != is_open)
		news_breaker(w, t, is_open, e->failures);
	t->told_open = is_open;
	if (e->disabled_at != 0)
		log_info("webhook endpoint disabled endpoint=%s status=%d", e->id, e->last_status);
	t->is_open = is_open;
	t->is_disabled = e->disabled_at != 0;
	t->faults = e->failures;
	if (is_open || e->disabled_at != 0)
		target_give_back(t);
}

static void
on_settled(
    void *arg, int err, const struct store_webhook_endpoint *list, size_t count, bool has_more)
{
	struct webhooks *w = arg;
	struct message *m;

	(void)has_more;
	w->is_settling = false;
	if (err != 0) {
		log_warn("webhook results not stored reason=%s", err_info(err)->code);
		settle_soon(w, SETTLE_AGAIN_MS);
		return;
	}
	for (size_t i = 0; i < count; i++)
		hear(w, &list[i]);
	while ((m = list_first(&w->settling, struct message, node)) != NULL) {
		list_del(&m->node);
		m->target->quiet_until_ms = 0;
		w->held_bytes -= m->bytes;
		target_go_on(m);
		message_free(m);
		check(w->held > 0);
		w->held--;
		metric_gauge(METRIC_WEBHOOKS_HELD, 0, 0, -1);
	}
	if (w->result_count > 0)
		settle_soon(w, 0);
	webhooks_look_in(w, 0);
}

/* ---- the write ---- */

static void
put_result(struct store_webhook_result *r, const struct message *m)
{
	*r = (struct store_webhook_result){
	    .id = m->id,
	    .claim = m->claim,
	    .state = m->state,
	    .due_in_ms = m->due_in_ms,
	    .was_tried = m->was_tried,
	    .status = m->status,
	    .error = m->error,
	    .response = m->response,
	    .first_ms = m->first_ms,
	    .total_ms = m->total_ms,
	};
}

static void
choose(struct webhooks *w)
{
	w->settle_number++;
	for (size_t i = 0; i < SETTLE_MAX && w->result_count > 0; i++) {
		struct message *m = list_first(&w->results, struct message, node);

		list_del(&m->node);
		list_add_tail(&w->settling, &m->node);
		w->result_count--;
	}
}

static void
settle(struct webhooks *w)
{
	struct store_webhook_result *results = xcalloc(SETTLE_MAX, sizeof(*results));
	struct store_webhook_tally *tallies = xcalloc(SETTLE_MAX, sizeof(*tallies));
	const struct store_webhook_breaker breaker = {
	    (uint64_t)w->conf->breaker.failures, w->conf->breaker.recovery_ms};
	size_t count = 0, tally_count = 0;

	if (list_empty(&w->settling))
		choose(w);
	const struct store_webhook_settler settler = {w->owner, w->settle_number};
	list_for (node, &w->settling) {
		struct message *m = list_entry(node, struct message, node);

		put_result(&results[count++], m);
		if (m->was_tried)
			add_up(tally_of(tallies, &tally_count, m->target->id), m);
	}
	w->is_settling = true;
	qsort(tallies, tally_count, sizeof(*tallies), by_endpoint);
	store_webhook_settle(
	    w->store, &settler, results, count, tallies, tally_count, &breaker, on_settled, w);
	free(results);
	free(tallies);
}

static void
on_timer(struct loop_timer *timer)
{
	struct webhooks *w = container_of(timer, struct webhooks, settle);

	if (!w->is_settling && (w->result_count > 0 || !list_empty(&w->settling)))
		settle(w);
}

static void
settle_soon(struct webhooks *w, uint64_t delay_ms)
{
	w->settle.on_fire = on_timer;
	if (!w->is_settling && !loop_timer_is_set(&w->settle))
		loop_timer_set(w->loop, &w->settle, delay_ms);
}

void
settle_message(struct message *m)
{
	struct webhooks *w = m->target->webhooks;

	list_add_tail(&w->results, &m->node);
	w->result_count++;
	settle_soon(w, SETTLE_GAP_MS);
}

void
settle_stop(struct webhooks *w)
{
	struct message *m;

	loop_timer_stop(w->loop, &w->settle);
	while ((m = list_first(&w->results, struct message, node)) != NULL) {
		list_del(&m->node);
		message_free(m);
	}
	while ((m = list_first(&w->settling, struct message, node)) != NULL) {
		list_del(&m->node);
		message_free(m);
	}
}
