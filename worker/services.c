/*
 * services - what a service is, and each of them in a few lines: who is made of whom.
 * No service has its work here: each verb is one call of its module.
 */
#include "worker/services.h"

#include "worker/backplane/limits.h"
#include "worker/mcp/runner.h"
#include "worker/mcp/upstream.h"
#include "worker/session/sweeper.h"
#include "worker/stats/stats.h"
#include "worker/task/task.h"
#include "worker/usage/spend.h"
#include "worker/webhook/turn_hooks.h"
#include "worker/webhook/webhook.h"

/*
 * A service: made in the order of the table, started in it, drained in it, ended in reverse.
 * init and start return 0 or a negative number, and have logged why. is_idle: what it had in
 * progress has ended.
 */
struct service {
	const char *name;
	int (*init)(struct services *);
	int (*start)(struct services *);
	void (*drain)(struct services *);
	bool (*is_idle)(const struct services *);
	void (*stop)(struct services *);
};

/* ---- what the routes stand on ---- */

static int
backplane_init(struct services *s)
{
	const struct conf_backplane *conf = &s->handoff->conf->backplane;

	s->backplane = backplane_new(s->loop, s->handoff->shm, s->handoff->who);
	if (s->backplane == NULL || backplane_reach(s->backplane, conf) < 0)
		return -1;
	s->limits = limits_new(s->handoff->shm, backplane_redis(s->backplane), conf->key_prefix);
	backplane_on_resumed(s->backplane, limits_resumed, s->limits);
	return 0;
}

static void
backplane_stop(struct services *s)
{
	limits_free(&s->limits);
	backplane_free(&s->backplane);
}

static int
events_init(struct services *s)
{
	const struct events_of of = {
	    .loop = s->loop,
	    .conf = s->handoff->conf,
	    .shm = s->handoff->shm,
	    .who = s->handoff->who,
	    .backplane = s->backplane,
	};

	s->events = events_new(&of);
	return 0;
}

static void
events_stop(struct services *s)
{
	events_free(&s->events);
}

static int
stats_init(struct services *s)
{
	s->stats =
	    stats_new(s->loop, s->handoff->conf, s->handoff->shm, s->handoff->who, s->backplane);
	return 0;
}

static void
stats_start_drain(struct services *s)
{
	stats_drain(s->stats);
}

static bool
stats_has_no_reader(const struct services *s)
{
	return stats_is_idle(s->stats);
}

static void
stats_stop(struct services *s)
{
	stats_free(&s->stats);
}

static int
store_init(struct services *s)
{
	s->store = store_new(s->loop, s->handoff->conf, s->handoff->shm, s->backplane);
	if (s->store != NULL)
		turn_hooks_use_lost(s->handoff->conf, s->store);
	return s->store != NULL ? 0 : -1;
}

static void
store_stop(struct services *s)
{
	store_free(&s->store);
}

static bool
store_has_nothing_to_do(const struct services *s)
{
	return store_is_idle(s->store);
}

static int
usage_init(struct services *s)
{
	s->holds = holds_new(s->loop, s->handoff->conf, s->store);
	s->usages = usages_new(s->loop, s->handoff->conf, s->store, s->holds);
	s->spend = spend_new(s->loop, s->handoff->conf, s->store, s->events);
	return 0;
}

static void
usage_drain(struct services *s)
{
	usages_drain(s->usages);
	holds_drain(s->holds);
}

static bool
usage_is_written(const struct services *s)
{
	return usages_are_idle(s->usages) && holds_are_drained(s->holds);
}

static void
usage_stop(struct services *s)
{
	spend_free(&s->spend);
	usages_free(&s->usages);
	holds_free(&s->holds);
}

static int
providers_init(struct services *s)
{
	s->client = client_new(s->loop);
	s->knowledge = knowledge_new(s->loop, s->client, s->handoff->conf);
	s->providers =
	    providers_new(s->loop, s->client, s->handoff->conf, s->handoff->shm, s->handoff->who);
	providers_use_limits(s->providers, s->limits);
	providers_use_events(s->providers, s->events);
	return 0;
}

static void
providers_stop(struct services *s)
{
	providers_free(&s->providers);
	knowledge_free(&s->knowledge);
	client_free(&s->client);
}

static int
keys_init(struct services *s)
{
	s->keys = keys_new(s->loop, s->handoff->conf, s->handoff->shm, s->store);
	keys_use_backplane(s->keys, s->backplane);
	return 0;
}

static void
keys_stop(struct services *s)
{
	keys_free(&s->keys);
}

static int
sweeper_init(struct services *s)
{
	s->sweeper = sweeper_new(s->loop, s->handoff->conf, s->store, s->events);
	return 0;
}

static void
sweeper_stop(struct services *s)
{
	sweeper_free(&s->sweeper);
}

static int
mcp_init(struct services *s)
{
	const struct mcp_upstreams_of of = {
	    .loop = s->loop,
	    .client = s->client,
	    .conf = s->handoff->conf,
	    .backplane = s->backplane,
	    .shm = s->handoff->shm,
	    .who = s->handoff->who,
	    .slot = s->handoff->slot,
	};

	s->upstreams = mcp_upstreams_new(&of);
	s->runner = mcp_runner_new(s->upstreams, s->loop, s->handoff->conf);
	return 0;
}

static int
mcp_start(struct services *s)
{
	mcp_upstreams_start(s->upstreams);
	return 0;
}

static bool
mcp_is_idle(const struct services *s)
{
	return mcp_upstreams_are_idle(s->upstreams);
}

static void
mcp_stop(struct services *s)
{
	mcp_runner_free(&s->runner);
	mcp_upstreams_free(&s->upstreams);
}

static int
webhooks_init(struct services *s)
{
	s->webhooks = webhooks_new(
	    s->loop, s->client, s->handoff->conf, s->store, s->backplane, s->handoff->shm);
	return 0;
}

static int
webhooks_begin(struct services *s)
{
	webhooks_use_events(s->webhooks, s->events);
	webhooks_start(s->webhooks);
	return 0;
}

static void
webhooks_start_drain(struct services *s)
{
	webhooks_drain(s->webhooks);
}

static bool
webhooks_are_done(const struct services *s)
{
	return webhooks_are_idle(s->webhooks);
}

static void
webhooks_stop(struct services *s)
{
	webhooks_free(&s->webhooks);
}

static int
turns_init(struct services *s)
{
	const struct turns_money money = {s->holds, s->usages, s->limits};
	const struct turn_hooks hooks = turn_hooks_of(s->webhooks);

	s->turns = turns_new(s->loop, s->handoff->conf, s->handoff->shm, s->backplane, s->store,
	    s->providers, &money, s->knowledge);
	turns_use_events(s->turns, s->events);
	turns_use_runner(s->turns, mcp_runner_table(s->runner));
	turns_use_hooks(s->turns, &hooks);
	return 0;
}

static void
turns_start_drain(struct services *s)
{
	turns_drain(s->turns);
}

static bool
turns_are_idle(const struct services *s)
{
	return turns_live(s->turns) == 0;
}

static void
turns_stop(struct services *s)
{
	turns_free(&s->turns);
}

static void
on_tasks_outbox(void *arg)
{
	webhooks_wake(((struct services *)arg)->webhooks);
}

static int
tasks_init(struct services *s)
{
	const struct tasks_of of = {
	    .loop = s->loop,
	    .conf = s->handoff->conf,
	    .shm = s->handoff->shm,
	    .backplane = s->backplane,
	    .store = s->store,
	    .providers = s->providers,
	    .limits = s->limits,
	    .holds = s->holds,
	    .usages = s->usages,
	    .events = s->events,
	    .slot = s->handoff->slot,
	    .on_outbox = on_tasks_outbox,
	    .on_outbox_arg = s,
	};

	s->tasks = tasks_new(&of);
	return 0;
}

static void
tasks_start_drain(struct services *s)
{
	tasks_drain(s->tasks);
}

static bool
tasks_have_ended(const struct services *s)
{
	return tasks_are_idle(s->tasks);
}

static void
tasks_stop(struct services *s)
{
	tasks_free(&s->tasks);
}

/* ---- http ---- */

static int
http_init(struct services *s)
{
	s->http = http_server_new(s->loop, s->handoff);
	return 0;
}

static void
http_drain(struct services *s)
{
	http_server_drain(s->http);
}

static bool
http_is_idle(const struct services *s)
{
	return http_server_is_idle(s->http);
}

static void
http_stop(struct services *s)
{
	http_server_free(&s->http);
}

/* ---- routes ---- */

static int
api_init(struct services *s)
{
	s->api = (struct api){
	    .loop = s->loop,
	    .conf = s->handoff->conf,
	    .shm = s->handoff->shm,
	    .backplane = s->backplane,
	    .events = s->events,
	    .limits = s->limits,
	    .stats = s->stats,
	    .http = s->http,
	    .store = s->store,
	    .keys = s->keys,
	    .providers = s->providers,
	    .turns = s->turns,
	    .tasks = s->tasks,
	    .holds = s->holds,
	    .usages = s->usages,
	    .upstreams = s->upstreams,
	    .webhooks = s->webhooks,
	};
	api_add_routes(&s->api);
	return 0;
}

static void
api_start_drain(struct services *s)
{
	api_drain(&s->api);
}

static bool
api_has_nothing_to_do(const struct services *s)
{
	return api_is_idle(&s->api);
}

static void
api_stop(struct services *s)
{
	api_fini(&s->api);
}

static int
ops_init(struct services *s)
{
	size_t count;
	const struct ops_check *checks = health_checks(&count);

	s->health = (struct health_of){
	    s->handoff, s->store, s->loop, s->providers, s->backplane, s->stats, s->upstreams};
	s->ops = ops_new(s->http, s->handoff, checks, count, &s->health);
	return 0;
}

static void
ops_drain(struct services *s)
{
	ops_set_state(s->ops, OPS_DRAINING);
}

static void
ops_stop(struct services *s)
{
	ops_free(&s->ops);
}

/* Who accepts comes after those whose routes it serves, and is opened apart. */
static const struct service table[] = {
    {"backplane", backplane_init, NULL, NULL, NULL, backplane_stop},
    {"events", events_init, NULL, NULL, NULL, events_stop},
    {"stats", stats_init, NULL, stats_start_drain, stats_has_no_reader, stats_stop},
    {"store", store_init, NULL, NULL, store_has_nothing_to_do, store_stop},
    {"usage", usage_init, NULL, usage_drain, usage_is_written, usage_stop},
    {"providers", providers_init, NULL, NULL, NULL, providers_stop},
    {"keys", keys_init, NULL, NULL, NULL, keys_stop},
    {"sweeper", sweeper_init, NULL, NULL, NULL, sweeper_stop},
    {"mcp", mcp_init, mcp_start, NULL, mcp_is_idle, mcp_stop},
    {"webhooks", webhooks_init, webhooks_begin, webhooks_start_drain, webhooks_are_done,
	webhooks_stop},
    {"tasks", tasks_init, NULL, tasks_start_drain, tasks_have_ended, tasks_stop},
    {"turns", turns_init, NULL, turns_start_drain, turns_are_idle, turns_stop},
    {"http", http_init, NULL, NULL, http_is_idle, http_stop},
    {"api", api_init, NULL, api_start_drain, api_has_nothing_to_do, api_stop},
    {"ops", ops_init, NULL, ops_drain, NULL, ops_stop},
    {"listen", NULL, NULL, http_drain, NULL, NULL},
};

int
services_start(struct services *s)
{
	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		if (table[i].init != NULL && table[i].init(s) < 0)
			return -1;
	}
	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		if (table[i].start != NULL && table[i].start(s) < 0)
			return -1;
	}
	return 0;
}

int
services_open(struct services *s)
{
	return http_server_start(s->http);
}

void
services_stop(struct services *s)
{
	for (size_t i = ARRAY_LEN(table); i-- > 0;) {
		if (table[i].stop != NULL)
			table[i].stop(s);
	}
}

void
services_drain(struct services *s)
{
	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		if (table[i].drain != NULL)
			table[i].drain(s);
	}
}

const char *
services_busy(const struct services *s)
{
	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		if (table[i].is_idle != NULL && !table[i].is_idle(s))
			return table[i].name;
	}
	return NULL;
}

bool
services_are_idle(const struct services *s)
{
	return services_busy(s) == NULL;
}
