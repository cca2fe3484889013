/*
 * crash - see crash.h. Only what is allowed in a signal handler: ppoll(2), write(2) and
 * backtrace_symbols_fd(), whose library is loaded beforehand.
 */
#include "worker/crash.h"

#include <execinfo.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "common/check.h"
#include "common/log_sink.h"

enum { FRAMES_MAX = 64, STACK_BYTES = 64 << 10 };

static void
say(int fd, const char *s)
{
	ssize_t n = write(fd, s, strlen(s));

	(void)n;
}

static void
on_crash(int sig)
{
	void *frames[FRAMES_MAX];
	char line[] = "worker crashed signal=00\n"; /* in one piece: others write, too */
	char *number = line + sizeof(line) - 4;
	int fd = log_sink_raw();

	number[0] = (char)('0' + sig / 10);
	number[1] = (char)('0' + sig % 10);
	if (fd >= 0) { /* else nobody reads it */
		say(fd, line);
		backtrace_symbols_fd(frames, backtrace(frames, FRAMES_MAX), fd);
	}
	raise(sig); /* the handler was reset: this ends us */
}

void
crash_install(void)
{
	static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
	static char stack[STACK_BYTES];
	stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
	struct sigaction sa = {
	    .sa_handler = on_crash, .sa_flags = SA_RESETHAND | SA_ONSTACK | SA_NODEFER};
	void *frame;

	backtrace(&frame, 1); /* loads libgcc now */
	sigaltstack(&alternate, NULL);
	for (size_t i = 0; i < ARRAY_LEN(signals); i++)
		sigaction(signals[i], &sa, NULL);
}
