/*
 * listen - accepts, as long as there is room for sockets.
 *
 * Two limits: all open sockets, and those whose first request has not been
 * dispatched. At either the listeners are not read: what comes waits in the
 * kernel's backlog. h2o spins on a listener that it cannot accept from.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/check.h"
#include "common/log.h"
#include "worker/http/forwarded.h"
#include "worker/http/guard.h"
#include "worker/http/server.h"
#include "worker/loop/h2o_loop.h"

enum {
	ACCEPT_BATCH = 64, /* per listener and round */
	METRICS_SPARES_MAX = 2,
	ACCEPT_AGAIN_MS = 100,     /* after the system refused one */
	EVICT_AGAIN_MS = 100,      /* while the queue is full of who says nothing */
	DESCRIPTORS_FOR_REST = 64, /* log, database, bus: beside 3 % of the table */
};

static bool
has_room(const struct http_server *s)
{
	return s->open < s->open_max && s->waiting < s->queue_max;
}

/* The metrics listener has no limits. */
static void
pause_accepting(struct http_server *s)
{
	s->is_paused = true;
	for (uint32_t i = 0; i < s->listener_count; i++) {
		if (s->listeners[i].sock != NULL && !s->listeners[i].from->is_metrics)
			h2o_socket_read_stop(s->listeners[i].sock);
	}
}

static void on_listener(h2o_socket_t *, const char *err);

static void
resume_accepting(struct http_server *s)
{
	s->is_paused = false;
	loop_timer_stop(s->loop, &s->evict_again);
	for (uint32_t i = 0; i < s->listener_count; i++) {
		if (s->listeners[i].sock != NULL)
			h2o_socket_read_start(s->listeners[i].sock, on_listener);
	}
}

void
listen_reconsider(struct http_server *s)
{
	if (s->is_paused && !s->is_draining && has_room(s) && !loop_timer_is_set(&s->accept_again))
		resume_accepting(s);
}

static void
on_accept_again(struct loop_timer *t)
{
	struct http_server *s = container_of(t, struct http_server, accept_again);

	for (uint32_t i = 0; i < s->listener_count; i++) {
		if (s->listeners[i].from->is_metrics)
			h2o_socket_read_start(s->listeners[i].sock, on_listener);
	}
	listen_reconsider(s);
}

/* Its client is known. */
static void
admit(struct http_conn *c)
{
	if (guard_admit(c))
		h2o_accept(&c->listener->accept, c->sock);
	else
		h2o_socket_close(c->sock);
}

/* ---- the PROXY protocol, before h2o sees a byte ---- */

static void
on_proxy_bytes(h2o_socket_t *sock, const char *err)
{
	struct http_conn *c = sock->on_close.data;
	long n = err != NULL
		     ? PROXY_BAD
		     : proxy_header_parse(sock->input->bytes, sock->input->size, &c->client);

	if (n == 0)
		return;
	if (n == PROXY_BAD) {
		if (err == NULL)
			metric_add(METRIC_CONNECTIONS_REJECTED, REJECT_PROTOCOL, 0, 1);
		h2o_socket_close(sock);
		return;
	}
	if (n > 0)
		h2o_buffer_consume(&sock->input, (size_t)n);
	h2o_socket_read_stop(sock);
	admit(c);
}

static void
start(struct http_conn *c)
{
	struct http_server *s = c->listener->server;

	if (s->trusted.n > 0 && addr_nets_have(&s->trusted, conn_peer(c)))
		h2o_socket_read_start(c->sock, on_proxy_bytes);
	else
		admit(c);
}

static void
open_accepted(struct http_listener *l, h2o_socket_t *sock)
{
	conn_open(l, sock);
	start(sock->on_close.data);
}

/* ---- descriptors held back ---- */

static void
take_spares(struct http_server *s)
{
	while (s->spare_count < LISTEN_SPARES) {
		int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

		if (fd < 0)
			return;
		s->spares[s->spare_count++] = fd;
	}
}

void
listen_give_spares_back(struct http_server *s)
{
	while (s->spare_count > 0)
		close(s->spares[--s->spare_count]);
}

/* The rest is for who asks for /health. */
static bool
may_take_spare(const struct http_listener *l)
{
	const struct http_server *s = l->server;

	return s->spare_count > 0 &&
	       (!l->from->is_metrics || s->metrics_spares < METRICS_SPARES_MAX);
}

/* Those who are next may be asking for /health. Their ends give the spares back; who is closed at
 * once gives it back at once. */
static void
accept_on_spares(struct http_listener *l)
{
	struct http_server *s = l->server;

	for (int i = 0; i < ACCEPT_BATCH && may_take_spare(l); i++) {
		h2o_socket_t *sock;

		close(s->spares[--s->spare_count]);
		if ((sock = h2o_evloop_socket_accept(l->sock)) == NULL)
			break;
		conn_open(l, sock);
		((struct http_conn *)sock->on_close.data)->is_on_spare = true;
		s->metrics_spares += l->from->is_metrics;
		conn_enter(sock->on_close.data, CONN_NEW);
		start(sock->on_close.data);
	}
	take_spares(s);
}

void
listen_spare_is_free(struct http_server *s)
{
	take_spares(s);
	if (loop_timer_is_set(&s->accept_again))
		loop_timer_set(s->loop, &s->accept_again, 0);
}

/* ---- accepting ---- */

static void
on_accept_failed(struct http_listener *l, int err)
{
	struct http_server *s = l->server;

	if (err == EAGAIN || err == EINTR || err == ECONNABORTED)
		return;
	if (err == EMFILE || err == ENFILE) {
		conn_evict_idle(s);
		accept_on_spares(l);
	}
	log_warn("accept failed error=%s open=%u", log_quote(str_of(strerror(err))).s, s->open);
	metric_add(METRIC_CONNECTIONS_REJECTED, REJECT_SOCKETS, 0, 1);
	if (l->from->is_metrics)
		h2o_socket_read_stop(l->sock);
	else
		pause_accepting(s);
	loop_timer_set(s->loop, &s->accept_again, ACCEPT_AGAIN_MS);
}

static void
on_no_room(struct http_server *s)
{
	if (s->open >= s->open_max)
		conn_evict_idle(s);
	log_warn("accepting paused reason=%s open=%u waiting=%u",
	    s->open >= s->open_max ? "sockets" : "queue", s->open, s->waiting);
	pause_accepting(s);
	loop_timer_set(s->loop, &s->evict_again, EVICT_AGAIN_MS);
}

static void
on_listener(h2o_socket_t *listener, const char *err)
{
	struct http_listener *l = listener->data;
	struct http_server *s = l->server;

	(void)err;
	for (int i = 0; i < ACCEPT_BATCH; i++) {
		h2o_socket_t *sock;

		if (!has_room(s) && !l->from->is_metrics) {
			on_no_room(s);
			return;
		}
		if ((sock = h2o_evloop_socket_accept(listener)) == NULL) {
			on_accept_failed(l, errno);
			return;
		}
		open_accepted(l, sock);
	}
}

static void
on_evict_again(struct loop_timer *t)
{
	struct http_server *s = container_of(t, struct http_server, evict_again);

	if (!s->is_paused)
		return;
	if (s->open >= s->open_max)
		conn_evict_idle(s);
	conn_evict_silent(s);
	loop_timer_set(s->loop, t, EVICT_AGAIN_MS);
}

/* A process that cannot open a socket must not promise one: the reserve comes first. */
static void
share_sockets(struct http_server *s)
{
	const struct conf *conf = s->conf;
	uint64_t want = (uint64_t)conf->max_connections + (uint64_t)conf->connection_queue_size +
			(uint64_t)conf->ops_reserve;
	struct rlimit files;
	uint64_t have, reserve, rest;

	s->open_max = (uint32_t)want;
	s->places_max = (uint32_t)conf->max_connections;
	s->queue_max = (uint32_t)conf->connection_queue_size;
	if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur == RLIM_INFINITY)
		return;
	have = files.rlim_cur - files.rlim_cur * 3 / 100;
	have = have > 2 * DESCRIPTORS_FOR_REST ? have - DESCRIPTORS_FOR_REST : DESCRIPTORS_FOR_REST;
	if (want <= have)
		return;
	reserve = (uint64_t)conf->ops_reserve < have / 4 ? (uint64_t)conf->ops_reserve : have / 4;
	rest = have - reserve;
	s->open_max = (uint32_t)have;
	if (s->queue_max > rest / 2)
		s->queue_max = (uint32_t)(rest / 2);
	if (s->places_max <= rest)
		return;
	s->places_max = (uint32_t)rest;
	log_warn("max_connections capped wanted=%lld max=%u queue_size=%u reason=rlimit_nofile",
	    (long long)conf->max_connections, s->places_max, s->queue_max);
}

/* Accepted sockets inherit it. A Unix socket has no such option, and its queue is small anyway. */
static void
limit_unsent(const struct http_server *s, const struct handoff_listener *l)
{
	int bytes = (int)s->conf->http.max_unsent_bytes; /* 0: the system's default, no limit */

	if (!l->is_unix &&
	    setsockopt(l->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof(bytes)) != 0)
		log_warn("send buffers not limited error=%s", log_quote(str_of(strerror(errno))).s);
}

int
listen_start(struct http_server *s)
{
	const struct handoff *h = s->handoff;

	share_sockets(s);
	take_spares(s);
	metric_gauge_set(METRIC_CONNECTIONS_MAX, 0, 0, s->places_max);
	s->accept_again.on_fire = on_accept_again;
	s->evict_again.on_fire = on_evict_again;
	s->listener_count = h->listener_count;
	s->listeners = xcalloc(h->listener_count, sizeof(s->listeners[0]));
	for (uint32_t i = 0; i < h->listener_count; i++) {
		struct http_listener *l = &s->listeners[i];

		l->server = s;
		l->from = &h->listeners[i];
		limit_unsent(s, l->from);
		l->accept = (h2o_accept_ctx_t){.ctx = &s->h2o,
		    .hosts = s->h2o_conf.hosts,
		    .ssl_ctx = l->from->is_tls ? s->tls : NULL};
		l->sock = h2o_evloop_socket_create(
		    loop_h2o(s->loop), l->from->fd, H2O_SOCKET_FLAG_DONT_READ);
		l->sock->data = l;
		h2o_socket_read_start(l->sock, on_listener);
	}
	s->is_listening = true;
	return 0;
}

/* ---- the end ---- */

bool
listen_is_host_ending(const struct http_server *s)
{
	return atomic_load(shm_word(s->handoff->shm, SHM_WORD_IS_DRAINING)) != 0;
}

/* Who is in the queue was promised an answer: they are taken whatever the limits say. False: no
 * descriptor is free, so not all of them yet. */
static bool
empty_queue(struct http_listener *l)
{
	for (;;) {
		h2o_socket_t *sock = h2o_evloop_socket_accept(l->sock);

		if (sock != NULL)
			open_accepted(l, sock);
		else if (errno == EMFILE || errno == ENFILE)
			return false;
		else if (errno != EINTR && errno != ECONNABORTED)
			return true;
	}
}

/* Its address is none any more (an upgrade whose configuration lacks it): nobody else has this
 * queue. The master has shut it by a filter, a device that does not exist, or removed its path. */
static bool
is_shut(const struct http_listener *l)
{
	int index = 0;
	socklen_t len = 0, index_len = sizeof(index);

	if (l->from->is_unix) {
		struct sockaddr_un a;
		socklen_t a_len = sizeof(a);

		return getsockname(l->from->fd, (struct sockaddr *)&a, &a_len) == 0 &&
		       access(a.sun_path, F_OK) != 0 && errno == ENOENT;
	}
	if (getsockopt(l->from->fd, SOL_SOCKET, SO_GET_FILTER, NULL, &len) == 0 && len > 0)
		return true;
	return getsockopt(l->from->fd, SOL_SOCKET, SO_BINDTOIFINDEX, &index, &index_len) == 0 &&
	       index == INT_MAX;
}

static void
close_listeners(struct http_server *s)
{
	s->is_listening = false;
	for (uint32_t i = 0; i < s->listener_count; i++) {
		struct http_listener *l = &s->listeners[i];

		if (l->sock == NULL)
			continue;
		if ((listen_is_host_ending(s) || is_shut(l)) && !empty_queue(l)) {
			s->is_listening = true;
			continue;
		}
		h2o_socket_close(l->sock);
		l->sock = NULL;
	}
	if (!s->is_listening)
		return;
	conn_evict_idle(s);
	loop_timer_set(s->loop, &s->accept_again, ACCEPT_AGAIN_MS);
}

static void
on_close_again(struct loop_timer *t)
{
	close_listeners(container_of(t, struct http_server, accept_again));
}

/* The queue of a slot that has a successor is left to it: it has the same sockets. */
void
listen_drain(struct http_server *s)
{
	loop_timer_stop(s->loop, &s->evict_again);
	listen_give_spares_back(s);
	for (uint32_t i = 0; i < s->listener_count; i++) {
		if (s->listeners[i].sock != NULL)
			h2o_socket_read_stop(s->listeners[i].sock);
	}
	loop_timer_stop(s->loop, &s->accept_again);
	s->accept_again.on_fire = on_close_again;
	close_listeners(s);
}
