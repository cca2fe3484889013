/*
 * serve_upgrade - two masters: what the old one gives, and when the new one is in charge.
 *
 *      old                                      new
 *       | fork, exec: sockets, memory, lock      |
 *       |--------------------------------------->| its workers start in the same slots
 *       |                                  READY | all of them are ready
 *       |<---------------------------------------|
 *       | stops listening to commands, tells systemd who is the service now
 *       | READY                                  |
 *       |--------------------------------------->| listens to commands, is in charge
 *       | a socket for each slot                 |
 *       |--------------------------------------->| passed on to its workers: idle WebSockets come
 * over it | its workers drain, then it ends        |
 */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/check.h"
#include "common/log.h"
#include "master/inherit.h"
#include "master/pidfile.h"
#include "master/server.h"
#include "master/timer.h"

/* ---- a new binary takes over from us ---- */

static void
pass_to_successor(void *arg, uint32_t slot, int fd)
{
	struct server *s = arg;

	upgrade_pass(s->upgrade, slot, fd);
}

static void
on_successor_ready(void *arg, pid_t pid)
{
	struct server *s = arg;
	struct buf text = BUF_INIT;

	log_info("upgrade done pid=%d", (int)pid);
	s->has_successor = true;
	control_stop_listening(s->control);
	ticket_keys_free(&s->ticket_keys);
	notify_successor((int)pid);
	upgrade_hand_over(s->upgrade);
	if (s->is_reload_wanted) { /* it may have come when that one had read its configuration */
		kill(pid, SIGHUP);
		control_answer(s->control, "reload", true,
		    STR("a new binary takes over and reads the configuration again"));
	}
	buf_printf(&text, "process %d has taken over", (int)pid);
	control_answer(s->control, "upgrade", true, buf_str(&text));
	buf_fini(&text);
	supervise_retire(s->supervise, pass_to_successor, s);
}

static void
on_successor_failed(void *arg, const char *reason)
{
	struct server *s = arg;

	log_error("upgrade failed reason=\"%s\"", reason);
	control_answer(s->control, "upgrade", false, str_of(reason));
	upgrade_free(&s->upgrade);
	listeners_let_in(s->listeners);
	tool_servers_publish(s->tool_servers);
	supervise_other_gone(s->supervise);
	server_reload_if_wanted(s);
}

static const struct upgrade_handlers upgrade_handlers = {on_successor_ready, on_successor_failed};

static const char *
why_no_upgrade(const struct server *s)
{
	if (supervise_phase(s->supervise) != PHASE_RUNNING)
		return "the server is stopping";
	if (supervise_is_reloading(s->supervise))
		return "a reload is under way";
	if (s->upgrade != NULL)
		return "an upgrade is under way";
	if (!server_is_in_charge(s))
		return "this server is not in charge";
	/* Its end would end the container. */
	if (getpid() == 1)
		return "process 1 is replaced by whoever runs the container";
	return NULL;
}

bool
server_upgrade(struct server *s, struct buf *error)
{
	const struct conf *conf = supervise_conf(s->supervise);
	const char *why_not = why_no_upgrade(s);
	struct upgrade_order order = {.binary = s->binary,
	    .argv = s->options->argv,
	    .timeout_ms = conf->watchdog.upgrade_timeout_ms,
	    .end_ms = conf->drain.timeout_ms + SERVER_END_RESERVE_MS};
	struct bequest bequest;

	if (why_not != NULL) {
		buf_add_cstr(error, why_not);
		return false;
	}
	bequest_init(&bequest);
	bequest.fds[BEQUEST_SHM] = shm_fd(s->shm);
	bequest.fds[BEQUEST_LOCK] = run_dir_lock_fd(s->run_dir);
	bequest.fds[BEQUEST_CONTROL] = control_fd(s->control);
	bequest.run_dir = xstrdup(conf->run_dir);
	listeners_bequeath(s->listeners, &bequest);
	s->upgrade = upgrade_new(s->base, &order, &bequest, &upgrade_handlers, s, error);
	bequest_fini(&bequest);
	return s->upgrade != NULL;
}

void
server_child_ended(struct server *s, pid_t pid, int status)
{
	if (!tool_servers_ended(s->tool_servers, pid, status))
		upgrade_child_ended(s->upgrade, pid, status);
}

/* ---- we are the new binary ---- */

static void
on_settled(int fd, short what, void *arg)
{
	struct server *s = arg;

	(void)fd, (void)what;
	takeover_say_ready(s->takeover);
}

/* Addresses that the new configuration has no more are shut first, so that the old workers empty
 * their queues as they drain. */
void
server_offer(struct server *s)
{
	s->settling = timer_new(s->base, on_settled, s);
	timer_set(s->settling, inherit_shut(s->inherited) > 0 ? LISTENERS_SETTLE_MS : 0);
}

static void
on_taken(void *arg)
{
	struct server *s = arg;
	const struct conf *conf = supervise_conf(s->supervise);

	s->has_taken_over = true;
	inherit_remove_paths(s->inherited);
	inherit_free(&s->inherited);
	run_dir_claim(s->run_dir);
	server_write_addresses(s, conf);
	listeners_store(s->listeners);
	s->control = control_of_fd(s->base, s->bequest.fds[BEQUEST_CONTROL], &server_control, s);
	s->ticket_keys = ticket_keys_new(s->base, s->shm, conf);
	if (!pidfile_write(conf->pid_file))
		log_warn("pid file is of the old process file=%s", conf->pid_file);
	log_info("taken over version=%s", PARLEY_VERSION);
	notify_ready();
	server_tell_status(s);
	server_reload_if_wanted(s);
}

static void
on_not_wanted(void *arg)
{
	struct server *s = arg;

	log_warn("not wanted reason=\"the old server goes on\"");
	s->has_successor = true; /* it was there before */
	supervise_retire(s->supervise, NULL, NULL);
}

static void
on_passed(void *arg, uint32_t slot, int fd)
{
	struct server *s = arg;

	supervise_take(s->supervise, slot, fd);
}

static void
on_old_gone(void *arg)
{
	struct server *s = arg;

	log_info("the old server has ended");
	supervise_other_gone(s->supervise);
}

const struct takeover_handlers server_takeover = {on_taken, on_not_wanted, on_passed, on_old_gone};
