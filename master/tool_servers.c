/*
 * tool_servers - see tool_servers.h.
 *
 *   program   what the config says; by its number
 *   guest     the connection of a worker, with the programs that it wants
 *   seat      a program that runs, or is to: for the host, or for one slot; with the guest
 *             that has its pipes. While a slot has two workers, in a reload, it has two seats
 */
#include "master/tool_servers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/check.h"
#include "common/list.h"
#include "common/log.h"
#include "common/pipes.h"
#include "master/timer.h"
#include "master/tool_server.h"

enum { WANTS_MAX = 1000, UNWANTED_MS = 3000, NO_SLOT = -1 };

struct program {
	struct list node;
	struct tool_server_program *spec;
};

struct guest {
	struct list node;
	struct tool_servers *owner;
	int fd, slot; /* slot NO_SLOT: it has not said hello */
	struct event *on_message;
	uint64_t wants[WANTS_MAX];
	size_t want_count;
};

struct seat {
	struct list node;
	struct tool_servers *owner;
	const struct program *program;
	int slot; /* NO_SLOT: the host's */
	struct tool_server *server;
	struct guest *speaker; /* NULL: nobody */
	uint32_t era;          /* as was told last, also of an earlier life */
	bool is_spoken;        /* in this life somebody has had the pipes .. */
	bool is_greeted;       /* .. and has told the era */
	struct event *unwanted;
};

struct tool_servers {
	struct event_base *base;
	struct shm *shm;
	int fd;
	struct event *on_connection;
	struct list programs, seats;
	struct list guests; /* newest first: who has come last stays longest */
	struct event *stop_now;
	void (*on_stopped)(void *arg);
	void *arg;
	bool is_stopping;
};

/* ---- who speaks ---- */

/* The seat that it speaks at; NULL: it has none. */
static struct seat *
seat_of(const struct guest *g, uint64_t program)
{
	list_for (node, &g->owner->seats) {
		struct seat *s = list_entry(node, struct seat, node);

		if (s->program->spec->id == program && s->speaker == g)
			return s;
	}
	return NULL;
}

static bool
wants(const struct guest *g, const struct seat *s)
{
	if (s->slot != NO_SLOT) {
		const struct seat *has = seat_of(g, s->program->spec->id);

		if (g->slot != s->slot || (has != NULL && has != s))
			return false;
	}
	for (size_t i = 0; i < g->want_count; i++) {
		if (g->wants[i] == s->program->spec->id)
			return true;
	}
	return false;
}

static bool
is_wanted(const struct seat *s)
{
	list_for (node, &s->owner->guests) {
		if (wants(list_entry(node, struct guest, node), s))
			return true;
	}
	return false;
}

static bool
give_pipes(struct seat *s, struct guest *g)
{
	int fds[2];
	struct pipes_message m = {.type = PIPES_GIVEN,
	    .value = s->era | (s->is_spoken ? PIPES_IS_SPOKEN : 0) |
		     (s->is_greeted ? PIPES_IS_GREETED : 0),
	    .program = s->program->spec->id,
	    .life = tool_server_life(s->server)};

	tool_server_pipes(s->server, fds);
	int err = pipes_send(g->fd, &m, fds);
	if (err != 0) {
		/* One that is gone is about to be seen to be. */
		log_at(err == -EPIPE || err == -ECONNRESET ? LOG_DEBUG : LOG_WARN,
		    "mcp pipes not given server=%s slot=%d error=\"%s\"", s->program->spec->name,
		    g->slot, strerror(-err));
		return false;
	}
	s->speaker = g;
	s->is_spoken = true;
	return true;
}

static void
seat_someone(struct seat *s)
{
	if (s->speaker != NULL || tool_server_state(s->server) != TOOL_SERVER_RUNNING)
		return;
	list_for (node, &s->owner->guests) {
		struct guest *g = list_entry(node, struct guest, node);

		if (wants(g, s) && give_pipes(s, g))
			return;
	}
}

static void
on_unwanted(int fd, short what, void *arg)
{
	struct seat *s = arg;

	(void)fd, (void)what;
	if (!is_wanted(s))
		tool_server_stop(s->server);
}

static void
look_at(struct seat *s)
{
	if (s->owner->is_stopping)
		return;
	if (is_wanted(s)) {
		evtimer_del(s->unwanted);
		tool_server_start(s->server);
		seat_someone(s);
	} else if (!evtimer_pending(s->unwanted, NULL)) {
		timer_set(s->unwanted, UNWANTED_MS);
	}
}

/* ---- seats ---- */

static void
on_started(void *arg, struct tool_server *t)
{
	struct seat *s = arg;

	s->is_spoken = s->is_greeted = false;
	s->server = t; /* it may be told from inside of new */
	seat_someone(s);
}

static bool are_all_ended(const struct tool_servers *);

static void
on_ended(void *arg, struct tool_server *t)
{
	struct seat *s = arg;
	struct pipes_message m = {
	    .type = PIPES_GONE, .program = s->program->spec->id, .life = tool_server_life(t)};

	if (s->speaker != NULL)
		(void)pipes_send(s->speaker->fd, &m, NULL); /* who cannot hear sees the end */
	s->speaker = NULL;
	if (s->owner->is_stopping && are_all_ended(s->owner))
		timer_set(s->owner->stop_now, 0);
}

/* One of a slot whose program is not about to go, and nobody else speaks to. */
static bool
is_free_for(const struct seat *s, const struct guest *g)
{
	enum tool_server_state state = tool_server_state(s->server);

	return s->slot == g->slot && (s->speaker == NULL || s->speaker == g) &&
	       (state == TOOL_SERVER_IDLE || state == TOOL_SERVER_RUNNING ||
		   state == TOOL_SERVER_PAUSED);
}

static struct seat *
find_seat(const struct guest *g, const struct program *p)
{
	list_for (node, &g->owner->seats) {
		struct seat *s = list_entry(node, struct seat, node);

		if (s->program == p && (s->slot == NO_SLOT || is_free_for(s, g)))
			return s;
	}
	return NULL;
}

static const struct program *
find_program(const struct tool_servers *ts, uint64_t id)
{
	list_for (node, &ts->programs) {
		const struct program *p = list_entry(node, struct program, node);

		if (p->spec->id == id)
			return p;
	}
	return NULL;
}

static void
make_seat(const struct guest *g, uint64_t id)
{
	static const struct tool_server_handlers handlers = {on_started, on_ended};
	struct tool_servers *ts = g->owner;
	const struct program *p = find_program(ts, id);
	struct seat *s;

	if (p == NULL)
		return; /* of a configuration that is not known yet */
	s = find_seat(g, p);
	if (s == NULL) {
		s = xcalloc(1, sizeof(*s));
		s->owner = ts;
		s->program = p;
		s->slot = p->spec->is_per_worker ? g->slot : NO_SLOT;
		s->unwanted = timer_new(ts->base, on_unwanted, s);
		s->server = tool_server_new(ts->base, p->spec, &handlers, s);
		list_add_tail(&ts->seats, &s->node);
	}
	look_at(s);
}

static void
seat_free(struct seat *s)
{
	list_del(&s->node);
	tool_server_free(&s->server);
	event_free(s->unwanted);
	free(s);
}

/* ---- guests ---- */

static void
guest_free(struct guest *g)
{
	struct tool_servers *ts = g->owner;

	list_del(&g->node);
	event_free(g->on_message);
	close(g->fd);
	list_for (node, &ts->seats) {
		struct seat *s = list_entry(node, struct seat, node);

		if (s->speaker == g)
			s->speaker = NULL;
	}
	free(g);
	list_for (node, &ts->seats)
		look_at(list_entry(node, struct seat, node));
}

static void
take_want(struct guest *g, uint64_t program)
{
	if (g->want_count == WANTS_MAX || g->slot == NO_SLOT)
		return;
	g->wants[g->want_count++] = program;
	make_seat(g, program);
}

static void
take(struct guest *g, const struct pipes_message *m)
{
	/* Who has no pipes any more may say something late. */
	struct seat *s = seat_of(g, m->program);

	switch (m->type) {
	case PIPES_HELLO:
		g->slot = (int)(m->value & 0xffff);
		break;
	case PIPES_WANT:
		take_want(g, m->program);
		break;
	case PIPES_ERA:
		if (s != NULL) {
			s->era = m->value & PIPES_ERA_MASK;
			s->is_greeted = true;
		}
		break;
	case PIPES_RESTART:
		if (s != NULL && tool_server_life(s->server) == m->life)
			tool_server_restart(s->server);
		break;
	default:
		log_warn("pipes message unknown slot=%d type=%u", g->slot, m->type);
	}
}

static void
on_message(evutil_socket_t fd, short what, void *arg)
{
	struct guest *g = arg;
	struct pipes_message m;
	int fds[2], got;

	(void)what;
	while ((got = pipes_recv((int)fd, &m, fds)) == 1) {
		if (fds[0] >= 0) { /* nobody has any to give us */
			close(fds[0]);
			close(fds[1]);
		}
		take(g, &m);
	}
	if (got != -EAGAIN)
		guest_free(g);
}

static void
on_connection(evutil_socket_t fd, short what, void *arg)
{
	struct tool_servers *ts = arg;
	int got = pipes_accept((int)fd);

	(void)what;
	if (got < 0)
		return;
	struct guest *g = xcalloc(1, sizeof(*g));
	g->owner = ts;
	g->fd = got;
	g->slot = NO_SLOT;
	g->on_message = event_new(ts->base, got, EV_READ | EV_PERSIST, on_message, g);
	check(g->on_message != NULL && event_add(g->on_message, NULL) == 0);
	list_add_head(&ts->guests, &g->node);
}

/* ---- verbs ---- */

static bool
has_seat(const struct tool_servers *ts, const struct program *p)
{
	list_for (node, &ts->seats) {
		if (list_entry(node, struct seat, node)->program == p)
			return true;
	}
	return false;
}

static void
forget_idle(struct tool_servers *ts)
{
	list_for_safe (node, &ts->seats) {
		struct seat *s = list_entry(node, struct seat, node);

		if (tool_server_state(s->server) == TOOL_SERVER_IDLE && !is_wanted(s))
			seat_free(s);
	}
	list_for_safe (node, &ts->programs) {
		struct program *p = list_entry(node, struct program, node);

		if (has_seat(ts, p))
			continue;
		list_del(&p->node);
		tool_server_program_free(&p->spec);
		free(p);
	}
}

static void
learn_one(struct tool_servers *ts, const struct conf *conf, const struct conf_mcp_server *c)
{
	uint64_t id = pipes_program(c);

	if (find_program(ts, id) != NULL)
		return;
	struct program *p = xcalloc(1, sizeof(*p));
	p->spec = tool_server_program_new(c, conf->mcp.backoff_ms, conf->mcp.backoff_max_ms);
	p->spec->id = id;
	list_add_tail(&ts->programs, &p->node);
	list_for (node, &ts->guests) {
		struct guest *g = list_entry(node, struct guest, node);

		for (size_t i = 0; i < g->want_count; i++) {
			if (g->wants[i] == id)
				make_seat(g, id);
		}
	}
}

void
tool_servers_learn(struct tool_servers *ts, const struct conf *conf)
{
	forget_idle(ts);
	for (size_t i = 0; i < conf->mcp.servers.n; i++) {
		const struct conf_mcp_server *c = &conf->mcp.servers.v[i];

		if (c->enabled && *c->command != '\0')
			learn_one(ts, conf, c);
	}
}

bool
tool_servers_ended(struct tool_servers *ts, pid_t pid, int status)
{
	list_for (node, &ts->seats) {
		if (tool_server_ended(list_entry(node, struct seat, node)->server, pid, status))
			return true;
	}
	return false;
}

void
tool_servers_publish(struct tool_servers *ts)
{
	pipes_publish(ts->fd, ts->shm);
}

static bool
are_all_ended(const struct tool_servers *ts)
{
	list_for (node, &ts->seats) {
		enum tool_server_state state =
		    tool_server_state(list_entry(node, struct seat, node)->server);

		if (state != TOOL_SERVER_IDLE && state != TOOL_SERVER_PAUSED)
			return false;
	}
	return true;
}

static void
on_stop_now(int fd, short what, void *arg)
{
	struct tool_servers *ts = arg;

	(void)fd, (void)what;
	ts->on_stopped(ts->arg);
}

void
tool_servers_stop(struct tool_servers *ts, void (*on_stopped)(void *arg), void *arg)
{
	ts->is_stopping = true;
	ts->on_stopped = on_stopped;
	ts->arg = arg;
	list_for (node, &ts->seats)
		tool_server_stop(list_entry(node, struct seat, node)->server);
	if (are_all_ended(ts))
		timer_set(ts->stop_now, 0);
}

struct tool_servers *
tool_servers_new(struct event_base *base, struct shm *shm)
{
	struct tool_servers *ts = xcalloc(1, sizeof(*ts));

	list_init(&ts->programs);
	list_init(&ts->guests);
	list_init(&ts->seats);
	ts->base = base;
	ts->shm = shm;
	ts->stop_now = timer_new(base, on_stop_now, ts);
	ts->fd = pipes_listen(shm);
	if (ts->fd < 0) {
		log_error("tool servers' socket not made error=\"%s\"", strerror(-ts->fd));
		tool_servers_free(&ts);
		return NULL;
	}
	ts->on_connection = event_new(base, ts->fd, EV_READ | EV_PERSIST, on_connection, ts);
	check(ts->on_connection != NULL && event_add(ts->on_connection, NULL) == 0);
	return ts;
}

void
tool_servers_free(struct tool_servers **ref)
{
	struct tool_servers *ts = *ref;

	if (ts == NULL)
		return;
	*ref = NULL;
	ts->is_stopping = true;
	list_for_safe (node, &ts->seats)
		seat_free(list_entry(node, struct seat, node));
	list_for_safe (node, &ts->guests)
		guest_free(list_entry(node, struct guest, node));
	forget_idle(ts);
	if (ts->on_connection != NULL)
		event_free(ts->on_connection);
	if (ts->fd >= 0)
		close(ts->fd);
	event_free(ts->stop_now);
	free(ts);
}
