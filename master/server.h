/*
 * server - the master's parts, shared by the files that make them and connect them.
 * Nobody else includes it.
 *
 *   serve.c          the story: what is asked, by whom, and who does it
 *   serve_start.c    the parts made in order, and taken apart
 *   serve_upgrade.c  two masters: a new binary takes over from the old one
 */
#ifndef MASTER_SERVER_H
#define MASTER_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include <event2/event.h>

#include "common/conf.h"
#include "common/shm.h"
#include "master/bequest.h"
#include "master/control.h"
#include "master/listen.h"
#include "master/notify.h"
#include "master/options.h"
#include "master/run_dir.h"
#include "master/signals.h"
#include "master/supervise.h"
#include "master/ticket_keys.h"
#include "master/tool_servers.h"
#include "master/upgrade.h"

/* What is to be waited for beyond the drain's pause and timeout. */
enum { SERVER_END_RESERVE_MS = 5000 };

struct server {
	const struct options *options;
	char *const *environment;
	char *binary; /* its path, as it was at the start */
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
	struct tool_servers *tool_servers;
	struct event *log_look;  /* now and then: what the log owes */
	uint64_t log_lost;       /* counted so far */
	uint64_t stop_wanted_ms; /* when the last signal asked for it; 0: never */
	bool leaves_listeners;   /* as it stops: open in systemd's store, for the next master */
	bool is_reload_wanted;   /* asked for while another one, or an upgrade, was under way */

	struct bequest bequest;    /* of the master that we take over from .. */
	struct takeover *takeover; /* .. with which we talk; NULL: there was none */
	struct inherit *inherited; /* .. whose sockets nobody has taken, until we are ready */
	struct event *settling;    /* pending: their doors were shut just now */
	bool has_taken_over;
	struct upgrade *upgrade; /* to the one that takes over from us; NULL: none */
	bool has_successor;      /* it has taken over, or goes on without us */
};

/* The names in the file system, systemd's ear and the keys are this master's. */
static inline bool
server_is_in_charge(const struct server *s)
{
	return (s->takeover == NULL || s->has_taken_over) && !s->has_successor;
}

/* ---- serve.c ---- */

extern const struct signals_verbs server_signals;
extern const struct control_verbs server_control;
void server_tell_status(struct server *);
void server_reload_if_wanted(struct server *);

/* ---- serve_start.c ---- */

int server_open_log(const struct conf *); /* 0 or -errno, logged */
bool server_write_addresses(const struct server *, const struct conf *);
bool server_prepare(struct server *, const struct conf *); /* false: logged */
void server_finish(struct server *);                       /* half-built is fine */

/* ---- serve_upgrade.c ---- */

/* False: *error says why. Else the control's "upgrade" is answered in the end. */
bool server_upgrade(struct server *, struct buf *error);
void server_child_ended(struct server *, pid_t, int status); /* a child that is no worker */
void server_offer(struct server *); /* to the old master: all our workers are ready */
extern const struct takeover_handlers server_takeover;

#endif
