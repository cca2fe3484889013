/*
 * main - a worker process: its start and end, and its talk with the master. What
 * it serves is services.c's. The loop runs everything; nothing here blocks.
 *
 *   START -> WAIT -> SERVE --DRAIN--> DRAIN -> exit 0
 *             |        |                |
 *             +--------+--master gone---+--> exit at once
 *
 * It WAITs until it knows what tool servers offer, so that no turn goes without their tools, for
 * mcp.start_wait at most; where there is none it does not. Meanwhile connections queue at its
 * listeners, of which its predecessor serves those of a slot that has one.
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
#include "worker/crash.h"
#include "worker/services.h"

enum { LOAD_INTERVAL_MS = 1000, DRAIN_LOOK_MS = 20, EXIT_MASTER_GONE = 3 };

struct worker {
	const struct handoff *handoff;
	struct loop *loop;
	struct services services;
	struct loop_watch master;
	struct loop_timer load, wait_end, drain_look, drain_end;
	bool is_open, is_draining, has_closed, has_left;
	bool must_end;     /* whatever is under way: the time is up, or the master is gone */
	uint64_t log_lost; /* counted so far */
	int status;
};

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

	tell_master(w, PROTO_LOAD, http_server_active(w->services.http));
	look_after_log(w);
	loop_timer_set(w->loop, t, LOAD_INTERVAL_MS);
}

static void
on_drain_look(struct loop_timer *t)
{
	struct worker *w = container_of(t, struct worker, drain_look);

	if (!w->has_closed && !http_server_is_listening(w->services.http)) {
		w->has_closed = true;
		tell_master(w, PROTO_CLOSED, 0);
	}
	if (services_are_idle(&w->services) && !w->has_left) {
		w->has_left = true;
		mcp_upstreams_leave(w->services.upstreams);
	}
	loop_timer_set(w->loop, t, DRAIN_LOOK_MS);
	if (services_are_idle(&w->services))
		loop_stop(w->loop);
}

static void
on_drain_end(struct loop_timer *t)
{
	struct worker *w = container_of(t, struct worker, drain_end);

	const char *busy = services_busy(&w->services);

	log_info("worker drain time is up slot=%u active=%u busy=%s", w->handoff->slot,
	    http_server_active(w->services.http), busy != NULL ? busy : "none");
	w->must_end = true;
	loop_stop(w->loop);
}

static void open_doors(struct worker *);

/* Again with less time: only the end comes nearer. Who waits in the queue of one that has not
 * opened yet is answered, too. */
static void
drain(struct worker *w, int64_t time_ms)
{
	open_doors(w);
	loop_timer_set(w->loop, &w->drain_end, time_ms > 0 ? (uint64_t)time_ms : 0);
	if (w->is_draining)
		return;
	w->is_draining = true;
	log_info("worker draining slot=%u active=%u", w->handoff->slot,
	    http_server_active(w->services.http));
	shm_row_set_state(w->handoff->shm, w->handoff->who, SHM_DRAINING);
	services_drain(&w->services);
	loop_timer_set(w->loop, &w->drain_look, 0);
}

/* fd is ours. */
static void
on_handoff(struct worker *w, enum proto_handoff what, int fd)
{
	open_doors(w);
	if (what == PROTO_GIVE)
		api_give_sockets(&w->services.api, fd);
	else
		api_take_sockets(&w->services.api, fd);
}

static void
on_message(struct worker *w, const struct proto_message *m)
{
	switch (m->type) {
	case PROTO_DRAIN:
		drain(w, m->value);
		break;
	case PROTO_CERTS:
		if (http_server_reload_certificates(w->services.http) == 0)
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
		w->must_end = true;
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

/* What its targets can, as configured. */
static void
tell_capabilities(struct worker *w, const struct conf_model *m)
{
	struct buf topic = BUF_INIT, b = BUF_INIT;

	buf_printf(&topic, "model:%s", m->name);
	buf_add_cstr(&b, "{\"model\":\"");
	buf_add_json_escaped(&b, str_of(m->name));
	buf_add_cstr(&b, "\",\"targets\":[");
	for (size_t i = 0; i < m->targets.n; i++) {
		const struct conf_target *t = &m->targets.v[i];

		buf_printf(&b, "%s{\"provider\":\"", i > 0 ? "," : "");
		buf_add_json_escaped(&b, str_of(t->provider));
		buf_add_cstr(&b, "\",\"provider_model\":\"");
		buf_add_json_escaped(&b, str_of(t->model));
		buf_printf(&b, "\",\"context\":%lld,\"supports_prefill\":%s}",
		    (long long)t->context, t->supports_prefill ? "true" : "false");
	}
	buf_add_cstr(&b, "]}");
	events_publish(
	    w->services.events, &(struct events_news){.topic = "navigation-state",
				    .also = topic.len <= EVENTS_TOPIC_MAX ? topic.data : NULL,
				    .name = "model.capabilities",
				    .payload = buf_str(&b)});
	buf_fini(&topic);
	buf_fini(&b);
}

static void
tell_config(struct worker *w)
{
	const struct conf *conf = w->handoff->conf;
	struct buf text = BUF_INIT;

	conf_print(conf, &text);
	if (is_changed(w, SHM_WORD_CONFIG, &text))
		events_publish(w->services.events, &(struct events_news){.topic = "notifications",
						       .name = "config.changed",
						       .payload = STR("{\"reason\":\"reload\"}")});
	buf_clear(&text);
	for (size_t i = 0; i < conf->models.n; i++) {
		buf_printf(&text, "%s\n", conf->models.v[i].name);
		for (size_t k = 0; k < conf->models.v[i].targets.n; k++)
			buf_printf(&text, " %s %s %lld %d\n",
			    conf->models.v[i].targets.v[k].provider,
			    conf->models.v[i].targets.v[k].model,
			    (long long)conf->models.v[i].targets.v[k].context,
			    conf->models.v[i].targets.v[k].supports_prefill);
	}
	if (is_changed(w, SHM_WORD_MODELS, &text)) {
		events_publish(
		    w->services.events, &(struct events_news){.topic = "navigation-state",
					    .name = "model.mapping",
					    .payload = STR("{\"reason\":\"reload\"}")});
		for (size_t i = 0; i < conf->models.n; i++)
			tell_capabilities(w, &conf->models.v[i]);
	}
	buf_fini(&text);
}

/* ---- from START to SERVE ---- */

static void
open_doors(struct worker *w)
{
	const struct handoff *h = w->handoff;
	const struct conf *conf = h->conf;

	if (w->is_open)
		return;
	w->is_open = true;
	loop_timer_stop(w->loop, &w->wait_end);
	mcp_upstreams_on_settled(w->services.upstreams, NULL, NULL);
	if (services_open(&w->services) < 0) {
		log_flush();
		_exit(EXIT_FAILURE);
	}
	ops_set_state(w->services.ops, OPS_READY);
	log_info("worker ready slot=%u max_connections=%lld queue_size=%lld backlog=%lld", h->slot,
	    (long long)conf->max_connections, (long long)conf->connection_queue_size,
	    (long long)conf->backlog);
	tell_master(w, PROTO_READY, 0);
	tell_config(w);
	loop_timer_set(w->loop, &w->load, LOAD_INTERVAL_MS);
}

static void
on_settled(void *arg)
{
	open_doors(arg);
}

static void
on_wait_end(struct loop_timer *t)
{
	struct worker *w = container_of(t, struct worker, wait_end);

	log_info("worker waits no longer for tool servers slot=%u", w->handoff->slot);
	open_doors(w);
}

/* What workers tell all others reaches those that the table calls ready: from here on nothing of it
 * may be missed, or the answers to what the services have asked would be old. */
static void
open_when_settled(struct worker *w)
{
	const struct conf *conf = w->handoff->conf;
	uint64_t most_ms = conf->watchdog.start_timeout_ms / 2;
	uint64_t wait_ms = conf->mcp.start_wait_ms < most_ms ? conf->mcp.start_wait_ms : most_ms;

	shm_row_set_state(w->handoff->shm, w->handoff->who, SHM_READY);
	if (wait_ms == 0 || mcp_upstreams_are_settled(w->services.upstreams)) {
		open_doors(w);
		return;
	}
	mcp_upstreams_on_settled(w->services.upstreams, on_settled, w);
	loop_timer_set(w->loop, &w->wait_end, wait_ms);
}

static void
serve(struct worker *w)
{
	open_when_settled(w);
	/* The last round may have begun something, a look into the record: that ends first. */
	do
		loop_run(w->loop);
	while (!w->must_end && !services_are_idle(&w->services));
}

/* With requests still in progress (the time was up, the master is gone) nothing is freed: it all
 * points at each other, and the kernel does it faster. Only other hosts are told. */
static void
end(struct worker *w)
{
	bool is_idle = services_are_idle(&w->services);

	if (is_idle)
		services_stop(&w->services);
	else
		backplane_leave(w->services.backplane);
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
	    .wait_end.on_fire = on_wait_end,
	    .drain_look.on_fire = on_drain_look,
	    .drain_end.on_fire = on_drain_end,
	    .master.on_ready = on_master,
	};

	set_signals();
	raise_file_limit();
	log_set_identity((int)handoff->slot);
	metric_init(handoff->shm, handoff->who);
	w.loop = loop_new();
	w.services = (struct services){.handoff = handoff, .loop = w.loop};
	admission_init(loop_admission(w.loop), handoff->conf->overload.target_ms * 1000,
	    handoff->conf->overload.interval_ms * 1000);
	loop_watch_start(w.loop, &w.master, handoff->master_fd, EPOLLIN);
	if (services_start(&w.services) < 0) { /* half of them: the kernel takes them apart */
		log_flush();
		_exit(EXIT_FAILURE);
	}
	serve(&w);
	end(&w);
	return w.status;
}
