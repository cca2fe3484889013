/*
 * serve - connects the parts: signals and the control socket
 * ask, supervise does, notify and the log tell.
 */
#include "master/serve.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "master/reload.h"
#include "master/server.h"
#include "master/status.h"

enum { STOP_REPEAT_MS = 500 };

/* ---- what supervise tells ---- */

void
server_tell_status(struct server *s)
{
	struct buf line = BUF_INIT;

	if (!server_is_in_charge(s))
		return;
	status_write_line(s->shm, s->supervise, &line);
	notify_status("%s", line.data);
	buf_fini(&line);
}

static void
on_ready(void *arg)
{
	struct server *s = arg;

	log_info("server ready workers=%u", shm_workers(s->shm));
	if (s->takeover != NULL)
		server_offer(s);
	else
		notify_ready();
}

/* Who asked while another reload was under way is told how his own ends. */
static void
answer_reload(struct server *s, bool is_ok, struct str text)
{
	if (!s->is_reload_wanted)
		control_answer(s->control, "reload", is_ok, text);
}

static void
on_reloaded(void *arg, bool is_adopted)
{
	struct server *s = arg;

	if (is_adopted) {
		log_info("reload done workers=%u", shm_workers(s->shm));
		ticket_keys_use(s->ticket_keys, supervise_conf(s->supervise));
		answer_reload(s, true, STR("every worker runs the new configuration"));
	} else {
		log_error("reload failed reason=\"the first worker with the new config did not "
			  "become ready\" config=old");
		server_open_log(supervise_conf(s->supervise));
		answer_reload(s, false,
		    STR("the old configuration stays: the first worker with the new one did not "
			"become ready, the log says why"));
	}
	if (supervise_phase(s->supervise) == PHASE_RUNNING)
		notify_ready();
	server_reload_if_wanted(s);
}

static void
on_tool_servers_stopped(void *arg)
{
	struct server *s = arg;

	event_base_loopbreak(s->base);
}

/* Whoever used them is gone. */
static void
on_stopped(void *arg)
{
	struct server *s = arg;

	tool_servers_stop(s->tool_servers, on_tool_servers_stopped, s);
}

static void
on_change(void *arg)
{
	server_tell_status(arg);
}

static void
on_other_ended(void *arg, pid_t pid, int status)
{
	struct server *s = arg;

	server_child_ended(s, pid, status);
}

static void
on_settling(void *arg)
{
	struct server *s = arg;

	if (!s->leaves_listeners)
		listeners_refuse(s->listeners);
}

static void
on_closed(void *arg)
{
	struct server *s = arg;

	if (s->listeners == NULL)
		return;         /* said again by a worker that ends */
	if (s->has_successor) { /* which has what it wants of them */
		listeners_leave(&s->listeners);
		return;
	}
	if (s->leaves_listeners) {
		log_info("listeners left to the next master");
		listeners_leave(&s->listeners);
		return;
	}
	log_info("listeners closed");
	listeners_close(&s->listeners);
}

static const struct supervise_handlers handlers = {
    .on_ready = on_ready,
    .on_reloaded = on_reloaded,
    .on_settling = on_settling,
    .on_closed = on_closed,
    .on_stopped = on_stopped,
    .on_change = on_change,
    .on_other_ended = on_other_ended,
};

/* ---- what may be asked, by a signal or through the control socket ---- */

static void
stop(struct server *s)
{
	const struct conf *conf = supervise_conf(s->supervise);

	if (s->upgrade != NULL && !s->has_successor)
		upgrade_give_up(s->upgrade, "the server is stopping");
	if (supervise_phase(s->supervise) == PHASE_RUNNING)
		notify_stopping(
		    conf->drain.pause_ms + conf->drain.timeout_ms + SERVER_END_RESERVE_MS);
	supervise_stop(s->supervise);
}

/* Wrappers pass a signal on that the whole group has had already: that is not a second wish. */
static void
on_stop_wanted(void *arg)
{
	struct server *s = arg;
	uint64_t now_ms = clock_mono_ms(), last_ms = s->stop_wanted_ms;

	s->stop_wanted_ms = now_ms;
	if (last_ms == 0 && !s->has_successor && supervise_phase(s->supervise) != PHASE_RUNNING)
		return; /* asked to drain by a command before: this is what ends a service */
	if (last_ms == 0 || now_ms - last_ms >= STOP_REPEAT_MS)
		stop(s);
}

/* False: *errors says why. */
static bool
reload(struct server *s, struct buf *errors)
{
	if (supervise_phase(s->supervise) != PHASE_RUNNING) {
		buf_add_cstr(errors, "the server is stopping");
		return false;
	}
	/* The one that takes over may have read the configuration already: it is asked when it has,
	 * and when it fails it is for us to do. */
	if (s->upgrade != NULL || !server_is_in_charge(s)) {
		log_info("reload waits for the upgrade");
		s->is_reload_wanted = true;
		return true;
	}
	if (supervise_is_reloading(s->supervise)) {
		s->is_reload_wanted = true;
		return true;
	}
	s->is_reload_wanted = false;
	struct conf *conf = reload_conf(
	    s->options, s->environment, supervise_conf(s->supervise), shm_slots(s->shm), errors);
	if (conf == NULL) {
		log_error("reload failed reason=\"config error\" config=old");
		return false;
	}
	log_info("reloading");
	notify_reloading();
	if (server_open_log(conf) != 0)
		server_open_log(supervise_conf(s->supervise));
	tool_servers_learn(s->tool_servers, conf);
	supervise_reload(s->supervise, conf, conf_workers(conf));
	return true;
}

static void
on_reload_wanted(void *arg)
{
	struct server *s = arg;
	struct buf errors = BUF_INIT;

	if (!reload(s, &errors))
		control_answer(s->control, "reload", false, buf_str(&errors));
	buf_fini(&errors);
}

void
server_reload_if_wanted(struct server *s)
{
	if (s->is_reload_wanted)
		on_reload_wanted(s);
}

static void
on_reopen_wanted(void *arg)
{
	struct server *s = arg;

	log_reopen();
	log_info("log reopened");
	supervise_reopen_logs(s->supervise);
}

static void
on_upgrade_wanted(void *arg)
{
	struct server *s = arg;
	struct buf error = BUF_INIT;

	if (!server_upgrade(s, &error))
		log_error("upgrade failed reason=\"%s\"", error.data);
	buf_fini(&error);
}

static void
on_child_ended(void *arg)
{
	struct server *s = arg;

	supervise_reap(s->supervise);
}

const struct signals_verbs server_signals = {
    .stop = on_stop_wanted,
    .reload = on_reload_wanted,
    .reopen = on_reopen_wanted,
    .upgrade = on_upgrade_wanted,
    .reap = on_child_ended,
};

static enum control_answer
control_status(void *arg, struct buf *out)
{
	struct server *s = arg;

	status_write(s->shm, s->supervise, out);
	return CONTROL_OK;
}

static enum control_answer
control_reload(void *arg, struct buf *out)
{
	return reload(arg, out) ? CONTROL_LATER : CONTROL_ERROR;
}

static enum control_answer
control_drain(void *arg, struct buf *out)
{
	struct server *s = arg;

	if (supervise_phase(s->supervise) == PHASE_RUNNING)
		stop(s);
	buf_add_cstr(out, "draining, then stopping");
	return CONTROL_OK;
}

static enum control_answer
control_upgrade(void *arg, struct buf *out)
{
	return server_upgrade(arg, out) ? CONTROL_LATER : CONTROL_ERROR;
}

/* Without a store nobody would hold them: who waits in a queue would be reset. */
static enum control_answer
control_drain_for_restart(void *arg, struct buf *out)
{
	struct server *s = arg;

	if (supervise_phase(s->supervise) == PHASE_RUNNING)
		s->leaves_listeners = getenv("NOTIFY_SOCKET") != NULL;
	return control_drain(s, out);
}

static enum control_answer
control_keys(void *arg, struct buf *out)
{
	struct server *s = arg;

	(void)out;
	atomic_fetch_add(shm_word(s->shm, SHM_WORD_KEYS_GENERATION), 1);
	return CONTROL_OK;
}

const struct control_verbs server_control = {
    .status = control_status,
    .reload = control_reload,
    .drain = control_drain,
    .drain_for_restart = control_drain_for_restart,
    .keys = control_keys,
    .upgrade = control_upgrade,
};

int
serve(struct conf *conf, const struct options *options, char *const *environment)
{
	struct server s = {.options = options, .environment = environment};

	if (!server_prepare(&s, conf)) {
		server_finish(&s);
		conf_free(&conf);
		return EXIT_FAILURE;
	}
	s.supervise =
	    supervise_new(s.base, s.shm, s.listeners, conf, conf_workers(conf), &handlers, &s);
	supervise_start(s.supervise);
	event_base_dispatch(s.base);
	log_info("stopped");
	server_finish(&s);
	return EXIT_SUCCESS;
}
