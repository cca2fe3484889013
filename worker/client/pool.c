/*
 * pool - places for requests to one upstream, and its idle connections.
 *
 * libcurl reuses idle connections by itself but can neither be told to close
 * one nor tells when the other side has: an idle one that is too many or too
 * old is shut down here (the peer sees it at once); libcurl finds it dead and
 * closes it when it next looks for a connection.
 */
#include <stdlib.h>
#include <sys/socket.h>

#include "common/check.h"
#include "worker/client/client_parts.h"

/* ---- idle connections ---- */

void
pool_idle_remove(struct client_socket *s)
{
	if (!list_linked(&s->idle_node))
		return;
	list_del(&s->idle_node);
	s->pool->idle_count--;
}

static void
pool_idle_close_oldest(struct client_pool *p)
{
	struct client_socket *s = list_first(&p->idle, struct client_socket, idle_node);

	pool_idle_remove(s);
	shutdown(s->watch.fd, SHUT_RDWR);
}

static void
pool_trim_later(struct client_pool *p)
{
	const struct client_socket *s = list_first(&p->idle, struct client_socket, idle_node);
	uint64_t now_ms = loop_now_ms(p->client->loop);

	if (s == NULL)
		loop_timer_stop(p->client->loop, &p->trim);
	else if (!loop_timer_is_set(&p->trim))
		loop_timer_set(
		    p->client->loop, &p->trim, s->idle_since_ms + p->conf.keepalive_ms - now_ms);
}

static void
on_trim(struct loop_timer *timer)
{
	struct client_pool *p = container_of(timer, struct client_pool, trim);
	uint64_t now_ms = loop_now_ms(p->client->loop);
	struct client_socket *s;

	while ((s = list_first(&p->idle, struct client_socket, idle_node)) != NULL &&
	       s->idle_since_ms + p->conf.keepalive_ms <= now_ms)
		pool_idle_close_oldest(p);
	pool_trim_later(p);
}

void
pool_idle_add(struct client_pool *p, struct client_socket *s)
{
	if (list_linked(&s->idle_node))
		return;
	s->pool = p;
	s->idle_since_ms = loop_now_ms(p->client->loop);
	list_add_tail(&p->idle, &s->idle_node);
	p->idle_count++;
	while (p->idle_count > p->conf.keepalive_max)
		pool_idle_close_oldest(p);
	pool_trim_later(p);
}

/* ---- easy handles: their constant options stay set ---- */

CURL *
pool_take_easy(struct client_pool *p)
{
	if (p->easy_count > 0)
		return p->easies[--p->easy_count];
	CURL *easy = curl_easy_init();
	check(easy != NULL);
	transfer_constant_options(easy, p);
	return easy;
}

void
pool_give_easy(struct client_pool *p, CURL *easy)
{
	if (p->easy_count < EASIES_KEPT)
		p->easies[p->easy_count++] = easy;
	else
		curl_easy_cleanup(easy);
}

/* ---- places ---- */

static void
pool_change_in_use(struct client_pool *p, int delta)
{
	p->in_use += (uint32_t)delta;
	if (p->conf.on_in_use != NULL)
		p->conf.on_in_use(p->conf.arg, delta);
}

void
pool_note_wait(struct transfer *t)
{
	const struct client_pool_conf *conf = &t->pool->conf;

	if (conf->on_waited != NULL)
		conf->on_waited(conf->arg, loop_now_ms(t->client->loop) - t->started_ms);
}

void
pool_dispatch(struct client_pool *p)
{
	struct transfer *t;

	while (p->client->curl_depth == 0 && p->in_use < p->conf.connections_max &&
	       (t = list_first(&p->waiting, struct transfer, node)) != NULL) {
		list_del(&t->node);
		p->waiting_count--;
		pool_change_in_use(p, 1);
		pool_note_wait(t);
		transfer_launch(t);
	}
}

void
pool_enqueue(struct transfer *t)
{
	struct client_pool *p = t->pool;

	list_add_tail(&p->waiting, &t->node);
	p->waiting_count++;
	pool_dispatch(p);
	if (t->easy == NULL && p->in_use < p->conf.connections_max)
		client_settle_soon(p->client); /* libcurl is on the stack */
}

void
pool_leave(struct transfer *t)
{
	if (t->easy != NULL) {
		check(t->pool->in_use > 0);
		pool_change_in_use(t->pool, -1);
	} else {
		list_del(&t->node);
		t->pool->waiting_count--;
	}
}

/* ---- life ---- */

struct client_pool *
client_pool_new(struct client *c, const struct client_pool_conf *conf)
{
	struct client_pool *p = xcalloc(1, sizeof(*p));

	check(conf->connections_max > 0);
	p->client = c;
	p->conf = *conf;
	p->conf.name = p->name = xstrdup(conf->name);
	p->trim.on_fire = on_trim;
	list_init(&p->waiting);
	list_init(&p->idle);
	list_add_tail(&c->pools, &p->node);
	return p;
}

/* Its connections stay in libcurl's cache, dead, and belong to no pool. */
static void
pool_forget_sockets(struct client_pool *p)
{
	struct client *c = p->client;

	while (!list_empty(&p->idle))
		pool_idle_close_oldest(p);
	for (size_t fd = 0; fd < c->socket_cap; fd++) {
		if (c->sockets[fd] != NULL && c->sockets[fd]->pool == p)
			c->sockets[fd]->pool = NULL;
	}
}

void
client_pool_free(struct client_pool **pp)
{
	struct client_pool *p = *pp;
	struct transfer *t;
	uint32_t cursor = 0;

	if (p == NULL)
		return;
	*pp = NULL;
	check(p->client->curl_depth == 0);
	p->conf.connections_max = 0; /* nothing starts any more */
	while ((t = idmap_next(p->client->transfers, &cursor)) != NULL) {
		if (t->pool == p)
			client_cancel(p->client, t->handle);
	}
	check(p->in_use == 0 && p->waiting_count == 0);
	pool_forget_sockets(p);
	loop_timer_stop(p->client->loop, &p->trim);
	while (p->easy_count > 0)
		curl_easy_cleanup(p->easies[--p->easy_count]);
	list_del(&p->node);
	free(p->name);
	free(p);
}

uint32_t
client_pool_in_use(const struct client_pool *p)
{
	return p->in_use;
}

uint32_t
client_pool_waiting(const struct client_pool *p)
{
	return p->waiting_count;
}
