/*
 * frames - see frames.h.
 *
 * libh2o calls h2o_http2_decode_frame() through its procedure linkage table for every
 * frame, so the definition here takes its place (as in phr.c) and calls the original. It is
 * not told whose frame it is. Therefore a connection is looked for once, by the address of its
 * input, the newest first; from then on our on_read() stands before h2o's and says who is
 * reading. h2o puts its own there again after it had stopped reading: then we look again.
 *
 * What floods: frames that ask for work and bring no request (RFC 9113, 10.5; CVE-2019-9511 to
 * 9518, CVE-2023-44487). A client that reads much sends many WINDOW_UPDATEs: what it
 * was sent allows for them.
 */
#include "worker/http/frames.h"

#include <dlfcn.h>

#include "common/check.h"
#include "worker/http/bodies.h"

#include <h2o/http2.h> /* these want h2o.h before them */
#include <h2o/http2_internal.h>

enum {
	FRAME_TYPES = 10, /* that h2o knows; of others it tells standard error */
	/* Two WINDOW_UPDATEs for the smallest event of a stream that is worth a DATA frame. */
	WRITTEN_BYTES_PER_FRAME = 64,
	STREAM_ID_MAX = 0x7fffffff,
};

typedef ssize_t decode_frame(
    h2o_http2_frame_t *, const uint8_t *, size_t, const h2o_http2_settings_t *, const char **);

static struct http_server *watched;
static struct http_conn *reading; /* inside on_read() */

/* ---- whose frame it is ---- */

static void
on_read(h2o_socket_t *sock, const char *err)
{
	struct http_conn *c = sock->on_close.data;

	reading = c;
	c->on_read(sock, err); /* may free it */
	reading = NULL;
}

static struct http_conn *
find_conn(const uint8_t *src)
{
	h2o_linklist_t *conns = &watched->h2o.http2._conns;

	for (h2o_linklist_t *node = conns->prev; node != conns; node = node->prev) {
		h2o_http2_conn_t *h = H2O_STRUCT_FROM_MEMBER(h2o_http2_conn_t, _conns, node);

		if (h->sock == NULL || (const uint8_t *)h->sock->input->bytes != src)
			continue;
		/* Outside of on_read() it may have more frames: it is the first to be looked at. */
		h2o_linklist_unlink(node);
		h2o_linklist_insert(conns, node);
		return h->sock->on_close.data;
	}
	return NULL;
}

static struct http_conn *
conn_of_input(const uint8_t *src)
{
	struct http_conn *c = reading;

	if (c != NULL || watched == NULL || (c = find_conn(src)) == NULL)
		return c;
	if (c->sock->_cb.read != NULL && c->sock->_cb.read != on_read) {
		c->on_read = c->sock->_cb.read;
		c->sock->_cb.read = on_read;
	}
	conn_become_http2(c);
	return c;
}

/* ---- floods ---- */

/* It carries nothing of a request. */
static bool
is_control(const h2o_http2_frame_t *f)
{
	size_t padding = 0;

	if (f->type == H2O_HTTP2_FRAME_TYPE_HEADERS)
		return false;
	if (f->type != H2O_HTTP2_FRAME_TYPE_DATA ||
	    (f->flags & H2O_HTTP2_FRAME_FLAG_END_STREAM) != 0)
		return f->type != H2O_HTTP2_FRAME_TYPE_DATA;
	if ((f->flags & H2O_HTTP2_FRAME_FLAG_PADDED) != 0 && f->length > 0)
		padding = 1 + (size_t)f->payload[0];
	return f->length <= padding;
}

static bool
is_flooding(struct http_conn *c, const h2o_http2_frame_t *f)
{
	if (f->type == H2O_HTTP2_FRAME_TYPE_HEADERS)
		return conn_is_flooding(c, FLOOD_REQUEST);
	return is_control(f) && conn_is_flooding(c, FLOOD_FRAME);
}

uint64_t
frames_allowed(const struct http_conn *c)
{
	return (uint64_t)c->listener->server->conf->http2.max_control_frames +
	       (c->sock->bytes_written - c->h2->flood_written) / WRITTEN_BYTES_PER_FRAME;
}

/* ---- requests that do not end ---- */

static bool
is_incomplete(const h2o_http2_stream_t *stream)
{
	return stream->state == H2O_HTTP2_STREAM_STATE_RECV_HEADERS ||
	       stream->state == H2O_HTTP2_STREAM_STATE_RECV_BODY;
}

/* One whose id is not above max_id; NULL: none. */
static h2o_http2_stream_t *
find_incomplete(const h2o_http2_conn_t *h, uint32_t max_id)
{
	for (khiter_t i = 0; i < kh_end(h->streams); i++) {
		h2o_http2_stream_t *stream;

		if (!khash_has(h->streams->flags, i))
			continue;
		stream = kh_val(h->streams, i);
		if (is_incomplete(stream) && stream->stream_id <= max_id)
			return stream;
	}
	return NULL;
}

static void
reset(h2o_http2_conn_t *h, h2o_http2_stream_t *stream, int error)
{
	if (h->state < H2O_HTTP2_CONN_STATE_IS_CLOSING) {
		h2o_http2__encode_rst_stream_frame(&h->_write.buf, stream->stream_id, error);
		h2o_http2_conn_request_write(h);
	}
	h2o_http2_stream_reset(h, stream);
}

static void
wait_for_bodies(struct http_conn *c, const h2o_http2_conn_t *h)
{
	struct http_server *s = c->listener->server;

	c->h2->body_mark = h->pull_stream_ids.max_open;
	wheel_set(s->wheel, &c->h2->body_timer, s->conf->http.body_timeout_ms);
}

/* Whoever was incomplete when the timer was set and still is has had its time. */
static void
on_body_timer(struct wheel_entry *e)
{
	struct http_conn *c = container_of(e, struct conn_http2, body_timer)->conn;
	h2o_http2_conn_t *h = c->sock->data;
	h2o_http2_stream_t *stream;

	if (c->is_cut)
		return;
	while ((stream = find_incomplete(h, c->h2->body_mark)) != NULL) {
		metric_add(METRIC_CONNECTIONS_REJECTED, REJECT_TIMEOUT, 0, 1);
		reset(h, stream, -H2O_HTTP2_ERROR_CANCEL);
	}
	frames_recount(c);
	if (find_incomplete(h, UINT32_MAX) != NULL)
		wait_for_bodies(c, h);
}

static void
expect_rest(struct http_conn *c, const h2o_http2_frame_t *f)
{
	const unsigned whole = H2O_HTTP2_FRAME_FLAG_END_STREAM | H2O_HTTP2_FRAME_FLAG_END_HEADERS;
	const h2o_http2_conn_t *h = c->sock->data;

	if (f->type != H2O_HTTP2_FRAME_TYPE_HEADERS || (f->flags & whole) == whole ||
	    wheel_is_set(&c->h2->body_timer))
		return;
	c->h2->body_timer.on_fire = on_body_timer;
	wait_for_bodies(c, h);
	if (c->h2->body_mark < f->stream_id)
		c->h2->body_mark = f->stream_id; /* h2o has not opened it yet */
}

/* ---- bodies ---- */

/* Of bodies, whole or not, of all requests; ret_of: the one with this id. */
static uint64_t
count_bodies(const h2o_http2_conn_t *h, uint32_t id, h2o_http2_stream_t **ret_of)
{
	uint64_t bytes = 0;

	for (khiter_t i = 0; i < kh_end(h->streams); i++) {
		h2o_http2_stream_t *stream;

		if (!khash_has(h->streams->flags, i))
			continue;
		stream = kh_val(h->streams, i);
		if (stream->_req_body != NULL)
			bytes += stream->_req_body->size;
		if (stream->stream_id == id && ret_of != NULL)
			*ret_of = stream;
	}
	return bytes;
}

static void
set_body_bytes(struct http_conn *c, uint64_t bytes)
{
	c->listener->server->body_bytes += bytes - c->h2->body_bytes;
	c->h2->body_bytes = bytes;
}

void
frames_recount(struct http_conn *c)
{
	set_body_bytes(c, count_bodies(c->sock->data, 0, NULL));
}

/*
 * A body for which there is no room is not taken: REFUSED_STREAM says that nothing of the request
 * was done, so that it may come again. h2o then finds no stream for its DATA, and gives the
 * connection its window back.
 */
static void
take_body(struct http_conn *c, const h2o_http2_frame_t *f)
{
	const struct conf *conf = c->listener->server->conf;
	h2o_http2_conn_t *h = c->sock->data;
	h2o_http2_stream_t *stream = NULL;
	uint64_t bytes;

	if (f->type != H2O_HTTP2_FRAME_TYPE_DATA || f->length == 0)
		return;
	bytes = count_bodies(h, f->stream_id, &stream);
	if (stream == NULL || !is_incomplete(stream)) {
		set_body_bytes(c, bytes);
		return;
	}
	set_body_bytes(c, bytes + f->length);
	if (c->h2->body_bytes <= conf->http2.max_bodies_bytes &&
	    !bodies_are_too_many(c->listener->server))
		return;
	metric_add(METRIC_CONNECTIONS_REJECTED, REJECT_BODIES, 0, 1);
	reset(h, stream, -H2O_HTTP2_ERROR_REFUSED_STREAM);
	frames_recount(c);
}

/* ---- the last request ---- */

static void
send_goaway(h2o_http2_conn_t *h, uint32_t last_id)
{
	h2o_http2_encode_goaway_frame(&h->_write.buf, last_id, 0, h2o_iovec_init(NULL, 0));
	h2o_http2_conn_request_write(h);
}

void
frames_say_goodbye(struct http_conn *c)
{
	h2o_http2_conn_t *h = c->sock->data;

	if (c->h2->leaving_at > 0 || h->state != H2O_HTTP2_CONN_STATE_OPEN)
		return;
	c->h2->leaving_at = c->requests;
	send_goaway(h, STREAM_ID_MAX);
}

/* h2o closes what is half closed when all is written and nothing is in progress. */
void
frames_part(struct http_conn *c)
{
	h2o_http2_conn_t *h = c->sock->data;

	if (c->h2->leaving_at == 0 || h->state != H2O_HTTP2_CONN_STATE_OPEN ||
	    find_incomplete(h, UINT32_MAX) != NULL)
		return;
	send_goaway(h, h->pull_stream_ids.max_open);
	h->state = H2O_HTTP2_CONN_STATE_HALF_CLOSED;
}

/* ---- in h2o's place ---- */

/* RFC 9113, 5.5: ignored. A PING that needs no answer is. */
static void
ignore_unknown(h2o_http2_frame_t *f)
{
	static const uint8_t nothing[8];

	if (f->type < FRAME_TYPES)
		return;
	f->type = H2O_HTTP2_FRAME_TYPE_PING;
	f->flags = H2O_HTTP2_FRAME_FLAG_ACK;
	f->stream_id = 0;
	f->length = sizeof(nothing);
	f->payload = nothing;
}

ssize_t
h2o_http2_decode_frame(h2o_http2_frame_t *f, const uint8_t *src, size_t len,
    const h2o_http2_settings_t *settings, const char **err_desc)
{
	static decode_frame *original;
	struct http_conn *c = conn_of_input(src);
	ssize_t n;

	if (original == NULL)
		original = (decode_frame *)(uintptr_t)dlsym(RTLD_NEXT, "h2o_http2_decode_frame");
	if (c != NULL && c->is_cut)
		return H2O_HTTP2_ERROR_PROTOCOL_CLOSE_IMMEDIATELY;
	n = original(f, src, len, settings, err_desc);
	if (n < 0 || c == NULL)
		return n;
	if (is_flooding(c, f)) {
		conn_cut_flood(c);
		return H2O_HTTP2_ERROR_PROTOCOL_CLOSE_IMMEDIATELY;
	}
	expect_rest(c, f);
	take_body(c, f);
	ignore_unknown(f);
	return n;
}

bool
frames_are_seen(void)
{
	return dlsym(RTLD_DEFAULT, "h2o_http2_decode_frame") ==
		   (void *)(uintptr_t)h2o_http2_decode_frame &&
	       dlsym(RTLD_NEXT, "h2o_http2_decode_frame") != NULL;
}

/* ---- answers that hang ---- */

static h2o_http2_stream_t *
stream_of(const struct http_req *r)
{
	return H2O_STRUCT_FROM_MEMBER(h2o_http2_stream_t, req, r->h2o);
}

bool
frames_wait_for_window(const struct http_req *r)
{
	return r->conn->h2 != NULL && h2o_http2_stream_has_pending_data(stream_of(r));
}

uint64_t
frames_sent_bytes(const struct http_req *r)
{
	return r->h2o->bytes_sent;
}

void
frames_reset(struct http_req *r)
{
	reset((h2o_http2_conn_t *)r->h2o->conn, stream_of(r), -H2O_HTTP2_ERROR_CANCEL);
}

void
frames_watch(struct http_server *s)
{
	watched = s;
}
