/*
 * reap - waitpid and wait statuses.
 */
#include "master/reap.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

void
reap_all(void (*on_death)(void *arg, pid_t pid, int status), void *arg)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0 || (pid < 0 && errno == EINTR)) {
		if (pid > 0)
			on_death(arg, pid, status);
	}
}

void
reap_describe(int status, char out[REAP_TEXT_MAX])
{
	if (WIFEXITED(status)) {
		snprintf(out, REAP_TEXT_MAX, "exit=%d", WEXITSTATUS(status));
		return;
	}
	const char *name = sigabbrev_np(WTERMSIG(status));
	snprintf(out, REAP_TEXT_MAX, "signal=%s core=%s", name != NULL ? name : "?",
	    WCOREDUMP(status) ? "yes" : "no");
}
