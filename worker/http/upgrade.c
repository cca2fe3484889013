/*
 * upgrade - h2o hands the socket over, and forgets the connection.
 *
 * While h2o sends the 101 the socket still belongs to its HTTP connection and to
 * our http_conn; then both are freed, and sock->on_close leads here. Sockets are
 * closed from a post, so that nobody frees one below a callback of its own.
 */
#include "worker/http/upgrade.h"

#include <sys/ioctl.h>
#include <sys/socket.h>

#include "common/check.h"
#include "worker/http/guard.h"
#include "worker/http/server.h"
#include "worker/loop/h2o_loop.h"

#include <h2o/http1.h> /* wants h2o.h before it */

enum { CLOSE_BATCH = 256 }; /* in one round of the loop */

/* ---- the end ---- */

static void
release(struct http_socket *s)
{
	struct http_server *server = s->server;

	server->sockets--;
	if (s->is_counted) {
		server->active--;
		metric_gauge(METRIC_CONNECTIONS, s->kind, 0, -1);
	}
	guard_leave(server, s->peer_place, false);
	list_del(&s->node);
}

/* h2o has closed the socket. */
static void
on_sock_closed(void *data)
{
	struct http_socket *s = data;
	struct http_server *server = s->server;

	release(s);
	server->open--;
	s->handlers->on_closed(s);
	listen_reconsider(server);
}

/* TLS would wait for the peer's farewell, without a limit. Even so it takes 5 KB for ours, until
 * the next round. */
static void
run_closing(struct loop_post *post)
{
	struct http_server *server = container_of(post, struct http_server, close_sockets);
	struct http_socket *s;

	for (int i = 0; i < CLOSE_BATCH; i++) {
		if ((s = list_first(&server->closing_sockets, struct http_socket, node)) == NULL)
			return;
		list_del(&s->node);
		if (!s->is_given)
			shutdown(h2o_socket_get_fd(s->sock), SHUT_RDWR);
		h2o_socket_close(s->sock);
	}
	loop_post(server->loop, post);
}

void
http_socket_close(struct http_socket *s)
{
	struct http_server *server = s->server;

	check(s->is_open);
	if (s->is_closing)
		return;
	s->is_closing = true;
	http_socket_pause(s);
	list_del(&s->node);
	list_add_tail(&server->closing_sockets, &s->node);
	server->close_sockets.run = run_closing;
	loop_post(server->loop, &server->close_sockets);
}

bool
http_socket_has_unread(const struct http_socket *s)
{
	int bytes = 0;

	return s->is_open && !s->is_closing &&
	       ioctl(h2o_socket_get_fd(s->sock), FIONREAD, &bytes) == 0 && bytes > 0;
}

/* ---- from one process to another ---- */

bool
http_socket_is_plain(const struct http_socket *s)
{
	const h2o_socket_t *sock = s->sock;

	return sock->ssl == NULL;
}

int
http_socket_fd(const struct http_socket *s)
{
	check(s->is_open && !s->is_writing && !s->is_closing);
	return h2o_socket_get_fd(s->sock);
}

void
http_socket_let_go(struct http_socket *s)
{
	s->is_given = true;
	http_socket_close(s);
}

bool
http_socket_adopt(struct http_server *server, struct http_socket *s, int fd,
    const struct http_socket_handlers *handlers, unsigned kind)
{
	if (server->open >= server->open_max)
		return false;
	*s = (struct http_socket){
	    .handlers = handlers, .server = server, .kind = (uint8_t)kind, .is_counted = true};
	h2o_socket_t *sock = h2o_evloop_socket_create(loop_h2o(server->loop), fd, 0);
	sock->on_close.cb = on_sock_closed;
	sock->on_close.data = s;
	sock->data = s;
	s->sock = sock;
	s->is_open = true;
	s->peer_place = guard_adopt(server, fd);
	server->open++;
	server->sockets++;
	server->active++;
	metric_gauge(METRIC_CONNECTIONS, s->kind, 0, 1);
	http_socket_resume(s);
	return true;
}

void
http_socket_end_output(struct http_socket *s)
{
	check(s->is_open && !s->is_writing);
	shutdown(h2o_socket_get_fd(s->sock), SHUT_WR);
}

/* ---- bytes ---- */

/* All of the buffer goes back to h2o, which frees it: 4 KB. It may also be an empty one, reserved
 * for what then was no more than a part of a TLS record. */
static void
drop_input(h2o_socket_t *sock)
{
	if (sock->input->size > 0) {
		h2o_buffer_consume(&sock->input, sock->input->size);
	} else if (sock->input->capacity > 0) {
		h2o_buffer_dispose(&sock->input);
		h2o_buffer_init(&sock->input, &h2o_socket_buffer_prototype);
	}
}

static void
give_input(struct http_socket *s)
{
	h2o_socket_t *sock = s->sock;

	if (sock->input->size > 0 && !s->is_closing)
		s->handlers->on_read(s, (uint8_t *)sock->input->bytes, sock->input->size);
	drop_input(sock);
}

static void
on_readable(h2o_socket_t *sock, const char *err)
{
	struct http_socket *s = sock->data;

	if (err != NULL)
		http_socket_close(s);
	else
		give_input(s);
}

void
http_socket_pause(struct http_socket *s)
{
	if (!s->is_reading)
		return;
	s->is_reading = false;
	h2o_socket_read_stop(s->sock);
}

void
http_socket_resume(struct http_socket *s)
{
	if (s->is_reading || s->is_closing)
		return;
	s->is_reading = true;
	h2o_socket_read_start(s->sock, on_readable);
}

static void
on_sent(h2o_socket_t *sock, const char *err)
{
	struct http_socket *s = sock->data;

	s->is_writing = false;
	if (err != NULL)
		http_socket_close(s);
	else if (!s->is_closing)
		s->handlers->on_written(s);
}

void
http_socket_write(struct http_socket *s, const struct iovec *iov, size_t count)
{
	h2o_iovec_t bufs[HTTP_SOCKET_IOV_MAX];

	check(s->is_open && !s->is_writing && count > 0 && count <= HTTP_SOCKET_IOV_MAX);
	if (s->is_closing)
		return;
	for (size_t i = 0; i < count; i++)
		bufs[i] = h2o_iovec_init(iov[i].iov_base, iov[i].iov_len);
	s->is_writing = true;
	h2o_socket_write(s->sock, bufs, count, on_sent);
}

/* Past h2o, which has nothing on its way: it would call back later. */
size_t
http_socket_write_now(struct http_socket *s, const void *bytes, size_t len)
{
	h2o_socket_t *sock = s->sock;

	check(s->is_open && !s->is_writing);
	if (s->is_closing || sock->ssl != NULL)
		return 0;
	ssize_t n = send(h2o_socket_get_fd(sock), bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	return n > 0 ? (size_t)n : 0;
}

/* ---- the beginning ---- */

bool
http_may_upgrade(const struct http_req *r)
{
	return r->conn->h2 == NULL;
}

bool
http_take_place(struct http_req *r)
{
	return r->is_counted || room_take_place(r);
}

void
http_reply_capacity(struct http_req *r)
{
	room_reply_capacity(r);
}

/* The request is disposed of; its bytes are still at the front of the input. */
static void
on_upgraded(void *data, h2o_socket_t *sock, size_t request_bytes)
{
	struct http_socket *s = data;

	if (sock == NULL) {
		release(s);
		s->handlers->on_closed(s);
		return;
	}
	s->peer_place = conn_give_up(sock->on_close.data);
	sock->on_close.cb = on_sock_closed;
	sock->on_close.data = s;
	sock->data = s;
	free(sock->_peername);
	sock->_peername = NULL;
	h2o_buffer_consume(&sock->input, request_bytes);
	s->sock = sock;
	s->is_open = true;
	http_socket_resume(s);
	s->handlers->on_open(s);
	give_input(s); /* who did not wait for the answer */
}

/* The place goes from the request to the socket. */
static void
adopt_place(struct http_socket *s, struct http_req *r)
{
	s->is_counted = r->is_counted;
	if (!r->is_counted)
		return;
	r->is_counted = false;
	metric_gauge(METRIC_CONNECTIONS, r->kind, 0, -1);
	metric_gauge(METRIC_CONNECTIONS, s->kind, 0, 1);
}

void
http_upgrade(struct http_req *r, struct http_socket *s, const struct http_socket_handlers *handlers,
    unsigned kind)
{
	struct http_server *server = r->server;

	check(!r->is_begun && r->conn->h2 == NULL);
	*s = (struct http_socket){.handlers = handlers, .server = server, .kind = (uint8_t)kind};
	server->sockets++;
	adopt_place(s, r);
	request_forget(r);
	answer_begin(r, 101, NULL);
	r->is_answered = true;
	r->sent_mark = conn_taken_bytes(r->conn);
	wheel_set(server->wheel, &r->timer, server->conf->http.send_timeout_ms);
	h2o_http1_upgrade(r->h2o, NULL, 0, on_upgraded, s);
}

struct wheel *
http_server_wheel(const struct http_server *server)
{
	return server->wheel;
}

struct loop *
http_server_loop(const struct http_server *server)
{
	return server->loop;
}

const struct conf *
http_server_conf(const struct http_server *server)
{
	return server->conf;
}
