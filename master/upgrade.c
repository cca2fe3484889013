/*
 * upgrade - fork, exec, a socket pair and a time limit.
 */
#include "master/upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/check.h"
#include "common/log.h"
#include "common/proto.h"
#include "master/reap.h"
#include "master/signals.h"
#include "master/spawn.h"
#include "master/timer.h"

struct upgrade {
	const struct upgrade_handlers *handlers;
	void *arg;
	pid_t pid;
	int fd;
	struct event *on_talk, *deadline;
	uint64_t end_ms;
	char *reason; /* why it was given up; NULL: it was not */
	bool is_ready, is_handed_over;
};

static void
say(int fd, enum proto_type type)
{
	struct proto_message m = {.type = type};
	int err = proto_send(fd, &m);

	if (err != 0)
		log_debug("other master not told type=%d error=\"%s\"", type, strerror(-err));
}

/* ---- the new process ---- */

static void
keep_only(const struct bequest *b)
{
	int *keep = xcalloc(BEQUEST_FDS + b->listener_count + 3, sizeof(*keep));
	size_t n = bequest_fds(b, keep);

	for (size_t i = 0; i < n; i++)
		fcntl(keep[i], F_SETFD, 0);
	keep[n++] = STDIN_FILENO;
	keep[n++] = STDOUT_FILENO;
	keep[n++] = STDERR_FILENO;
	spawn_close_others(keep, n);
	free(keep);
}

static _Noreturn void
run_binary(const struct upgrade_order *o, const struct bequest *b)
{
	struct buf text = BUF_INIT;

	bequest_write(b, &text);
	setenv(BEQUEST_VARIABLE, text.data, 1);
	unsetenv("WATCHDOG_PID"); /* ours: the new one would not feed the dog */
	keep_only(b);
	signals_reset_in_child();
	execv(o->binary, o->argv);
	_exit(127);
}

/* ---- its life ---- */

void
upgrade_give_up(struct upgrade *u, const char *reason)
{
	if (u->reason != NULL)
		return;
	u->reason = xstrdup(reason);
	say(u->fd, PROTO_DRAIN);
	timer_set(u->deadline, u->end_ms);
}

static void
on_deadline(int fd, short what, void *arg)
{
	struct upgrade *u = arg;

	(void)fd, (void)what;
	if (u->reason != NULL)
		kill(u->pid, SIGKILL);
	else
		upgrade_give_up(u, "it was not ready in time");
}

static void
on_talk(evutil_socket_t fd, short what, void *arg)
{
	struct upgrade *u = arg;
	struct proto_message m;
	int got = proto_recv((int)fd, &m);

	(void)what;
	if (got == -EAGAIN)
		return;
	if (got <= 0) {
		event_del(u->on_talk); /* it is ending: SIGCHLD follows */
		return;
	}
	if (m.type != PROTO_READY || u->is_ready || u->reason != NULL)
		return;
	u->is_ready = true;
	evtimer_del(u->deadline);
	u->handlers->on_ready(u->arg, u->pid);
}

void
upgrade_hand_over(struct upgrade *u)
{
	check(u->is_ready);
	u->is_handed_over = true;
	say(u->fd, PROTO_READY);
}

void
upgrade_pass(struct upgrade *u, uint32_t slot, int fd)
{
	struct proto_message m = {.type = PROTO_HANDOFF, .slot = slot};
	int err = proto_send_fd(u->fd, &m, fd);

	if (err != 0)
		log_warn("sockets not passed slot=%u error=\"%s\"", slot, strerror(-err));
}

void
upgrade_child_ended(struct upgrade *u, pid_t pid, int status)
{
	char how[REAP_TEXT_MAX], reason[REAP_TEXT_MAX + 64];

	if (u == NULL || pid != u->pid)
		return;
	reap_describe(status, how);
	if (u->is_handed_over) { /* it may have a successor of its own by now */
		if (status != 0)
			log_error("successor died pid=%d %s", (int)pid, how);
		return;
	}
	snprintf(reason, sizeof(reason), "it ended before it was ready: %s", how);
	u->handlers->on_failed(u->arg, u->reason != NULL ? u->reason : reason);
}

struct upgrade *
upgrade_new(struct event_base *base, const struct upgrade_order *o, struct bequest *b,
    const struct upgrade_handlers *handlers, void *arg, struct buf *error)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) {
		buf_printf(error, "no socket: %s", strerror(errno));
		return NULL;
	}
	b->fds[BEQUEST_TALK] = pair[1];
	signals_block();
	pid_t pid = fork();
	if (pid == 0)
		run_binary(o, b);
	signals_unblock();
	close(pair[1]);
	if (pid < 0) {
		buf_printf(error, "no process: %s", strerror(errno));
		close(pair[0]);
		return NULL;
	}
	struct upgrade *u = xcalloc(1, sizeof(*u));
	u->handlers = handlers;
	u->arg = arg;
	u->pid = pid;
	u->fd = pair[0];
	u->end_ms = o->end_ms;
	u->deadline = timer_new(base, on_deadline, u);
	timer_set(u->deadline, o->timeout_ms);
	u->on_talk = event_new(base, u->fd, EV_READ | EV_PERSIST, on_talk, u);
	check(u->on_talk != NULL && event_add(u->on_talk, NULL) == 0);
	log_info("upgrade started pid=%d binary=%s", (int)pid, o->binary);
	return u;
}

void
upgrade_free(struct upgrade **ref)
{
	struct upgrade *u = *ref;

	if (u == NULL)
		return;
	*ref = NULL;
	event_free(u->on_talk);
	event_free(u->deadline);
	close(u->fd);
	free(u->reason);
	free(u);
}

/* ---- the other side ---- */

struct takeover {
	const struct takeover_handlers *handlers;
	void *arg;
	int fd;
	struct event *on_talk;
	bool has_said_ready, is_taken;
};

static void
take(struct takeover *t)
{
	if (t->is_taken || !t->has_said_ready)
		return;
	t->is_taken = true;
	t->handlers->on_taken(t->arg);
}

static void
on_old_talks(evutil_socket_t fd, short what, void *arg)
{
	struct takeover *t = arg;
	struct proto_message m;
	int passed = -1, got = proto_recv_fd((int)fd, &m, &passed);

	(void)what;
	if (got == -EAGAIN)
		return;
	if (got > 0 && m.type == PROTO_HANDOFF && passed >= 0)
		t->handlers->on_passed(t->arg, m.slot, passed);
	if (got > 0 && passed >= 0)
		close(passed);
	if (got > 0 && m.type == PROTO_READY) {
		take(t);
	} else if (got > 0 && m.type == PROTO_DRAIN) {
		t->handlers->on_not_wanted(t->arg);
	} else if (got <= 0) {
		event_del(t->on_talk);
		take(t); /* it died in between: there is nobody else */
		t->handlers->on_old_gone(t->arg);
	}
}

void
takeover_say_ready(struct takeover *t)
{
	t->has_said_ready = true;
	say(t->fd, PROTO_READY);
	if (!event_pending(t->on_talk, EV_READ, NULL))
		take(t);
}

struct takeover *
takeover_new(
    struct event_base *base, int talk_fd, const struct takeover_handlers *handlers, void *arg)
{
	struct takeover *t = xcalloc(1, sizeof(*t));

	t->handlers = handlers;
	t->arg = arg;
	t->fd = talk_fd;
	t->on_talk = event_new(base, t->fd, EV_READ | EV_PERSIST, on_old_talks, t);
	check(t->on_talk != NULL && event_add(t->on_talk, NULL) == 0);
	return t;
}

void
takeover_free(struct takeover **ref)
{
	struct takeover *t = *ref;

	if (t == NULL)
		return;
	*ref = NULL;
	event_free(t->on_talk);
	close(t->fd);
	free(t);
}
