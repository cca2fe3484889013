/*
 * hub_shape - events in the names and shapes of the hubs that existing clients speak to. Pure.
 *
 * A hub is a set of events, and of methods that clients call. The arguments of its events are
 * positions (tasks), or one object; they are put together from the members of the event's payload
 * (events.h), missing ones are null.
 */
#ifndef WORKER_EVENTS_HUB_SHAPE_H
#define WORKER_EVENTS_HUB_SHAPE_H

#include "worker/events/events.h"
#include "common/buf.h"

enum hub {
	HUB_TASKS,
	HUB_IMAGES,
	HUB_VIDEOS,
	HUB_NAVIGATION,
	HUB_NOTIFICATIONS,
	HUB_WEBHOOKS,
	HUB_SPEND,
	HUB_COUNT,
};

const char *hub_name(enum hub); /* "image-generation" */
bool hub_find(const char *name, enum hub *ret);
/* Topics that each client of the hub hears from its handshake on; NULL-terminated. */
const char *const *hub_topics(enum hub);

/* A whole record of the event, appended. False: the hub does not tell it. */
bool hub_shape(enum hub, const struct event *, struct buf *out);

/* The event is the last that a stream of a task gives. */
bool hub_is_last(const struct event *);

#endif
