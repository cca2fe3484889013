/*
 * provider_parts - what the files of worker/provider share. Not for others.
 *
 *   providers.c  the config's providers and models: pools, addresses, prices
 *   ask*.c       the engine: targets, attempts, time
 *   gate.c       the way to one provider: places, connections, the minute
 *   watch.c      what is known of providers without asking a model
 *   provider.c   a turn's call: it asks, and makes events of the answer
 */
#ifndef WORKER_PROVIDER_PROVIDER_PARTS_H
#define WORKER_PROVIDER_PROVIDER_PARTS_H

#include "common/idmap.h"
#include "common/money.h"
#include "common/strmap.h"
#include "common/upstreams.h"
#include "worker/provider/dialect.h"
#include "worker/provider/gate.h"
#include "worker/provider/provider.h"

enum { ROUTE_TARGETS_MAX = 64 }; /* of an alias; a set of them is a word */

struct upstream { /* a provider of the config */
	const struct conf_provider *conf;
	struct client_pool *pool;
	struct gate *gate;
	struct upstream_shared *shared;
	bool owns_shared; /* the host's table is full, or there is none */
	char *base_url;   /* without a slash at its end */
	const struct dialect *dialect;
	char *authorization; /* the value of its key_header; NULL: no key */
	unsigned label;
};

struct target {
	struct upstream *upstream;
	const struct conf_target *conf;
	const char *model; /* the provider's name for it */
	unsigned label;    /* of both */
	struct upstream_target_shared *shared;
	bool owns_shared;        /* the host's table is full, or there is none */
	struct breaker *breaker; /* shared's */
	struct breaker_rule rule;
	uint32_t outstanding; /* calls of this worker */
};

struct route { /* what an alias stands for */
	const struct conf_model *conf;
	struct money_price price;
	struct target *targets; /* as conf->targets, ROUTE_TARGETS_MAX of them at most */
	size_t count;
};

struct providers {
	struct loop *loop;
	struct client *client;
	struct events *events; /* NULL: nobody is told */
	const struct conf *conf;
	struct shm *shm; /* NULL: this process is alone */
	struct shm_who me;
	struct upstream *upstreams; /* as conf->providers */
	struct route *routes;       /* as conf->models */
	struct target **targets;    /* each once, of those that more than one alias has */
	size_t target_count;
	struct watch *watch;
	struct strmap *by_alias;
	struct idmap *asks, *calls;
	uint64_t dice;
};

/* NULL: unknown alias; NULL or "" is the default. */
const struct route *providers_route(const struct providers *, const char *alias);
struct events;
/* news.c */
void provider_tell_health(
    const struct providers *, const char *provider, enum provider_health now, int status);
void provider_tell_breaker(const struct providers *, const struct target *, enum breaker_state);
double providers_dice(struct providers *); /* 0 <= dice < 1 */

#endif
