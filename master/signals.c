/*
 * signals - libevent's signal events, and clean hands for children.
 */
#include "master/signals.h"

#include <signal.h>
#include <stdlib.h>

#include "common/check.h"

enum { SIGNALS = 6 };

struct signals {
	const struct signals_verbs *verbs;
	void *arg;
	struct event *events[SIGNALS];
};

static void
on_signal(evutil_socket_t number, short what, void *arg)
{
	const struct signals *s = arg;

	(void)what;
	switch (number) {
	case SIGTERM:
	case SIGINT:
		s->verbs->stop(s->arg);
		break;
	case SIGHUP:
		s->verbs->reload(s->arg);
		break;
	case SIGUSR1:
		s->verbs->reopen(s->arg);
		break;
	case SIGUSR2:
		s->verbs->upgrade(s->arg);
		break;
	case SIGCHLD:
		s->verbs->reap(s->arg);
		break;
	}
}

struct signals *
signals_new(struct event_base *base, const struct signals_verbs *verbs, void *arg)
{
	static const int numbers[SIGNALS] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD};
	struct signals *s = xcalloc(1, sizeof(*s));

	s->verbs = verbs;
	s->arg = arg;
	for (int i = 0; i < SIGNALS; i++) {
		s->events[i] = evsignal_new(base, numbers[i], on_signal, s);
		check(s->events[i] != NULL && evsignal_add(s->events[i], NULL) == 0);
	}
	signal(SIGPIPE, SIG_IGN);
	return s;
}

void
signals_free(struct signals **s)
{
	if (*s == NULL)
		return;
	for (int i = 0; i < SIGNALS; i++)
		event_free((*s)->events[i]);
	free(*s);
	*s = NULL;
}

void
signals_block(void)
{
	sigset_t all;

	sigfillset(&all);
	check(sigprocmask(SIG_SETMASK, &all, NULL) == 0);
}

void
signals_unblock(void)
{
	sigset_t none;

	sigemptyset(&none);
	check(sigprocmask(SIG_SETMASK, &none, NULL) == 0);
}

void
signals_reset_in_child(void)
{
	for (int number = 1; number < NSIG; number++) {
		struct sigaction is = {.sa_handler = SIG_DFL};

		/* Sanitizers and profilers own theirs; of ours none is a fault signal. */
		if (number != SIGSEGV && number != SIGBUS && number != SIGFPE && number != SIGILL)
			sigaction(number, &is, NULL);
	}
	signal(SIGPIPE, SIG_IGN);
	signals_unblock();
}
