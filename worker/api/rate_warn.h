/*
 * rate_warn - tells an app when one of its keys comes near its limit, or is refused: the event
 * rate_limit.warning of the topic notifications, for that app. Of each key once a minute of a
 * worker; of very many keys at once some are left out.
 */
#ifndef WORKER_API_RATE_WARN_H
#define WORKER_API_RATE_WARN_H

#include "worker/api/rate.h"
#include "worker/events/events.h"

struct rate_warns;

struct rate_warns *rate_warns_new(struct loop *, struct events *);
void rate_warns_free(struct rate_warns **);

/* It was decided. app_id NULL (an admin's key): nobody is told. */
void rate_warn(
    struct rate_warns *, const char *app_id, const char *key_id, const struct rate_ask *);

#endif
