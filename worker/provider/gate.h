/*
 * gate - the way to one provider: who wants to ask it waits here, in order, until
 * there is a place (concurrent_requests of the host), a connection (max_connections of this worker)
 * and a share of the minute (requests_per_minute of the host).
 *
 * The share of the minute is of all hosts while Redis is there: asking for it, a ticket holds its
 * place already.
 *
 * It waits pool_timeout at most; where the minute's next share is later than that it is refused at
 * once. Places are the host's (common/places.h): a worker cannot hear that another has given one
 * back, so while somebody waits it looks every GATE_LOOK_MS.
 */
#ifndef WORKER_PROVIDER_GATE_H
#define WORKER_PROVIDER_GATE_H

#include "common/conf.h"
#include "common/places.h"
#include "worker/backplane/limits.h"
#include "worker/client/client.h"
#include "worker/loop/loop.h"

enum { GATE_LOOK_MS = 5 };

struct gate;

enum gate_refusal { GATE_TIMEOUT, GATE_QUEUE_FULL, GATE_MINUTE_SPENT };

/* Embedded in the caller's, zeroed, callbacks set. */
struct gate_ticket {
	void (*on_open)(struct gate_ticket *); /* inside, until gate_leave() */
	void (*on_refused)(struct gate_ticket *, enum gate_refusal, uint32_t retry_after_ms);
	struct list node; /* the gate's, as what follows */
	enum { GATE_OUTSIDE, GATE_WAITING, GATE_ASKING, GATE_FULL, GATE_INSIDE } at;
	uint64_t since_ms;
	int place;
	struct gate *gate;
	struct limit_ask minute;
};

/* label: of LABEL_PROVIDER. shm NULL: of this process alone, without the minute's limit. All is
 * borrowed. */
struct gate *gate_new(struct loop *, const struct conf_provider *, struct client_pool *,
    struct places *, struct shm *, struct shm_who me, unsigned label);
/* Before anybody enters; without it the minute is of this host alone. Borrowed. */
void gate_use_limits(struct gate *, struct limits *);
void gate_free(struct gate **); /* nobody waits or is inside */

/* One of the callbacks follows, never from inside a verb. */
void gate_enter(struct gate *, struct gate_ticket *);
/* Waits no more, or is inside no more; outside: nothing. */
void gate_leave(struct gate *, struct gate_ticket *);
uint32_t gate_waiting(const struct gate *);

#endif
