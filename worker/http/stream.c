/*
 * stream - one h2o_send() in flight, what comes meanwhile in a second buffer.
 */
#include "worker/http/stream.h"

#include "common/buf.h"
#include "common/check.h"
#include "worker/http/bodies.h"
#include "worker/http/server.h"

enum { INPUT_PUT_BACK_MAX = 64 << 10 }; /* of a larger request the connection is closed */

struct http_stream {
	h2o_generator_t generator;
	struct http_req *req;
	struct buf in_flight, pending;
	size_t max_bytes;
	bool is_sending;
	bool is_ending;  /* end with what is pending */
	bool is_cut;     /* h2o has been told: it takes nothing more, and disposes of us soon */
	bool wants_room; /* someone waits for it */
	void (*on_closed)(void *arg);
	void (*on_room)(void *arg); /* may be NULL */
	void *arg;
};

static void
stream_flush(struct http_stream *s)
{
	struct http_req *r = s->req;
	bool is_final = s->is_ending;
	struct buf taken = s->in_flight;
	h2o_iovec_t bytes;

	s->in_flight = s->pending;
	s->pending = taken;
	s->pending.len = 0;
	s->is_sending = true;
	bytes = h2o_iovec_init(s->in_flight.data, s->in_flight.len);
	/* It runs on while the kernel holds bytes: more bytes must not give a stalled reader more
	 * time. */
	if (!wheel_is_set(&r->timer)) {
		r->sent_mark = conn_taken_bytes(r->conn);
		wheel_set(r->server->wheel, &r->timer, r->server->conf->http.send_timeout_ms);
	}
	if (is_final) {
		r->is_answered = true;
		request_forget(r);
	}
	h2o_send(r->h2o, &bytes, bytes.len > 0 ? 1 : 0,
	    is_final ? H2O_SEND_STATE_FINAL : H2O_SEND_STATE_IN_PROGRESS);
}

static void
tell_room(struct http_stream *s)
{
	if (!s->wants_room || s->is_ending || s->is_cut)
		return;
	s->wants_room = false;
	s->on_room(s->arg);
}

/* h2o has given the bytes to the socket. */
static void
on_proceed(h2o_generator_t *g, h2o_req_t *h)
{
	struct http_stream *s = container_of(g, struct http_stream, generator);

	s->is_sending = false;
	s->in_flight.len = 0;
	if (s->is_cut) { /* while the last write was on its way: it had got out already */
		h2o_send(h, NULL, 0, H2O_SEND_STATE_ERROR);
		return;
	}
	if (s->pending.len > 0 || s->is_ending) {
		stream_flush(s);
		tell_room(s);
		return;
	}
	buf_fini(&s->in_flight);
	buf_fini(&s->pending);
	tell_room(s);
}

bool
http_stream_has_room(struct http_stream *s)
{
	bool has_room = s->pending.len < s->max_bytes;

	s->wants_room = !has_room && s->on_room != NULL;
	return has_room;
}

void
http_stream_on_room(struct http_stream *s, void (*on_room)(void *arg))
{
	s->on_room = on_room;
}

bool
http_stream_is_idle(const struct http_stream *s)
{
	return !s->is_sending;
}

struct loop *
http_stream_loop(const struct http_stream *s)
{
	return s->req->server->loop;
}

struct wheel *
http_stream_wheel(const struct http_stream *s)
{
	return s->req->server->wheel;
}

void
http_stream_send(struct http_stream *s, struct str bytes)
{
	check(!s->is_ending);
	if (s->is_cut)
		return;
	buf_add_str(&s->pending, bytes);
	if (!s->is_sending)
		stream_flush(s);
}

void
http_stream_end(struct http_stream *s)
{
	check(!s->is_ending);
	s->is_ending = true;
	s->on_closed = NULL;
	if (!s->is_sending && !s->is_cut)
		stream_flush(s);
}

void
http_stream_abort(struct http_stream *s)
{
	struct http_req *r = s->req;

	s->on_closed = NULL;
	conn_forget_gone(r->conn, r);
	if (r->conn->h2 == NULL) { /* a reset of the one stream does for HTTP/2 */
		http_stream_cut(s);
		return;
	}
	if (s->is_cut)
		return;
	s->is_cut = true;
	if (!s->is_sending)
		h2o_send(r->h2o, NULL, 0, H2O_SEND_STATE_ERROR);
}

/* The client has gone, or takes nothing. dispose() follows from inside h2o. */
void
http_stream_cut(struct http_stream *s)
{
	struct http_req *r = s->req;

	conn_forget_gone(r->conn, r);
	conn_cut(r->conn);
	if (s->is_cut)
		return;
	s->is_cut = true;
	/* A write in flight fails now that the socket is shut down. */
	if (!s->is_sending)
		h2o_send(r->h2o, NULL, 0, H2O_SEND_STATE_ERROR);
}

/* The answer is out: h2o goes on by consuming the request, whatever its bytes are. */
static void
put_input_back(struct http_req *r)
{
	h2o_socket_t *sock = r->conn->sock;

	if (r->input_released == 0 || !r->is_answered || sock->input->size > 0)
		return;
	h2o_iovec_t room = h2o_buffer_reserve(&sock->input, r->input_released);
	check(room.base != NULL);
	memset(room.base, 0, r->input_released);
	sock->input->size = r->input_released;
}

void
http_stream_dispose(struct http_stream *s)
{
	void (*on_closed)(void *arg) = s->on_closed;
	void *arg = s->arg;

	put_input_back(s->req);
	buf_fini(&s->in_flight);
	buf_fini(&s->pending);
	free(s);
	if (on_closed != NULL)
		on_closed(arg);
}

/* May the connection be used again, though its input is released? Bytes behind the request would be
 * lost, and HTTP/1.0 sees the end of a stream by the end of the connection. */
static bool
may_keep_connection(const struct http_req *r)
{
	size_t taken = request_input_bytes(r);

	return r->h2o->version == 0x101 && r->h2o->http1_is_persistent && !r->is_last &&
	       taken <= INPUT_PUT_BACK_MAX && r->conn->sock->input->size == taken;
}

/* A quiet stream must not keep the request's bytes: 4 KB of an input buffer each. */
static void
release_input(struct http_req *r)
{
	h2o_req_t *h = r->h2o;
	h2o_socket_t *sock = r->conn->sock;
	bool is_kept = r->conn->h2 == NULL && may_keep_connection(r);
	size_t taken = is_kept ? request_input_bytes(r) : 0;

	r->path = str_of(h2o_strdup(&h->pool, r->path.p, r->path.len).base);
	r->query = STR_NONE;
	h->input.path = h2o_iovec_init(r->path.p, r->path.len);
	h->input.method = h2o_strdup(&h->pool, h->input.method.base, h->input.method.len);
	h->headers.size = 0;
	h->entity = h2o_iovec_init(NULL, 0);
	bodies_let_go(r);
	h->upgrade = h2o_iovec_init(NULL, 0);
	json_decref(r->json);
	r->json = NULL;
	if (r->conn->h2 != NULL)
		return;
	/* http1.c will consume the request afterwards: it finds as many bytes, or closes instead.
	 */
	r->input_released = taken;
	r->is_last |= !is_kept;
	r->conn->head_bytes = 0;
	if (sock->input->size > 0)
		h2o_buffer_consume(&sock->input, sock->input->size);
}

struct http_stream *
http_stream_start(struct http_req *r, const char *content_type, unsigned kind, size_t max_bytes,
    void (*on_closed)(void *arg), void *arg)
{
	struct http_stream *s = xcalloc(1, sizeof(*s));

	s->generator.proceed = on_proceed;
	s->req = r;
	s->max_bytes = max_bytes;
	s->on_closed = on_closed;
	s->arg = arg;
	r->stream = s;
	r->on_gone = NULL;
	if (r->is_counted) {
		metric_gauge(METRIC_CONNECTIONS, r->kind, 0, -1);
		metric_gauge(METRIC_CONNECTIONS, kind, 0, 1);
	}
	r->kind = (uint8_t)kind;
	wheel_stop(r->server->wheel, &r->timer);
	request_watch_gone(r);
	release_input(r);
	answer_begin(r, 200, content_type);
	h2o_start_response(r->h2o, &s->generator);
	return s;
}
