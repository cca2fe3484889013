/*
 * event_text - an event as the JSON of /v1/events and /ws/events. Pure.
 */
#ifndef WORKER_API_EVENT_TEXT_H
#define WORKER_API_EVENT_TEXT_H

#include "common/buf.h"
#include "worker/events/events.h"

/* "topic":"..","at":"..","data":{..}: the inside of an object; appends. */
void event_text_members(const struct event *, struct buf *out);

/* The same of the event that is told now to many, made once: zeroed at first. Borrowed until the
 * next call. */
struct event_text {
	uint64_t host, number;
	struct buf members;
};
struct str event_text_of(struct event_text *, const struct event *);
void event_text_fini(struct event_text *);

#endif
