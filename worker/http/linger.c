/*
 * linger - closes a connection whose client is still sending.
 *
 * close(2) with unread bytes resets the connection, and the reset overtakes the
 * answer that explains the refusal. So we say that we are done, read and drop what
 * comes until the client has read our answer and closes, and give up soon.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/check.h"
#include "worker/http/server.h"

enum {
	LINGER_MS = 2000,
	LINGER_MAX = 64, /* at once; more are closed as they are */
	LINGER_BYTES_MAX = 64 << 20,
};

struct lingerer {
	struct http_server *server;
	struct loop_watch watch;
	struct wheel_entry timer;
	uint64_t bytes;
};

static void
linger_end(struct lingerer *g)
{
	struct http_server *s = g->server;

	loop_watch_stop(s->loop, &g->watch);
	wheel_stop(s->wheel, &g->timer);
	close(g->watch.fd);
	free(g);
	s->lingering--;
	s->open--;
	listen_reconsider(s);
}

static void
on_ready(struct loop_watch *w, uint32_t events)
{
	struct lingerer *g = container_of(w, struct lingerer, watch);
	char drop[16 << 10];
	ssize_t n = read(w->fd, drop, sizeof(drop));

	if (n > 0)
		g->bytes += (uint64_t)n;
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR) || (events & EPOLLERR) != 0 ||
	    g->bytes > LINGER_BYTES_MAX)
		linger_end(g);
}

static void
on_time(struct wheel_entry *e)
{
	linger_end(container_of(e, struct lingerer, timer));
}

void
linger_start(struct http_server *s, int fd)
{
	struct lingerer *g;

	if (s->lingering >= LINGER_MAX || shutdown(fd, SHUT_WR) != 0) {
		close(fd);
		return;
	}
	g = xcalloc(1, sizeof(*g));
	g->server = s;
	g->watch.on_ready = on_ready;
	g->timer.on_fire = on_time;
	s->lingering++;
	s->open++;
	loop_watch_start(s->loop, &g->watch, fd, EPOLLIN | EPOLLRDHUP);
	wheel_set(s->wheel, &g->timer, LINGER_MS);
}
