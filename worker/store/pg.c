/*
 * pg - the record in PostgreSQL: this worker's connections, and the operations that wait for one.
 *
 *   add -> waiting -> a connection (pg_run) -> the verb's callback
 *             ^              |
 *             +-- repeated --+   the connection broke, a deadlock: writes are idempotent
 *
 * An operation waits until its deadline, store.acquire_timeout after it came; then it
 * fails, also when it is in progress. A connection that has owed an answer for as long
 * is given up.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/crypto.h"
#include "common/err.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/store/pg.h"
#include "worker/store/pg_queue.h"
#include "worker/store/pg_run.h"

enum {
	TRIES_MAX = 4, /* of one operation: it may itself be what breaks connections */
	CHECK_TIMEOUT_MS = 1000,
	PATIENCE_MIN_MS = 1000,
	SLOW_MORE_MS = 1000, /* behind statement_timeout, which is the server's */
};

struct pg {
	struct loop *loop;
	const struct conf *conf;
	struct shm *shm;
	struct shm_who me;
	struct store_health *health;
	struct pg_pool pool;
	struct pg_plan plans[OP_COUNT];
	struct pg_queue waiting;
	uint64_t next_seq;
	struct list closing;     /* connections, by their slot's node */
	struct loop_post post;   /* dispatch */
	struct loop_timer timer; /* the first one's deadline, or when a connection may be opened */
};

static struct pg_conn *
conn_of(struct pg_slot *slot)
{
	return container_of(slot, struct pg_conn, slot);
}

static const struct pg_plan *
plan_of(const struct pg *pg, const struct job *job)
{
	return &pg->plans[op_index(job->op)];
}

/* ---- who waits ---- */

static void
enqueue(struct pg *pg, struct job *job)
{
	pg_queue_add(&pg->waiting, job);
	loop_post(pg->loop, &pg->post);
}

static void
both_failing(struct pg *pg)
{
	store_health_reads(pg->health, false, loop_now_ms(pg->loop));
	store_health_writes(pg->health, false, loop_now_ms(pg->loop));
}

static void
repeat(struct pg *pg, struct job *job)
{
	if (++job->tries >= TRIES_MAX) {
		log_warn("store operation given up op=%s tries=%u", job->op->name, job->tries);
		job_fail(job, E_STORE_UNAVAILABLE);
	} else {
		enqueue(pg, job);
	}
}

static void
drop_late(struct pg *pg)
{
	struct job *job;

	while ((job = pg_queue_take_late(&pg->waiting, loop_now_ms(pg->loop))) != NULL) {
		if (pg_pool_ready(&pg->pool) == 0)
			both_failing(pg);
		else
			log_warn("store pool exhausted in_use=%u waiting=%u",
			    pg_pool_in_use(&pg->pool), pg->waiting.count + 1);
		job_fail(job, E_STORE_UNAVAILABLE);
	}
}

/* ---- what is in progress ---- */

/* Until when the connection may owe the answer. */
static uint64_t
patience_ends_ms(const struct pg *pg, const struct pg_run *run)
{
	uint64_t acquire_ms = pg->conf->store.acquire_timeout_ms;
	uint64_t statement_ms = pg->conf->store.statement_timeout_ms;

	if (!run->view.op->is_slow)
		return run->sent_ms + (acquire_ms > PATIENCE_MIN_MS ? acquire_ms : PATIENCE_MIN_MS);
	return statement_ms > 0 ? run->sent_ms + statement_ms + SLOW_MORE_MS : UINT64_MAX;
}

static void
set_run_timer(struct pg *pg, struct pg_conn *c)
{
	struct pg_run *run = pg_run_first(c);
	uint64_t now = loop_now_ms(pg->loop), due;

	loop_timer_stop(pg->loop, &c->run_timer);
	if (run == NULL)
		return;
	due = patience_ends_ms(pg, run);
	list_for (node, &c->runs) {
		struct job *job = list_entry(node, struct pg_run, node)->job;

		if (job != NULL && !job->op->is_slow && job->deadline_ms < due)
			due = job->deadline_ms;
	}
	if (due != UINT64_MAX)
		loop_timer_set(pg->loop, &c->run_timer, due > now ? due - now : 0);
}

static void
on_run_timer(struct loop_timer *timer)
{
	struct pg_conn *c = container_of(timer, struct pg_conn, run_timer);
	struct pg *pg = c->owner;
	struct pg_run *first = pg_run_first(c);
	uint64_t now = loop_now_ms(pg->loop);
	struct list late;
	struct job *job;

	list_init(&late);
	if (first != NULL && now >= patience_ends_ms(pg, first))
		pg_conn_break(c, "no answer in time");
	list_for (node, &c->runs) {
		struct pg_run *run = list_entry(node, struct pg_run, node);

		if (run->job != NULL && !run->job->op->is_slow && now >= run->job->deadline_ms) {
			job = pg_run_abandon(run);
			list_add_tail(&late, &job->node);
		}
	}
	if (!c->is_broken)
		set_run_timer(pg, c);
	while ((job = list_first(&late, struct job, node)) != NULL) {
		list_del(&job->node);
		if (job->op->is_write)
			store_health_writes(pg->health, false, now);
		else
			store_health_reads(pg->health, false, now);
		job_fail(job, E_STORE_UNAVAILABLE);
	}
}

/* ---- connections ---- */

static const struct pg_conn_user conn_user;

static void
open_conn(struct pg *pg)
{
	const struct conf_store *conf = &pg->conf->store;
	struct pg_conn_conf c = {.url = conf->url,
	    .connect_timeout_ms = conf->connect_timeout_ms,
	    .check_timeout_ms = CHECK_TIMEOUT_MS,
	    .statement_timeout_ms = conf->statement_timeout_ms};
	struct pg_conn *conn = pg_conn_new(pg->loop, &c, &conn_user, pg);

	conn->run_timer.on_fire = on_run_timer;
	pg_pool_add(&pg->pool, &conn->slot);
}

/* By and by: we may be in its callback. That it is broken, too, is not told any more: it would
 * leave the pool twice. */
static void
close_conn(struct pg *pg, struct pg_conn *c)
{
	c->is_told = true;
	pg_pool_remove(&pg->pool, &c->slot);
	list_add_tail(&pg->closing, &c->slot.node);
	loop_post(pg->loop, &pg->post);
}

static void
free_closing(struct pg *pg)
{
	struct pg_slot *slot;

	while ((slot = list_first(&pg->closing, struct pg_slot, node)) != NULL) {
		struct pg_conn *c = conn_of(slot);

		list_del(&slot->node);
		pg_conn_free(&c);
	}
}

static void
on_open(struct pg_conn *c)
{
	struct pg *pg = c->owner;

	pg_pool_opened(&pg->pool, &c->slot, loop_now_ms(pg->loop));
	loop_post(pg->loop, &pg->post);
}

static void
on_checked(struct pg_conn *c)
{
	struct pg *pg = c->owner;

	pg_pool_checked(&pg->pool, &c->slot, loop_now_ms(pg->loop));
	loop_post(pg->loop, &pg->post);
}

/* Where one that idled is dead, the others that idled as long are no better, nor those that are in
 * doubt as it was. */
static void
close_stale(struct pg *pg)
{
	uint64_t now = loop_now_ms(pg->loop);

	list_for_safe (node, &pg->pool.lists[PG_IDLE]) {
		struct pg_slot *slot = list_entry(node, struct pg_slot, node);

		if (!pg_pool_trusts(&pg->pool, slot) ||
		    (now > slot->since_ms && now - slot->since_ms >= pg->pool.check_after_ms))
			close_conn(pg, conn_of(slot));
	}
}

static void
say_broken(struct pg *pg, struct pg_conn *c)
{
	if (c->is_open)
		log_warn("store connection lost reason=%s", log_quote(str_of(c->reason)).s);
	else if (pg->pool.failures == 1)
		log_warn("store connection failed reason=%s", log_quote(str_of(c->reason)).s);
	else
		log_debug("store connection failed reason=%s", log_quote(str_of(c->reason)).s);
}

static void
on_broken(struct pg_conn *c)
{
	struct pg *pg = c->owner;
	uint64_t random;
	struct pg_run *run;
	struct list jobs;
	struct job *job;

	list_init(&jobs);
	while ((run = pg_run_first(c)) != NULL) {
		pg_queue_ended(&pg->waiting, run->view.op);
		if ((job = pg_run_free(&run)) != NULL)
			list_add_tail(&jobs, &job->node);
	}
	if (c->slot.state == PG_CHECKING)
		close_stale(pg);
	crypto_random(&random, sizeof(random));
	pg_pool_broken(&pg->pool, &c->slot, loop_now_ms(pg->loop), random);
	say_broken(pg, c);
	if (!c->is_open && pg_pool_ready(&pg->pool) == 0)
		both_failing(pg);
	list_add_tail(&pg->closing, &c->slot.node);
	loop_post(pg->loop, &pg->post);
	while ((job = list_first(&jobs, struct job, node)) != NULL) {
		list_del(&job->node);
		repeat(pg, job);
	}
}

/* ---- the end of an operation ---- */

static void
succeed(struct pg *pg, struct pg_run *run)
{
	uint64_t now = loop_now_ms(pg->loop);
	struct op_answer answer = run->answer;
	struct op_rows rows = op_rows_of(&answer);
	struct job *job;

	run->answer = (struct op_answer){.err = 0};
	job = pg_run_free(&run);
	store_health_reads(pg->health, true, now);
	if (job != NULL && job->op->is_write)
		store_health_writes(pg->health, true, now);
	if (job != NULL)
		job_finish(job, &rows);
	op_answer_fini(&answer);
}

static void
fail_failing(struct pg *pg, const struct pg_run *run, const struct op *op)
{
	log_warn(
	    "store operation failed op=%s reason=%s", op->name, log_quote(str_of(run->failure)).s);
	if (op->is_write)
		store_health_writes(pg->health, false, loop_now_ms(pg->loop));
	else if (!op->is_slow)
		store_health_reads(pg->health, false, loop_now_ms(pg->loop));
}

static void
fail(struct pg *pg, struct pg_run *run)
{
	const struct op *op = run->view.op;
	enum pg_verdict verdict = run->verdict;
	int err = run->err;
	struct job *job;

	if (verdict == PG_OWN && err == E_INTERNAL)
		log_error("store operation failed op=%s reason=%s", op->name,
		    log_quote(str_of(run->failure)).s);
	else if (verdict == PG_FAILING)
		fail_failing(pg, run, op);
	job = pg_run_free(&run);
	if (job == NULL)
		return;
	if (verdict == PG_REPEAT || verdict == PG_REPEAT_ELSEWHERE)
		repeat(pg, job);
	else
		job_fail(job, err);
}

static void
on_batch_end(struct pg_conn *c)
{
	struct pg *pg = c->owner;
	struct pg_run *run = pg_run_first(c);

	if (!pg_run_on_batch_end(c))
		return;
	list_del(&run->node);
	pg_queue_ended(&pg->waiting, run->view.op);
	if (run->has_failed && run->verdict == PG_REPEAT_ELSEWHERE)
		pg_conn_break(c, run->failure);
	if (!pg_pool_give(&pg->pool, &c->slot, pg->waiting.count, loop_now_ms(pg->loop)) &&
	    !c->is_broken)
		close_conn(pg, c);
	set_run_timer(pg, c);
	loop_post(pg->loop, &pg->post);
	if (run->has_failed)
		fail(pg, run);
	else
		succeed(pg, run);
}

static const struct pg_conn_user conn_user = {
    .on_open = on_open,
    .on_checked = on_checked,
    .on_broken = on_broken,
    .on_result = pg_run_on_result,
    .on_item_end = pg_run_on_item_end,
    .on_batch_end = on_batch_end,
};

/* ---- who gets which ---- */

static void
start(struct pg *pg, struct pg_conn *c, struct job *job)
{
	const struct pg_plan *plan = plan_of(pg, job);

	pg_queue_start(&pg->waiting, job);
	pg_pool_take(&pg->pool, &c->slot, pg_plan_is_alone(plan, job->op));
	pg_run_new(c, job, plan, loop_now_ms(pg->loop));
	set_run_timer(pg, c);
}

/* False: it must wait, and with it everybody. */
static bool
serve(struct pg *pg, struct job *job)
{
	struct pg_slot *slot = NULL;

	switch (pg_pool_next(&pg->pool, pg_plan_is_alone(plan_of(pg, job), job->op),
	    pg->waiting.count, loop_now_ms(pg->loop), &slot)) {
	case PG_TAKE:
		start(pg, conn_of(slot), job);
		return true;
	case PG_CHECK:
		pg_pool_check(&pg->pool, slot);
		pg_conn_check(conn_of(slot));
		return true;
	case PG_CLOSE:
		close_conn(pg, conn_of(slot));
		return true;
	case PG_OPEN:
		open_conn(pg);
		return true;
	case PG_WAIT:
		break;
	}
	return false;
}

static void
set_timer(struct pg *pg)
{
	uint64_t now = loop_now_ms(pg->loop), wait_ms = pg_pool_wait_ms(&pg->pool, now);
	uint64_t deadline_ms = pg_queue_deadline_ms(&pg->waiting);
	uint64_t left_ms = deadline_ms > now ? deadline_ms - now : 0;

	loop_timer_set(pg->loop, &pg->timer, wait_ms > 0 && wait_ms < left_ms ? wait_ms : left_ms);
}

static void
dispatch(struct pg *pg)
{
	struct job *job;

	free_closing(pg);
	drop_late(pg);
	while ((job = pg_queue_next(&pg->waiting)) != NULL && serve(pg, job))
		;
	if (pg->waiting.count > 0)
		set_timer(pg);
	else
		loop_timer_stop(pg->loop, &pg->timer);
	metric_gauge_set(METRIC_STORE_POOL_IN_USE, 0, 0, pg_pool_in_use(&pg->pool));
}

static void
on_post(struct loop_post *post)
{
	dispatch(container_of(post, struct pg, post));
}

static void
on_timer(struct loop_timer *timer)
{
	dispatch(container_of(timer, struct pg, timer));
}

void
pg_add(void *backend, struct job *job)
{
	struct pg *pg = backend;

	job->seq = pg->next_seq++;
	enqueue(pg, job);
}

const struct conf *
pg_conf(const void *backend)
{
	return ((const struct pg *)backend)->conf;
}

/* The first living worker of the host. */
bool
pg_is_elected(const void *backend)
{
	const struct pg *pg = backend;

	return pg->shm == NULL || shm_is_first(pg->shm, pg->me);
}

/* ---- life ---- */

void *
pg_open(const struct backend_env *env)
{
	const struct conf_store *conf = &env->conf->store;
	struct pg_url url;
	struct pg *pg;

	if (!pg_url_parse(conf->url, &url)) {
		log_error("store url is not understood");
		return NULL;
	}
	pg_url_fini(&url);
	pg = xcalloc(1, sizeof(*pg));
	pg->loop = env->loop;
	pg->conf = env->conf;
	pg->shm = env->shm;
	if (env->backplane != NULL)
		pg->me = backplane_self(env->backplane).who;
	pg->health = env->health;
	pg_pool_init(&pg->pool, (unsigned)conf->pool_size, (unsigned)conf->max_overflow);
	pg->pool.recycle_ms = conf->recycle_ms;
	pg->pool.check_after_ms = conf->check_after_ms;
	for (unsigned i = 0; i < OP_COUNT; i++)
		pg_plan_init(&pg->plans[i], op_at(i));
	pg_queue_init(&pg->waiting, pg->pool.size + pg->pool.overflow);
	list_init(&pg->closing);
	pg->post.run = on_post;
	pg->timer.on_fire = on_timer;
	return pg;
}

static void
add_write(struct list *writes, struct job *job)
{
	struct list *before = writes->prev;

	if (!job->op->is_write || job->op->is_upkeep) {
		job_drop(job);
		return;
	}
	while (before != writes && list_entry(before, struct job, node)->seq > job->seq)
		before = before->prev;
	list_add_head(before, &job->node);
}

static void
give_up_conn(struct pg_conn *c, struct list *writes)
{
	struct pg_run *run;
	struct job *job;

	while ((run = pg_run_first(c)) != NULL)
		if ((job = pg_run_free(&run)) != NULL)
			add_write(writes, job);
	pg_conn_free(&c);
}

void
pg_give_up(void *backend, struct list *writes)
{
	struct pg *pg = backend;
	struct pg_slot *slot;
	struct job *job;

	free_closing(pg);
	for (int i = 0; i < PG_STATES; i++)
		while ((slot = list_first(&pg->pool.lists[i], struct pg_slot, node)) != NULL) {
			pg_pool_remove(&pg->pool, slot);
			give_up_conn(conn_of(slot), writes);
		}
	while ((job = pg_queue_take_any(&pg->waiting)) != NULL)
		add_write(writes, job);
	loop_post_cancel(pg->loop, &pg->post);
	loop_timer_stop(pg->loop, &pg->timer);
	for (unsigned i = 0; i < OP_COUNT; i++)
		pg_plan_fini(&pg->plans[i]);
	free(pg);
}
