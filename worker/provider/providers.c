/* providers - the providers and models of the config. */
#include <stdlib.h>

#include "common/check.h"
#include "common/crypto.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/provider/watch.h"

/* ---- looking up ---- */

const struct route *
providers_route(const struct providers *p, const char *alias)
{
	if (alias == NULL || *alias == '\0')
		return p->conf->models.n > 0 ? &p->routes[0] : NULL;
	return strmap_get(p->by_alias, str_of(alias));
}

struct loop *
providers_loop(const struct providers *p)
{
	return p->loop;
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

	if (route == NULL)
		return -1;
	return money_cost(
	    &route->price, usage->input_tokens, usage->output_tokens, usage->cached_tokens);
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
upstream_init_shared(struct upstream *u, const struct providers *p)
{
	u->shared = p->shm != NULL ? upstreams_provider(p->shm, str_of(u->conf->name)) : NULL;
	u->owns_shared = u->shared == NULL;
	if (!u->owns_shared)
		return;
	u->shared = xcalloc(1, sizeof(*u->shared));
	if (p->shm != NULL)
		log_warn("provider table full name=%s limits=per_worker", u->conf->name);
}

static void
upstream_init(struct upstream *u, const struct providers *p, const struct conf_provider *conf)
{
	size_t len = strlen(conf->base_url);
	struct client_pool_conf pool = {
	    .name = conf->name,
	    .connections_max = (uint32_t)conf->http_client.max_connections,
	    .keepalive_max = (uint32_t)conf->http_client.max_keepalive,
	    .keepalive_ms = (uint32_t)conf->http_client.keepalive_expiry_ms,
	    .connect_timeout_ms = (uint32_t)conf->http_client.connect_timeout_ms,
	    .write_timeout_ms = (uint32_t)conf->http_client.write_timeout_ms,
	    .pool_timeout_ms = (uint32_t)conf->http_client.pool_timeout_ms,
	    .queue_max = (uint32_t)conf->http_client.max_queue,
	    .on_in_use = on_in_use,
	    .arg = u,
	};

	while (len > 0 && conf->base_url[len - 1] == '/')
		len--;
	u->conf = conf;
	u->dialect = dialect_named(conf->dialect);
	u->base_url = xasprintf("%.*s", (int)len, conf->base_url);
	if (*conf->api_key != '\0')
		u->authorization = xasprintf("%s%s", u->dialect->key_prefix, conf->api_key);
	u->label = metric_label(LABEL_PROVIDER, str_of(conf->name));
	u->pool = client_pool_new(p->client, &pool);
	upstream_init_shared(u, p);
	u->gate = gate_new(p->loop, conf, u->pool, &u->shared->places, p->shm, p->me, u->label);
	metric_gauge_set(
	    METRIC_PROVIDER_CALLS_MAX, u->label, 0, conf->http_client.concurrent_requests);
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
	gate_free(&u->gate);
	client_pool_free(&u->pool);
	if (u->owns_shared)
		free(u->shared);
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

static struct breaker_rule
breaker_rule_of(const struct conf_provider_breaker *conf)
{
	return (struct breaker_rule){
	    .failures = (uint32_t)(conf->failures < UINT16_MAX ? conf->failures : UINT16_MAX),
	    .failure_rate = conf->failure_rate,
	    .calls_min = (uint32_t)conf->min_calls,
	    .window_ms = (uint32_t)conf->window_ms,
	    .recovery_ms = (uint32_t)conf->recovery_ms,
	};
}

static void
target_init(struct target *t, const struct providers *p, const struct conf_target *conf)
{
	*t = (struct target){.upstream = upstream_named(p, conf->provider),
	    .conf = conf,
	    .model = conf->model,
	    .label = metric_label_pair(LABEL_TARGET, str_of(conf->provider), str_of(conf->model))};
	check(t->upstream != NULL); /* the config was checked */
	t->rule = breaker_rule_of(&t->upstream->conf->breaker);
	if (p->shm != NULL)
		t->shared = upstreams_target(p->shm, str_of(conf->provider), str_of(conf->model));
	t->owns_shared = t->shared == NULL;
	if (t->owns_shared)
		t->shared = xcalloc(1, sizeof(*t->shared));
	t->breaker = &t->shared->breaker;
}

static void
route_init(struct route *r, const struct providers *p, const struct conf_model *conf)
{
	r->conf = conf;
	r->price = money_price_of(conf->price.input, conf->price.output, conf->price.cached);
	r->count = conf->targets.n < ROUTE_TARGETS_MAX ? conf->targets.n : ROUTE_TARGETS_MAX;
	if (r->count < conf->targets.n)
		log_warn("model has too many targets name=%s used=%zu", conf->name, r->count);
	r->targets = xcalloc(r->count, sizeof(r->targets[0]));
	for (size_t i = 0; i < r->count; i++)
		target_init(&r->targets[i], p, &conf->targets.v[i]);
}

static void
route_fini(struct route *r)
{
	for (size_t i = 0; i < r->count; i++) {
		check(r->targets[i].outstanding == 0);
		if (r->targets[i].owns_shared)
			free(r->targets[i].shared);
	}
	free(r->targets);
}

static bool
is_listed(const struct providers *p, const struct target *t)
{
	for (size_t i = 0; i < p->target_count; i++) {
		if (p->targets[i]->upstream == t->upstream &&
		    strcmp(p->targets[i]->model, t->model) == 0)
			return true;
	}
	return false;
}

static void
list_targets(struct providers *p, struct route *r)
{
	p->targets = xrealloc(p->targets, (p->target_count + r->count + 1) * sizeof(p->targets[0]));
	for (size_t i = 0; i < r->count; i++) {
		if (!is_listed(p, &r->targets[i]))
			p->targets[p->target_count++] = &r->targets[i];
	}
}

double
providers_dice(struct providers *p)
{
	p->dice ^= p->dice << 13; /* xorshift64, Marsaglia 2003 */
	p->dice ^= p->dice >> 7;
	p->dice ^= p->dice << 17;
	return (double)(p->dice >> 11) / (double)(UINT64_C(1) << 53);
}

struct providers *
providers_new(struct loop *loop, struct client *client, const struct conf *conf, struct shm *shm,
    struct shm_who me)
{
	struct providers *p = xcalloc(1, sizeof(*p));

	p->loop = loop;
	p->client = client;
	p->conf = conf;
	p->shm = shm;
	p->me = shm != NULL ? me : (struct shm_who){0, 1};
	crypto_random(&p->dice, sizeof(p->dice));
	p->dice |= 1; /* not 0 */
	p->asks = idmap_new();
	p->calls = idmap_new();
	p->upstreams = xcalloc(conf->providers.n, sizeof(p->upstreams[0]));
	for (size_t i = 0; i < conf->providers.n; i++)
		upstream_init(&p->upstreams[i], p, &conf->providers.v[i]);
	p->routes = xcalloc(conf->models.n, sizeof(p->routes[0]));
	p->by_alias = strmap_new();
	for (size_t i = 0; i < conf->models.n; i++) {
		route_init(&p->routes[i], p, &conf->models.v[i]);
		strmap_set(p->by_alias, str_of(conf->models.v[i].name), &p->routes[i]);
		list_targets(p, &p->routes[i]);
	}
	p->watch = watch_new(p);
	return p;
}

void
providers_use_limits(struct providers *p, struct limits *limits)
{
	for (size_t i = 0; i < p->conf->providers.n; i++)
		gate_use_limits(p->upstreams[i].gate, limits);
}

void
providers_free(struct providers **pp)
{
	struct providers *p = *pp;

	if (p == NULL)
		return;
	*pp = NULL;
	check(idmap_count(p->calls) == 0 && idmap_count(p->asks) == 0); /* callers cancel */
	watch_free(&p->watch);
	free(p->targets);
	for (size_t i = 0; i < p->conf->providers.n; i++)
		upstream_fini(&p->upstreams[i]);
	for (size_t i = 0; i < p->conf->models.n; i++)
		route_fini(&p->routes[i]);
	free(p->routes);
	strmap_free(&p->by_alias);
	idmap_free(&p->asks);
	idmap_free(&p->calls);
	free(p->upstreams);
	free(p);
}
