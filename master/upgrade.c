/*
 * upgrade - fork, exec, a socket pair and a time limit.
 *
 * Between the two masters is a nurse, a process that does nothing but wait: it is the parent of
 * the new one until that is ready, and tells how it ended. Then it goes, and whoever adopts orphans
 * (systemd) has the new master as its own child, before it is told that this is the main process:
 * one that it does not wait for it would kill instead of stop.
 */
#include "master/upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/check.h"
#include "common/list.h"
#include "common/log.h"
#include "common/proto.h"
#include "master/reap.h"
#include "master/signals.h"
#include "master/spawn.h"
#include "master/timer.h"

struct passed { /* what the socket had no room for */
	struct list node;
	uint32_t slot;
	int fd;
};

struct upgrade {
	const struct upgrade_handlers *handlers;
	void *arg;
	pid_t pid;       /* of the new master */
	pid_t nurse;     /* 0: it has gone */
	int fd, news_fd; /* to the one, from the other */
	struct event *on_talk, *on_room, *deadline;
	struct list passing; /* of struct passed, one for each slot at most */
	uint64_t end_ms;
	char *reason; /* why it was given up; NULL: it was not */
	bool is_ready;
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

/* ---- the process between ---- */

/* The pid at once, how it ended when it has. Ends with us, and then leaves the new master alone. */
static _Noreturn void
nurse(const struct upgrade_order *o, const struct bequest *b, pid_t master, int news_fd)
{
	int keep[] = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO, news_fd}, status = 0;
	pid_t pid = fork();

	if (pid == 0)
		run_binary(o, b);
	if (pid < 0)
		pid = -errno;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != master)
		_exit(EXIT_FAILURE);
	spawn_close_others(keep, ARRAY_LEN(keep));
	if (write(news_fd, &pid, sizeof(pid)) != sizeof(pid) || pid < 0)
		_exit(EXIT_FAILURE);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	_exit(write(news_fd, &status, sizeof(status)) == sizeof(status) ? EXIT_SUCCESS
									: EXIT_FAILURE);
}

static void
dismiss_nurse(struct upgrade *u)
{
	if (u->nurse == 0)
		return;
	kill(u->nurse, SIGKILL);
	while (waitpid(u->nurse, NULL, 0) < 0 && errno == EINTR)
		;
	u->nurse = 0;
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
		event_del(u->on_talk);
		if (u->is_ready) /* how is for its parent to say */
			log_info("successor has ended pid=%d", (int)u->pid);
		return; /* else: the nurse will tell */
	}
	if (m.type != PROTO_READY || u->is_ready || u->reason != NULL)
		return;
	u->is_ready = true;
	evtimer_del(u->deadline);
	dismiss_nurse(u);
	u->handlers->on_ready(u->arg, u->pid);
}

void
upgrade_hand_over(struct upgrade *u)
{
	check(u->is_ready);
	say(u->fd, PROTO_READY);
}

/* ---- a socket for each slot: of many slots more than fit at once ---- */

static int
pass(struct upgrade *u, uint32_t slot, int fd)
{
	struct proto_message m = {.type = PROTO_HANDOFF, .slot = slot};
	int err = proto_send_fd(u->fd, &m, fd);

	if (err != 0 && err != -EAGAIN)
		log_warn("sockets not passed slot=%u error=\"%s\"", slot, strerror(-err));
	return err;
}

static void
passed_free(struct passed *p)
{
	list_del(&p->node);
	close(p->fd);
	free(p);
}

static void
on_room(evutil_socket_t fd, short what, void *arg)
{
	struct upgrade *u = arg;
	struct passed *p;

	(void)fd, (void)what;
	while ((p = list_first(&u->passing, struct passed, node)) != NULL) {
		if (pass(u, p->slot, p->fd) == -EAGAIN) {
			check(event_add(u->on_room, NULL) == 0);
			return;
		}
		passed_free(p);
	}
}

void
upgrade_pass(struct upgrade *u, uint32_t slot, int fd)
{
	struct passed *p;
	int own;

	if (list_empty(&u->passing) && pass(u, slot, fd) != -EAGAIN)
		return;
	own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (own < 0) {
		log_warn("sockets not passed slot=%u error=\"%s\"", slot, strerror(errno));
		return;
	}
	p = xcalloc(1, sizeof(*p));
	p->slot = slot;
	p->fd = own;
	list_add_tail(&u->passing, &p->node);
	check(event_add(u->on_room, NULL) == 0);
}

void
upgrade_child_ended(struct upgrade *u, pid_t pid, int status)
{
	char how[REAP_TEXT_MAX], reason[REAP_TEXT_MAX + 64];
	int of_master;

	if (u == NULL || pid != u->nurse)
		return;
	u->nurse = 0;
	if (read(u->news_fd, &of_master, sizeof(of_master)) == sizeof(of_master))
		status = of_master;
	else
		kill(u->pid, SIGKILL); /* the nurse was killed: the new one is alone */
	reap_describe(status, how);
	snprintf(reason, sizeof(reason), "it ended before it was ready: %s", how);
	u->handlers->on_failed(u->arg, u->reason != NULL ? u->reason : reason);
}

struct upgrade *
upgrade_new(struct event_base *base, const struct upgrade_order *o, struct bequest *b,
    const struct upgrade_handlers *handlers, void *arg, struct buf *error)
{
	int pair[2], news[2];
	pid_t master = getpid(), pid = -ECHILD;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) {
		buf_printf(error, "no socket: %s", strerror(errno));
		return NULL;
	}
	if (pipe2(news, O_CLOEXEC) != 0) {
		buf_printf(error, "no pipe: %s", strerror(errno));
		close(pair[0]);
		close(pair[1]);
		return NULL;
	}
	b->fds[BEQUEST_TALK] = pair[1];
	signals_block();
	pid_t between = fork();
	if (between == 0)
		nurse(o, b, master, news[1]);
	if (between < 0)
		pid = -errno;
	signals_unblock();
	close(pair[1]);
	close(news[1]);
	if (between > 0 && read(news[0], &pid, sizeof(pid)) != sizeof(pid)) /* one fork away */
		pid = -ECHILD;
	if (pid < 0) {
		buf_printf(error, "no process: %s", strerror(-pid));
		close(pair[0]);
		close(news[0]);
		return NULL;
	}
	struct upgrade *u = xcalloc(1, sizeof(*u));
	u->handlers = handlers;
	u->arg = arg;
	u->pid = pid;
	u->nurse = between;
	u->fd = pair[0];
	u->news_fd = news[0];
	u->end_ms = o->end_ms;
	u->deadline = timer_new(base, on_deadline, u);
	timer_set(u->deadline, o->timeout_ms);
	u->on_talk = event_new(base, u->fd, EV_READ | EV_PERSIST, on_talk, u);
	check(u->on_talk != NULL && event_add(u->on_talk, NULL) == 0);
	list_init(&u->passing);
	u->on_room = event_new(base, u->fd, EV_WRITE, on_room, u);
	check(u->on_room != NULL);
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
	list_for_safe (node, &u->passing)
		passed_free(list_entry(node, struct passed, node));
	event_free(u->on_talk);
	event_free(u->on_room);
	event_free(u->deadline);
	dismiss_nurse(u);
	close(u->fd);
	close(u->news_fd);
	free(u->reason);
	free(u);
}

/* ---- the other side ---- */

struct takeover {
	const struct takeover_handlers *handlers;
	void *arg;
	int fd;
	struct event *on_talk;
	bool has_said_ready, is_taken, is_unwanted;
};

static void
take(struct takeover *t)
{
	if (t->is_taken || t->is_unwanted || !t->has_said_ready)
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
		t->is_unwanted = true;
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
