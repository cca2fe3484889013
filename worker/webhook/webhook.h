/*
 * webhook - what is in the outbox (store.h) is sent to its endpoint: at least once, under a stable
 * id, signed, of equal order keys in order.
 *
 *   look     which endpoints have something due, and may be asked (the record's breaker)
 *   claim    up to webhooks.batch of each, for a lease; of equal order keys the first ones, which
 *            go one after the other
 *   send     at most webhooks.connections to one host, the workers of this host together
 *   settle   what became of them, many at once: delivered, again later, dead
 *
 * Any worker of any host does this; who dies has only leases: others of its host give back what a
 * worker had, and of a host they end. Nothing is kept here that the record does not have. An
 * endpoint that is slow or dead holds its own webhooks up and no others: each has its own queue and
 * its own share of connections.
 */
#ifndef WORKER_WEBHOOK_WEBHOOK_H
#define WORKER_WEBHOOK_WEBHOOK_H

#include "worker/backplane/backplane.h"
#include "worker/client/client.h"
#include "worker/store/store.h"
#include "worker/webhook/endpoint.h"

struct events;
struct webhooks;

/* All are borrowed. Nothing is sent before webhooks_start(). */
struct webhooks *webhooks_new(struct loop *, struct client *, const struct conf *, struct store *,
    struct backplane *, struct shm *);
/* What becomes of deliveries is told there; before the start. NULL: nowhere. */
void webhooks_use_events(struct webhooks *, struct events *);
void webhooks_start(struct webhooks *);
/* Claims no more; what is on its way ends, what waits is given back. */
void webhooks_drain(struct webhooks *);
bool webhooks_are_idle(const struct webhooks *);
void webhooks_free(struct webhooks **);

/* Something was committed: it is looked for now, not at the next poll. Often is fine. */
void webhooks_wake(struct webhooks *);

/*
 * Webhooks of the configuration's endpoints that want this event of this app. rows and endpoints
 * have room for webhooks.endpoints.n; texts are from the arena. data_json: what the body's "data"
 * is. Returns how many. They are written with the change, then webhooks_wake() is called.
 */
struct webhook_event {
	const char *app_id, *event, *order_key, *data_json;
};
bool webhooks_want(const struct conf_webhooks *, const char *app_id, const char *event);
size_t webhooks_of_event(const struct conf_webhooks *, const struct webhook_event *, struct arena *,
    struct store_webhook *rows, struct store_webhook_endpoint *endpoints);

#endif
