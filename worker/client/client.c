/*
 * client - libcurl's multi socket interface on the loop.
 *
 * libcurl says which descriptors and which time it waits for; we tell it what
 * happened, then look what has ended. One multi handle per worker, because the
 * CA store is cached per handle; its connection cache has no limit of its own
 * (the built-in one counts busy connections too), pool.c trims it.
 */
#include "worker/client/client.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/check.h"
#include "worker/client/client_parts.h"

enum { CACHED_CONNECTIONS_MAX = 1000000 };

#define CA_FILE "/etc/ssl/certs/ca-certificates.crt"

/* ---- after libcurl was on the stack ---- */

static void
settle_messages(struct client *c)
{
	CURLMsg *msg;
	int left;

	while ((msg = curl_multi_info_read(c->multi, &left)) != NULL) {
		struct transfer *t;

		check(msg->msg == CURLMSG_DONE);
		curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&t);
		transfer_complete(t, msg->data.result);
	}
}

static void
settle_doomed(struct client *c)
{
	struct transfer *t;

	while ((t = list_first(&c->doomed, struct transfer, node)) != NULL) {
		list_del(&t->node);
		transfer_free(t);
	}
}

static void
client_settle(struct client *c)
{
	check(c->curl_depth == 0);
	settle_messages(c);
	settle_doomed(c);
	list_for (node, &c->pools)
		pool_dispatch(list_entry(node, struct client_pool, node));
}

static void
on_settle(struct loop_post *p)
{
	client_settle(container_of(p, struct client, settle));
}

void
client_settle_soon(struct client *c)
{
	loop_post(c->loop, &c->settle);
}

/* A few in each round of the loop, at most once each: who is as fast as its provider would be
 * paused and resumed for as long as there are bytes, and nobody else be heard. libcurl may give
 * what it held back from inside curl_easy_pause(). */
static void
on_resume(struct loop_timer *timer)
{
	struct client *c = container_of(timer, struct client, resume);
	struct transfer *t;

	for (int n = 0; n < RESUMES_PER_ROUND; n++) {
		t = list_first(&c->resuming, struct transfer, resume_node);
		if (t == NULL)
			break;
		list_del(&t->resume_node);
		t->is_paused = false;
		t->phase_ms = loop_now_ms(c->loop);
		c->curl_depth++;
		curl_easy_pause(t->easy, CURLPAUSE_CONT);
		c->curl_depth--;
		transfer_wait(t);
	}
	if (!list_empty(&c->resuming))
		loop_timer_set(c->loop, &c->resume, 0);
	client_settle(c);
}

/* ---- libcurl's sockets and time ---- */

static void
client_action(struct client *c, curl_socket_t fd, int what)
{
	int running;

	c->turn++;
	c->curl_depth++;
	CURLMcode rc = curl_multi_socket_action(c->multi, fd, what, &running);
	c->curl_depth--;
	check(rc == CURLM_OK || rc == CURLM_BAD_SOCKET);
	client_settle(c);
}

static void
on_ready(struct loop_watch *w, uint32_t events)
{
	struct client_socket *s = container_of(w, struct client_socket, watch);
	int what = 0;

	if (s->is_unwanted) { /* the other side has closed it: libcurl will find out */
		loop_watch_stop(s->client->loop, w);
		return;
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLRDHUP))
		what |= CURL_CSELECT_IN;
	if (events & EPOLLOUT)
		what |= CURL_CSELECT_OUT;
	if (events & EPOLLERR)
		what |= CURL_CSELECT_ERR;
	client_action(s->client, w->fd, what);
}

static ino_t
inode_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

static void
client_sockets_grow(struct client *c, int fd)
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

static struct client_socket *
client_socket_get(struct client *c, int fd)
{
	return (size_t)fd < c->socket_cap ? c->sockets[fd] : NULL;
}

/*
 * libcurl 7.88 closes a socket whose connect() has failed without calling
 * CURLOPT_CLOSESOCKETFUNCTION, and says CURL_POLL_REMOVE only afterwards, or never.
 */
static void
client_socket_free(struct client_socket *s)
{
	if (inode_of(s->watch.fd) == s->inode)
		loop_watch_stop(s->client->loop, &s->watch);
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
	struct client_socket *s = xcalloc(1, sizeof(*s)), *old = client_socket_get(c, fd);
	bool is_wanted = old != NULL && old->watch.is_active && !old->is_unwanted;
	uint32_t events = is_wanted ? old->watch.events : 0;

	if (old != NULL)
		client_socket_free(old);
	client_sockets_grow(c, fd);
	s->client = c;
	s->inode = inode_of(fd);
	s->watch.fd = fd;
	s->watch.on_ready = on_ready;
	c->sockets[fd] = s;
	if (events != 0)
		loop_watch_start(c->loop, &s->watch, fd, events);
	return s;
}

/* A connection that idles stays watched: the next request on it waits for the same. */
static int
socket_unwatch(struct client_socket *s)
{
	if (s == NULL)
		return 0;
	if (!s->is_connection || inode_of(s->watch.fd) != s->inode)
		client_socket_free(s);
	else
		s->is_unwanted = true;
	return 0;
}

static int
on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *unused)
{
	struct client *c = arg;
	struct client_socket *s = client_socket_get(c, fd);
	uint32_t events = 0;

	(void)easy, (void)unused;
	if (what == CURL_POLL_REMOVE)
		return socket_unwatch(s);
	if (s == NULL || (!s->watch.is_active && inode_of(fd) != s->inode))
		s = client_socket_add(c, fd);
	pool_idle_remove(s); /* a transfer has taken it */
	s->is_unwanted = false;
	if (what & CURL_POLL_IN)
		events |= EPOLLIN;
	if (what & CURL_POLL_OUT)
		events |= EPOLLOUT;
	if (s->watch.is_active)
		loop_watch_change(c->loop, &s->watch, events);
	else
		loop_watch_start(c->loop, &s->watch, fd, events);
	return 0;
}

int
client_close_socket(void *arg, curl_socket_t fd)
{
	struct client_socket *s = client_socket_get(arg, fd);

	if (s != NULL)
		client_socket_free(s);
	return close(fd);
}

static int
on_timeout_change(CURLM *multi, long timeout_ms, void *arg)
{
	struct client *c = arg;

	(void)multi;
	if (timeout_ms < 0)
		loop_timer_stop(c->loop, &c->timer);
	else
		loop_timer_set(c->loop, &c->timer, (uint64_t)timeout_ms);
	return 0;
}

static void
on_timer(struct loop_timer *t)
{
	client_action(container_of(t, struct client, timer), CURL_SOCKET_TIMEOUT, 0);
}

/* ---- the life of the client ---- */

struct client *
client_new(struct loop *loop)
{
	const char *ca_file = getenv("SSL_CERT_FILE");
	struct client *c = xcalloc(1, sizeof(*c));

	check(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
	c->loop = loop;
	c->transfers = idmap_new();
	c->timer.on_fire = on_timer;
	c->settle.run = on_settle;
	c->resume.on_fire = on_resume;
	c->ca_file = xstrdup(ca_file != NULL && *ca_file != '\0' ? ca_file : CA_FILE);
	list_init(&c->doomed);
	list_init(&c->resuming);
	list_init(&c->pools);
	c->multi = curl_multi_init();
	check(c->multi != NULL);
	curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
	curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, on_timeout_change);
	curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
	curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, (long)CACHED_CONNECTIONS_MAX);
	curl_multi_setopt(c->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
	return c;
}

void
client_free(struct client **cp)
{
	struct client *c = *cp;

	if (c == NULL)
		return;
	*cp = NULL;
	check(c->curl_depth == 0 && list_empty(&c->pools) && idmap_count(c->transfers) == 0);
	settle_doomed(c);
	curl_multi_cleanup(c->multi); /* closes what is in its cache */
	for (size_t fd = 0; fd < c->socket_cap; fd++) {
		if (c->sockets[fd] != NULL)
			client_socket_free(c->sockets[fd]);
	}
	loop_timer_stop(c->loop, &c->timer);
	loop_timer_stop(c->loop, &c->resume);
	loop_post_cancel(c->loop, &c->settle);
	idmap_free(&c->transfers);
	free(c->sockets);
	free(c->ca_file);
	free(c);
	curl_global_cleanup();
}

/* ---- requests ---- */

void
client_cancel(struct client *c, uint64_t handle)
{
	struct transfer *t = idmap_get(c->transfers, handle);

	if (t == NULL)
		return;
	idmap_remove(c->transfers, handle);
	t->handle = 0;
	if (c->curl_depth == 0 || t->easy == NULL) {
		struct client_pool *pool = t->pool;

		transfer_free(t);
		pool_dispatch(pool);
		return;
	}
	loop_timer_stop(c->loop, &t->timer);
	list_del(&t->resume_node);
	list_add_tail(&c->doomed, &t->node);
}

void
client_resume(struct client *c, uint64_t handle)
{
	struct transfer *t = idmap_get(c->transfers, handle);

	if (t == NULL || !t->is_paused || list_linked(&t->resume_node))
		return;
	list_add_tail(&c->resuming, &t->resume_node);
	if (!loop_timer_is_set(&c->resume))
		loop_timer_set(c->loop, &c->resume, 0);
}
