/*
 * event_scan - bytes of a text/event-stream in, the same bytes out, event by event
 * (WHATWG HTML, 9.2.6), for who passes a stream on and wants to know what is in it.
 *
 * Pure. What comes out is a part of what came in, byte for byte: whole events only, and of
 * those only what the caller keeps. Bytes of events that are whole in what was fed are given out as
 * one piece and not copied. The beginning of an event that is not whole yet is held, up to
 * hold_bytes_max; an event that is larger goes by unread, as it comes.
 */
#ifndef WORKER_PROVIDER_EVENT_SCAN_H
#define WORKER_PROVIDER_EVENT_SCAN_H

#include <stdbool.h>

#include "common/buf.h"
#include "common/str.h"

struct scan_event {      /* borrowed for the call */
	struct str name; /* of its `event` line; empty: none. Given of an unread one, too */
	struct str data; /* its `data` lines, joined by LF; .p NULL: it has none, or is unread */
	bool is_unread;  /* too large: it has gone by already */
};

enum scan_verdict {
	SCAN_KEEP,
	SCAN_DROP, /* not given out; an unread one was already */
	SCAN_STOP, /* neither it nor what follows is given out; the feed ends */
};

struct scan_handlers {
	enum scan_verdict (*on_event)(void *arg, const struct scan_event *);
	void (*on_pass)(void *arg, struct str bytes); /* valid for the call */
};

struct event_scan {
	struct scan_handlers handlers;
	void *arg;
	size_t hold_bytes_max;
	struct buf held;  /* what came earlier of the present event */
	struct buf data;  /* joined lines, where there are several */
	struct buf name;  /* of an event that goes by unread */
	bool is_passing;  /* the present event goes by unread */
	bool is_in_line;  /* bytes of the present line have come */
	bool is_in_event; /* bytes of the present event have come */
	bool skips_lf;    /* the last byte was CR: a LF now belongs to it */
	bool has_stopped;
};

void event_scan_init(
    struct event_scan *, size_t hold_bytes_max, const struct scan_handlers *, void *arg);
void event_scan_fini(struct event_scan *);

/* False: it was stopped. */
bool event_scan_feed(struct event_scan *, struct str bytes);

/* An event was begun that has not ended; what was held of it is not given out. */
bool event_scan_is_cut(const struct event_scan *);
/* Bytes of such an event were given out: it must be ended before something else can be said. */
bool event_scan_has_passed_part(const struct event_scan *);

#endif
