/*
 * request - a request from dispatch to its end, and what handlers may ask it.
 *
 * The struct hangs in h2o's memory pool of the request: whatever ends the request
 * there (answered, client gone, connection lost) runs on_dispose() here.
 */
#include <stdio.h>
#include <sys/ioctl.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/id.h"
#include "common/log.h"
#include "worker/http/bodies.h"
#include "worker/http/frames.h"
#include "worker/http/guard.h"
#include "worker/http/server.h"
#include "worker/http/stream.h"

enum { REQUEST_ID_MAX = 128 };

/* ---- handles, and clients that go ---- */

uint64_t
http_handle(const struct http_req *cr)
{
	struct http_req *r = (struct http_req *)cr;

	if (r->handle == 0)
		r->handle = idmap_add(r->server->requests, r);
	return r->handle;
}

struct http_req *
http_find(struct http_server *s, uint64_t handle)
{
	return idmap_get(s->requests, handle);
}

void
request_forget(struct http_req *r)
{
	if (r->handle != 0)
		idmap_remove(r->server->requests, r->handle);
	r->handle = 0;
	conn_forget_gone(r->conn, r);
}

static void
tell_gone(struct http_req *r)
{
	void (*on_gone)(void *arg) = r->on_gone;

	r->on_gone = NULL;
	if (on_gone != NULL)
		on_gone(r->on_gone_arg);
}

/* HTTP/1 while we answer: the broken answer tells the client, and h2o closes the connection. */
void
request_fail(struct http_req *r)
{
	static h2o_generator_t nothing_to_stop;

	if (r->is_answered)
		return;
	request_forget(r);
	r->is_last = true;
	tell_gone(r); /* http_find() does not find it any more, and its end may take a while */
	if (!r->is_begun) {
		answer_begin(r, 499, NULL);
		h2o_start_response(r->h2o, &nothing_to_stop);
	}
	conn_cut(r->conn);
	h2o_send(r->h2o, NULL, 0, H2O_SEND_STATE_ERROR);
}

void
request_on_gone(struct http_req *r)
{
	if (r->stream != NULL)
		http_stream_cut(r->stream);
	else
		request_fail(r);
}

void
request_watch_gone(struct http_req *r)
{
	if (r->conn->h2 == NULL && !r->is_answered)
		conn_watch_gone(r->conn, r);
}

void
http_on_gone(struct http_req *r, void (*on_gone)(void *arg), void *arg)
{
	r->on_gone = on_gone;
	r->on_gone_arg = arg;
	if (on_gone != NULL)
		request_watch_gone(r);
}

/* ---- too slow: our answer, or the client in taking it ---- */

static void
on_timer(struct wheel_entry *e)
{
	struct http_req *r = container_of(e, struct http_req, timer);
	uint64_t mark;
	bool is_blocked;

	if (!r->is_begun) {
		log_warn("answer took too long route=\"%s %s\" request_id=%s", r->route->method,
		    r->route->pattern, r->id);
		request_forget(r);
		tell_gone(r);
		http_reply_retry(r, E_UNAVAILABLE, 1, "The answer took too long.");
		return;
	}
	if (r->stream != NULL && http_stream_is_idle(r->stream) && conn_untaken_bytes(r->conn) == 0)
		return; /* all was taken; the next bytes set the timer again */
	/* Who keeps a window of HTTP/2 shut may well acknowledge other bytes. */
	is_blocked = frames_wait_for_window(r);
	mark = is_blocked ? frames_sent_bytes(r) : conn_taken_bytes(r->conn);
	if (mark == r->sent_mark) {
		if (is_blocked)
			frames_reset(r);
		else
			conn_cut(r->conn);
		return;
	}
	r->sent_mark = mark;
	wheel_set(r->server->wheel, e, r->server->conf->http.send_timeout_ms);
}

/* ---- the end ---- */

static void
write_access_log(struct http_req *r, int status, uint64_t us)
{
	struct str method = http_method(r);

	if (!r->server->conf->log.access)
		return;
	/* The path without its query: access tokens travel there. */
	log_access("client=%s method=%.*s path=%s status=%d bytes=%zu ms=%llu.%03llu "
		   "request_id=%s",
	    http_client_address(r), (int)method.len, method.p, log_quote(r->path).s, status,
	    r->h2o->bytes_sent, (unsigned long long)(us / 1000), (unsigned long long)(us % 1000),
	    r->id);
}

static void
release_of_http2(const struct http_req *r)
{
	struct http_conn *c = r->conn;

	if (c->h2->body_bytes > 0)
		frames_recount(c);
	if (r->is_last)
		frames_say_goodbye(c);
	if (c->in_progress == 0)
		frames_part(c);
}

static void
leave_conn(struct http_req *r)
{
	bodies_let_go(r);
	r->server->in_progress--;
	r->conn->in_progress--;
	if (r->conn->in_progress == 0)
		conn_enter(r->conn, CONN_IDLE);
	if (r->conn->h2 != NULL)
		release_of_http2(r);
}

size_t
request_input_bytes(const struct http_req *r)
{
	const h2o_iovec_t *body = &r->h2o->entity;

	return body->base != NULL ? (size_t)(body->base + body->len - r->conn->sock->input->bytes)
				  : r->conn->head_bytes;
}

/* Of HTTP/1: the client has sent more than this request. */
static bool
has_unread_input(const struct http_req *r)
{
	int in_kernel = 0;

	if (r->conn->sock->input->size > request_input_bytes(r))
		return true;
	return ioctl(h2o_socket_get_fd(r->conn->sock), FIONREAD, &in_kernel) == 0 && in_kernel > 0;
}

/* h2o closes after this answer, and close(2) with unread bytes would overtake the answer. */
static void
linger_if_needed(struct http_req *r)
{
	struct http_conn *c = r->conn;

	if (c->h2 != NULL || c->is_cut || !r->is_answered || r->h2o->http1_is_persistent ||
	    r->h2o->res.status == 101)
		return;
	if (has_unread_input(r))
		conn_linger(c);
}

static void
on_dispose(void *p)
{
	struct http_req *r = p;
	bool is_whole = r->is_answered;
	int status = r->is_begun ? r->h2o->res.status : 499;
	uint64_t us = clock_mono_us() - r->started_us;

	request_forget(r);
	wheel_stop(r->server->wheel, &r->timer);
	metric_add(METRIC_HTTP_REQUESTS, r->label, metric_status(status), 1);
	if (r->stream == NULL)
		metric_observe_us(METRIC_HTTP_REQUEST_SECONDS, r->label, us);
	write_access_log(r, status, us);
	linger_if_needed(r);
	room_leave(r);
	leave_conn(r);
	if (!is_whole && r->conn->h2 != NULL && !r->conn->is_cut &&
	    conn_is_flooding(r->conn, FLOOD_RESET))
		conn_cut_flood(r->conn);
	json_decref(r->json);
	if (r->stream != NULL)
		http_stream_dispose(r->stream);
	if (!is_whole)
		tell_gone(r);
	arena_fini(&r->arena);
}

/* ---- the beginning ---- */

static bool
is_sane_id(struct str id)
{
	if (id.p == NULL || id.len == 0 || id.len > REQUEST_ID_MAX)
		return false;
	for (size_t i = 0; i < id.len; i++) {
		char c = id.p[i];

		if (!((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
			c == '.' || c == '_' || c == '-'))
			return false;
	}
	return true;
}

static const char *
choose_id(struct http_req *r)
{
	struct str given = http_header(r, "x-request-id");
	struct id made;

	if (is_sane_id(given))
		return h2o_strdup(&r->h2o->pool, given.p, given.len).base;
	made = id_new("req");
	return h2o_strdup(&r->h2o->pool, made.s, SIZE_MAX).base;
}

static struct http_req *
request_new(struct http_conn *c, h2o_req_t *h)
{
	struct http_req *r = h2o_mem_alloc_shared(&h->pool, sizeof(*r), on_dispose);
	struct http_server *s = c->listener->server;

	memset(r, 0, sizeof(*r));
	r->h2o = h;
	r->conn = c;
	r->server = s;
	r->label = LABEL_ROUTE_SIZE - 1;
	r->kind = KIND_HTTP;
	r->started_us = clock_mono_us();
	r->timer.on_fire = on_timer;
	r->query = str_sub(h->input.path.base, h->input.path.len);
	r->path = str_split(&r->query, '?');
	s->in_progress++;
	c->in_progress++;
	c->requests++;
	if (h->version >= 0x200)
		conn_become_http2(c);
	r->id = choose_id(r);
	return r;
}

static void
enter_conn(struct http_conn *c)
{
	struct http_server *s = c->listener->server;

	if (c->in_progress == 0)
		conn_enter(c, CONN_BUSY);
	if (c->has_dispatched)
		return;
	c->has_dispatched = true;
	s->waiting--;
	metric_gauge(METRIC_CONNECTION_QUEUE, 0, 0, -1);
	listen_reconsider(s);
}

static bool
is_json_type(struct str type)
{
	struct str name = str_trim(str_split(&type, ';'));

	return str_ieq(name, STR("application/json"));
}

/* The body, measured against its route. */
static bool
accept_body(struct http_req *r)
{
	const struct conf *conf = r->server->conf;
	uint64_t max = (r->route->flags & HTTP_GATEWAY) != 0 ? conf->http.max_body_gateway_bytes
							     : conf->http.max_body_bytes;

	if (r->h2o->entity.len > max) {
		http_reply_error(r, E_PAYLOAD_TOO_LARGE, NULL, NULL);
		return false;
	}
	if (r->h2o->entity.len == 0 || (r->route->flags & HTTP_ANY_BODY) != 0 ||
	    is_json_type(http_header(r, "content-type")))
		return true;
	http_reply_error(r, E_UNSUPPORTED_MEDIA_TYPE, NULL, NULL);
	return false;
}

static bool
decode_params(struct http_req *r)
{
	for (unsigned i = 0; i < r->match.param_count; i++) {
		r->params[i] = asked_decode(r, r->match.params[i].value, false);
		if (r->params[i] == NULL) {
			http_reply_error(
			    r, E_INVALID_REQUEST, NULL, "The path has a broken escape.");
			return false;
		}
	}
	return true;
}

/* Finds the route; answers when there is none. */
static bool
find_route(struct http_req *r)
{
	struct buf methods = BUF_INIT;

	route_find(r->server->routes, http_method(r), r->path, &r->match);
	if (r->match.entry != NULL && r->conn->listener->from->is_metrics &&
	    (r->match.entry->route->flags & HTTP_METRICS) == 0)
		r->match = (struct route_match){0};
	if (r->match.path == NULL || (route_flags(r->match.path) & HTTP_SAME_ORIGIN) == 0)
		cors_decide(r);
	if (r->match.path == NULL) {
		http_reply_error(r, E_NOT_FOUND, NULL, "There is no such route.");
		return false;
	}
	if (r->match.entry != NULL) {
		r->route = r->match.entry->route;
		r->label = r->match.entry->label;
		return true;
	}
	if (str_eq(http_method(r), STR("OPTIONS"))) {
		cors_answer_options(r);
		return false;
	}
	route_methods(r->match.path, &methods);
	http_add_header(r, "allow", methods.data);
	buf_fini(&methods);
	http_reply_error(r, E_METHOD_NOT_ALLOWED, NULL, NULL);
	return false;
}

static bool
is_last_of_conn(const struct http_conn *c)
{
	const struct http_server *s = c->listener->server;
	int64_t max = s->conf->http.max_keepalive_requests;

	return s->is_draining || listen_is_host_ending(s) || c->over != GUARD_NOTHING ||
	       s->conf->http.keepalive_timeout_ms == 0 || (max > 0 && c->requests >= (uint64_t)max);
}

static void
run_handler(struct http_req *r)
{
	const struct conf *conf = r->server->conf;
	struct http_server *s = r->server;

	http_doing_request(r);
	r->route->handler(r, r->match.entry->arg);
	http_done(s);
	if (!r->is_begun && (r->route->flags & HTTP_LONG) == 0 && conf->http.request_timeout_ms > 0)
		wheel_set(r->server->wheel, &r->timer, conf->http.request_timeout_ms);
}

static void
refuse(struct http_req *r, enum http_refusal why)
{
	r->conn->refusal = REFUSE_NOTHING;
	metric_add(METRIC_CONNECTIONS_REJECTED,
	    why == REFUSE_NO_ROOM ? REJECT_BODIES : REJECT_PROTOCOL, 0, 1);
	answer_refusal(r, http_refusal_err(why), http_refusal_text(why));
}

int
request_dispatch(h2o_handler_t *handler, h2o_req_t *h)
{
	struct http_conn *c = conn_of(h);
	struct http_req *r;

	(void)handler;
	enter_conn(c);
	r = request_new(c, h);
	r->is_last = is_last_of_conn(c);
	bodies_hold(r);
	if (c->refusal != REFUSE_NOTHING) {
		refuse(r, c->refusal);
		return 0;
	}
	if (c->is_cut) {
		answer_refusal(r, E_REQUEST_TIMEOUT, NULL);
		return 0;
	}
	if (!find_route(r))
		return 0;
	if (c->over != GUARD_NOTHING && (r->route->flags & HTTP_OPS) == 0)
		guard_refuse(r);
	else if (room_may_begin(r) && decode_params(r) && accept_body(r) && guard_may_upgrade(r) &&
		 room_may_run(r))
		run_handler(r);
	return 0;
}
