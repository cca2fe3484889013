/*
 * notify - sd_notify through libsystemd.
 */
#include "master/notify.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>

#include "common/check.h"
#include "common/clock.h"

enum { STATUS_MAX = 256 };

struct notify {
	struct event *heartbeat; /* NULL: no watchdog */
};

static void
on_heartbeat(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;
	sd_notify(0, "WATCHDOG=1");
}

struct notify *
notify_new(struct event_base *base)
{
	struct notify *n = xcalloc(1, sizeof(*n));
	uint64_t usec = 0;

	if (sd_watchdog_enabled(0, &usec) <= 0 || usec == 0)
		return n;
	struct timeval half = {(time_t)(usec / 2 / 1000000), (suseconds_t)(usec / 2 % 1000000)};
	n->heartbeat = event_new(base, -1, EV_PERSIST, on_heartbeat, NULL);
	check(n->heartbeat != NULL && event_add(n->heartbeat, &half) == 0);
	return n;
}

void
notify_free(struct notify **n)
{
	if (*n == NULL)
		return;
	if ((*n)->heartbeat != NULL)
		event_free((*n)->heartbeat);
	free(*n);
	*n = NULL;
}

void
notify_ready(void)
{
	sd_notify(0, "READY=1");
}

void
notify_reloading(void)
{
	sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, clock_mono_us());
}

void
notify_stopping(uint64_t timeout_ms)
{
	sd_notifyf(0, "STOPPING=1\nEXTEND_TIMEOUT_USEC=%" PRIu64, timeout_ms * 1000);
}

void
notify_successor(int pid)
{
	sd_notifyf(1, "MAINPID=%d", pid);
}

void
notify_status(const char *fmt, ...)
{
	char text[STATUS_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	sd_notifyf(0, "STATUS=%s", text);
}
