/*
 * gateway - the OpenAI-compatible routes: a request passed on to a model behind an alias,
 * its answer passed back as it comes. Whose request it is, what its key may ask for and how
 * much, and what the call has cost in the end is decided here; the passing is worker/provider's
 * (relay.h).
 */
#ifndef WORKER_API_GATEWAY_H
#define WORKER_API_GATEWAY_H

#include "worker/api/api.h"

struct gateways;

struct gateways *gateways_new(struct api *);
/* Who still waits shortly before the time is up is told so. */
void gateways_drain(struct gateways *);
bool gateways_are_idle(const struct gateways *);
/* Ends the calls that still go on without a client. */
void gateways_free(struct gateways **);

#endif
