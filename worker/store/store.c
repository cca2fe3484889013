/*
 * store - the record's door: takes operations to the backend, bounds their number,
 * and knows whether the record can be reached.
 */
#include "worker/store/store.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/store/job.h"
#include "worker/store/migrations.h"
#include "worker/store/run.h"
#include "worker/store/sqlite_db.h"
#include "worker/store/sqlite_reads.h"
#include "worker/store/sqlite_slow_reads.h"
#include "worker/store/sqlite_writes.h"

enum {
	PROBE_MS = 500,         /* while it fails */
	DIRECT_WAIT_MS = 10000, /* for the lock of the server's writer */
};

struct store {
	struct loop *loop;
	const struct conf *conf;
	struct store_health health;
	struct sqlite_reads *reads;
	struct sqlite_slow_reads *slow_reads;
	struct sqlite_writes *writes;
	size_t in_flight;
	struct list refused;
	struct loop_post post;
	struct loop_timer probe;
	bool is_probing_reads, is_probing_writes;

	struct sqlite_db *direct; /* in place of all of these */
	struct sqlite_failure failure;
};

/* Asks whether the database takes a write; changes nothing. */
const struct op op_probe = {
    .name = "probe",
    .params = "",
    .is_write = true,
    .statements = {{.sql = "UPDATE generations SET value = value WHERE name = 'probe'"}},
};

/* ---- running ---- */

static int
run_in_transaction(struct sqlite_db *db, struct op_call_view *view, struct op_answer *answer)
{
	int err;

	if (!view->op->is_write)
		return sqlite_db_read(db, view, answer);
	if ((err = sqlite_db_begin(db)) != 0)
		return err;
	if ((err = sqlite_db_write(db, view, answer)) == 0)
		return sqlite_db_commit(db);
	sqlite_db_rollback(db);
	return err;
}

static void
run_direct(struct store *store, struct op_call *call, store_decode *decode,
    store_callback *callback, void *arg)
{
	struct op_answer answer = {.err = 0};
	struct op_call_view view;
	struct op_rows rows;

	check(op_call_read(buf_str(&call->wire), &view));
	if (run_in_transaction(store->direct, &view, &answer) != 0) {
		op_answer_clear(&answer);
		answer.err = E_STORE_UNAVAILABLE;
	}
	if (store->failure.text[0] != '\0')
		log_error("store failed %s", store->failure.text);
	store->failure.text[0] = '\0';
	rows = op_rows_of(&answer);
	decode(&rows, callback, arg);
	op_answer_fini(&answer);
	op_call_fini(call);
}

void
store_run(struct store *store, struct op_call *call, store_decode *decode, store_callback *callback,
    void *arg)
{
	struct job *job;

	if (store->direct != NULL) {
		run_direct(store, call, decode, callback, arg);
		return;
	}
	job = job_new(call, decode, callback, arg, &store->in_flight);
	job->deadline_ms = loop_now_ms(store->loop) + store->conf->store.acquire_timeout_ms;
	if (store->in_flight > (uint64_t)store->conf->store.max_queue) {
		metric_add(METRIC_STORE_REFUSED, 0, 0, 1);
		list_add_tail(&store->refused, &job->node);
		loop_post(store->loop, &store->post);
	} else if (job->op->is_write) {
		sqlite_writes_add(store->writes, job);
	} else if (job->op->is_slow) {
		sqlite_slow_reads_add(store->slow_reads, job);
	} else {
		sqlite_reads_add(store->reads, job);
	}
}

static void
on_refused(struct loop_post *post)
{
	struct store *store = container_of(post, struct store, post);
	struct job *job;

	while ((job = list_first(&store->refused, struct job, node)) != NULL)
		job_fail(job, E_STORE_UNAVAILABLE);
}

void
store_decode_done(struct op_rows *rows, store_callback *callback, void *arg)
{
	((store_on_done *)callback)(arg, rows->err);
}

void
store_decode_count(struct op_rows *rows, store_callback *callback, void *arg)
{
	((store_on_count *)callback)(arg, rows->err, rows->changes);
}

void
store_decode_number(struct op_rows *rows, store_callback *callback, void *arg)
{
	store_on_count *on_count = (store_on_count *)callback;
	struct op_value v[OP_VALUES_MAX];

	if (rows->err == 0 && op_rows_next(rows, v))
		on_count(arg, 0, (uint64_t)op_int(&v[0]));
	else
		on_count(arg, rows->err != 0 ? rows->err : E_INTERNAL, 0);
}

/* ---- availability ---- */

bool
store_is_available(const struct store *store)
{
	return store_unavailable_since_ms(store) == 0;
}

uint64_t
store_unavailable_since_ms(const struct store *store)
{
	uint64_t reads = store->health.reads_since_ms, writes = store->health.writes_since_ms;

	if (reads == 0 || writes == 0)
		return reads + writes;
	return reads < writes ? reads : writes;
}

bool
store_is_idle(const struct store *store)
{
	return store->in_flight == 0;
}

bool
store_is_elected(const struct store *store)
{
	return store->writes != NULL && sqlite_writes_is_writer(store->writes);
}

static void
on_read_probe(void *arg, int err, uint64_t generation)
{
	struct store *store = arg;

	(void)err;
	(void)generation;
	store->is_probing_reads = false;
}

static void
on_write_probe(void *arg, int err)
{
	struct store *store = arg;

	(void)err;
	store->is_probing_writes = false;
}

/* Nobody may ask while we say that we are not ready: so we ask ourselves. */
static void
on_probe(struct loop_timer *timer)
{
	struct store *store = container_of(timer, struct store, probe);
	struct op_call call;

	if (store->health.reads_since_ms != 0 && !store->is_probing_reads) {
		store->is_probing_reads = true;
		store_key_generation(store, on_read_probe, store);
	}
	if (store->health.writes_since_ms != 0 && !store->is_probing_writes) {
		store->is_probing_writes = true;
		op_call_init(&call, &op_probe);
		store_run(store, &call, store_decode_done, (store_callback *)on_write_probe, store);
	}
	if (!store_is_available(store))
		loop_timer_set(store->loop, &store->probe, PROBE_MS);
}

static void
on_failing(struct store_health *health)
{
	struct store *store = container_of(health, struct store, health);

	loop_timer_set(store->loop, &store->probe, PROBE_MS);
}

/* ---- life ---- */

static const char *
path_of(const struct conf *conf)
{
	const char *path = sqlite_path_of(conf->store.url);

	if (path == NULL)
		log_error("store url must begin with sqlite: in this version");
	return path;
}

struct store *
store_new(struct loop *loop, const struct conf *conf, struct shm *shm, struct backplane *backplane)
{
	const char *path = path_of(conf);
	struct store *store;

	if (path == NULL)
		return NULL;
	store = xcalloc(1, sizeof(*store));
	store->loop = loop;
	store->conf = conf;
	store->health.on_failing = on_failing;
	store->post.run = on_refused;
	store->probe.on_fire = on_probe;
	list_init(&store->refused);
	store->reads = sqlite_reads_new(loop, path, &store->health);
	store->slow_reads = sqlite_slow_reads_new(loop, path);
	if (store->reads != NULL)
		store->writes = sqlite_writes_new(loop, conf, path, shm, backplane, &store->health);
	if (store->writes == NULL)
		store_free(&store);
	return store;
}

struct store *
store_new_direct(const struct conf *conf)
{
	const char *path = path_of(conf);
	struct store *store;
	struct sqlite_db_conf db;

	if (path == NULL)
		return NULL;
	store = xcalloc(1, sizeof(*store));
	db = (struct sqlite_db_conf){.path = path,
	    .is_writer = true,
	    .busy_wait_ms = DIRECT_WAIT_MS,
	    .failure = &store->failure};
	if (sqlite_db_open(&db, &store->direct) == 0)
		return store;
	log_error("store cannot be opened %s", store->failure.text);
	free(store);
	return NULL;
}

void
store_free(struct store **ref)
{
	struct store *store = *ref;
	struct job *job;

	if (store == NULL)
		return;
	if (store->direct == NULL) {
		sqlite_writes_free(&store->writes);
		sqlite_reads_free(&store->reads);
		sqlite_slow_reads_free(&store->slow_reads);
		loop_post_cancel(store->loop, &store->post);
		loop_timer_stop(store->loop, &store->probe);
		while ((job = list_first(&store->refused, struct job, node)) != NULL)
			job_drop(job);
	}
	sqlite_db_close(&store->direct);
	free(store);
	*ref = NULL;
}

int
store_migrate(const struct conf *conf)
{
	const char *path = path_of(conf);

	return path != NULL ? sqlite_migrate(path) : E_UNAVAILABLE;
}
