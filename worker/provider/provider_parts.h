/*
 * provider_parts - what the files of worker/provider share. Not for others.
 *
 *   providers.c  the config's providers and models: pools, addresses, prices
 *   ask.c        the engine: targets, attempts, time
 *   provider.c   a turn's call: it asks, and makes events of the answer
 */
#ifndef WORKER_PROVIDER_PROVIDER_PARTS_H
#define WORKER_PROVIDER_PROVIDER_PARTS_H

#include "common/idmap.h"
#include "common/strmap.h"
#include "worker/provider/provider.h"

struct upstream { /* a provider of the config */
	const struct conf_provider *conf;
	struct client_pool *pool;
	char *base_url;      /* without a slash at its end */
	char *authorization; /* "Bearer ..", or NULL */
	unsigned label;
};

struct target {
	struct upstream *upstream;
	const struct conf_target *conf;
	const char *model; /* the provider's name for it */
	unsigned label;    /* of both */
};

struct route { /* what an alias stands for */
	const struct conf_model *conf;
	struct target *targets; /* as conf->targets */
};

struct providers {
	struct loop *loop;
	struct client *client;
	const struct conf *conf;
	struct upstream *upstreams; /* as conf->providers */
	struct route *routes;       /* as conf->models */
	struct strmap *by_alias;
	struct idmap *asks, *calls;
};

/* NULL: unknown alias; NULL or "" is the default. */
const struct route *providers_route(const struct providers *, const char *alias);

#endif
