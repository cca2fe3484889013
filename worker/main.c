/*
 * main - a worker process: the ordered table of its services, and its talk with
 * the master. The loop runs everything; nothing here blocks.
 *
 *   START -> SERVE --DRAIN--> DRAIN -> exit 0
 *              |                |
 *              +--master gone---+--> exit at once
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/check.h"
#include "common/event_log.h"
#include "common/handoff.h"
#include "common/log.h"
#include "common/metric.h"
#include "common/proto.h"
#include "worker/api/api.h"
#include "worker/api/ops.h"
#include "worker/backplane/limits.h"
#include "worker/crash.h"
#include "worker/events/events.h"
#include "worker/health.h"
#include "worker/mcp/runner.h"
#include "worker/mcp/upstream.h"
#include "worker/session/sweeper.h"
#include "worker/stats/stats.h"
#include "worker/usage/spend.h"
#include "worker/webhook/turn_hooks.h"
#include "worker/webhook/webhook.h"
#include "worker/task/task.h"

enum { LOAD_INTERVAL_MS = 1000, DRAIN_LOOK_MS = 20, EXIT_MASTER_GONE = 3 };

struct worker {
	const struct handoff *handoff;
	struct loop *loop;
	struct backplane *backplane;
	struct events *events;
	struct limits *limits;
	struct stats *stats;
	struct store *store;
	struct client *client;
	struct holds *holds;
	struct usages *usages;
	struct spend *spend;
	struct providers *providers;
	struct knowledge *knowledge;
	struct keys *keys;
	struct sweeper *sweeper;
	struct mcp_upstreams *upstreams;
	struct mcp_runner *runner;
	struct webhooks *webhooks;
	struct turns *turns;
	struct tasks *tasks;
	struct http_server *http;
	struct api api;
	struct health_of health;
	struct ops *ops;
	struct loop_watch master;
	struct loop_timer load, drain_look, drain_end;
	bool is_draining, has_closed, has_left;
	uint64_t log_lost; /* counted so far */
	int status;
};

/*
 * A service: made in the order of the table, started in it, drained in it, ended in reverse.
 * init and start return 0 or a negative number, and have logged why. is_idle: what it had in
 * progress has ended.
 */
struct service {
	const char *name;
	int (*init)(struct worker *);
	int (*start)(struct worker *);
	void (*drain)(struct worker *);
	bool (*is_idle)(const struct worker *);
	void (*stop)(struct worker *);
};

/* ---- what the routes stand on ---- */

static int
backplane_init(struct worker *w)
{
	const struct conf_backplane *conf = &w->handoff->conf->backplane;

	w->backplane = backplane_new(w->loop, w->handoff->shm, w->handoff->who);
	if (w->backplane == NULL || backplane_reach(w->backplane, conf) < 0)
		return -1;
	w->limits = limits_new(w->handoff->shm, backplane_redis(w->backplane), conf->key_prefix);
	backplane_on_resumed(w->backplane, limits_resumed, w->limits);
	return 0;
}

static void
backplane_stop(struct worker *w)
{
	limits_free(&w->limits);
	backplane_free(&w->backplane);
}

static int
events_init(struct worker *w)
{
	const struct events_of of = {
	    .loop = w->loop,
	    .conf = w->handoff->conf,
	    .shm = w->handoff->shm,
	    .who = w->handoff->who,
	    .backplane = w->backplane,
	};

	w->events = events_new(&of);
	return 0;
}

static void
events_stop(struct worker *w)
{
	events_free(&w->events);
}

static int
stats_init(struct worker *w)
{
	w->stats =
	    stats_new(w->loop, w->handoff->conf, w->handoff->shm, w->handoff->who, w->backplane);
	return 0;
}

static void
stats_start_drain(struct worker *w)
{
	stats_drain(w->stats);
}

static bool
stats_has_no_reader(const struct worker *w)
{
	return stats_is_idle(w->stats);
}

static void
stats_stop(struct worker *w)
{
	stats_free(&w->stats);
}

static int
store_init(struct worker *w)
{
	w->store = store_new(w->loop, w->handoff->conf, w->handoff->shm, w->backplane);
	return w->store != NULL ? 0 : -1;
}

static void
store_stop(struct worker *w)
{
	store_free(&w->store);
}

static bool
store_has_nothing_to_do(const struct worker *w)
{
	return store_is_idle(w->store);
}

static int
usage_init(struct worker *w)
{
	w->holds = holds_new(w->loop, w->handoff->conf, w->store);
	w->usages = usages_new(w->loop, w->handoff->conf, w->store, w->holds);
	w->spend = spend_new(w->loop, w->handoff->conf, w->store, w->events);
	return 0;
}

static void
usage_drain(struct worker *w)
{
	usages_drain(w->usages);
	holds_drain(w->holds);
}

static bool
usage_is_written(const struct worker *w)
{
	return usages_are_idle(w->usages) && holds_are_drained(w->holds);
}

static void
usage_stop(struct worker *w)
{
	spend_free(&w->spend);
	usages_free(&w->usages);
	holds_free(&w->holds);
}

static int
providers_init(struct worker *w)
{
	w->client = client_new(w->loop);
	w->knowledge = knowledge_new(w->loop, w->client, w->handoff->conf);
	w->providers =
	    providers_new(w->loop, w->client, w->handoff->conf, w->handoff->shm, w->handoff->who);
	providers_use_limits(w->providers, w->limits);
	providers_use_events(w->providers, w->events);
	return 0;
}

static void
providers_stop(struct worker *w)
{
	providers_free(&w->providers);
	knowledge_free(&w->knowledge);
	client_free(&w->client);
}

static int
keys_init(struct worker *w)
{
	w->keys = keys_new(w->loop, w->handoff->conf, w->handoff->shm, w->store);
	keys_use_backplane(w->keys, w->backplane);
	return 0;
}

static void
keys_stop(struct worker *w)
{
	keys_free(&w->keys);
}

static int
sweeper_init(struct worker *w)
{
	w->sweeper = sweeper_new(w->loop, w->handoff->conf, w->store);
	return 0;
}

static void
sweeper_stop(struct worker *w)
{
	sweeper_free(&w->sweeper);
}

static int
mcp_init(struct worker *w)
{
	const struct mcp_upstreams_of of = {
	    .loop = w->loop,
	    .client = w->client,
	    .conf = w->handoff->conf,
	    .backplane = w->backplane,
	    .shm = w->handoff->shm,
	    .who = w->handoff->who,
	    .slot = w->handoff->slot,
	};

	w->upstreams = mcp_upstreams_new(&of);
	w->runner = mcp_runner_new(w->upstreams, w->loop, w->handoff->conf);
	return 0;
}

static int
mcp_start(struct worker *w)
{
	mcp_upstreams_start(w->upstreams);
	return 0;
}

static bool
mcp_is_idle(const struct worker *w)
{
	return mcp_upstreams_are_idle(w->upstreams);
}

static void
mcp_stop(struct worker *w)
{
	mcp_runner_free(&w->runner);
	mcp_upstreams_free(&w->upstreams);
}

static int
webhooks_init(struct worker *w)
{
	w->webhooks = webhooks_new(w->loop, w->client, w->handoff->conf, w->store, w->backplane,
	    shm_workers(w->handoff->shm));
	return 0;
}

static int
webhooks_begin(struct worker *w)
{
	webhooks_use_events(w->webhooks, w->events);
	webhooks_start(w->webhooks);
	return 0;
}

static void
webhooks_start_drain(struct worker *w)
{
	webhooks_drain(w->webhooks);
}

static bool
webhooks_are_done(const struct worker *w)
{
	return webhooks_are_idle(w->webhooks);
}

static void
webhooks_stop(struct worker *w)
{
	webhooks_free(&w->webhooks);
}

static int
turns_init(struct worker *w)
{
	const struct turns_money money = {w->holds, w->usages, w->limits};
	const struct turn_hooks hooks = turn_hooks_of(w->webhooks);

	w->turns = turns_new(w->loop, w->handoff->conf, w->handoff->shm, w->backplane, w->store,
	    w->providers, &money, w->knowledge);
	turns_use_events(w->turns, w->events);
	turns_use_runner(w->turns, mcp_runner_table(w->runner));
	turns_use_hooks(w->turns, &hooks);
	return 0;
}

static void
turns_start_drain(struct worker *w)
{
	turns_drain(w->turns);
}

static bool
turns_are_idle(const struct worker *w)
{
	return turns_live(w->turns) == 0;
}

static void
turns_stop(struct worker *w)
{
	turns_free(&w->turns);
}

static void
on_tasks_outbox(void *arg)
{
	webhooks_wake(((struct worker *)arg)->webhooks);
}

static int
tasks_init(struct worker *w)
{
	const struct tasks_of of = {
	    .loop = w->loop,
	    .conf = w->handoff->conf,
	    .shm = w->handoff->shm,
	    .backplane = w->backplane,
	    .store = w->store,
	    .providers = w->providers,
	    .limits = w->limits,
	    .holds = w->holds,
	    .usages = w->usages,
	    .events = w->events,
	    .slot = w->handoff->slot,
	    .on_outbox = on_tasks_outbox,
	    .on_outbox_arg = w,
	};

	w->tasks = tasks_new(&of);
	return 0;
}

static void
tasks_start_drain(struct worker *w)
{
	tasks_drain(w->tasks);
}

static bool
tasks_have_ended(const struct worker *w)
{
	return tasks_are_idle(w->tasks);
}

static void
tasks_stop(struct worker *w)
{
	tasks_free(&w->tasks);
}

/* ---- http ---- */

static int
http_init(struct worker *w)
{
	w->http = http_server_new(w->loop, w->handoff);
	return 0;
}

static int
http_start(struct worker *w)
{
	return http_server_start(w->http);
}

static void
http_drain(struct worker *w)
{
	http_server_drain(w->http);
}

static bool
http_is_idle(const struct worker *w)
{
	return http_server_is_idle(w->http);
}

static void
http_stop(struct worker *w)
{
	http_server_free(&w->http);
}

/* ---- routes ---- */

static int
api_init(struct worker *w)
{
	w->api = (struct api){
	    .loop = w->loop,
	    .conf = w->handoff->conf,
	    .shm = w->handoff->shm,
	    .backplane = w->backplane,
	    .events = w->events,
	    .limits = w->limits,
	    .stats = w->stats,
	    .http = w->http,
	    .store = w->store,
	    .keys = w->keys,
	    .providers = w->providers,
	    .turns = w->turns,
	    .tasks = w->tasks,
	    .holds = w->holds,
	    .usages = w->usages,
	    .upstreams = w->upstreams,
	    .webhooks = w->webhooks,
	};
	api_add_routes(&w->api);
	return 0;
}

static void
api_start_drain(struct worker *w)
{
	api_drain(&w->api);
}

static bool
api_has_nothing_to_do(const struct worker *w)
{
	return api_is_idle(&w->api);
}

static void
api_stop(struct worker *w)
{
	api_fini(&w->api);
}

static int
ops_init(struct worker *w)
{
	size_t count;
	const struct ops_check *checks = health_checks(&count);

	w->health = (struct health_of){
	    w->handoff, w->store, w->loop, w->providers, w->backplane, w->stats, w->upstreams};
	w->ops = ops_new(w->http, w->handoff, checks, count, &w->health);
	return 0;
}

static void
ops_drain(struct worker *w)
{
	ops_set_state(w->ops, OPS_DRAINING);
}

static void
ops_stop(struct worker *w)
{
	ops_free(&w->ops);
}

/* Who accepts comes after those whose routes it serves: start is in this order. */
static const struct service services[] = {
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
    {"listen", NULL, http_start, http_drain, NULL, NULL},
};

static int
services_start(struct worker *w)
{
	for (size_t i = 0; i < ARRAY_LEN(services); i++) {
		if (services[i].init != NULL && services[i].init(w) < 0)
			return -1;
	}
	for (size_t i = 0; i < ARRAY_LEN(services); i++) {
		if (services[i].start != NULL && services[i].start(w) < 0)
			return -1;
	}
	return 0;
}

static void
services_stop(struct worker *w)
{
	for (size_t i = ARRAY_LEN(services); i-- > 0;) {
		if (services[i].stop != NULL)
			services[i].stop(w);
	}
}

static void
services_drain(struct worker *w)
{
	for (size_t i = 0; i < ARRAY_LEN(services); i++) {
		if (services[i].drain != NULL)
			services[i].drain(w);
	}
}

static bool
services_are_idle(const struct worker *w)
{
	for (size_t i = 0; i < ARRAY_LEN(services); i++) {
		if (services[i].is_idle != NULL && !services[i].is_idle(w))
			return false;
	}
	return true;
}

/* ---- the master ---- */

static void
tell_master(struct worker *w, enum proto_type type, int64_t value)
{
	const struct handoff *h = w->handoff;
	struct proto_message m = {type, h->slot, h->who, value};

	/* A full queue means that the master is busy: it hears the next one. */
	proto_send(h->master_fd, &m);
}

static void
look_after_log(struct worker *w)
{
	uint64_t lost;

	log_flush();
	lost = log_lost();
	metric_add(METRIC_LOG_LOST, 0, 0, lost - w->log_lost);
	w->log_lost = lost;
}

static void
on_load(struct loop_timer *t)
{
	struct worker *w = container_of(t, struct worker, load);

	tell_master(w, PROTO_LOAD, http_server_active(w->http));
	look_after_log(w);
	loop_timer_set(w->loop, t, LOAD_INTERVAL_MS);
}

static void
on_drain_look(struct loop_timer *t)
{
	struct worker *w = container_of(t, struct worker, drain_look);

	if (!w->has_closed && !http_server_is_listening(w->http)) {
		w->has_closed = true;
		tell_master(w, PROTO_CLOSED, 0);
	}
	if (services_are_idle(w) && !w->has_left) {
		w->has_left = true;
		mcp_upstreams_leave(w->upstreams);
	}
	if (services_are_idle(w))
		loop_stop(w->loop);
	else
		loop_timer_set(w->loop, t, DRAIN_LOOK_MS);
}

static void
on_drain_end(struct loop_timer *t)
{
	struct worker *w = container_of(t, struct worker, drain_end);

	log_info("worker drain time is up slot=%u active=%u", w->handoff->slot,
	    http_server_active(w->http));
	loop_stop(w->loop);
}

/* Again with less time: only the end comes nearer. */
static void
drain(struct worker *w, int64_t time_ms)
{
	loop_timer_set(w->loop, &w->drain_end, time_ms > 0 ? (uint64_t)time_ms : 0);
	if (w->is_draining)
		return;
	w->is_draining = true;
	log_info(
	    "worker draining slot=%u active=%u", w->handoff->slot, http_server_active(w->http));
	shm_row_set_state(w->handoff->shm, w->handoff->who, SHM_DRAINING);
	services_drain(w);
	loop_timer_set(w->loop, &w->drain_look, 0);
}

/* fd is ours. */
static void
on_handoff(struct worker *w, enum proto_handoff what, int fd)
{
	if (what == PROTO_GIVE)
		api_give_sockets(&w->api, fd);
	else
		api_take_sockets(&w->api, fd);
}

static void
on_message(struct worker *w, const struct proto_message *m)
{
	switch (m->type) {
	case PROTO_DRAIN:
		drain(w, m->value);
		break;
	case PROTO_CERTS:
		if (http_server_reload_certificates(w->http) == 0)
			log_info("certificates loaded slot=%u", w->handoff->slot);
		break;
	case PROTO_REOPEN:
		log_reopen();
		break;
	default:
		log_warn("message from master not understood type=%u", m->type);
	}
}

static void
on_master(struct loop_watch *watch, uint32_t events)
{
	struct worker *w = container_of(watch, struct worker, master);
	struct proto_message m;
	int r, passed;

	(void)events;
	while ((r = proto_recv_fd(watch->fd, &m, &passed)) == 1) {
		if (passed >= 0 && m.type == PROTO_HANDOFF)
			on_handoff(w, (enum proto_handoff)m.value, passed);
		else
			on_message(w, &m);
	}
	if (r == 0) {
		log_info("worker ends slot=%u reason=master_gone", w->handoff->slot);
		w->status = EXIT_MASTER_GONE;
		loop_stop(w->loop);
	}
}

/* ---- the process ---- */

/* The master decides when we end; a signal to the whole group must not race it. */
static void
set_signals(void)
{
	static const int ignored[] = {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2};
	sigset_t none;

	for (size_t i = 0; i < ARRAY_LEN(ignored); i++)
		signal(ignored[i], SIG_IGN);
	signal(SIGCHLD, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	crash_install();
}

static void
raise_file_limit(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

/* Hashes of what is configured, so that the first worker of another configuration tells of it. */
static bool
is_changed(const struct worker *w, enum shm_word word, const struct buf *text)
{
	uint64_t now = event_log_key(buf_str(text));
	uint64_t was = atomic_exchange(shm_word(w->handoff->shm, word), now);

	return was != 0 && was != now;
}

static void
tell_config(struct worker *w)
{
	const struct conf *conf = w->handoff->conf;
	struct buf text = BUF_INIT;

	conf_print(conf, &text);
	if (is_changed(w, SHM_WORD_CONFIG, &text))
		events_publish(w->events, &(struct events_news){.topic = "notifications",
					      .name = "config.changed",
					      .payload = STR("{\"reason\":\"reload\"}")});
	buf_clear(&text);
	for (size_t i = 0; i < conf->models.n; i++) {
		buf_printf(&text, "%s\n", conf->models.v[i].name);
		for (size_t k = 0; k < conf->models.v[i].targets.n; k++)
			buf_printf(&text, " %s %s\n", conf->models.v[i].targets.v[k].provider,
			    conf->models.v[i].targets.v[k].model);
	}
	if (is_changed(w, SHM_WORD_MODELS, &text))
		events_publish(w->events, &(struct events_news){.topic = "navigation-state",
					      .name = "model.mapping",
					      .payload = STR("{\"reason\":\"reload\"}")});
	buf_fini(&text);
}

static void
serve(struct worker *w)
{
	const struct handoff *h = w->handoff;
	const struct conf *conf = h->conf;

	ops_set_state(w->ops, OPS_READY);
	shm_row_set_state(h->shm, h->who, SHM_READY);
	log_info("worker ready slot=%u max_connections=%lld queue_size=%lld backlog=%lld", h->slot,
	    (long long)conf->max_connections, (long long)conf->connection_queue_size,
	    (long long)conf->backlog);
	tell_master(w, PROTO_READY, 0);
	tell_config(w);
	loop_timer_set(w->loop, &w->load, LOAD_INTERVAL_MS);
	loop_run(w->loop);
}

/* With requests still in progress (the time was up, the master is gone) nothing is freed: it all
 * points at each other, and the kernel does it faster. */
static void
end(struct worker *w)
{
	bool is_idle = services_are_idle(w);

	if (is_idle)
		services_stop(w);
	look_after_log(w);
	tell_master(w, PROTO_BYE, 0);
	if (!is_idle)
		_exit(w->status);
	loop_watch_stop(w->loop, &w->master);
	loop_free(&w->loop);
}

int
worker_main(const struct handoff *handoff)
{
	struct worker w = {
	    .handoff = handoff,
	    .load.on_fire = on_load,
	    .drain_look.on_fire = on_drain_look,
	    .drain_end.on_fire = on_drain_end,
	    .master.on_ready = on_master,
	};

	set_signals();
	raise_file_limit();
	log_set_identity((int)handoff->slot);
	metric_init(handoff->shm, handoff->who);
	w.loop = loop_new();
	admission_init(loop_admission(w.loop), handoff->conf->overload.target_ms * 1000,
	    handoff->conf->overload.interval_ms * 1000);
	loop_watch_start(w.loop, &w.master, handoff->master_fd, EPOLLIN);
	if (services_start(&w) < 0) { /* half of them: the kernel takes them apart */
		log_flush();
		_exit(EXIT_FAILURE);
	}
	serve(&w);
	end(&w);
	return w.status;
}
