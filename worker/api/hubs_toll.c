/*
 * hubs_toll - what clients of hubs send counts against the limits of their keys, as requests do: a
 * POST as many as it has records, and is refused as a whole; on a socket each invocation, which is
 * completed with the refusal. Pings and the ends of streams on a socket cost nothing.
 */
#include <stdlib.h>

#include "worker/api/hubs_impl.h"
#include "worker/api/rate_warn.h"
#include "worker/usage/refusal.h"

/* ---- any ---- */

void
hub_toll_end(struct hub_toll *t)
{
	rate_cancel(&t->ask);
	list_del(&t->node);
	free(t->app_id);
	free(t->key_id);
	t->app_id = t->key_id = NULL;
}

static void
decide(struct hub_toll *t)
{
	rate_warn(t->hubs->api->rate_warns, t->app_id, t->key_id, &t->ask);
	t->on_decided(t);
}

static void
on_rate_decided(struct rate_ask *ask)
{
	decide(container_of(ask, struct hub_toll, ask));
}

void
hub_toll_take(struct hub_toll *t, const struct principal *who, const struct rate_of *of)
{
	t->app_id = who->app_id != NULL ? xstrdup(who->app_id) : NULL;
	t->key_id = xstrdup(who->key_id);
	t->ask.on_decided = on_rate_decided;
	if (rate_take(t->hubs->api->limits, of, &t->ask))
		decide(t);
}

void
hub_toll_begin(
    struct hubs *hubs, struct hub_toll *t, hub_toll_do *on_decided, hub_toll_do *on_abandoned)
{
	t->hubs = hubs;
	t->on_decided = on_decided;
	t->on_abandoned = on_abandoned;
	list_add_tail(&hubs->tolls, &t->node);
}

void
hub_tolls_abandon(struct hubs *hubs)
{
	list_for_safe (node, &hubs->tolls) {
		struct hub_toll *t = list_entry(node, struct hub_toll, node);

		t->on_abandoned(t);
	}
}

/* ---- of an invocation on a socket ---- */

struct paid_call {
	struct hub_toll toll;
	uint64_t conn;
	struct hub_wait wait;           /* of a stream */
	struct signalr_message message; /* its json is shared with whoever heard it */
};

static void
paid_call_free(struct hub_toll *t)
{
	struct paid_call *p = container_of(t, struct paid_call, toll);
	struct hub_conn *c = idmap_get(t->hubs->conns, p->conn);

	if (c != NULL)
		c->paying--;
	hub_toll_end(t);
	hub_wait_end(&p->wait);
	json_decref(p->message.json);
	free(p);
}

static struct hub_conn *
conn_of(const struct paid_call *p)
{
	struct hub_conn *c = idmap_get(p->toll.hubs->conns, p->conn);

	return c != NULL && !c->is_ending ? c : NULL;
}

static void
on_call_decided(struct hub_toll *t)
{
	struct paid_call *p = container_of(t, struct paid_call, toll);
	struct hub_conn *c = conn_of(p);
	struct buf why = BUF_INIT;

	hub_wait_end(&p->wait);
	if (c != NULL && t->ask.verdict.is_allowed) {
		if (p->wait.is_cancelled)
			hub_complete(c, p->message.invocation_id, NULL, STR_NONE);
		else
			hub_invoke(c, &p->message);
	} else if (c != NULL) {
		refusal_message(&t->ask.verdict, t->ask.unit, &why);
		hub_complete(c, p->message.invocation_id, why.data, STR_NONE);
	}
	buf_fini(&why);
	paid_call_free(t);
}

static void
on_principal(void *arg, int err, const struct principal *who)
{
	struct paid_call *p = arg;
	struct hub_conn *c = conn_of(p);

	if (c == NULL || err != 0) {
		if (c != NULL)
			hub_complete(c, p->message.invocation_id, err_info(err)->text, STR_NONE);
		paid_call_free(&p->toll);
		return;
	}
	struct rate_of of = rate_of_key(who, "");
	of.own = c->rate_own; /* of the address that it came from */
	hub_toll_take(&p->toll, who, &of);
}

void
hub_toll_invoke(struct hub_conn *c, const struct signalr_message *m)
{
	struct paid_call *p;

	if (c->paying >= c->hubs->api->conf->events.max_topics) {
		hub_complete(c, m->invocation_id,
		    "This connection has events.max_topics calls that wait.", STR_NONE);
		return;
	}
	c->paying++;
	p = xcalloc(1, sizeof(*p));
	p->conn = c->handle;
	p->message = *m;
	json_incref(p->message.json);
	if (m->type == SIGNALR_STREAM)
		hub_wait_begin(c, &p->wait, m->invocation_id);
	hub_toll_begin(c->hubs, &p->toll, on_call_decided, paid_call_free);
	/* What it was when the socket opened it may be not any more. */
	keys_check_hash(c->hubs->api->keys, c->key.hash, on_principal, p);
}
