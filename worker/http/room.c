/*
 * room - whether there is room for a request: a place among max_connections, and the
 * core, which must not be overloaded where it brings work.
 *
 * Nobody waits for either: it is there, or the answer is 503. What was taken is given
 * back by room_leave() when the request is gone, unless it was passed on.
 */
#include "common/check.h"
#include "common/log.h"
#include "worker/http/server.h"

enum { REFUSALS_PER_CONN = 4 };

/* ---- refused ---- */

/*
 * All of the request has been read, so the connection could go on, and to keep it is cheaper than
 * the next one. But it holds a socket, of which half of the spare ones may be kept for that; and
 * who is refused again and again may find room at another worker, with a new connection.
 */
static bool
may_come_again(struct http_conn *c)
{
	const struct http_server *s = c->listener->server;
	uint32_t idle = s->open > s->active ? s->open - s->active : 0;
	uint32_t spare = s->open_max > s->active ? s->open_max - s->active : 0;

	return ++c->refusals < REFUSALS_PER_CONN && idle <= spare / 2;
}

void
room_reply_capacity(struct http_req *r)
{
	if (!may_come_again(r->conn))
		r->is_last = true;
	http_reply_retry(r, E_AT_CAPACITY, HTTP_CAPACITY_RETRY_S, NULL);
}

bool
room_may_begin(struct http_req *r)
{
	struct http_server *s = r->server;
	struct admission *a = loop_admission(s->loop);

	if ((r->route->flags & HTTP_WORK) == 0)
		return true;
	if (admission_allows(a)) {
		admission_enter(a);
		r->is_work = true;
		return true;
	}
	log_warn("connection refused reason=overload active=%u max=%lld delay_us=%llu work=%u",
	    s->active, (long long)s->conf->max_connections, (unsigned long long)a->delay_us,
	    a->live);
	metric_add(METRIC_CONNECTIONS_REJECTED, REJECT_OVERLOAD, 0, 1);
	room_reply_capacity(r);
	return false;
}

static bool
has_place(const struct http_server *s)
{
	return s->active < s->places_max;
}

bool
room_take_place(struct http_req *r)
{
	struct http_server *s = r->server;

	if (!has_place(s)) {
		log_warn("connection refused reason=capacity active=%u max=%u", s->active,
		    s->places_max);
		metric_add(METRIC_CONNECTIONS_REJECTED, REJECT_CAPACITY, 0, 1);
		return false;
	}
	s->active++;
	r->is_counted = true;
	r->conn->refusals = 0;
	metric_gauge(METRIC_CONNECTIONS, r->kind, 0, 1);
	return true;
}

bool
room_may_run(struct http_req *r)
{
	unsigned flags = r->route->flags;

	if ((flags & HTTP_OPS) != 0)
		return true;
	if (r->conn->is_on_spare) {
		metric_add(METRIC_CONNECTIONS_REJECTED, REJECT_SOCKETS, 0, 1);
		room_reply_capacity(r);
		return false;
	}
	if (((flags & HTTP_UPGRADE) != 0 && !has_place(r->server)))
		return true;
	if (room_take_place(r))
		return true;
	room_reply_capacity(r);
	return false;
}

/* ---- given back ---- */

void
http_work_passed_on(struct http_req *r)
{
	if (r->is_work)
		admission_leave(loop_admission(r->server->loop));
	r->is_work = false;
}

void
room_leave(struct http_req *r)
{
	http_work_passed_on(r);
	if (!r->is_counted)
		return;
	r->is_counted = false;
	r->server->active--;
	metric_gauge(METRIC_CONNECTIONS, r->kind, 0, -1);
}
