/*
 * socket - the descriptors that libcurl uses: which are waited for, and how; and what
 * libcurl need not ask the kernel about them.
 *
 *   connecting, TLS handshake, sending     a watch in the loop's nested epoll
 *   established, waiting for bytes         a reader in h2o's own
 *
 * A connection that idles stays watched: the next request on it waits for the same.
 *
 * libcurl 7.88 closes a socket that is not established without calling
 * CURLOPT_CLOSESOCKETFUNCTION, and says CURL_POLL_REMOVE only afterwards, or never: its
 * inode tells whether the number is still the same socket's. An established one is
 * closed by client_close_socket() alone.
 */
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/check.h"
#include "worker/client/client_parts.h"

/* So many bytes in a turn and there may be more behind what was read: libcurl may ask. */
enum { MORE_BYTES = RECEIVE_BUFFER / 2 };

static ino_t
inode_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

static struct client_socket *
socket_get(const struct client *c, int fd)
{
	return fd >= 0 && (size_t)fd < c->socket_cap ? c->sockets[fd] : NULL;
}

/* ---- waiting ---- */

static bool
is_watched(const struct client_socket *s)
{
	return s->watch.is_active || loop_reader_is_active(&s->reader);
}

static bool
is_established(struct client_socket *s)
{
	const struct transfer *t = idmap_get(s->client->transfers, s->transfer);

	s->is_established |= s->is_connection && t != NULL && t->phase > TRANSFER_CONNECT;
	return s->is_established;
}

static void
stop_waiting(struct client_socket *s)
{
	loop_watch_stop(s->client->loop, &s->watch);
	loop_reader_stop(&s->reader);
}

static void
wait_for(struct client_socket *s, uint32_t events)
{
	struct loop *loop = s->client->loop;

	s->events = events;
	if (events == EPOLLIN && is_established(s)) {
		loop_watch_stop(loop, &s->watch);
		if (!loop_reader_is_active(&s->reader))
			loop_reader_start(loop, &s->reader, s->watch.fd);
		return;
	}
	loop_reader_stop(&s->reader);
	if (s->watch.is_active)
		loop_watch_change(loop, &s->watch, events);
	else
		loop_watch_start(loop, &s->watch, s->watch.fd, events);
}

static void
on_events(struct client_socket *s, uint32_t events)
{
	int what = 0;

	if (s->is_unwanted) { /* the other side has closed it: libcurl will find out */
		stop_waiting(s);
		return;
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLRDHUP))
		what |= CURL_CSELECT_IN;
	if (events & EPOLLOUT)
		what |= CURL_CSELECT_OUT;
	if (events & EPOLLERR)
		what |= CURL_CSELECT_ERR;
	client_action(s->client, s->watch.fd, what);
}

static void
on_ready(struct loop_watch *w, uint32_t events)
{
	struct client_socket *s = container_of(w, struct client_socket, watch);

	/* libcurl does not say when the handshake is over: it waits for the same. */
	if (s->events == EPOLLIN && !s->is_unwanted)
		wait_for(s, EPOLLIN);
	on_events(s, events);
}

static void
on_readable(struct loop_reader *r)
{
	on_events(container_of(r, struct client_socket, reader), EPOLLIN);
}

/* ---- life ---- */

static void
sockets_grow(struct client *c, int fd)
{
	size_t cap = c->socket_cap > 0 ? c->socket_cap : 64;

	if ((size_t)fd < c->socket_cap)
		return;
	while (cap <= (size_t)fd)
		cap *= 2;
	c->sockets = xrealloc(c->sockets, cap * sizeof(c->sockets[0]));
	memset(c->sockets + c->socket_cap, 0, (cap - c->socket_cap) * sizeof(c->sockets[0]));
	c->socket_cap = cap;
}

void
client_socket_free(struct client_socket *s)
{
	if (s->is_established || inode_of(s->watch.fd) == s->inode)
		stop_waiting(s);
	else
		loop_watch_forget(s->client->loop, &s->watch);
	s->client->sockets[s->watch.fd] = NULL;
	pool_idle_remove(s);
	free(s);
}

/* What is known of an earlier socket of that number is dropped, but for what libcurl wants to hear
 * of it: it believes that the new one is watched already. */
struct client_socket *
client_socket_add(struct client *c, int fd)
{
	struct client_socket *s = xcalloc(1, sizeof(*s)), *old = socket_get(c, fd);
	bool is_wanted = old != NULL && is_watched(old) && !old->is_unwanted;
	uint32_t events = is_wanted ? old->events : 0;

	if (old != NULL)
		client_socket_free(old);
	sockets_grow(c, fd);
	s->client = c;
	s->inode = inode_of(fd);
	s->watch.fd = fd;
	s->watch.on_ready = on_ready;
	s->reader.on_readable = on_readable;
	c->sockets[fd] = s;
	if (events != 0)
		wait_for(s, events);
	return s;
}

/* ---- what libcurl says ---- */

static void
unwanted(struct client_socket *s)
{
	if (s->is_established || (s->is_connection && inode_of(s->watch.fd) == s->inode))
		s->is_unwanted = true;
	else
		client_socket_free(s);
}

int
client_on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *unused)
{
	struct client *c = arg;
	struct client_socket *s = socket_get(c, fd);
	const struct transfer *t = NULL;
	uint32_t events = 0;

	(void)unused;
	if (what == CURL_POLL_REMOVE) {
		if (s != NULL)
			unwanted(s);
		return 0;
	}
	if (s == NULL || (!is_watched(s) && !s->is_established && inode_of(fd) != s->inode))
		s = client_socket_add(c, fd);
	pool_idle_remove(s); /* a transfer has taken it */
	s->is_unwanted = false;
	curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&t);
	s->transfer = t != NULL ? t->handle : 0;
	if (what & CURL_POLL_IN)
		events |= EPOLLIN;
	if (what & CURL_POLL_OUT)
		events |= EPOLLOUT;
	wait_for(s, events);
	return 0;
}

int
client_close_socket(void *arg, curl_socket_t fd)
{
	struct client_socket *s = socket_get(arg, fd);

	if (s != NULL)
		client_socket_free(s);
	return close(fd);
}

/* ---- what libcurl asks ---- */

/* The one that libcurl acts for; only the loop's thread has it. */
static __thread struct client *acting;

void
client_may_ask(struct client *c)
{
	acting = c;
}

/*
 * libcurl asks poll(2) after each read whether more has come. Where the loop waits for just that
 * it will say so, as its waiting is level-triggered: "nothing now" is true enough.
 */
static bool
is_the_loops_to_say(const struct client *c, const struct pollfd *p)
{
	const struct client_socket *s = socket_get(c, p->fd);

	return s != NULL && loop_reader_is_active(&s->reader) && !s->is_unwanted &&
	       (p->events & POLLOUT) == 0 && c->turn_bytes < MORE_BYTES;
}

/* In the executable it takes the place of libc's poll(), for libcurl and everybody else. */
int client_poll(struct pollfd *, nfds_t count, int timeout_ms) __asm__("poll");

int
client_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
	struct timespec t = {timeout_ms / 1000, timeout_ms % 1000 * 1000000L};

	if (acting != NULL && count == 1 && timeout_ms == 0 &&
	    is_the_loops_to_say(acting, &fds[0])) {
		fds[0].revents = 0;
		return 0;
	}
	return ppoll(fds, count, timeout_ms >= 0 ? &t : NULL, NULL);
}
