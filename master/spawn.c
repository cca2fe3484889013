/*
 * spawn - fork, and what a child does before it is a worker.
 */
#include "master/spawn.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/check.h"
#include "common/handoff.h"
#include "common/log.h"
#include "master/oom.h"
#include "master/reap.h"
#include "master/signals.h"

enum { KEEP_EXTRA = 8 };

/* In the child: ours no longer is the master's, and we end with it. */
static void
become_child(pid_t master)
{
	/* After the change of uid, which would clear it; the master may have died meanwhile. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != master)
		_exit(EXIT_FAILURE);
	oom_before_master();
	signals_reset_in_child();
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
}

static int
compare_fds(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* By the gaps between them. */
void
spawn_close_others(int *keep, size_t count)
{
	unsigned next = 0;

	qsort(keep, count, sizeof(*keep), compare_fds);
	for (size_t i = 0; i < count; i++) {
		if (keep[i] > (int)next)
			close_range(next, (unsigned)keep[i] - 1, 0);
		if (keep[i] >= (int)next)
			next = (unsigned)keep[i] + 1;
	}
	close_range(next, ~0U, 0);
}

static void
keep_only(const struct handoff *h)
{
	int *keep = xcalloc(h->listener_count + KEEP_EXTRA, sizeof(*keep));
	size_t n = 0;

	keep[n++] = STDIN_FILENO;
	keep[n++] = STDOUT_FILENO;
	keep[n++] = STDERR_FILENO;
	keep[n++] = log_fd();
	if (log_stderr_fd() >= 0)
		keep[n++] = log_stderr_fd();
	keep[n++] = shm_fd(h->shm);
	keep[n++] = h->master_fd;
	for (uint32_t i = 0; i < h->listener_count; i++)
		keep[n++] = h->listeners[i].fd;
	spawn_close_others(keep, n);
	free(keep);
}

static _Noreturn void
run_worker(const struct spawn_order *o, struct shm_who who, int master_fd, pid_t master)
{
	struct handoff_listener *listeners =
	    xcalloc(listeners_max(o->listeners), sizeof(*listeners));
	struct handoff h = {.conf = o->conf,
	    .shm = o->shm,
	    .slot = o->slot,
	    .who = who,
	    .listeners = listeners,
	    .master_fd = master_fd,
	    .master_pid = master};

	become_child(master);
	h.listener_count = listeners_of_slot(o->listeners, o->slot, o->workers, listeners);
	keep_only(&h);
	log_set_identity((int)o->slot);
	int status = worker_main(&h);
	free(listeners);
	exit(status);
}

static bool
failed(const struct spawn_order *o, const char *what)
{
	log_error(
	    "worker not started slot=%u step=%s error=\"%s\"", o->slot, what, strerror(errno));
	return false;
}

bool
spawn_worker(const struct spawn_order *o, struct spawned *ret)
{
	pid_t master = getpid();
	struct shm_who who;
	int pair[2];

	/* The row is there before the child, so that a child never runs without one. */
	if (!shm_row_claim(o->shm, o->slot, 0, &who)) {
		errno = EBUSY;
		return failed(o, "row");
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) {
		shm_row_reap(o->shm, who);
		return failed(o, "socketpair");
	}
	signals_block();
	pid_t pid = fork();
	if (pid == 0)
		run_worker(o, who, pair[1], master);
	signals_unblock();
	close(pair[1]);
	if (pid < 0) {
		failed(o, "fork");
		close(pair[0]);
		shm_row_reap(o->shm, who);
		return false;
	}
	shm_row_set_pid(o->shm, who, (int)pid);
	*ret = (struct spawned){pid, who, pair[0]};
	return true;
}

int
spawn_job(const char *name, int (*job)(const struct conf *), const struct conf *conf)
{
	pid_t master = getpid();
	int status;

	signals_block();
	pid_t pid = fork();
	if (pid == 0) {
		become_child(master);
		exit(job(conf));
	}
	signals_unblock();
	if (pid < 0) {
		log_error("%s not started error=\"%s\"", name, strerror(errno));
		return -1;
	}
	while (waitpid(pid, &status, 0) < 0)
		check(errno == EINTR);
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	char how[REAP_TEXT_MAX];
	reap_describe(status, how);
	log_error("%s died %s", name, how);
	return -1;
}
