/*
 * lease - what is ours stays ours while we live, and goes on elsewhere when we do not.
 *
 * A worker renews all its leases at once, three times within tasks.lease; what it believes to have
 * and has not any more it drops, what it has without knowing (the answer to a claim was lost) it
 * takes up. When a worker of this host dies the first of the living gives its tasks back within
 * a second. When a host dies their leases end; one worker of each host looks for such once a
 * second, and one of all (the store's elected) for tasks whose time is up and what is to be
 * archived.
 */
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/task/task_impl.h"

enum {
	TEND_MS = 1000,
	DEAD_LATER_MS = 400, /* the others look whether something is left */
	DEAD_AGAIN_MS = 500,
	TAKEN_MAX = 500, /* as many as the record gives at once */
	SWEEP_TENDS = 30,
	QUEUE_LOOK_TENDS = 2,
	SWEEP_MAX = 500,
	DRAIN_MARGIN_MS = 1500,
};

/* ---- our own ---- */

static void
on_adopted(void *arg, int err, const struct store_task *t)
{
	struct tasks *ts = arg;

	if (err == 0 && t->ended_at == 0 && t->owner != NULL && strcmp(t->owner, ts->owner) == 0)
		queue_adopt(ts, t);
}

static void
drop_missing(struct tasks *ts, struct strmap *have)
{
	uint32_t cursor = 0;
	struct run *run;

	while ((run = idmap_next(ts->runs, &cursor)) != NULL) {
		if (run->state == RUN_ENDING || run->renewals == 0 ||
		    strmap_get(have, str_of(run->task.id)) != NULL)
			continue;
		log_info("task is not ours any more task=%s", run->task.id);
		run_drop(run);
	}
}

static void
on_renewed(void *arg, int err, const char *const *ids, size_t count)
{
	struct tasks *ts = arg;
	struct strmap *have;

	ts->is_renewing = false;
	if (err != 0)
		return;
	have = strmap_new();
	for (size_t i = 0; i < count; i++) {
		strmap_set(have, str_of(ids[i]), ts);
		if (run_of(ts, ids[i]) == NULL && !ts->is_claiming && !ts->is_draining)
			store_task_get(ts->of.store, ids[i], NULL, on_adopted, ts);
	}
	drop_missing(ts, have);
	strmap_free(&have);
}

static void
on_renew(struct loop_timer *timer)
{
	struct tasks *ts = container_of(timer, struct tasks, renew);
	uint64_t lease_ms = ts->of.conf->tasks.lease_ms;
	uint32_t cursor = 0;
	struct run *run;

	loop_timer_set(ts->of.loop, timer, lease_ms / 3);
	if (ts->is_renewing)
		return;
	while ((run = idmap_next(ts->runs, &cursor)) != NULL)
		run->renewals++;
	ts->is_renewing = true;
	store_task_renew(ts->of.store, ts->owner, lease_ms, on_renewed, ts);
}

/* ---- taking from others ---- */

static void
lose(struct tasks *ts, const struct store_task *t)
{
	bool was_running = strcmp(t->state, "running") == 0;
	uint32_t max =
	    t->job_id != NULL ? TASK_JOB_LOSSES_MAX : (uint32_t)ts->of.conf->tasks.max_losses;
	struct said said = {.state = "queued",
	    .progress = t->progress,
	    .message = t->message,
	    .is_taken = true,
	    .is_loss = true,
	    .losses = t->losses + was_running};

	if (was_running && said.losses >= max) {
		said.state = "failed";
		said.error_code = err_info(E_WORKER_LOST)->code;
		said.error_message = "The workers that ran the task died, one after the other.";
		said.is_ended = true;
		log_warn("task failed task=%s code=worker_lost losses=%u", t->id, said.losses);
	}
	task_change(ts, t, &said, NULL, NULL);
}

static void
lose_all(struct tasks *ts, const struct store_task *tasks, size_t count, const char *why)
{
	for (size_t i = 0; i < count; i++)
		lose(ts, &tasks[i]);
	if (count == 0)
		return;
	log_info("tasks given to others reason=%s count=%zu", why, count);
	queue_hint_all(ts);
	queue_later(ts, 10); /* when that is written */
}

static void
on_late(void *arg, int err, const struct store_task *tasks, size_t count)
{
	if (err == 0)
		lose_all(arg, tasks, count, "lease_over");
}

static void
on_former(void *arg, int err, const struct store_task *tasks, size_t count)
{
	struct tasks *ts = arg;
	char prefix[OWNER_MAX];

	if (err != 0)
		return; /* their leases end */
	lose_all(ts, tasks, count, "former_life");
	owner_format_host(ts->self, prefix);
	if (count >= TAKEN_MAX)
		store_task_former(ts->of.store, prefix, on_former, ts);
}

static void
on_overdue(void *arg, int err, const struct store_task *tasks, size_t count)
{
	struct tasks *ts = arg;

	for (size_t i = 0; err == 0 && i < count; i++) {
		if (run_of(ts, tasks[i].id) != NULL)
			continue; /* it says so itself */
		job_cancel(ts, &tasks[i]);
		task_change(ts, &tasks[i],
		    &(struct said){.state = "timed_out",
			.progress = tasks[i].progress,
			.error_code = "timeout",
			.error_message = "The task took too long.",
			.is_retryable = true,
			.is_taken = true,
			.is_ended = true},
		    NULL, NULL);
	}
}

/* ---- workers of this host that have died ---- */

static void
on_owned(void *arg, int err, const struct store_task *tasks, size_t count)
{
	struct death *death = arg;

	if (err == 0)
		lose_all(container_of(death_of(death), struct tasks, deaths), tasks, count,
		    "worker_dead");
	if (err != 0 || count >= TAKEN_MAX)
		death_again(death, DEAD_AGAIN_MS);
	else
		death_end(death);
}

static void
on_death(struct deaths *deaths, struct death *death, const char *owner)
{
	struct tasks *ts = container_of(deaths, struct tasks, deaths);

	store_task_owned(ts->of.store, owner, on_owned, death);
}

/* ---- what one does for all ---- */

static void
on_stats(void *arg, int err, const struct store_task_stats *stats)
{
	(void)arg;
	if (err != 0)
		return;
	metric_gauge_set(METRIC_TASKS_QUEUED, 0, 0, (int64_t)stats->queued);
	metric_gauge_set(
	    METRIC_TASKS_OLDEST, 0, 0, stats->oldest_ms > 0 ? stats->oldest_ms / 1000 : 0);
}

/* One worker of each host says how long the queue is. */
static void
look_at_queue(struct tasks *ts)
{
	if (!shm_is_first(ts->of.shm, ts->self.who)) {
		metric_gauge_set(METRIC_TASKS_QUEUED, 0, 0, 0);
		metric_gauge_set(METRIC_TASKS_OLDEST, 0, 0, 0);
	} else if (store_is_available(ts->of.store) && ts->looks++ % QUEUE_LOOK_TENDS == 0) {
		store_task_stats(ts->of.store, on_stats, ts);
	}
}

static void
on_unblocked(void *arg, int err, uint64_t count)
{
	if (err == 0 && count > 0)
		queue_hint_all(arg);
}

/* What came was all that may be had at once: there may be more, and more ends until the next sweep
 * than one of these takes. */
static bool
is_more(const struct tasks *ts, int err, uint64_t count)
{
	if (err != 0)
		log_info("tasks not archived or purged err=%s", err_info(err)->name);
	else if (count > 0)
		log_debug("tasks archived or purged count=%llu", (unsigned long long)count);
	return err == 0 && count >= SWEEP_MAX && !ts->is_draining;
}

static void on_archived(void *arg, int err, uint64_t count);
static void on_purged(void *arg, int err, uint64_t count);

static void
archive(struct tasks *ts)
{
	ts->is_archiving = true;
	store_task_archive(
	    ts->of.store, ts->of.conf->tasks.archive_after_ms, SWEEP_MAX, on_archived, ts);
}

static void
purge(struct tasks *ts)
{
	ts->is_purging = true;
	store_task_purge(ts->of.store, ts->of.conf->tasks.retention_ms, SWEEP_MAX, on_purged, ts);
}

static void
on_archived(void *arg, int err, uint64_t count)
{
	struct tasks *ts = arg;

	ts->is_archiving = false;
	if (is_more(ts, err, count))
		archive(ts);
}

static void
on_purged(void *arg, int err, uint64_t count)
{
	struct tasks *ts = arg;

	ts->is_purging = false;
	if (is_more(ts, err, count))
		purge(ts);
}

static void
sweep(struct tasks *ts)
{
	const struct conf_tasks *conf = &ts->of.conf->tasks;

	if (conf->archive_after_ms > 0 && !ts->is_archiving)
		archive(ts);
	if (conf->retention_ms > 0 && !ts->is_purging)
		purge(ts);
}

static void
on_tend(struct loop_timer *timer)
{
	struct tasks *ts = container_of(timer, struct tasks, tend);

	loop_timer_set(ts->of.loop, timer, TEND_MS);
	look_at_queue(ts);
	quotas_forget_idle(ts);
	if (!store_is_available(ts->of.store))
		ts->well_since_ms = 0;
	else if (ts->well_since_ms == 0)
		ts->well_since_ms = loop_now_ms(ts->of.loop);
	if (ts->well_since_ms == 0 || ts->is_draining)
		return;
	/* After the record was away the living renew first. One of each host looks: who is elected
	 * may be the one that died, and two that take the same are told apart by the fence. */
	if (shm_is_first(ts->of.shm, ts->self.who) &&
	    loop_now_ms(ts->of.loop) - ts->well_since_ms > ts->of.conf->tasks.lease_ms)
		store_task_late(ts->of.store, on_late, ts);
	if (!store_is_elected(ts->of.store))
		return;
	store_task_overdue(ts->of.store, on_overdue, ts);
	if (ts->tends % 5 == 0)
		store_task_unblock(ts->of.store, on_unblocked, ts);
	if (ts->tends++ % SWEEP_TENDS == 0)
		sweep(ts);
}

/* ---- the end ---- */

static void
give_back(struct tasks *ts, bool also_active)
{
	uint32_t cursor = 0;
	struct run *run;

	while ((run = idmap_next(ts->runs, &cursor)) != NULL)
		if (run->state != RUN_ENDING && (also_active || !run->has_place))
			run_give_back(run);
}

static void
on_drain_end(struct loop_timer *timer)
{
	give_back(container_of(timer, struct tasks, drain_end), true);
}

void
lease_drain(struct tasks *ts)
{
	uint64_t ms = ts->of.conf->drain.timeout_ms;

	give_back(ts, false);
	loop_timer_set(
	    ts->of.loop, &ts->drain_end, ms > 2 * DRAIN_MARGIN_MS ? ms - DRAIN_MARGIN_MS : ms / 2);
	queue_hint_all(ts); /* others */
}

void
lease_init(struct tasks *ts)
{
	char prefix[OWNER_MAX];

	ts->deaths = (struct deaths){.loop = ts->of.loop,
	    .shm = ts->of.shm,
	    .backplane = ts->of.backplane,
	    .later_ms = DEAD_LATER_MS,
	    .on_death = on_death};
	deaths_start(&ts->deaths);
	ts->renew.on_fire = on_renew;
	ts->tend.on_fire = on_tend;
	ts->drain_end.on_fire = on_drain_end;
	loop_timer_set(ts->of.loop, &ts->renew, ts->of.conf->tasks.lease_ms / 3);
	loop_timer_set(ts->of.loop, &ts->tend, TEND_MS);
	/* A record of one host: every other number is that of a former life (turn/lost.c). */
	if (ts->self.who.number == 1 && store_is_host_over(ts->of.store, 0)) {
		owner_format_host(ts->self, prefix);
		store_task_former(ts->of.store, prefix, on_former, ts);
	}
}

void
lease_fini(struct tasks *ts)
{
	loop_timer_stop(ts->of.loop, &ts->renew);
	loop_timer_stop(ts->of.loop, &ts->tend);
	loop_timer_stop(ts->of.loop, &ts->drain_end);
	deaths_stop(&ts->deaths);
}
