/* providers - the providers and models of the config. */
#include <math.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/provider/provider_parts.h"

/* ---- looking up ---- */

const struct route *
providers_route(const struct providers *p, const char *alias)
{
	if (alias == NULL || *alias == '\0')
		return p->conf->models.n > 0 ? &p->routes[0] : NULL;
	return strmap_get(p->by_alias, str_of(alias));
}

bool
providers_know_model(const struct providers *p, const char *alias)
{
	return providers_route(p, alias) != NULL;
}

int64_t
providers_cost(const struct providers *p, const char *alias, const struct provider_usage *usage)
{
	const struct route *route = providers_route(p, alias);

	if (route == NULL || route->conf->price.input < 0 || route->conf->price.output < 0)
		return -1;
	double input = route->conf->price.input, output = route->conf->price.output;
	double cached = route->conf->price.cached < 0 ? input : route->conf->price.cached;
	uint64_t hits =
	    usage->cached_tokens < usage->input_tokens ? usage->cached_tokens : usage->input_tokens;
	/* A price per million tokens is millionths of the unit per token. */
	return (int64_t)ceil((double)(usage->input_tokens - hits) * input + (double)hits * cached +
			     (double)usage->output_tokens * output);
}

/* What fits every target of the chain. */
uint32_t
providers_context_tokens(const struct providers *p, const char *alias)
{
	const struct route *route = providers_route(p, alias);
	int64_t smallest = 0;

	for (size_t i = 0; route != NULL && i < route->conf->targets.n; i++) {
		int64_t context = route->conf->targets.v[i].context;

		if (context > 0 && (smallest == 0 || context < smallest))
			smallest = context;
	}
	return (uint32_t)smallest;
}

/* ---- life ---- */

static void
on_in_use(void *arg, int delta)
{
	metric_gauge(METRIC_PROVIDER_POOL_IN_USE, ((struct upstream *)arg)->label, 0, delta);
}

static void
on_waited(void *arg, uint64_t ms)
{
	metric_observe_us(
	    METRIC_PROVIDER_QUEUE_WAIT_SECONDS, ((struct upstream *)arg)->label, ms * 1000);
}

/* A call holds one connection, so the smaller of both limits is the number of places. */
static uint32_t
upstream_places(const struct conf_provider *conf)
{
	int64_t connections = conf->http_client.max_connections;
	int64_t calls = conf->http_client.concurrent_requests;

	return (uint32_t)(calls < connections ? calls : connections);
}

static void
upstream_init(struct upstream *u, struct client *client, const struct conf_provider *conf)
{
	size_t len = strlen(conf->base_url);
	struct client_pool_conf pool = {
	    .name = conf->name,
	    .connections_max = upstream_places(conf),
	    .keepalive_max = (uint32_t)conf->http_client.max_keepalive,
	    .keepalive_ms = (uint32_t)conf->http_client.keepalive_expiry_ms,
	    .connect_timeout_ms = (uint32_t)conf->http_client.connect_timeout_ms,
	    .write_timeout_ms = (uint32_t)conf->http_client.write_timeout_ms,
	    .pool_timeout_ms = (uint32_t)conf->http_client.pool_timeout_ms,
	    .queue_max = (uint32_t)conf->http_client.max_queue,
	    .on_in_use = on_in_use,
	    .on_waited = on_waited,
	    .arg = u,
	};

	if (strcmp(conf->dialect, "openai") != 0)
		log_warn("provider dialect not spoken name=%s dialect=%s used=openai", conf->name,
		    conf->dialect);
	while (len > 0 && conf->base_url[len - 1] == '/')
		len--;
	u->conf = conf;
	u->base_url = xasprintf("%.*s", (int)len, conf->base_url);
	if (*conf->api_key != '\0')
		u->authorization = xasprintf("Bearer %s", conf->api_key);
	u->label = metric_label(LABEL_PROVIDER, str_of(conf->name));
	u->pool = client_pool_new(client, &pool);
	metric_gauge(METRIC_PROVIDER_POOL_MAX, u->label, 0, conf->http_client.max_connections);
	log_info("provider ready name=%s max_connections=%lld concurrent_requests=%lld "
		 "pool_timeout=%gs",
	    conf->name, (long long)conf->http_client.max_connections,
	    (long long)conf->http_client.concurrent_requests,
	    (double)conf->http_client.pool_timeout_ms / 1000);
}

static void
upstream_fini(struct upstream *u)
{
	metric_gauge(METRIC_PROVIDER_POOL_MAX, u->label, 0, -u->conf->http_client.max_connections);
	client_pool_free(&u->pool);
	free(u->base_url);
	if (u->authorization != NULL)
		explicit_bzero(u->authorization, strlen(u->authorization));
	free(u->authorization);
}

static struct upstream *
upstream_named(const struct providers *p, const char *name)
{
	for (size_t i = 0; i < p->conf->providers.n; i++) {
		if (strcmp(p->conf->providers.v[i].name, name) == 0)
			return &p->upstreams[i];
	}
	return NULL;
}

static void
route_init(struct route *r, const struct providers *p, const struct conf_model *conf)
{
	r->conf = conf;
	r->targets = xcalloc(conf->targets.n, sizeof(r->targets[0]));
	for (size_t i = 0; i < conf->targets.n; i++) {
		const struct conf_target *t = &conf->targets.v[i];

		r->targets[i] = (struct target){upstream_named(p, t->provider), t, t->model,
		    metric_label_pair(LABEL_TARGET, str_of(t->provider), str_of(t->model))};
		check(r->targets[i].upstream != NULL); /* the config was checked */
	}
}

struct providers *
providers_new(struct loop *loop, struct client *client, const struct conf *conf, struct shm *shm)
{
	struct providers *p = xcalloc(1, sizeof(*p));

	(void)shm; /* the host-wide limits will live there */
	p->loop = loop;
	p->client = client;
	p->conf = conf;
	p->asks = idmap_new();
	p->calls = idmap_new();
	p->upstreams = xcalloc(conf->providers.n, sizeof(p->upstreams[0]));
	for (size_t i = 0; i < conf->providers.n; i++)
		upstream_init(&p->upstreams[i], client, &conf->providers.v[i]);
	p->routes = xcalloc(conf->models.n, sizeof(p->routes[0]));
	p->by_alias = strmap_new();
	for (size_t i = 0; i < conf->models.n; i++) {
		route_init(&p->routes[i], p, &conf->models.v[i]);
		strmap_set(p->by_alias, str_of(conf->models.v[i].name), &p->routes[i]);
	}
	return p;
}

void
providers_free(struct providers **pp)
{
	struct providers *p = *pp;

	if (p == NULL)
		return;
	*pp = NULL;
	check(idmap_count(p->calls) == 0 && idmap_count(p->asks) == 0); /* callers cancel */
	for (size_t i = 0; i < p->conf->providers.n; i++)
		upstream_fini(&p->upstreams[i]);
	for (size_t i = 0; i < p->conf->models.n; i++)
		free(p->routes[i].targets);
	free(p->routes);
	strmap_free(&p->by_alias);
	idmap_free(&p->asks);
	idmap_free(&p->calls);
	free(p->upstreams);
	free(p);
}
