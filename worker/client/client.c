/*
 * client - libcurl's multi socket interface on the loop.
 *
 * libcurl says which descriptors and which time it waits for; we tell it what
 * happened, then look what has ended. One multi handle per worker, because the
 * CA store is cached per handle; its connection cache has no limit of its own
 * (the built-in one counts busy connections too), pool.c trims it.
 */
#include "worker/client/client.h"

#include <stdlib.h>

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

/* ---- libcurl's turn ---- */

void
client_action(struct client *c, curl_socket_t fd, int what)
{
	int running;

	c->turn++;
	c->turn_bytes = 0;
	c->curl_depth++;
	client_may_ask(c);
	CURLMcode rc = curl_multi_socket_action(c->multi, fd, what, &running);
	client_may_ask(NULL);
	c->curl_depth--;
	check(rc == CURLM_OK || rc == CURLM_BAD_SOCKET);
	client_settle(c);
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
	curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, client_on_socket);
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
