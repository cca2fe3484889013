/*
 * stdio - the connection to the master, who runs the programs and has their pipes: which ones this
 * worker wants, which it is given. It is made again when it breaks.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/log.h"
#include "common/pipes.h"
#include "worker/mcp/upstream_impl.h"

enum { AGAIN_MS = 1000 };

struct stdio {
	struct mcp_upstreams *all;
	int fd; /* -1: none */
	struct loop_watch watch;
	struct loop_timer again;
	bool *is_wanted; /* by index */
};

static void
tell(struct stdio *s, const struct pipes_message *m)
{
	int err = s->fd >= 0 ? pipes_send(s->fd, m, NULL) : 0;

	if (err != 0 && err != -EPIPE &&
	    err != -ECONNRESET) /* then the master is gone, and so are we */
		log_warn("master not told of tool servers error=\"%s\"", strerror(-err));
}

static struct upstream *
find(struct stdio *s, uint64_t program)
{
	for (size_t i = 0; i < s->all->count; i++) {
		struct upstream *u = s->all->all[i];

		if (u->transport == &stdio_transport && stdio_link_program(u) == program)
			return u;
	}
	return NULL;
}

static void
take(struct stdio *s, const struct pipes_message *m, const int fds[2])
{
	struct upstream *u = find(s, m->program);

	if (m->type == PIPES_GIVEN && u != NULL && fds[0] >= 0) {
		stdio_link_given(u, m->life, m->value, fds);
		return;
	}
	if (fds[0] >= 0) {
		close(fds[0]);
		close(fds[1]);
	}
	if (m->type == PIPES_GONE && u != NULL)
		stdio_link_gone(u, m->life);
}

static void
disconnect(struct stdio *s)
{
	if (s->fd < 0)
		return;
	loop_watch_stop(s->all->of.loop, &s->watch);
	close(s->fd);
	s->fd = -1;
}

static void
on_ready(struct loop_watch *watch, uint32_t events)
{
	struct stdio *s = container_of(watch, struct stdio, watch);
	struct pipes_message m;
	int fds[2], got;

	(void)events;
	while ((got = pipes_recv(s->fd, &m, fds)) == 1)
		take(s, &m, fds);
	if (got == -EAGAIN)
		return;
	disconnect(s);
	loop_timer_set(s->all->of.loop, &s->again, AGAIN_MS);
}

static void
want(struct stdio *s, size_t index)
{
	struct pipes_message m = {
	    .type = PIPES_WANT, .program = stdio_link_program(s->all->all[index])};

	tell(s, &m);
}

static void
connect_to_master(struct stdio *s)
{
	struct pipes_message hello = {.type = PIPES_HELLO, .value = s->all->of.slot};

	s->fd = pipes_connect(s->all->of.shm);
	if (s->fd < 0) {
		log_warn("master not reached for tool servers error=\"%s\"", strerror(-s->fd));
		loop_timer_set(s->all->of.loop, &s->again, AGAIN_MS);
		return;
	}
	s->watch.on_ready = on_ready;
	loop_watch_start(s->all->of.loop, &s->watch, s->fd, EPOLLIN);
	tell(s, &hello);
	for (size_t i = 0; i < s->all->count; i++) {
		if (s->is_wanted[i])
			want(s, i);
	}
}

static void
on_again(struct loop_timer *timer)
{
	connect_to_master(container_of(timer, struct stdio, again));
}

void
stdio_want(struct stdio *s, struct upstream *u)
{
	if (s->is_wanted[u->index])
		return;
	s->is_wanted[u->index] = true;
	if (s->fd >= 0)
		want(s, u->index);
	else if (!loop_timer_is_set(&s->again))
		connect_to_master(s);
}

void
stdio_tell_era(struct stdio *s, const struct upstream *u)
{
	struct pipes_message m = {
	    .type = PIPES_ERA, .value = (uint32_t)u->verdict + 1, .program = stdio_link_program(u)};

	tell(s, &m);
}

void
stdio_ask_restart(struct stdio *s, const struct upstream *u, uint64_t life)
{
	struct pipes_message m = {
	    .type = PIPES_RESTART, .program = stdio_link_program(u), .life = life};

	tell(s, &m);
}

void
stdio_leave(struct stdio *s)
{
	disconnect(s);
	loop_timer_stop(s->all->of.loop, &s->again);
}

struct stdio *
stdio_new(struct mcp_upstreams *all)
{
	struct stdio *s = xcalloc(1, sizeof(*s));

	s->all = all;
	s->fd = -1;
	s->is_wanted = xcalloc(all->count + 1, sizeof(bool));
	s->again.on_fire = on_again;
	return s;
}

void
stdio_free(struct stdio **ref)
{
	struct stdio *s = *ref;

	if (s == NULL)
		return;
	*ref = NULL;
	stdio_leave(s);
	free(s->is_wanted);
	free(s);
}
