/*
 * child - messages from a worker, and the deadline of its state.
 */
#include "master/child.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "master/core_time.h"
#include "master/timer.h"

enum { MESSAGES_PER_WAKE = 64, STARVED_LOOK_MS = 100 };

const char *
child_state_name(enum child_state state)
{
	static const char *const names[] = {"starting", "ready", "draining", "killed"};

	return names[state];
}

static void
enter(struct child *c, enum child_state state, uint64_t deadline_ms)
{
	c->state = state;
	if (deadline_ms == UINT64_MAX)
		evtimer_del(c->deadline);
	else
		timer_set(c->deadline, deadline_ms);
}

static void
kill_child(struct child *c, int number)
{
	kill(c->pid, number);
	enter(c, CHILD_KILLED, CHILD_KILL_GRACE_MS);
}

/* ---- silence ---- */

static uint64_t
silence_deadline(const struct child *c)
{
	return c->silence_max_ms != 0 ? c->silence_max_ms : UINT64_MAX;
}

static void
be_heard(struct child *c)
{
	struct core_time core;

	c->heard_ms = clock_mono_ms();
	c->is_starved = false;
	c->had_core_ms = core_time_read(c->pid, &core) ? core.used_ms : 0;
	enter(c, CHILD_READY, silence_deadline(c));
}

/*
 * On a machine with too much to do a worker may wait for a core for longer than it may be silent.
 * To abort it would make it worse: all whom it serves would come again. So it hangs only when it
 * waits for something else, or has had a core for as long as it may be silent.
 */
static bool
is_starved(struct child *c)
{
	struct core_time core;

	if (!core_time_read(c->pid, &core) || !core.is_runnable)
		return false;
	uint64_t had_ms = core.used_ms - c->had_core_ms;
	if (had_ms >= c->silence_max_ms)
		return false;
	if (!c->is_starved)
		log_warn("worker starved slot=%u pid=%d silent_ms=%" PRIu64 " had_core_ms=%" PRIu64,
		    c->slot->index, (int)c->pid, clock_mono_ms() - c->heard_ms, had_ms);
	c->is_starved = true;
	uint64_t left_ms = c->silence_max_ms - had_ms;
	enter(c, CHILD_READY, left_ms > STARVED_LOOK_MS ? STARVED_LOOK_MS : left_ms);
	return true;
}

static void
on_deadline(int fd, short what, void *arg)
{
	struct child *c = arg;

	(void)fd, (void)what;
	switch (c->state) {
	case CHILD_STARTING:
		log_error("worker not ready slot=%u pid=%d waited_ms=%" PRIu64, c->slot->index,
		    (int)c->pid, clock_mono_ms() - c->started_ms);
		c->is_overdue = true;
		kill_child(c, SIGKILL);
		break;
	case CHILD_READY:
		if (is_starved(c))
			break;
		log_error("worker stalled slot=%u pid=%d silent_ms=%" PRIu64, c->slot->index,
		    (int)c->pid, clock_mono_ms() - c->heard_ms);
		c->is_stalled = true;
		kill_child(c, SIGABRT); /* its core tells where */
		break;
	case CHILD_DRAINING:
		log_warn(
		    "worker killed slot=%u pid=%d reason=\"drain timeout\" connections=%" PRId64,
		    c->slot->index, (int)c->pid, c->connections);
		c->is_overdue = true;
		kill_child(c, SIGKILL);
		break;
	case CHILD_KILLED: /* a stopped process takes no SIGABRT */
		kill_child(c, SIGKILL);
		break;
	}
}

/* ---- messages ---- */

static bool
is_from(const struct child *c, const struct proto_message *m)
{
	return m->slot == c->slot->index && m->who.row == c->who.row &&
	       m->who.number == c->who.number;
}

/* True when the child has just become ready. */
static bool
take_message(struct child *c, const struct proto_message *m)
{
	if (!is_from(c, m)) {
		log_warn("message refused slot=%u pid=%d type=%u reason=\"of another incarnation\"",
		    c->slot->index, (int)c->pid, m->type);
		return false;
	}
	switch (m->type) {
	case PROTO_READY:
		if (c->was_ready)
			return false;
		c->was_ready = true;
		if (c->state != CHILD_STARTING)
			return false;
		be_heard(c);
		return true;
	case PROTO_LOAD:
		c->connections = m->value;
		if (c->state == CHILD_READY)
			be_heard(c);
		return false;
	case PROTO_CLOSED:
		c->has_closed = true;
		c->handlers->on_closed(c->arg, c);
		return false;
	case PROTO_BYE:
		log_debug("worker says bye slot=%u pid=%d", c->slot->index, (int)c->pid);
		return false;
	default:
		log_warn(
		    "message unknown slot=%u pid=%d type=%u", c->slot->index, (int)c->pid, m->type);
		return false;
	}
}

static void
on_proto(evutil_socket_t fd, short what, void *arg)
{
	struct child *c = arg;
	struct proto_message m;
	bool is_now_ready = false;
	int got = 1;

	(void)what;
	for (int i = 0; i < MESSAGES_PER_WAKE && got > 0; i++) {
		got = proto_recv((int)fd, &m);
		if (got > 0)
			is_now_ready = take_message(c, &m) || is_now_ready;
	}
	if (got <= 0 && got != -EAGAIN)
		event_del(c->on_proto); /* it is dying: SIGCHLD follows, or its silence tells */
	if (is_now_ready)
		c->handlers->on_ready(c->arg, c);
}

struct child *
child_new(struct event_base *base, const struct spawned *spawned, struct slot *slot,
    const struct child_limits *limits, const struct child_handlers *handlers, void *arg)
{
	struct child *c = xcalloc(1, sizeof(*c));

	c->slot = slot;
	c->who = spawned->who;
	c->pid = spawned->pid;
	c->proto_fd = spawned->proto_fd;
	c->started_ms = clock_mono_ms();
	c->silence_max_ms = limits->silence_ms;
	c->handlers = handlers;
	c->arg = arg;
	c->deadline = timer_new(base, on_deadline, c);
	c->on_proto = event_new(base, c->proto_fd, EV_READ | EV_PERSIST, on_proto, c);
	check(c->on_proto != NULL && event_add(c->on_proto, NULL) == 0);
	enter(c, CHILD_STARTING, limits->start_ms);
	return c;
}

void
child_free(struct child **c)
{
	if (*c == NULL)
		return;
	check(!list_linked(&(*c)->node));
	event_free((*c)->on_proto);
	event_free((*c)->deadline);
	close((*c)->proto_fd);
	free(*c);
	*c = NULL;
}

void
child_tell(struct child *c, enum proto_type type, int64_t value)
{
	struct proto_message m = {
	    .type = type, .slot = c->slot->index, .who = c->who, .value = value};
	int err = proto_send(c->proto_fd, &m);

	/* One that is gone is about to be reaped; one that does not read will stall. */
	if (err != 0)
		log_debug("message not sent slot=%u pid=%d type=%d error=\"%s\"", c->slot->index,
		    (int)c->pid, type, strerror(-err));
}

void
child_hand(struct child *c, int fd, enum proto_handoff what)
{
	struct proto_message m = {
	    .type = PROTO_HANDOFF, .slot = c->slot->index, .who = c->who, .value = what};
	int err = proto_send_fd(c->proto_fd, &m, fd);

	if (err == 0)
		return;
	/* Nothing is lost: the other end of the socket finds it closed. One that is gone, killed
	   and not reaped yet, is told of when it is. */
	enum log_level level = err == -EPIPE || err == -ECONNRESET ? LOG_DEBUG : LOG_WARN;
	log_at(level, "worker not told of another slot=%u pid=%d error=\"%s\"", c->slot->index,
	    (int)c->pid, strerror(-err));
}

void
child_drain(struct child *c, uint64_t timeout_ms)
{
	if (c->state == CHILD_KILLED)
		return;
	child_tell(c, PROTO_DRAIN, (int64_t)timeout_ms);
	uint64_t end_ms = clock_mono_ms() + timeout_ms + CHILD_END_GRACE_MS;
	if (c->state == CHILD_DRAINING && end_ms >= c->drain_end_ms)
		return; /* never longer than it was given before */
	c->drain_end_ms = end_ms;
	enter(c, CHILD_DRAINING, timeout_ms + CHILD_END_GRACE_MS);
}
