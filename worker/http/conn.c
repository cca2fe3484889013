/*
 * conn - one accepted socket from accept to close: its phase, its timer, its end.
 *
 * h2o owns the socket and reads it. We hang on sock->on_close, and end a connection
 * from outside by shutdown(2): h2o then reads the end of it and cleans up its own way.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/check.h"
#include "common/log.h"
#include "worker/http/guard.h"
#include "worker/http/server.h"
#include "worker/loop/h2o_loop.h"

enum {
	DRAIN_SILENCE_MS = 1000,
	/* After a first GOAWAY h2o waits for a second before it says which request was the last. */
	DRAIN_SILENCE_HTTP2_MS = 2000,
	SILENT_MS =
	    1000, /* enough for a client that has something to say, retransmissions included */
	EVICT_BATCH = 512,
};

struct http_conn *
conn_of(h2o_req_t *req)
{
	struct http_conn *c = req->conn->callbacks->get_socket(req->conn)->on_close.data;

	check(c != NULL);
	return c;
}

const struct addr *
conn_peer(struct http_conn *c)
{
	struct sockaddr_storage sa;

	if (c->peer.kind != ADDR_NONE)
		return &c->peer;
	if (c->listener->from->is_unix)
		c->peer.kind = ADDR_UNIX;
	else if (h2o_socket_getpeername(c->sock, (struct sockaddr *)&sa) > 0)
		c->peer = addr_of_sockaddr((struct sockaddr *)&sa);
	return &c->peer;
}

static uint64_t
phase_timeout_ms(const struct http_conn *c, enum conn_phase phase)
{
	const struct http_server *s = c->listener->server;

	switch (phase) {
	case CONN_NEW:
		return s->is_draining || c->is_on_spare ? DRAIN_SILENCE_MS
							: s->conf->http.header_timeout_ms;
	case CONN_HEAD:
		return s->conf->http.header_timeout_ms;
	case CONN_BODY:
		return s->conf->http.body_timeout_ms;
	case CONN_IDLE:
		if (s->is_draining)
			return c->h2 != NULL ? DRAIN_SILENCE_HTTP2_MS : DRAIN_SILENCE_MS;
		if (c->h2 != NULL)
			return s->conf->http.body_timeout_ms;
		/* Who was told when to come again finds the connection then. */
		return s->conf->http.keepalive_timeout_ms +
		       (c->refusals > 0 ? HTTP_CAPACITY_RETRY_S * 1000 : 0);
	default:
		return 0;
	}
}

void
conn_enter(struct http_conn *c, enum conn_phase phase)
{
	struct http_server *s = c->listener->server;
	uint64_t timeout_ms = phase_timeout_ms(c, phase);

	list_del(&c->node);
	list_add_tail(&s->conns[phase], &c->node);
	c->phase = (uint8_t)phase;
	if (timeout_ms > 0)
		wheel_set(s->wheel, &c->timer, timeout_ms);
	else
		wheel_stop(s->wheel, &c->timer);
}

/* Each goes to the end of the same list: stop where it ended before. */
void
conn_enter_again(struct http_server *s, enum conn_phase phase)
{
	struct list *last = s->conns[phase].prev;

	list_for_safe (node, &s->conns[phase]) {
		conn_enter(list_entry(node, struct http_conn, node), phase);
		if (node == last)
			break;
	}
}

void
conn_cut(struct http_conn *c)
{
	if (c->is_cut)
		return;
	c->is_cut = true;
	shutdown(h2o_socket_get_fd(c->sock), SHUT_RDWR);
}

/* Of HTTP/2: we have nothing of a request before its body is there. Its own timer ends it. */
static bool
is_sending_request(const struct http_conn *c)
{
	return c->h2 != NULL && wheel_is_set(&c->h2->body_timer);
}

void
conn_evict_idle(struct http_server *s)
{
	list_for (node, &s->conns[CONN_IDLE]) {
		struct http_conn *c = list_entry(node, struct http_conn, node);

		if (!c->is_cut && !is_sending_request(c)) {
			conn_cut(c);
			return;
		}
	}
}

static bool
has_unread(struct http_conn *c)
{
	int unread = 0;

	return ioctl(h2o_socket_get_fd(c->sock), FIONREAD, &unread) == 0 && unread > 0;
}

static bool
is_silent(struct http_conn *c)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	return !has_unread(c) &&
	       getsockopt(h2o_socket_get_fd(c->sock), IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
	       info.tcpi_last_data_recv >= SILENT_MS;
}

/* The oldest first: they are at the front. */
static unsigned
evict_silent_of(struct http_server *s, enum conn_phase phase, unsigned batch)
{
	list_for (node, &s->conns[phase]) {
		struct http_conn *c = list_entry(node, struct http_conn, node);

		if (batch == 0)
			break;
		batch--;
		if (c->has_dispatched || c->is_cut || !is_silent(c))
			continue;
		metric_add(METRIC_CONNECTIONS_REJECTED, REJECT_TIMEOUT, 0, 1);
		conn_cut(c);
	}
	return batch;
}

void
conn_evict_silent(struct http_server *s)
{
	unsigned batch = evict_silent_of(s, CONN_NEW, EVICT_BATCH);

	evict_silent_of(s, CONN_HEAD, batch);
}

/* ---- the client goes ---- */

static void
on_gone(struct loop_watch *w, uint32_t events)
{
	struct http_conn *c = container_of(w, struct http_conn, gone_watch);

	(void)events;
	c->is_gone = true;
	if (c->gone_req != NULL)
		request_on_gone(c->gone_req);
}

void
conn_watch_gone(struct http_conn *c, struct http_req *r)
{
	struct loop *loop = c->listener->server->loop;

	c->gone_req = r;
	if (c->is_gone) /* the loop shall say it again */
		loop_watch_stop(loop, &c->gone_watch);
	c->is_gone = false;
	c->gone_watch.on_ready = on_gone;
	if (!c->gone_watch.is_active)
		loop_watch_start(
		    loop, &c->gone_watch, h2o_socket_get_fd(c->sock), EPOLLRDHUP | EPOLLET);
}

void
conn_forget_gone(struct http_conn *c, struct http_req *r)
{
	if (c->gone_req == r)
		c->gone_req = NULL;
}

/* The second descriptor would keep the watch alive. */
void
conn_linger(struct http_conn *c)
{
	loop_watch_stop(c->listener->server->loop, &c->gone_watch);
	if (c->linger_fd < 0)
		c->linger_fd = fcntl(h2o_socket_get_fd(c->sock), F_DUPFD_CLOEXEC, 0);
}

/* In the kernel's queue. */
uint64_t
conn_untaken_bytes(struct http_conn *c)
{
	int left = 0;

	ioctl(h2o_socket_get_fd(c->sock), SIOCOUTQ, &left);
	return (uint64_t)left;
}

/* TCP counts what the peer has acknowledged; for a Unix socket what is left in the queue must do.
 */
uint64_t
conn_taken_bytes(struct http_conn *c)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	if (getsockopt(h2o_socket_get_fd(c->sock), IPPROTO_TCP, TCP_INFO, &info, &len) == 0)
		return info.tcpi_bytes_acked;
	return conn_untaken_bytes(c);
}

/* ---- too slow ---- */

/* The answer is out, or will never be: h2o may read again, and finds the end. */
static void
on_refused(h2o_socket_t *sock, const char *err)
{
	struct http_conn *c = sock->on_close.data;

	(void)err;
	conn_cut(c);
	h2o_socket_read_start(sock, c->on_read);
}

/* h2o waits for the rest of a request: the answer goes out past it, then the socket is cut. */
void
conn_refuse(struct http_conn *c, int err)
{
	struct http_server *s = c->listener->server;
	struct buf b = BUF_INIT;
	h2o_iovec_t bytes;

	if (c->raw_answer != NULL || h2o_socket_is_writing(c->sock)) {
		conn_cut(c); /* neither it nor 100 Continue gets out */
		return;
	}
	c->on_read = c->sock->_cb.read;
	h2o_socket_read_stop(c->sock);
	answer_raw(err, &b);
	c->raw_answer = buf_take(&b, &bytes.len);
	bytes.base = c->raw_answer;
	wheel_set(s->wheel, &c->timer, s->conf->http.send_timeout_ms);
	conn_linger(c);
	h2o_socket_write(c->sock, &bytes, 1, on_refused);
}

static void
on_timer(struct wheel_entry *e)
{
	struct http_conn *c = container_of(e, struct http_conn, timer);

	if (c->is_cut)
		return;
	if (is_sending_request(c) && c->phase != CONN_BODY) {
		/* Idle for h2o's handlers only. The first must come within the time for a body. */
		conn_enter(c, c->phase == CONN_NEW ? CONN_BODY : CONN_IDLE);
	} else if (c->h2 == NULL && (c->phase == CONN_HEAD || c->phase == CONN_BODY)) {
		metric_add(METRIC_CONNECTIONS_REJECTED, REJECT_TIMEOUT, 0, 1);
		conn_refuse(c, E_REQUEST_TIMEOUT);
	} else if (c->phase == CONN_IDLE && has_unread(c)) {
		conn_enter(
		    c, CONN_IDLE); /* a request came with the end of the time: h2o reads it */
	} else if (c->phase != CONN_BUSY)
		conn_cut(c);
}

/* ---- floods ---- */

static bool
is_above(uint64_t count, int64_t max)
{
	return max > 0 && count > (uint64_t)max;
}

bool
conn_is_flooding(struct http_conn *c, enum conn_flood what)
{
	const struct http_server *s = c->listener->server;
	struct conn_http2 *h2 = c->h2;
	uint64_t now_ms = loop_now_ms(s->loop);

	if (now_ms - h2->flood_window_ms >= s->conf->http2.flood_window_ms) {
		h2->flood_window_ms = now_ms;
		h2->flood_written = c->sock->bytes_written;
		memset(h2->flood, 0, sizeof(h2->flood));
	}
	h2->flood[what]++;
	switch (what) {
	case FLOOD_REQUEST:
		return is_above(h2->flood[what], s->conf->http2.max_requests);
	case FLOOD_RESET:
		return is_above(h2->flood[what], s->conf->http2.max_resets);
	default:
		return s->conf->http2.max_control_frames > 0 && h2->flood[what] > frames_allowed(c);
	}
}

void
conn_cut_flood(struct http_conn *c)
{
	struct http_server *s = c->listener->server;
	const struct conn_http2 *h2 = c->h2;
	char client[ADDR_TEXT_MAX];

	addr_format(conn_peer(c), client);
	log_warn("connection cut reason=flood peer=%s requests=%u resets=%u frames=%u slot=%u",
	    client, h2->flood[FLOOD_REQUEST], h2->flood[FLOOD_RESET], h2->flood[FLOOD_FRAME],
	    s->handoff->slot);
	metric_add(METRIC_CONNECTIONS_REJECTED, REJECT_FLOOD, 0, 1);
	conn_cut(c);
}

/* ---- life ---- */

void
conn_become_http2(struct http_conn *c)
{
	if (c->h2 != NULL)
		return;
	c->h2 = xcalloc(1, sizeof(*c->h2));
	c->h2->conn = c;
	c->h2->flood_window_ms = loop_now_ms(c->listener->server->loop);
	c->h2->flood_written = c->sock->bytes_written;
}

static void
free_conn(struct http_conn *c)
{
	struct http_server *s = c->listener->server;

	if (c->h2 != NULL) {
		wheel_stop(s->wheel, &c->h2->body_timer);
		s->body_bytes -= c->h2->body_bytes;
	}
	free(c->h2);
	free(c->raw_answer);
	free(c);
}

uint16_t
conn_give_up(struct http_conn *c)
{
	uint16_t place = c->peer_place;

	check(c->in_progress == 0 && c->has_dispatched && c->linger_fd < 0 &&
	      c->over == GUARD_NOTHING);
	loop_watch_stop(c->listener->server->loop, &c->gone_watch);
	wheel_stop(c->listener->server->wheel, &c->timer);
	list_del(&c->node);
	free_conn(c);
	return place;
}

static void
on_close(void *data)
{
	struct http_conn *c = data;
	struct http_server *s = c->listener->server;

	check(c->in_progress == 0);
	loop_watch_forget(s->loop, &c->gone_watch); /* the descriptor is closed */
	wheel_stop(s->wheel, &c->timer);
	list_del(&c->node);
	s->open--;
	if (!c->has_dispatched) {
		s->waiting--;
		metric_gauge(METRIC_CONNECTION_QUEUE, 0, 0, -1);
	}
	guard_leave(s, c->peer_place, c->over != GUARD_NOTHING);
	if (c->linger_fd >= 0)
		linger_start(s, c->linger_fd);
	s->metrics_spares -= c->is_on_spare && c->listener->from->is_metrics;
	if (s->spare_count < LISTEN_SPARES && !s->is_draining)
		listen_spare_is_free(s);
	free_conn(c);
	listen_reconsider(s);
}

void
conn_open(struct http_listener *l, h2o_socket_t *sock)
{
	struct http_server *s = l->server;
	struct http_conn *c = xcalloc(1, sizeof(*c));

	c->listener = l;
	c->sock = sock;
	c->linger_fd = -1;
	c->timer.on_fire = on_timer;
	sock->on_close.cb = on_close;
	sock->on_close.data = c;
	s->open++;
	s->waiting++;
	metric_gauge(METRIC_CONNECTION_QUEUE, 0, 0, 1);
	conn_enter(c, CONN_NEW);
}
