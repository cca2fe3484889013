/*
 * event_text - an event as the JSON of /v1/events and /ws/events. Pure.
 */
#ifndef WORKER_API_EVENT_TEXT_H
#define WORKER_API_EVENT_TEXT_H

#include "common/buf.h"
#include "worker/events/events.h"

/* "topic":"..","at":"..","data":{..}: the inside of an object; appends. */
void event_text_members(const struct event *, struct buf *out);

#endif
