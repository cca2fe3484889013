/*
 * provider_parts - what providers.c and provider.c share. Not for others.
 *
 *   providers.c  the config's providers and models: pools, addresses, prices
 *   provider.c   one call, from the request to its result
 */
#ifndef WORKER_PROVIDER_PROVIDER_PARTS_H
#define WORKER_PROVIDER_PROVIDER_PARTS_H

#include "common/idmap.h"
#include "common/strmap.h"
#include "worker/provider/provider.h"

struct upstream { /* a provider of the config */
	const struct conf_provider *conf;
	struct client_pool *pool;
	char *chat_url;
	char *authorization; /* "Bearer ..", or NULL */
	unsigned label;
};

struct target {
	struct upstream *upstream;
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
	struct idmap *calls;
};

/* NULL: unknown alias; NULL or "" is the default. */
const struct route *providers_route(const struct providers *, const char *alias);

#endif
