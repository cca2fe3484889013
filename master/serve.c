/*
 * serve - makes the parts in order and connects them: signals and the control socket
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
#include "common/metric.h"
#include "common/shm.h"
#include "master/control.h"
#include "master/drop.h"
#include "master/inherit.h"
#include "master/listen.h"
#include "master/migrate.h"
#include "master/notify.h"
#include "master/pidfile.h"
#include "master/reload.h"
#include "master/run_dir.h"
#include "master/signals.h"
#include "master/status.h"
#include "master/supervise.h"
#include "master/ticket_keys.h"

enum {
	STOP_REPEAT_MS = 500,
	SLOTS_MIN = 64,
	STOP_RESERVE_MS = 5000, /* what systemd is told to wait beyond pause and timeout */
};

struct server {
	const struct options *options;
	char *const *environment;
	char *pid_file;
	struct run_dir *run_dir;
	struct event_base *base;
	struct signals *signals;
	struct listeners *listeners;
	struct shm *shm;
	struct notify *notify;
	struct control *control;
	struct supervise *supervise;
	struct ticket_keys *ticket_keys;
	uint64_t stop_wanted_ms; /* when the last signal asked for it; 0: never */
	bool is_reload_wanted;   /* asked for while another one was under way */
};

/* ---- the log ---- */

static int
open_log(const struct conf *conf)
{
	struct log_conf log = {.level = LOG_INFO,
	    .is_json = strcmp(conf->log.format, "json") == 0,
	    .is_access = conf->log.access,
	    .file = conf->log.file};

	check(log_level_parse(conf->log.level, &log.level));
	int err = log_open(&log);
	if (err != 0)
		log_error("log not opened file=%s error=\"%s\"", conf->log.file, strerror(-err));
	return err;
}

/* ---- what supervise tells ---- */

static void
tell_status(struct server *s)
{
	struct buf line = BUF_INIT;

	status_write_line(s->shm, s->supervise, &line);
	notify_status("%s", line.data);
	buf_fini(&line);
}

static void
on_ready(void *arg)
{
	struct server *s = arg;

	log_info("server ready workers=%u", shm_workers(s->shm));
	notify_ready();
}

static void on_reload_wanted(void *arg);

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
		open_log(supervise_conf(s->supervise));
		answer_reload(s, false,
		    STR("the old configuration stays: the first worker with the new one did not "
			"become ready, the log says why"));
	}
	if (supervise_phase(s->supervise) == PHASE_RUNNING)
		notify_ready();
	if (s->is_reload_wanted)
		on_reload_wanted(s);
}

static void
on_stopped(void *arg)
{
	struct server *s = arg;

	event_base_loopbreak(s->base);
}

static void
on_change(void *arg)
{
	tell_status(arg);
}

static void
on_settling(void *arg)
{
	struct server *s = arg;

	listeners_refuse(s->listeners);
}

static void
on_closed(void *arg)
{
	struct server *s = arg;

	if (s->listeners == NULL)
		return; /* said again by a worker that ends */
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
};

/* ---- what may be asked, by a signal or through the control socket ---- */

static void
stop(struct server *s)
{
	const struct conf *conf = supervise_conf(s->supervise);

	if (supervise_phase(s->supervise) == PHASE_RUNNING)
		notify_stopping(conf->drain.pause_ms + conf->drain.timeout_ms + STOP_RESERVE_MS);
	supervise_stop(s->supervise);
}

/* Wrappers pass a signal on that the whole group has had already: that is not a second wish. */
static void
on_stop_wanted(void *arg)
{
	struct server *s = arg;
	uint64_t now_ms = clock_mono_ms(), last_ms = s->stop_wanted_ms;

	s->stop_wanted_ms = now_ms;
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
	if (open_log(conf) != 0)
		open_log(supervise_conf(s->supervise));
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
	(void)arg;
	log_info("upgrade ignored reason=\"a later release can change its binary while it runs\"");
}

static void
on_child_ended(void *arg)
{
	struct server *s = arg;

	supervise_reap(s->supervise);
}

static const struct signals_verbs signals_verbs = {
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
control_keys(void *arg, struct buf *out)
{
	struct server *s = arg;

	(void)out;
	atomic_fetch_add(shm_word(s->shm, SHM_WORD_KEYS_GENERATION), 1);
	return CONTROL_OK;
}

static const struct control_verbs control_verbs = {
    .status = control_status,
    .reload = control_reload,
    .drain = control_drain,
    .keys = control_keys,
};

/* ---- start ---- */

static bool
open_listeners(struct server *s, const struct conf *conf)
{
	struct inherit *inherited = inherit_new();

	s->listeners = listeners_open(conf, conf_workers(conf), inherited);
	inherit_free(&inherited);
	if (s->listeners == NULL)
		return false;
	listeners_store(s->listeners);
	char *path = run_dir_path(conf, "addresses");
	bool is_written = listeners_write_addresses(s->listeners, path);
	free(path);
	return is_written;
}

/* Room for a reload with more workers costs nothing until it is used. */
static uint32_t
slots_for(uint32_t workers)
{
	return workers > SLOTS_MIN / 2 ? 2 * workers : SLOTS_MIN;
}

static bool
open_shm(struct server *s, const struct conf *conf)
{
	s->shm = shm_create(slots_for(conf_workers(conf)));
	if (s->shm == NULL) {
		log_error("shared memory not made error=\"%s\"", strerror(errno));
		return false;
	}
	metric_init(s->shm, (struct shm_who){0, 0});
	return true;
}

static void
warn_of(const struct conf *conf)
{
	for (size_t i = 0; i < conf->warnings.n; i++)
		log_warn("config warning text=%s", log_quote(str_of(conf->warnings.v[i])).s);
	if (conf->backplane.url[0] == '\0')
		log_warn(
		    "backplane is local reason=\"no backplane.url: limits, cancel, tool results "
		    "and revocation hold for the workers of this host only\"");
}

/* The kernel cuts a longer backlog without a word. */
static void
warn_of_backlog(int64_t backlog)
{
	FILE *f = fopen("/proc/sys/net/core/somaxconn", "re");
	char text[32] = "";
	uint64_t max;

	if (f == NULL)
		return;
	if (fgets(text, sizeof(text), f) != NULL &&
	    str_to_u64(str_sub(text, strcspn(text, "\n")), &max) && backlog > (int64_t)max)
		log_warn(
		    "backlog cut backlog=%" PRId64 " net.core.somaxconn=%" PRIu64, backlog, max);
	fclose(f);
}

static bool
open_control(struct server *s, const struct conf *conf)
{
	char *path = run_dir_path(conf, "control");

	s->control = control_new(s->base, path, &control_verbs, s);
	free(path);
	return s->control != NULL;
}

/*
 * The order matters: the lock before anything another master could be using; sockets and
 * pid file as root; everything that workers write only after root was given up; the shared
 * memory before the first fork; the schema before the first worker.
 */
static bool
prepare(struct server *s, const struct conf *conf)
{
	if (open_log(conf) != 0 || (s->run_dir = run_dir_open(conf)) == NULL)
		return false;
	log_info("starting version=%s kind=%s workers=%u", PARLEY_VERSION, PARLEY_KIND,
	    conf_workers(conf));
	s->base = event_base_new();
	check(s->base != NULL);
	s->signals = signals_new(s->base, &signals_verbs, s);
	s->pid_file = xstrdup(conf->pid_file);
	if (!open_listeners(s, conf) || !pidfile_write(conf->pid_file) || !drop_privileges(conf))
		return false;
	if (!open_shm(s, conf) || !open_control(s, conf) || !migrate_run(conf))
		return false;
	s->ticket_keys = ticket_keys_new(s->base, s->shm, conf);
	warn_of(conf);
	warn_of_backlog(conf->backlog);
	s->notify = notify_new(s->base);
	return true;
}

static void
finish(struct server *s)
{
	supervise_free(&s->supervise);
	ticket_keys_free(&s->ticket_keys);
	control_free(&s->control);
	notify_free(&s->notify);
	shm_free(&s->shm);
	listeners_close(&s->listeners);
	signals_free(&s->signals);
	if (s->base != NULL)
		event_base_free(s->base);
	if (s->pid_file != NULL)
		pidfile_remove(s->pid_file);
	free(s->pid_file);
	run_dir_close(&s->run_dir);
}

int
serve(struct conf *conf, const struct options *options, char *const *environment)
{
	struct server s = {.options = options, .environment = environment};

	if (!prepare(&s, conf)) {
		finish(&s);
		conf_free(&conf);
		return EXIT_FAILURE;
	}
	s.supervise =
	    supervise_new(s.base, s.shm, s.listeners, conf, conf_workers(conf), &handlers, &s);
	supervise_start(s.supervise);
	event_base_dispatch(s.base);
	log_info("stopped");
	finish(&s);
	return EXIT_SUCCESS;
}
