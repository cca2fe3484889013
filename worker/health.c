/*
 * health - see health.h. Each check reads numbers that are there anyway; none asks anybody.
 */
#include "worker/health.h"

#include <string.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/metric.h"
#include "worker/backplane/hosts.h"
#include "worker/backplane/redis.h"

static enum health
worse(enum health a, enum health b)
{
	return a > b ? a : b;
}

/* Of all workers together: each has its own. A file has no pool. */
static enum health
check_store_pool(const struct health_of *h, json_t *details)
{
	const struct conf *conf = h->handoff->conf;
	int64_t used = metric_total(h->handoff->shm, METRIC_STORE_POOL_IN_USE, 0, 0);
	int64_t max =
	    (conf->store.pool_size + conf->store.max_overflow) * shm_workers(h->handoff->shm);

	if (str_starts(str_of(conf->store.url), STR("sqlite:")))
		return HEALTH_OK;
	json_object_set_new(details, "pool",
	    json_pack("{s:I, s:I}", "in_use", (json_int_t)used, "max", (json_int_t)max));
	/* All in use for a moment is how a pool works: never worse than degraded. */
	return health_of_use(used > 0 ? (uint64_t)used : 0, (uint64_t)max) == HEALTH_OK
		   ? HEALTH_OK
		   : HEALTH_DEGRADED;
}

/* Away for a while is degraded: answers from memory go on. For longer than its grace nobody should
 * be sent here. */
static enum health
check_store(void *arg, json_t *details)
{
	const struct health_of *h = arg;
	const struct conf *conf = h->handoff->conf;
	uint64_t since_ms = store_unavailable_since_ms(h->store), away_ms;
	enum health pool = check_store_pool(h, details);

	json_object_set_new(details, "available", json_boolean(store_is_available(h->store)));
	if (store_is_available(h->store))
		return pool;
	away_ms = clock_mono_ms() - since_ms;
	json_object_set_new(details, "away_ms", json_integer((json_int_t)away_ms));
	return away_ms > conf->store.grace_ms ? HEALTH_UNAVAILABLE : HEALTH_DEGRADED;
}

/* With an url the operator counts on other hosts, whom a worker without its Redis does not reach.
 */
static enum health
check_backplane(void *arg, json_t *details)
{
	static const char *const states[] = {
	    [REDIS_AWAY] = "away", [REDIS_FULL] = "full", [REDIS_UP] = "up"};
	const struct health_of *h = arg;
	const struct redis *redis = backplane_redis(h->backplane);

	if (redis == NULL) {
		json_object_set_new(details, "mode", json_string("local"));
		return HEALTH_OK;
	}
	bool is_up = redis_state(redis) == REDIS_UP;
	uint32_t away = hosts_workers_away(h->handoff->shm);
	json_object_set_new(details, "mode", json_string(is_up ? "redis" : "local"));
	json_object_set_new(details, "redis", json_string(states[redis_state(redis)]));
	json_object_set_new(details, "workers_without", json_integer(away));
	if (!is_up)
		json_object_set_new(details, "reason", json_string(redis_reason(redis)));
	return is_up && away == 0 ? HEALTH_OK : HEALTH_DEGRADED;
}

/* Calls in progress and waiting, the last look, of its models the breakers and for how long they
 * want not to be asked. */
static json_t *
describe_provider(const struct providers *p, const struct provider_state *s)
{
	json_t *breakers = json_object(), *cooling = json_object();

	for (size_t i = 0; i < providers_target_count(p); i++) {
		struct provider_target_state t;

		providers_target_state(p, i, &t);
		if (strcmp(t.provider, s->name) != 0)
			continue;
		json_object_set_new(breakers, t.model, json_string(breaker_state_name(t.breaker)));
		if (t.cooling_ms > 0)
			json_object_set_new(
			    cooling, t.model, json_integer((t.cooling_ms + 999) / 1000));
	}
	return json_pack("{s:s, s:I, s:I, s:I, s:f, s:o, s:o}", "health",
	    provider_health_name(s->health), "in_use", (json_int_t)s->calls, "max",
	    (json_int_t)s->calls_max, "waiting", (json_int_t)s->waiting, "utilization",
	    s->calls_max > 0 ? (double)s->calls / s->calls_max : 0.0, "breakers", breakers,
	    "cooling_s", cooling);
}

static enum health
check_providers(void *arg, json_t *details)
{
	const struct health_of *h = arg;
	const struct conf *conf = h->handoff->conf;
	enum health worst = conf->providers.n > 0 ? HEALTH_OK : HEALTH_DEGRADED;
	json_t *list = json_object();

	json_object_set_new(details, "configured", json_integer((json_int_t)conf->providers.n));
	json_object_set_new(details, "models", json_integer((json_int_t)conf->models.n));
	json_object_set_new(details, "providers", list);
	for (size_t i = 0; i < providers_count(h->providers); i++) {
		struct provider_state s;

		providers_state(h->providers, i, &s);
		json_object_set_new(list, s.name, describe_provider(h->providers, &s));
		worst = worse(worst, health_of_use(s.calls, s.calls_max));
		if (s.health == PROVIDER_DOWN || s.health == PROVIDER_MISCONFIGURED)
			worst = worse(worst, HEALTH_DEGRADED);
	}
	for (size_t i = 0; i < providers_target_count(h->providers); i++) {
		struct provider_target_state t;

		providers_target_state(h->providers, i, &t);
		if (t.breaker != BREAKER_CLOSED)
			worst = worse(worst, HEALTH_DEGRADED);
	}
	return worst;
}

/* Connections to each provider, of the whole host. */
static enum health
check_pools(void *arg, json_t *details)
{
	const struct health_of *h = arg;
	const struct conf *conf = h->handoff->conf;
	json_t *pools = json_object();
	enum health worst = HEALTH_OK;

	json_object_set_new(details, "pools", pools);
	for (size_t i = 0; i < conf->providers.n; i++) {
		const char *name = conf->providers.v[i].name;
		unsigned label = metric_label(LABEL_PROVIDER, str_of(name));
		const struct shm *shm = h->handoff->shm;
		int64_t used = metric_total(shm, METRIC_PROVIDER_POOL_IN_USE, label, 0);
		int64_t max = metric_total(shm, METRIC_PROVIDER_POOL_MAX, label, 0);

		json_object_set_new(pools, name,
		    json_pack("{s:I, s:I}", "in_use", (json_int_t)used, "max", (json_int_t)max));
		worst = worse(worst,
		    health_of_use(used > 0 ? (uint64_t)used : 0, max > 0 ? (uint64_t)max : 0));
	}
	return worst;
}

/* Of any worker of the host: the others' places are no help to who was sent to that one. */
static enum health
check_load(void *arg, json_t *details)
{
	const struct health_of *h = arg;
	const struct shm *shm = h->handoff->shm;
	const struct admission *a = loop_admission(h->loop);
	int64_t overloaded = 0;

	for (uint32_t i = 0; i < shm_rows_used(shm); i++) {
		struct shm_row_info row;

		if (shm_row_get(shm, i, &row) && row.state != SHM_DEAD)
			overloaded += metric_of_row(shm, i, METRIC_WORK_MAX, 0, 0) > 0;
	}
	json_object_set_new(details, "workers_overloaded", json_integer(overloaded));
	json_object_set_new(details, "worker",
	    json_pack("{s:I, s:I}", "loop_delay_us", (json_int_t)a->delay_us, "work",
		(json_int_t)a->live));
	if (admission_is_limited(a))
		json_object_set_new(
		    json_object_get(details, "worker"), "work_max", json_integer(a->limit));
	if (overloaded == 0)
		return HEALTH_OK;
	json_object_set_new(details, "reason", json_string("overload"));
	return HEALTH_DEGRADED;
}

static int
workers_without(const struct shm *shm, unsigned label)
{
	int n = 0;

	for (uint32_t i = 0; i < shm_rows_used(shm); i++) {
		struct shm_row_info row;

		if (shm_row_get(shm, i, &row) && row.state == SHM_READY)
			n += metric_of_row(shm, i, METRIC_MCP_UP, label, 0) == 0;
	}
	return n;
}

/* Tool servers: one that is away for any worker may be missed by whoever is sent there. */
static enum health
check_mcp(void *arg, json_t *details)
{
	static const char *const states[] = {[MCP_UPSTREAM_OFF] = "off",
	    [MCP_UPSTREAM_CONNECTING] = "connecting",
	    [MCP_UPSTREAM_READY] = "ready",
	    [MCP_UPSTREAM_AWAY] = "away"};
	const struct health_of *h = arg;
	json_t *servers = json_object();
	enum health worst = HEALTH_OK;

	json_object_set_new(details, "servers", servers);
	for (size_t i = 0; i < mcp_upstreams_count(h->upstreams); i++) {
		struct mcp_upstream_info u;

		mcp_upstream_get(h->upstreams, i, &u);
		if (u.state == MCP_UPSTREAM_OFF)
			continue;
		int without = workers_without(
		    h->handoff->shm, metric_label(LABEL_MCP_SERVER, str_of(u.conf->name)));
		json_t *s =
		    json_pack("{s:s, s:i}", "state", states[u.state], "workers_without", without);

		if (u.revision != MCP_REVISION_NONE)
			json_object_set_new(
			    s, "revision", json_string(mcp_revision_info(u.revision)->text));
		json_object_set_new(s, "tools",
		    json_integer(
			(json_int_t)mcp_list_count(mcp_upstream_list(h->upstreams, i, MCP_TOOLS))));
		json_object_set_new(servers, u.conf->name, s);
		worst = worse(worst, without > 0 ? HEALTH_DEGRADED : HEALTH_OK);
	}
	return worst;
}

/* Are the fleet's figures true? By what this host's speaker has last seen. */
static enum health
check_stats(void *arg, json_t *details)
{
	const struct health_of *h = arg;
	struct stats_health s;
	const char *reason = NULL;

	stats_get_health(h->stats, &s);
	json_object_set_new(details, "mode", json_string(stats_mode_name(s.mode)));
	if (s.mode == STATS_FLEET) {
		json_object_set_new(details, "instances", json_integer((json_int_t)s.instances));
		json_object_set_new(details, "aggregation_ms", json_real((double)s.took_us / 1000));
		json_object_set_new(details, "drift", json_real((double)s.drift_ppm / 1e6));
		json_object_set_new(details, "age_ms",
		    s.age_ms != UINT64_MAX ? json_integer((json_int_t)s.age_ms) : json_null());
	}
	if (s.mode == STATS_ALONE)
		reason = "redis_away";
	else if (s.is_late)
		reason = "late";
	else if (s.has_drift)
		reason = "drift";
	else if (s.has_latency)
		reason = "latency";
	if (reason == NULL)
		return HEALTH_OK;
	json_object_set_new(details, "reason", json_string(reason));
	return HEALTH_DEGRADED;
}

/* Something kills them, an input perhaps: the log has its fingerprint. */
static enum health
check_workers(void *arg, json_t *details)
{
	const struct health_of *h = arg;
	uint64_t crashing = atomic_load(shm_word(h->handoff->shm, SHM_WORD_CRASHING));

	json_object_set_new(details, "crashing", json_integer((json_int_t)crashing));
	if (crashing == 0)
		return HEALTH_OK;
	json_object_set_new(details, "reason", json_string("workers die again and again"));
	return HEALTH_DEGRADED;
}

/* Endpoints that fail are no fault of this host; being late where they answer is. */
static enum health
check_webhooks(void *arg, json_t *details)
{
	enum { LATE_S = 60 };
	const struct health_of *h = arg;
	const struct shm *shm = h->handoff->shm;
	int64_t late_s = metric_total(shm, METRIC_WEBHOOKS_LATE, 0, 0);

	json_object_set_new(
	    details, "in_progress", json_integer(metric_total(shm, METRIC_WEBHOOKS_HELD, 0, 0)));
	json_object_set_new(details, "late_s", json_integer(late_s));
	if (late_s <= LATE_S)
		return HEALTH_OK;
	json_object_set_new(details, "reason", json_string("late"));
	return HEALTH_DEGRADED;
}

static enum health
check_tasks(void *arg, json_t *details)
{
	const struct health_of *h = arg;
	const struct shm *shm = h->handoff->shm;
	int64_t queued = metric_total(shm, METRIC_TASKS_QUEUED, 0, 0);

	json_object_set_new(details, "queued", json_integer(queued));
	json_object_set_new(
	    details, "oldest_s", json_integer(metric_total(shm, METRIC_TASKS_OLDEST, 0, 0)));
	json_object_set_new(
	    details, "running", json_integer(metric_total(shm, METRIC_TASKS_RUNNING, 0, 0)));
	if (queued <= h->handoff->conf->tasks.alarm)
		return HEALTH_OK;
	json_object_set_new(details, "reason", json_string("queue"));
	return HEALTH_DEGRADED;
}

static const struct ops_check checks[] = {
    {"workers", check_workers},
    {"load", check_load},
    {"store", check_store},
    {"backplane", check_backplane},
    {"providers", check_providers},
    {"http_pools", check_pools},
    {"mcp", check_mcp},
    {"stats", check_stats},
    {"webhooks", check_webhooks},
    {"tasks", check_tasks},
};

const struct ops_check *
health_checks(size_t *ret_count)
{
	*ret_count = ARRAY_LEN(checks);
	return checks;
}
