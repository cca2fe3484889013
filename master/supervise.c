/*
 * supervise - the story of the workers.
 */
#include "master/supervise.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/list.h"
#include "common/log.h"
#include "common/metric.h"
#include "master/child.h"
#include "master/reap.h"
#include "master/slot.h"
#include "master/timer.h"

/* The workers of a master that was killed end within a second. */
enum { ORPHAN_LOOKS = 30, ORPHAN_LOOK_MS = 100 };

struct place { /* a slot and what waits in it */
	struct slot slot;
	struct event *respawn; /* pending: something is to be started here later */
	struct event *calm;    /* pending: after crashes, until its worker has lived for a while */
	struct supervise *owner;
};

struct supervise {
	struct event_base *base;
	struct shm *shm;
	struct listeners *listeners;
	const struct supervise_handlers *handlers;
	void *arg;

	struct conf *conf;
	uint32_t workers;   /* as conf says; the places beyond it are empty, or will be */
	struct conf *trial; /* of a reload that no worker has proven yet; or NULL */
	uint32_t trial_workers;
	uint32_t conf_generation; /* of conf */
	uint32_t generation;      /* where the slots should be; differs from it during a trial */
	bool is_reloading;

	enum supervise_phase phase;
	struct event *pause;
	struct event *orphans; /* rows that another master's workers have left are looked for .. */
	unsigned orphan_looks; /* .. so many times more */
	uint32_t *suspects; /* of each row: whom the last look found without a process, 0: nobody */
	bool was_ready;

	struct place *places; /* as many as the shared memory has slots */
	uint32_t place_count;
	struct list children;
};

static void roll(struct supervise *);
static void fill(struct place *);

static const struct conf *
newest_conf(const struct supervise *s)
{
	return s->trial != NULL ? s->trial : s->conf;
}

/* ---- starting ---- */

static void on_child_ready(void *arg, struct child *c);
static void on_child_closed(void *arg, struct child *c);

static const struct child_handlers child_handlers = {on_child_ready, on_child_closed};

static struct child *
start_child(struct place *p, const struct conf *conf, uint32_t workers, uint32_t generation)
{
	struct supervise *s = p->owner;
	struct spawn_order order = {conf, s->shm, s->listeners, p->slot.index, workers};
	struct child_limits limits = {
	    conf->watchdog.start_timeout_ms, s->conf->watchdog.silence_ms};
	struct spawned spawned;

	if (!spawn_worker(&order, &spawned))
		return NULL;
	struct child *c = child_new(s->base, &spawned, &p->slot, &limits, &child_handlers, s);
	c->generation = generation;
	c->drain_ms = conf->drain.timeout_ms;
	list_add_tail(&s->children, &c->node);
	log_info("worker started slot=%u pid=%d incarnation=%u", p->slot.index, (int)c->pid,
	    c->who.number);
	return c;
}

static uint64_t
delay_after(struct place *p, const struct slot_death *d)
{
	const struct conf *conf = p->owner->conf;

	return slot_died(&p->slot, d, conf->watchdog.backoff_ms, conf->watchdog.backoff_max_ms);
}

static uint64_t
delay_of_next_try(struct place *p)
{
	return delay_after(p, &(struct slot_death){.was_ready = false});
}

/* ---- workers that die again and again ---- */

static void
count_crashing(struct supervise *s)
{
	uint64_t crashing = 0;

	for (uint32_t i = 0; i < s->workers; i++)
		crashing += slot_is_crashing(&s->places[i].slot);
	atomic_store(shm_word(s->shm, SHM_WORD_CRASHING), crashing);
}

static void
on_calm(int fd, short what, void *arg)
{
	struct place *p = arg;

	(void)fd, (void)what;
	if (slot_is_crashing(&p->slot))
		log_info("worker lives slot=%u", p->slot.index);
	slot_is_calm(&p->slot);
	count_crashing(p->owner);
}

/* The slot has no worker: start one, or try again later. */
static void
fill(struct place *p)
{
	struct supervise *s = p->owner;

	check(p->slot.current == NULL);
	p->slot.current = start_child(p, s->conf, s->workers, s->conf_generation);
	if (p->slot.current == NULL)
		timer_set(p->respawn, delay_of_next_try(p));
}

static void
on_respawn(int fd, short what, void *arg)
{
	struct place *p = arg;

	(void)fd, (void)what;
	if (p->owner->phase >= PHASE_DRAINING)
		return;
	if (p->slot.index >= p->owner->workers)
		return; /* there are to be fewer, and the others are still on their way */
	if (p->slot.current == NULL && p->slot.successor == NULL)
		fill(p);
	roll(p->owner);
	p->owner->handlers->on_change(p->owner->arg);
}

/* ---- rolling a configuration through the slots ---- */

static void
end_reload(struct supervise *s, bool is_adopted)
{
	s->is_reloading = false;
	s->handlers->on_reloaded(s->arg, is_adopted);
}

static void
give_up_trial(struct supervise *s)
{
	conf_free(&s->trial);
	s->generation = s->conf_generation;
	end_reload(s, false);
}

static void
use_workers(struct supervise *s, uint32_t workers)
{
	s->workers = workers;
	atomic_store(shm_word(s->shm, SHM_WORD_WORKERS), workers);
}

/* New slots are filled at once: their sockets are given connections from now on. */
static void
adopt_trial(struct supervise *s)
{
	uint32_t before = s->workers;

	conf_free(&s->conf);
	s->conf = s->trial;
	s->trial = NULL;
	s->conf_generation = s->generation;
	use_workers(s, s->trial_workers);
	listeners_grow(s->listeners, s->workers);
	for (uint32_t i = before; i < s->workers; i++) {
		if (s->places[i].slot.current == NULL)
			fill(&s->places[i]);
	}
}

/* Two ends, the first for who gives its WebSockets. False: they are closed instead, logged. */
static bool
make_bridge(int ends[2])
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0)
		return true;
	log_warn("no socket between workers error=\"%s\"", strerror(errno));
	return false;
}

static void
bridge(struct child *from, struct child *to)
{
	int ends[2];

	if (to == NULL || !make_bridge(ends))
		return;
	child_hand(from, ends[0], PROTO_GIVE);
	child_hand(to, ends[1], PROTO_TAKE);
	close(ends[0]);
	close(ends[1]);
}

/* The remaining workers accept from their sockets already. */
static void
drain_surplus(struct supervise *s)
{
	for (uint32_t i = s->workers; i < s->place_count; i++) {
		struct place *p = &s->places[i];

		evtimer_del(p->respawn);
		if (p->slot.current == NULL)
			continue;
		bridge(p->slot.current, s->places[i % s->workers].slot.current);
		child_drain(p->slot.current, p->slot.current->drain_ms);
		p->slot.current = NULL;
	}
}

/*
 * After the trial an empty slot is about to be filled with the adopted configuration
 * anyway. During the trial it is a good place to try, and perhaps the only one.
 */
static bool
is_behind(const struct supervise *s, const struct slot *slot)
{
	if (slot->current == NULL)
		return s->trial != NULL;
	return slot->current->generation != s->generation;
}

static struct place *
next_to_roll(const struct supervise *s)
{
	uint32_t workers = s->trial != NULL ? s->trial_workers : s->workers;

	for (uint32_t i = 0; i < workers; i++) {
		if (is_behind(s, &s->places[i].slot))
			return &s->places[i];
	}
	return NULL;
}

/* A successor, or the first of a slot, is starting, or is to be tried again. */
static bool
is_rolling(const struct supervise *s)
{
	for (uint32_t i = 0; i < s->workers; i++) {
		const struct place *p = &s->places[i];

		if (p->slot.successor != NULL)
			return true;
		if (s->trial == NULL && p->slot.current != NULL &&
		    p->slot.current->state == CHILD_STARTING)
			return true;
		if (p->slot.current != NULL && evtimer_pending(p->respawn, NULL))
			return true;
	}
	return false;
}

/* It died or could not be started: the trial is over, or it is tried again. */
static void
lose_successor(struct place *p)
{
	if (p->owner->trial != NULL)
		give_up_trial(p->owner);
	if (p->slot.current == NULL || p->owner->is_reloading)
		timer_set(p->respawn, delay_of_next_try(p));
}

/* One slot at a time: the others serve meanwhile. */
static void
roll(struct supervise *s)
{
	if (!s->is_reloading || s->phase >= PHASE_DRAINING || is_rolling(s))
		return;
	struct place *p = next_to_roll(s);
	if (p == NULL) {
		drain_surplus(s);
		end_reload(s, true);
		return;
	}
	evtimer_del(p->respawn);
	p->slot.successor = start_child(
	    p, newest_conf(s), s->trial != NULL ? s->trial_workers : s->workers, s->generation);
	if (p->slot.successor == NULL)
		lose_successor(p);
}

/* The successor is ready: it is the current one now. */
static void
succeed(struct supervise *s, struct place *p)
{
	struct child *old = p->slot.current;

	if (s->trial != NULL)
		adopt_trial(s);
	p->slot.current = p->slot.successor;
	p->slot.successor = NULL;
	if (old != NULL) {
		bridge(old, p->slot.current);
		child_drain(old, old->drain_ms);
		metric_add(METRIC_WORKER_RESTARTS, RESTART_RELOAD, 0, 1);
	}
}

/* ---- what happens to workers ---- */

static bool
are_all_ready(const struct supervise *s)
{
	return supervise_ready_count(s) == s->workers;
}

static void
on_child_ready(void *arg, struct child *c)
{
	struct supervise *s = arg;
	struct place *p = container_of(c->slot, struct place, slot);

	log_info("worker is up slot=%u pid=%d incarnation=%u start_ms=%" PRIu64, c->slot->index,
	    (int)c->pid, c->who.number, clock_mono_ms() - c->started_ms);
	slot_worked(c->slot);
	if (c->slot->crashes > 0)
		timer_set(p->calm, SLOT_CALM_MS);
	if (c == p->slot.successor)
		succeed(s, p);
	if (!s->was_ready && are_all_ready(s)) {
		s->was_ready = true;
		s->handlers->on_ready(s->arg);
	}
	roll(s);
	s->handlers->on_change(s->arg);
}

/* After a stop: when the last of all accepts no more the sockets can go. */
static void
look_who_accepts(struct supervise *s)
{
	if (s->phase != PHASE_DRAINING)
		return;
	list_for (node, &s->children) {
		if (!list_entry(node, struct child, node)->has_closed)
			return;
	}
	s->handlers->on_closed(s->arg);
}

static void
on_child_closed(void *arg, struct child *closed)
{
	(void)closed;
	look_who_accepts(arg);
}

static unsigned
restart_reason(const struct child *c, int status)
{
	if (c->is_stalled)
		return RESTART_STALLED;
	if (!c->was_ready)
		return RESTART_NEVER_READY;
	return WIFSIGNALED(status) ? RESTART_SIGNAL : RESTART_EXIT;
}

/* The slot lost its worker while it should have had one. */
static void
replace(struct place *p, const struct child *dead, int status)
{
	struct supervise *s = p->owner;
	struct slot_death d = {.was_ready = dead->was_ready,
	    .uptime_ms = clock_mono_ms() - dead->started_ms,
	    .was_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && !dead->is_stalled};
	uint64_t delay_ms = delay_after(p, &d);

	metric_add(METRIC_WORKER_RESTARTS, restart_reason(dead, status), 0, 1);
	atomic_fetch_add(shm_word(s->shm, SHM_WORD_RESTARTS), 1);
	count_crashing(s);
	evtimer_del(p->calm);
	if (delay_ms > 0 && slot_is_crashing(&p->slot))
		log_error("worker dies again and again slot=%u deaths=%u backoff_ms=%" PRIu64,
		    p->slot.index, p->slot.crashes, delay_ms);
	if (p->slot.index >= s->workers)
		return; /* a reload is about to end it anyway */
	if (p->slot.successor != NULL)
		return; /* it is on its way; if it dies too, lose_successor() fills the slot */
	if (delay_ms == 0)
		fill(p);
	else
		timer_set(p->respawn, delay_ms);
}

/* Fingerprints that come again tell an input that kills. */
static void
log_request(const struct supervise *s, const struct child *c)
{
	struct shm_request r;

	if (shm_row_request(s->shm, c->who, &r))
		log_error("worker died at slot=%u pid=%d request=%s fingerprint=%016" PRIx64
			  " under_way=%s",
		    c->slot->index, (int)c->pid, log_quote(str_of(r.name)).s, r.fingerprint,
		    r.is_under_way ? "yes" : "no");
}

static void
log_death(const struct supervise *s, const struct child *c, int status)
{
	char how[REAP_TEXT_MAX];
	uint64_t uptime_ms = clock_mono_ms() - c->started_ms;

	reap_describe(status, how);
	if (c->state == CHILD_DRAINING && WIFEXITED(status) && WEXITSTATUS(status) == 0)
		log_info("worker ended slot=%u pid=%d incarnation=%u uptime_ms=%" PRIu64,
		    c->slot->index, (int)c->pid, c->who.number, uptime_ms);
	else
		log_error("worker died slot=%u pid=%d incarnation=%u %s was_ready=%s "
			  "uptime_ms=%" PRIu64,
		    c->slot->index, (int)c->pid, c->who.number, how, c->was_ready ? "yes" : "no",
		    uptime_ms);
	if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
		log_request(s, c);
}

static struct child *
find_child(const struct supervise *s, pid_t pid)
{
	list_for (node, &s->children) {
		struct child *c = list_entry(node, struct child, node);

		if (c->pid == pid)
			return c;
	}
	return NULL;
}

static void
on_death(void *arg, pid_t pid, int status)
{
	struct supervise *s = arg;
	struct child *c = find_child(s, pid);

	if (c == NULL) {
		s->handlers->on_other_ended(s->arg, pid, status);
		return;
	}
	struct place *p = container_of(c->slot, struct place, slot);
	bool was_current = p->slot.current == c, was_successor = p->slot.successor == c;

	list_del(&c->node);
	log_death(s, c, status);
	shm_row_reap(s->shm, c->who);
	if (was_current)
		p->slot.current = NULL;
	if (was_successor)
		p->slot.successor = NULL;
	if (was_current && s->phase < PHASE_DRAINING)
		replace(p, c, status);
	else if (was_successor && s->phase < PHASE_DRAINING)
		lose_successor(p);
	child_free(&c);
	look_who_accepts(s);
	roll(s);
}

static void
stopped(struct supervise *s)
{
	s->phase = PHASE_STOPPED;
	s->handlers->on_stopped(s->arg);
}

void
supervise_reap(struct supervise *s)
{
	reap_all(on_death, s);
	if (s->phase == PHASE_DRAINING && list_empty(&s->children))
		stopped(s);
	else
		s->handlers->on_change(s->arg);
}

/* ---- stopping ---- */

static void
drain_all(struct supervise *s, uint64_t timeout_ms)
{
	list_for (node, &s->children)
		child_drain(list_entry(node, struct child, node), timeout_ms);
}

static void
enter_draining(struct supervise *s, uint64_t timeout_ms)
{
	s->phase = PHASE_DRAINING;
	evtimer_del(s->pause);
	for (uint32_t i = 0; i < s->place_count; i++)
		evtimer_del(s->places[i].respawn);
	log_info("draining timeout_ms=%" PRIu64, timeout_ms);
	drain_all(s, timeout_ms);
	if (list_empty(&s->children))
		stopped(s);
}

static void
enter_settling(struct supervise *s)
{
	s->phase = PHASE_SETTLING;
	s->handlers->on_settling(s->arg);
	timer_set(s->pause, LISTENERS_SETTLE_MS);
}

static void
on_pause_over(int fd, short what, void *arg)
{
	struct supervise *s = arg;

	(void)fd, (void)what;
	if (s->phase == PHASE_PAUSING)
		enter_settling(s);
	else
		enter_draining(s, s->conf->drain.timeout_ms);
}

void
supervise_stop(struct supervise *s)
{
	switch (s->phase) {
	case PHASE_RUNNING:
		s->phase = PHASE_PAUSING;
		atomic_store(shm_word(s->shm, SHM_WORD_IS_DRAINING), 1);
		log_info("stopping pause_ms=%" PRIu64, s->conf->drain.pause_ms);
		timer_set(s->pause, s->conf->drain.pause_ms);
		break;
	case PHASE_PAUSING:
	case PHASE_SETTLING:
		enter_draining(s, 0);
		break;
	case PHASE_DRAINING:
		log_info("stopping at once");
		drain_all(s, 0);
		break;
	case PHASE_STOPPED:
		break;
	}
}

/* ---- another master beside us ---- */

static void
bridge_all(struct supervise *s, supervise_give *give, void *arg)
{
	int ends[2];

	for (uint32_t i = 0; i < s->workers; i++) {
		struct child *c = s->places[i].slot.current;

		if (c == NULL || !make_bridge(ends))
			continue;
		child_hand(c, ends[0], PROTO_GIVE);
		give(arg, i, ends[1]);
		close(ends[0]);
		close(ends[1]);
	}
}

void
supervise_retire(struct supervise *s, supervise_give *give, void *arg)
{
	if (s->phase >= PHASE_DRAINING)
		return;
	if (s->trial != NULL)
		conf_free(&s->trial);
	s->is_reloading = false;
	if (give != NULL)
		bridge_all(s, give, arg);
	enter_draining(s, s->conf->drain.timeout_ms);
}

void
supervise_take(struct supervise *s, uint32_t slot, int fd)
{
	struct child *c = s->places[slot % s->workers].slot.current;

	if (c != NULL)
		child_hand(c, fd, PROTO_TAKE);
}

static bool
is_ours(const struct supervise *s, const struct shm_who *who)
{
	list_for (node, &s->children) {
		if (list_entry(node, struct child, node)->who.number == who->number)
			return true;
	}
	return false;
}

/* Its rows name processes that do not exist any more. A row without one is just being filled, and
 * one whose process has ended since the last look is left to its master, which may live: it has
 * waited for that process and is about to free the row. */
static void
reap_orphans(struct supervise *s)
{
	struct shm_row_info row;

	for (uint32_t i = 0; i < shm_rows_used(s->shm); i++) {
		uint32_t suspect = s->suspects[i];

		s->suspects[i] = 0;
		if (!shm_row_get(s->shm, i, &row) || row.pid == 0 || is_ours(s, &row.who))
			continue;
		if (kill(row.pid, 0) == 0 || errno != ESRCH)
			continue;
		if (suspect != row.who.number) {
			s->suspects[i] = row.who.number;
			continue;
		}
		log_warn("worker of another master is gone slot=%u pid=%d incarnation=%u", row.slot,
		    row.pid, row.who.number);
		shm_row_reap(s->shm, row.who);
	}
}

static void
on_orphans(int fd, short what, void *arg)
{
	struct supervise *s = arg;

	(void)fd, (void)what;
	reap_orphans(s);
	if (--s->orphan_looks > 0)
		timer_set(s->orphans, ORPHAN_LOOK_MS);
}

void
supervise_other_gone(struct supervise *s)
{
	use_workers(s, s->workers); /* it may have said something else */
	s->orphan_looks = ORPHAN_LOOKS;
	timer_set(s->orphans, 0);
}

/* ---- verbs ---- */

void
supervise_start(struct supervise *s)
{
	for (uint32_t i = 0; i < s->workers; i++)
		fill(&s->places[i]);
}

bool
supervise_reload(struct supervise *s, struct conf *conf, uint32_t workers)
{
	check(workers > 0 && workers <= s->place_count);
	if (s->is_reloading || s->phase != PHASE_RUNNING)
		return false;
	s->is_reloading = true;
	s->trial = conf;
	s->trial_workers = workers;
	s->generation++;
	roll(s);
	return true;
}

void
supervise_reopen_logs(struct supervise *s)
{
	list_for (node, &s->children)
		child_tell(list_entry(node, struct child, node), PROTO_REOPEN, 0);
}

struct supervise *
supervise_new(struct event_base *base, struct shm *shm, struct listeners *listeners,
    struct conf *conf, uint32_t workers, const struct supervise_handlers *handlers, void *arg)
{
	struct supervise *s = xcalloc(1, sizeof(*s));

	s->base = base;
	s->shm = shm;
	s->listeners = listeners;
	s->conf = conf;
	s->handlers = handlers;
	s->arg = arg;
	s->pause = timer_new(base, on_pause_over, s);
	s->orphans = timer_new(base, on_orphans, s);
	s->suspects = xcalloc(shm_rows(shm), sizeof(*s->suspects));
	list_init(&s->children);
	s->place_count = shm_slots(shm);
	check(workers > 0 && workers <= s->place_count);
	use_workers(s, workers);
	s->places = xcalloc(s->place_count, sizeof(*s->places));
	for (uint32_t i = 0; i < s->place_count; i++) {
		s->places[i].slot.index = i;
		s->places[i].owner = s;
		s->places[i].respawn = timer_new(base, on_respawn, &s->places[i]);
		s->places[i].calm = timer_new(base, on_calm, &s->places[i]);
	}
	return s;
}

void
supervise_free(struct supervise **s)
{
	if (*s == NULL)
		return;
	list_for_safe (node, &(*s)->children) {
		struct child *c = list_entry(node, struct child, node);

		list_del(&c->node);
		kill(c->pid, SIGKILL);
		waitpid(c->pid, NULL, 0);
		shm_row_reap((*s)->shm, c->who);
		child_free(&c);
	}
	for (uint32_t i = 0; i < (*s)->place_count; i++) {
		event_free((*s)->places[i].respawn);
		event_free((*s)->places[i].calm);
	}
	event_free((*s)->pause);
	event_free((*s)->orphans);
	free((*s)->suspects);
	free((*s)->places);
	conf_free(&(*s)->conf);
	conf_free(&(*s)->trial);
	free(*s);
	*s = NULL;
}

const struct conf *
supervise_conf(const struct supervise *s)
{
	return s->conf;
}

enum supervise_phase
supervise_phase(const struct supervise *s)
{
	return s->phase;
}

bool
supervise_is_reloading(const struct supervise *s)
{
	return s->is_reloading;
}

uint32_t
supervise_ready_count(const struct supervise *s)
{
	uint32_t ready = 0;

	for (uint32_t i = 0; i < s->workers; i++) {
		const struct child *c = s->places[i].slot.current;

		ready += c != NULL && c->state == CHILD_READY;
	}
	return ready;
}
