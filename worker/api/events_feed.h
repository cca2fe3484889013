/*
 * events_feed - GET /v1/events: topics as an event stream.
 */
#ifndef WORKER_API_EVENTS_FEED_H
#define WORKER_API_EVENTS_FEED_H

#include "worker/api/api.h"

struct events_feeds *events_feeds_new(struct api *);
void events_feeds_drain(struct events_feeds *);
void events_feeds_free(struct events_feeds **); /* before http and the hub */

#endif
