/* fleet - the parent waits for signals only; its children write into memory that it reads. */
#include "loadtest/parley_load/fleet.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/guard.h"
#include "loadtest/parley_load/progress.h"

enum { LOOK_MS = 250, GRACE_MS = 10000 };

struct shared {
	struct crowd crowd;
	struct tally tallies[]; /* one per process */
};

struct fleet {
	const struct options *options;
	const struct scenario *scenario;
	pid_t *pids; /* 0: has ended */
	struct shared *shared;
	const char *stopped; /* NULL: the machine takes more */
	uint32_t running, died;
	uint64_t began_ms, kill_at_ms;
	bool has_told_standing;
	sigset_t signals;
};

static _Noreturn void
be_process(struct fleet *f, uint32_t process, pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	sigprocmask(SIG_UNBLOCK, &f->signals, NULL);
	load_run(f->options, f->scenario, process, &f->shared->crowd, &f->shared->tallies[process]);
	/* Users live as long as the process: nothing is given back. */
	_exit(0);
}

static void
start(struct fleet *f)
{
	pid_t parent = getpid();

	for (uint32_t i = 0; i < f->options->processes; i++) {
		f->pids[i] = fork();
		check(f->pids[i] >= 0);
		if (f->pids[i] == 0)
			be_process(f, i, parent);
		f->running++;
	}
}

static void
signal_all(struct fleet *f, int sig)
{
	for (uint32_t i = 0; i < f->options->processes; i++) {
		if (f->pids[i] > 0)
			kill(f->pids[i], sig);
	}
}

static void
reap(struct fleet *f)
{
	int status;

	for (uint32_t i = 0; i < f->options->processes; i++) {
		if (f->pids[i] == 0 || waitpid(f->pids[i], &status, WNOHANG) != f->pids[i])
			continue;
		f->pids[i] = 0;
		f->running--;
		f->died += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
	}
}

static void
tell_standing(struct fleet *f)
{
	uint64_t standing = 0;

	for (uint32_t i = 0; i < f->options->processes; i++) {
		if (!f->shared->tallies[i].is_standing)
			return;
		standing += f->shared->tallies[i].standing;
	}
	f->shared->crowd.is_standing = f->has_told_standing = true;
	printf("standing %llu\n", (unsigned long long)standing);
	fflush(stdout);
}

static void
watch_machine(struct fleet *f)
{
	if (f->stopped != NULL || f->has_told_standing)
		return;
	f->stopped = guard_look(f->options->leave_bytes);
	f->shared->crowd.is_full = f->stopped != NULL;
}

static void
stop(struct fleet *f)
{
	signal_all(f, SIGTERM);
	if (!f->scenario->finishes && f->kill_at_ms > clock_mono_ms() + GRACE_MS)
		f->kill_at_ms = clock_mono_ms() + GRACE_MS;
}

static void
wait_for_all(struct fleet *f)
{
	struct timespec look = {LOOK_MS / 1000, LOOK_MS % 1000 * 1000000L};
	struct progress progress = {.began_ms = f->began_ms};

	for (reap(f); f->running > 0; reap(f)) {
		int sig = sigtimedwait(&f->signals, NULL, &look);

		if (sig == SIGTERM || sig == SIGINT)
			stop(f);
		if (clock_mono_ms() > f->kill_at_ms)
			signal_all(f, SIGKILL);
		if (!f->has_told_standing)
			tell_standing(f);
		watch_machine(f);
		progress_show(&progress, f->shared->tallies, f->options->processes);
	}
	progress_end(&progress);
}

void
fleet_run(const struct options *o, const struct scenario *scenario, struct report *ret)
{
	struct fleet f = {.options = o, .scenario = scenario, .began_ms = clock_mono_ms()};
	size_t size = sizeof(struct shared) + o->processes * sizeof(struct tally);

	f.kill_at_ms = f.began_ms + o->limit_s * UINT64_C(1000) + GRACE_MS;
	f.pids = xcalloc(o->processes, sizeof(*f.pids));
	f.shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(f.shared != MAP_FAILED);
	sigemptyset(&f.signals);
	sigaddset(&f.signals, SIGCHLD);
	sigaddset(&f.signals, SIGTERM);
	sigaddset(&f.signals, SIGINT);
	sigprocmask(SIG_BLOCK, &f.signals, NULL);
	watch_machine(&f);
	start(&f);
	wait_for_all(&f);
	ret->options = o;
	ret->died = f.died;
	ret->stopped = f.stopped;
	for (uint32_t i = 0; i < o->processes; i++)
		tally_merge(&ret->total, &f.shared->tallies[i]);
	munmap(f.shared, size);
	free(f.pids);
}
