/*
 * toll - what clients say on a connection counts against the limits of its key, as a request does.
 */
#ifndef WORKER_API_TOLL_H
#define WORKER_API_TOLL_H

#include "common/list.h"
#include "worker/api/api.h"
#include "worker/api/rate.h"

/* Those under way; initialised with the api that they are of. */
struct tolls {
	struct api *api;
	struct list all; /* struct toll */
};

/* Embedded in the payer's, zeroed; ask.cost is set by it. Nothing comes behind toll_end(), which
 * may be said twice, or of one that never began; the verdict stays. */
struct toll {
	struct list node;
	struct tolls *tolls;
	struct rate_ask ask;
	char *app_id, *key_id;
	void (*on_decided)(struct toll *);   /* ask.verdict says how; it ends it */
	void (*on_abandoned)(struct toll *); /* the worker ends; it ends it, too */
};
typedef void toll_do(struct toll *);

void tolls_init(struct tolls *, struct api *);
void toll_begin(struct tolls *, struct toll *, toll_do *on_decided, toll_do *on_abandoned);
void toll_take(struct toll *, const struct principal *, const struct rate_of *);
void toll_end(struct toll *);
void tolls_abandon(struct tolls *);

#endif
