/*
 * target - an endpoint as this worker knows it: the webhooks that it has claimed for it, and its
 * share of the connections to its host.
 *
 * Endpoints of one host share its connections: each has an equal part, so a slow one leaves the
 * others theirs.
 */
#include <stdlib.h>
#include <string.h>

#include "common/crypto.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/webhook/webhook_impl.h"

/* ---- hosts ---- */

static struct host *
host_get(struct webhooks *w, const char *name)
{
	struct host *h = strmap_get(w->hosts, str_of(name));
	uint64_t share = ((uint64_t)w->conf->connections + w->workers - 1) / w->workers;

	if (h != NULL)
		return h;
	h = xcalloc(1, sizeof(*h));
	h->name = xstrdup(name);
	h->connections = (uint32_t)share;
	h->pool =
	    client_pool_new(w->client, &(struct client_pool_conf){
					   .name = "webhooks",
					   .connections_max = (uint32_t)share,
					   .keepalive_max = (uint32_t)share,
					   .keepalive_ms = (uint32_t)w->conf->keepalive_expiry_ms,
					   .life_ms = (uint32_t)w->conf->connection_life_ms,
					   .connect_timeout_ms = (uint32_t)w->conf->timeout_ms,
					   .write_timeout_ms = (uint32_t)w->conf->timeout_ms,
					   .pool_timeout_ms = (uint32_t)w->conf->timeout_ms,
				       });
	strmap_set(w->hosts, str_of(h->name), h);
	return h;
}

void
host_free(struct host *h)
{
	client_pool_free(&h->pool);
	free(h->name);
	free(h);
}

static void
host_put(struct webhooks *w, struct host *h)
{
	if (h == NULL || --h->targets > 0)
		return;
	strmap_del(w->hosts, str_of(h->name));
	host_free(h);
}

/* ---- life ---- */

/* A secret or URL that has changed makes another of it. */
static uint64_t
shape_of(const struct store_webhook_endpoint *e)
{
	const char *texts[] = {e->url, e->secrets, e->headers};
	struct buf all = BUF_INIT;
	uint8_t hash[SHA256_LEN];
	uint64_t shape;

	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		buf_add_cstr(&all, texts[i] != NULL ? texts[i] : "");
		buf_add_char(&all, '\0');
	}
	crypto_sha256(buf_str(&all), hash);
	buf_fini(&all);
	memcpy(&shape, hash, sizeof(shape));
	return shape;
}

static void
target_shape(struct target *t, const struct store_webhook_endpoint *e, uint64_t shape)
{
	struct host *old = t->host;

	endpoint_fini(&t->endpoint);
	t->shape = shape;
	free(t->shown_url);
	t->shown_url = xstrdup(e->url);
	free(t->app_id);
	t->app_id = e->app_id != NULL ? xstrdup(e->app_id) : NULL;
	t->is_usable = endpoint_init(&t->endpoint, t->webhooks->conf, e);
	t->host = t->is_usable ? host_get(t->webhooks, t->endpoint.host) : NULL;
	if (t->host != NULL)
		t->host->targets++;
	host_put(t->webhooks, old);
	if (!t->is_usable)
		log_warn("webhook endpoint not usable endpoint=%s reason=\"not in the "
			 "configuration, or sealed with another key\"",
		    t->id);
	if (!t->is_usable)
		target_give_back(t); /* others may have the key */
}

struct target *
target_of(struct webhooks *w, const struct store_webhook_endpoint *e)
{
	struct target *t = strmap_get(w->targets, str_of(e->id));
	uint64_t shape = shape_of(e);

	if (t != NULL) {
		if (t->shape != shape && t->in_flight == 0)
			target_shape(t, e, shape);
		return t;
	}
	t = xcalloc(1, sizeof(*t));
	t->webhooks = w;
	t->id = xstrdup(e->id);
	list_init(&t->waiting);
	strmap_set(w->targets, str_of(t->id), t);
	target_shape(t, e, shape);
	return t;
}

void
target_free(struct target *t)
{
	struct message *m;

	check(t->in_flight == 0);
	while ((m = list_first(&t->waiting, struct message, node)) != NULL) {
		list_del(&m->node);
		message_free(m);
	}
	host_put(t->webhooks, t->host);
	endpoint_fini(&t->endpoint);
	free(t->shown_url);
	free(t->app_id);
	free(t->id);
	free(t);
}

/* Messages point at their targets: also those on their way to the record. */
static bool
is_pointed_at(const struct webhooks *w, const struct target *t)
{
	const struct list *lists[] = {&w->results, &w->settling};

	for (size_t i = 0; i < ARRAY_LEN(lists); i++)
		list_for (node, lists[i])
			if (list_entry(node, struct message, node)->target == t)
				return true;
	return t->in_flight > 0 || t->waiting_count > 0;
}

void
targets_forget_idle(struct webhooks *w)
{
	uint64_t now_ms = loop_now_ms(w->loop);
	struct target *idle;
	struct str key;
	void *value;

	do {
		idle = NULL;
		for (size_t cursor = 0;
		     idle == NULL && strmap_next(w->targets, &cursor, &key, &value);) {
			struct target *t = value;

			if (now_ms - t->seen_ms > TARGET_IDLE_MS && !is_pointed_at(w, t))
				idle = t;
		}
		if (idle != NULL) {
			strmap_del(w->targets, str_of(idle->id));
			target_free(idle);
		}
	} while (idle != NULL);
}

/* ---- what waits ---- */

static uint32_t
share_of(const struct target *t)
{
	uint32_t share = t->host->connections / t->host->targets;

	return share > 0 ? share : 1;
}

/* Requests at once times webhooks in each. */
static size_t
at_once(const struct target *t)
{
	return (size_t)share_of(t) * t->endpoint.batch;
}

uint32_t
target_room(const struct target *t)
{
	size_t most = (size_t)t->webhooks->conf->batch;
	size_t has = t->waiting_count + t->behind_count + (size_t)t->in_flight * t->endpoint.batch;

	if (t->mean_ms > SLOW_MS && most > at_once(t))
		most = at_once(t);
	if (t->mean_bytes == 0 && most > FIRST_MAX)
		most = FIRST_MAX;
	if (t->mean_bytes > CLAIM_BYTES / most)
		most = CLAIM_BYTES / t->mean_bytes + 1;
	/* Half a batch at least, so that claims are few. */
	return has + (most + 1) / 2 <= most ? (uint32_t)(most - has) : 0;
}

size_t
target_weight(const struct target *t, uint32_t count)
{
	return count * (t->mean_bytes > 0 ? t->mean_bytes : (size_t)FIRST_BYTES);
}

/* Not so many that connections would be idle; of one that fails the others wait in the record. */
uint32_t
target_in_a_row(const struct target *t, uint32_t room)
{
	size_t n = room / at_once(t);

	if (t->faults > 0 || n == 0)
		return 1;
	return n < IN_A_ROW_MAX ? (uint32_t)n : IN_A_ROW_MAX;
}

struct message *
target_take(
    struct target *t, const struct store_webhook *row, uint64_t lease_ms, struct message *first)
{
	struct message *m = xcalloc(1, sizeof(*m));

	m->target = t;
	list_init(&m->behind);
	m->id = xstrdup(row->id);
	m->event = xstrdup(row->event);
	m->body = xstrdup(row->body);
	m->app_id = row->app_id != NULL ? xstrdup(row->app_id) : NULL;
	m->claim = row->claim;
	m->attempts = row->attempts;
	m->created_at = row->created_at;
	m->start_by_ms = loop_now_ms(t->webhooks->loop) + lease_ms - t->webhooks->conf->timeout_ms -
			 LEASE_GRACE_MS / 2;
	list_add_tail(first != NULL ? &first->behind : &t->waiting, &m->node);
	t->behind_count += first != NULL;
	t->waiting_count += first == NULL;
	t->webhooks->held++;
	m->bytes = strlen(m->body);
	t->webhooks->held_bytes += m->bytes;
	if (t->mean_bytes == 0) /* how many more it may be is known now */
		t->webhooks->must_look_again = true;
	t->mean_bytes = t->mean_bytes == 0 ? m->bytes : (t->mean_bytes * 7 + m->bytes) / 8;
	metric_gauge(METRIC_WEBHOOKS_HELD, 0, 0, 1);
	return m;
}

static struct message *
take_first(struct target *t)
{
	struct message *m = list_first(&t->waiting, struct message, node);

	list_del(&m->node);
	t->waiting_count--;
	return m;
}

/* No attempt: somebody else, or we, later. */
static void
give_one_back(struct message *m)
{
	m->state = "pending";
	m->due_in_ms = 0;
	metric_add(METRIC_WEBHOOKS, WEBHOOK_OUTCOME_RETURNED, 0, 1);
	settle_message(m);
}

static struct message *
take_behind(struct message *m)
{
	struct message *next = list_first(&m->behind, struct message, node);

	if (next == NULL)
		return NULL;
	list_del(&next->node);
	m->target->behind_count--;
	return next;
}

static void
give_behind_back(struct message *m)
{
	struct message *next;

	while ((next = take_behind(m)) != NULL)
		give_one_back(next);
}

static void
give_back(struct message *m)
{
	give_one_back(m);
	give_behind_back(m);
}

void
target_go_on(struct message *m)
{
	struct target *t = m->target;
	struct message *next, *node;

	if (t->is_open || t->is_disabled || !t->is_usable || m->is_gone ||
	    strcmp(m->state, "pending") == 0)
		give_behind_back(m);
	if ((next = take_behind(m)) == NULL)
		return;
	while ((node = list_first(&m->behind, struct message, node)) != NULL) {
		list_del(&node->node);
		list_add_tail(&next->behind, &node->node);
	}
	list_add_tail(&t->waiting, &next->node);
	t->waiting_count++;
	target_pump(t);
}

void
target_give_back(struct target *t)
{
	while (t->waiting_count > 0)
		give_back(take_first(t));
}

static void
send_next(struct target *t)
{
	struct list messages;
	size_t count = 0;

	list_init(&messages);
	while (count < t->endpoint.batch && t->waiting_count > 0) {
		struct message *m = take_first(t);

		list_add_tail(&messages, &m->node);
		count++;
	}
	t->in_flight++;
	t->host->in_flight++;
	send_messages(t, &messages, count);
}

void
target_pump(struct target *t)
{
	uint64_t now_ms = loop_now_ms(t->webhooks->loop);

	if (t->webhooks->is_draining) {
		target_give_back(t);
		return;
	}
	while (t->waiting_count > 0 && t->in_flight < share_of(t) &&
	       t->host->in_flight < t->host->connections) {
		struct message *m = list_first(&t->waiting, struct message, node);

		if (now_ms > m->start_by_ms)
			give_back(take_first(t));
		else
			send_next(t);
	}
}

/* Who shares its host may have waited for the connection. */
void
target_answered(struct target *t)
{
	struct host *host = t->host;
	struct str key;
	void *value;

	t->in_flight--;
	host->in_flight--;
	target_pump(t);
	if (host->targets <= host->connections)
		return;
	for (size_t cursor = 0; strmap_next(t->webhooks->targets, &cursor, &key, &value);)
		if (((struct target *)value)->host == host)
			target_pump(value);
}
