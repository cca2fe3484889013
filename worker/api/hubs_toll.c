/*
 * hubs_toll - what clients of hubs send counts against the limits of their keys, as requests do: a
 * POST as many as it has records, and is refused as a whole (hubs_door.c); on a socket each
 * invocation, which is completed with the refusal. Pings and the ends of streams on a socket cost
 * nothing.
 */
#include <stdlib.h>

#include "worker/api/hubs_impl.h"
#include "worker/usage/refusal.h"

struct paid_call {
	struct toll toll;
	uint64_t conn;
	struct hub_wait wait;           /* of a stream */
	struct signalr_message message; /* its json is shared with whoever heard it */
};

static struct hubs *
hubs_of(struct toll *t)
{
	return container_of(t->tolls, struct hubs, tolls);
}

static void
paid_call_free(struct toll *t)
{
	struct paid_call *p = container_of(t, struct paid_call, toll);
	struct hub_conn *c = idmap_get(hubs_of(t)->conns, p->conn);

	if (c != NULL)
		c->paying--;
	toll_end(t);
	hub_wait_end(&p->wait);
	json_decref(p->message.json);
	free(p);
}

static struct hub_conn *
conn_of(struct paid_call *p)
{
	struct hub_conn *c = idmap_get(hubs_of(&p->toll)->conns, p->conn);

	return c != NULL && !c->is_ending ? c : NULL;
}

static void
on_call_decided(struct toll *t)
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
	toll_take(&p->toll, who, &of);
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
	toll_begin(&c->hubs->tolls, &p->toll, on_call_decided, paid_call_free);
	/* What it was when the socket opened it may be not any more. */
	keys_check_hash(c->hubs->api->keys, c->key.hash, on_principal, p);
}
