/*
 * notify - what systemd is told (Type=notify, WatchdogSec=).
 *
 * Without NOTIFY_SOCKET all of this does nothing.
 */
#ifndef MASTER_NOTIFY_H
#define MASTER_NOTIFY_H

#include <stdint.h>

#include <event2/event.h>

struct notify;

/* Starts the watchdog's heartbeat (half of WATCHDOG_USEC) if it is asked for. Never NULL. */
struct notify *notify_new(struct event_base *);
void notify_free(struct notify **);

void notify_ready(void);
void notify_reloading(void);
void notify_stopping(uint64_t timeout_ms); /* and how long it may take */
/* That process is the service from now on, and tells; nothing of ours is told any more. */
void notify_successor(int pid);
void notify_status(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
