/* bodies - a sum, and a look now and then at what h2o has read of HTTP/1. */
#include "worker/http/bodies.h"

static uint64_t
input_bytes(const struct http_conn *c)
{
	return c->is_cut || c->raw_answer != NULL ? 0 : c->sock->input->size;
}

bool
bodies_are_too_many(const struct http_server *s)
{
	uint64_t max = s->conf->http.max_bodies_bytes;

	return max > 0 && s->body_bytes + s->incoming_bytes > max;
}

/* The newest are at the end: those before have waited longer. */
static void
refuse_newest(struct http_server *s)
{
	struct list *conns = &s->conns[CONN_BODY];

	for (struct list *node = conns->prev, *prev; node != conns; node = prev) {
		struct http_conn *c = list_entry(node, struct http_conn, node);
		uint64_t bytes = input_bytes(c);

		prev = node->prev;
		if (!bodies_are_too_many(s))
			return;
		if (bytes <= BODIES_SMALL)
			continue;
		s->incoming_bytes -= bytes;
		metric_add(METRIC_CONNECTIONS_REJECTED, REJECT_BODIES, 0, 1);
		conn_refuse(c, E_AT_CAPACITY);
	}
}

static void
on_look(struct loop_timer *t)
{
	struct http_server *s = container_of(t, struct http_server, body_look);

	s->incoming_bytes = 0;
	list_for (node, &s->conns[CONN_BODY])
		s->incoming_bytes += input_bytes(list_entry(node, struct http_conn, node));
	refuse_newest(s);
	if (!list_empty(&s->conns[CONN_BODY]))
		loop_timer_set(s->loop, t, BODIES_LOOK_MS);
}

bool
bodies_may_begin(struct http_server *s, uint64_t bytes)
{
	if (bytes > BODIES_SMALL && bodies_are_too_many(s))
		return false;
	s->body_look.on_fire = on_look;
	if (!loop_timer_is_set(&s->body_look))
		loop_timer_set(s->loop, &s->body_look, BODIES_LOOK_MS);
	return true;
}

void
bodies_hold(struct http_req *r)
{
	if (r->conn->h2 != NULL)
		return;
	r->body_bytes = r->h2o->entity.len;
	r->server->body_bytes += r->body_bytes;
}

void
bodies_let_go(struct http_req *r)
{
	r->server->body_bytes -= r->body_bytes;
	r->body_bytes = 0;
}

void
bodies_stop(struct http_server *s)
{
	loop_timer_stop(s->loop, &s->body_look);
}
