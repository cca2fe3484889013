/*
 * serve_start - the master's parts, made in order and taken apart.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/check.h"
#include "common/log.h"
#include "common/metric.h"
#include "master/drop.h"
#include "master/inherit.h"
#include "master/migrate.h"
#include "master/pidfile.h"
#include "master/server.h"

enum { SLOTS_MIN = 64, LOG_LOOK_S = 1 };

int
server_open_log(const struct conf *conf)
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

bool
server_write_addresses(const struct server *s, const struct conf *conf)
{
	char *path = run_dir_path(conf, "addresses");
	bool is_written = listeners_write_addresses(s->listeners, path);

	free(path);
	return is_written;
}

static bool
open_listeners(struct server *s, const struct conf *conf)
{
	bool is_heir = s->takeover != NULL;
	struct inherit *inherited = inherit_new(is_heir ? &s->bequest : NULL);

	s->listeners = listeners_open(conf, conf_workers(conf), inherited);
	if (is_heir)
		s->inherited = inherited;
	else
		inherit_free(&inherited);
	if (s->listeners == NULL)
		return false;
	if (is_heir)
		return true;
	listeners_store(s->listeners);
	return server_write_addresses(s, conf);
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
	uint32_t workers = conf_workers(conf);

	s->shm = s->takeover != NULL ? shm_attach(s->bequest.fds[BEQUEST_SHM])
				     : shm_create(slots_for(workers));
	if (s->shm == NULL) {
		log_error("shared memory not usable error=\"%s\"",
		    errno == EPROTO ? "it is of another version: this needs a restart"
				    : strerror(errno));
		return false;
	}
	if (workers > shm_slots(s->shm)) {
		log_error("too many workers workers=%u max=%u reason=\"more needs a restart\"",
		    workers, shm_slots(s->shm));
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

/* Of a master that takes over: when it has. */
static bool
open_control(struct server *s, const struct conf *conf)
{
	if (s->takeover != NULL)
		return true;
	char *path = run_dir_path(conf, "control");

	s->control = control_new(s->base, path, &server_control, s);
	free(path);
	return s->control != NULL;
}

static bool
open_tool_servers(struct server *s, const struct conf *conf)
{
	s->tool_servers = tool_servers_new(s->base, s->shm);
	if (s->tool_servers == NULL)
		return false;
	tool_servers_learn(s->tool_servers, conf);
	return true;
}

static bool
open_run_dir(struct server *s, const struct conf *conf)
{
	if (s->takeover == NULL) {
		s->run_dir = run_dir_open(conf);
		return s->run_dir != NULL;
	}
	s->run_dir = run_dir_inherit(conf, s->bequest.fds[BEQUEST_LOCK]);
	if (strcmp(conf->run_dir, s->bequest.run_dir) == 0)
		return true;
	log_error("run_dir has changed run_dir=%s was=%s reason=\"this needs a restart\"",
	    conf->run_dir, s->bequest.run_dir);
	return false;
}

/* Where a package puts the next release: not what we are by then, which may be deleted. */
static char *
find_binary(void)
{
	char path[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - 1);

	check(len > 0);
	path[len] = '\0';
	return xstrdup(path);
}

static void
take_bequest(struct server *s)
{
	if (bequest_take(&s->bequest))
		s->takeover =
		    takeover_new(s->base, s->bequest.fds[BEQUEST_TALK], &server_takeover, s);
}

/* The master has little to say: what the log owes must not wait for its next line. */
static void
on_log_look(evutil_socket_t fd, short what, void *arg)
{
	struct server *s = arg;
	uint64_t lost;

	(void)fd, (void)what;
	log_flush();
	lost = log_lost();
	metric_add(METRIC_LOG_LOST, 0, 0, lost - s->log_lost);
	s->log_lost = lost;
}

static void
look_after_log(struct server *s)
{
	struct timeval every = {LOG_LOOK_S, 0};

	s->log_look = event_new(s->base, -1, EV_PERSIST, on_log_look, s);
	check(s->log_look != NULL && event_add(s->log_look, &every) == 0);
}

/*
 * The order matters: the lock before anything another master could be using; sockets and
 * pid file as root; everything that workers write only after root was given up; the shared
 * memory before the first fork; the schema before the first worker. A master that takes over
 * leaves all names to the old one until it is in charge.
 */
bool
server_prepare(struct server *s, const struct conf *conf)
{
	s->base = event_base_new();
	check(s->base != NULL);
	take_bequest(s);
	s->binary = find_binary();
	if (server_open_log(conf) != 0 || !open_run_dir(s, conf))
		return false;
	log_info("starting version=%s kind=%s workers=%u", PARLEY_VERSION, PARLEY_KIND,
	    conf_workers(conf));
	s->signals = signals_new(s->base, &server_signals, s);
	s->pid_file = xstrdup(conf->pid_file);
	if (!open_listeners(s, conf))
		return false;
	if ((s->takeover == NULL && !pidfile_write(conf->pid_file)) || !drop_privileges(conf))
		return false;
	if (!open_shm(s, conf) || !open_tool_servers(s, conf) || !open_control(s, conf) ||
	    !migrate_run(conf))
		return false;
	if (s->takeover == NULL)
		s->ticket_keys = ticket_keys_new(s->base, s->shm, conf);
	warn_of(conf);
	warn_of_backlog(conf->backlog);
	s->notify = notify_new(s->base);
	look_after_log(s);
	return true;
}

/* What has a name belongs to who is in charge. */
static void
leave_names(struct server *s)
{
	if (!server_is_in_charge(s)) {
		listeners_leave(&s->listeners);
		run_dir_leave(&s->run_dir);
		return;
	}
	if (s->leaves_listeners)
		listeners_leave(&s->listeners);
	else
		listeners_close(&s->listeners);
	if (s->pid_file != NULL)
		pidfile_remove(s->pid_file);
	run_dir_close(&s->run_dir);
}

void
server_finish(struct server *s)
{
	supervise_free(&s->supervise);
	tool_servers_free(&s->tool_servers);
	ticket_keys_free(&s->ticket_keys);
	upgrade_free(&s->upgrade);
	control_free(&s->control);
	notify_free(&s->notify);
	if (s->log_look != NULL)
		event_free(s->log_look);
	shm_free(&s->shm);
	leave_names(s);
	inherit_free(&s->inherited);
	if (s->settling != NULL)
		event_free(s->settling);
	takeover_free(&s->takeover);
	bequest_fini(&s->bequest);
	signals_free(&s->signals);
	if (s->base != NULL)
		event_base_free(s->base);
	free(s->pid_file);
	free(s->binary);
}
