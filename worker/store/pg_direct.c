/*
 * pg_direct - PostgreSQL as a backend: opened and closed, and used by who has no loop.
 *
 * An operation without a loop has one of its own, which runs as long as it does. So have the writes
 * that are left when a worker's store is closed: they are sent again (each is idempotent) and
 * given FLUSH_MS; who waited for them is told nothing any more.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "worker/store/migrations.h"
#include "worker/store/pg.h"
#include "worker/store/pg_url.h"

enum { DIRECT_WAIT_MS = 10000, FLUSH_MS = 2000 };

static void
on_failing(struct store_health *health)
{
	(void)health;
}

static void
drop_all(struct list *jobs)
{
	struct job *job;

	while ((job = list_first(jobs, struct job, node)) != NULL)
		job_drop(job);
}

/* ---- what is left at the end ---- */

struct flush {
	struct loop *loop;
	struct store_health health;
	struct loop_timer timer;
	size_t left, failed;
};

static void
decode_flushed(struct op_rows *rows, store_callback *callback, void *arg)
{
	struct flush *f = arg;

	(void)callback;
	/* A refusal by the record (E_FENCED ..) is an answer. */
	f->failed += rows->err == E_STORE_UNAVAILABLE;
	if (--f->left == 0)
		loop_stop(f->loop);
}

static void
on_flush_timer(struct loop_timer *timer)
{
	loop_stop(container_of(timer, struct flush, timer)->loop);
}

static void
add_all(struct flush *f, void *pg, struct list *writes)
{
	struct job *job;

	while ((job = list_first(writes, struct job, node)) != NULL) {
		list_del(&job->node);
		job->decode = decode_flushed;
		job->arg = f;
		job->tries = 0;
		job->deadline_ms = clock_mono_ms() + FLUSH_MS;
		f->left++;
		pg_add(pg, job);
	}
}

static void
flush(const struct conf *conf, struct list *writes)
{
	struct flush f = {
	    .loop = loop_new(), .health.on_failing = on_failing, .timer.on_fire = on_flush_timer};
	struct backend_env env = {.loop = f.loop, .conf = conf, .health = &f.health};
	void *pg = pg_open(&env);

	check(pg != NULL); /* as the one that was */
	add_all(&f, pg, writes);
	loop_timer_set(f.loop, &f.timer, FLUSH_MS);
	loop_run(f.loop);
	loop_timer_stop(f.loop, &f.timer);
	if (f.left + f.failed > 0)
		log_warn("store writes lost at the end count=%zu", f.left + f.failed);
	pg_give_up(pg, writes);
	drop_all(writes);
	loop_free(&f.loop);
}

static void
pg_close(void *pg)
{
	const struct conf *conf = pg_conf(pg);
	struct list writes;

	list_init(&writes);
	pg_give_up(pg, &writes);
	if (!list_empty(&writes))
		flush(conf, &writes);
}

/* ---- for the command line: a loop that runs as long as the operation does ---- */

struct direct {
	struct loop *loop;
	struct store_health health;
	void *pg;
	size_t in_flight;
	struct op_answer *answer;
};

static void *
open_direct(const struct conf *conf)
{
	struct direct *d = xcalloc(1, sizeof(*d));
	struct backend_env env = {.conf = conf, .health = &d->health};

	d->health.on_failing = on_failing;
	d->loop = env.loop = loop_new();
	d->pg = pg_open(&env);
	if (d->pg != NULL)
		return d;
	loop_free(&d->loop);
	free(d);
	return NULL;
}

static void
close_direct(void *backend)
{
	struct direct *d = backend;
	struct list writes;

	list_init(&writes);
	pg_give_up(d->pg, &writes);
	drop_all(&writes);
	loop_free(&d->loop);
	free(d);
}

static void
decode_direct(struct op_rows *rows, store_callback *callback, void *arg)
{
	struct direct *d = arg;

	(void)callback;
	d->answer->err = rows->err;
	d->answer->is_cut = rows->is_cut;
	d->answer->changes = rows->changes;
	d->answer->rows = rows->count;
	d->answer->columns = rows->columns;
	buf_add_str(&d->answer->values, rows->rest);
	loop_stop(d->loop);
}

static void
run_direct(void *backend, struct op_call *call, struct op_answer *answer)
{
	struct direct *d = backend;
	struct job *job = job_new(call, decode_direct, NULL, d, &d->in_flight);

	d->answer = answer;
	job->deadline_ms = clock_mono_ms() + DIRECT_WAIT_MS;
	pg_add(d->pg, job);
	loop_run(d->loop);
}

const struct backend pg_backend = {
    .is_ours = pg_url_is_ours,
    .is_shared = true,
    .open = pg_open,
    .close = pg_close,
    .add = pg_add,
    .is_elected = pg_is_elected,
    .open_direct = open_direct,
    .close_direct = close_direct,
    .run_direct = run_direct,
    .migrate = pg_migrate,
};
