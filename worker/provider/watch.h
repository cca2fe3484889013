/*
 * watch - what is known of providers without asking a model: GET {base_url}/models every
 * health.interval, by one worker of the host, and the gauges of breakers.
 *
 * A provider that answers is up, also with an error of ours; one that refuses our key is
 * misconfigured, not down. It only says so: whom to ask is the breakers' business.
 */
#ifndef WORKER_PROVIDER_WATCH_H
#define WORKER_PROVIDER_WATCH_H

#include "worker/provider/provider_parts.h"

struct watch *watch_new(struct providers *);
void watch_free(struct watch **);

#endif
