/*
 * store - the record's door: takes operations to the backend, bounds their number,
 * and knows whether the record can be reached.
 */
#include "worker/store/store.h"

#include <stdlib.h>

#include "common/arena.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/store/backend.h"
#include "worker/store/leases.h"
#include "worker/store/run.h"

enum { PROBE_MS = 500 }; /* while it fails */

struct store {
	struct loop *loop;
	const struct conf *conf;
	struct store_health health;
	const struct backend *backend;
	void *opened;          /* the backend's, */
	void *direct;          /* or this in its place */
	struct leases *leases; /* NULL: nobody shares the record */
	size_t in_flight;
	struct list refused;
	struct loop_post post;
	struct loop_timer probe;
	bool is_probing_reads, is_probing_writes;
	struct store_lost_hook *lost_hooks; /* in the arena */
	size_t lost_hook_count;
	struct arena arena;
};

/* Asks whether the database takes a write; changes nothing. */
const struct op op_probe = {
    .name = "probe",
    .params = "",
    .is_write = true,
    .is_upkeep = true,
    .statements = {{.sql = "UPDATE generations SET value = value WHERE name = 'probe'"}},
};

void
store_use_lost_hooks(struct store *store, const struct store_lost_hook *hooks, size_t count)
{
	struct store_lost_hook *own = arena_alloc(&store->arena, (count + 1) * sizeof(*own));

	for (size_t i = 0; i < count; i++)
		own[i] = (struct store_lost_hook){
		    arena_strdup(&store->arena, str_of(hooks[i].endpoint_id)),
		    arena_strdup(&store->arena, str_of(hooks[i].app_id)),
		    arena_strdup(&store->arena, str_of(hooks[i].place)),
		    arena_strdup(&store->arena, str_of(hooks[i].data_head)),
		    arena_strdup(&store->arena, str_of(hooks[i].data_tail)),
		};
	store->lost_hooks = own;
	store->lost_hook_count = count;
}

size_t
store_lost_hooks(const struct store *store, const struct store_lost_hook **ret)
{
	*ret = store->lost_hooks;
	return store->lost_hook_count;
}

/* ---- running ---- */

static void
run_direct(struct store *store, struct op_call *call, store_decode *decode,
    store_callback *callback, void *arg)
{
	struct op_answer answer = {.err = 0};
	struct op_rows rows;

	store->backend->run_direct(store->direct, call, &answer);
	rows = op_rows_of(&answer);
	decode(&rows, callback, arg);
	op_answer_fini(&answer);
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
	} else {
		store->backend->add(store->opened, job);
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
	/* Our own questions would keep a worker that wants to end, as long as nobody answers. */
	return store->in_flight <=
	       (size_t)store->is_probing_reads + (size_t)store->is_probing_writes;
}

bool
store_is_elected(const struct store *store)
{
	if (store->leases != NULL)
		return leases_is_elected(store->leases);
	return store->opened != NULL && store->backend->is_elected(store->opened);
}

bool
store_is_host_over(const struct store *store, uint64_t host)
{
	return store->leases == NULL || leases_is_over(store->leases, host);
}

void
store_on_host_over(struct store *store, void (*on_over)(void *arg, uint64_t host), void *arg)
{
	if (store->leases != NULL)
		leases_on_over(store->leases, on_over, arg);
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

static const struct backend *
backend_of(const struct conf *conf)
{
	static const struct backend *const backends[] = {&sqlite_backend, &pg_backend};

	for (size_t i = 0; i < ARRAY_LEN(backends); i++)
		if (backends[i]->is_ours(conf->store.url))
			return backends[i];
	log_error("store url must begin with sqlite: or postgres://");
	return NULL;
}

static struct store *
new_of(const struct conf *conf)
{
	const struct backend *backend = backend_of(conf);
	struct store *store;

	if (backend == NULL)
		return NULL;
	store = xcalloc(1, sizeof(*store));
	store->backend = backend;
	store->conf = conf;
	return store;
}

struct store *
store_new(struct loop *loop, const struct conf *conf, struct shm *shm, struct backplane *backplane)
{
	struct store *store = new_of(conf);
	struct backend_env env = {loop, conf, shm, backplane, NULL};

	if (store == NULL)
		return NULL;
	store->loop = loop;
	store->health.on_failing = on_failing;
	store->post.run = on_refused;
	store->probe.on_fire = on_probe;
	list_init(&store->refused);
	env.health = &store->health;
	store->opened = store->backend->open(&env);
	if (store->opened == NULL)
		store_free(&store);
	else if (store->backend->is_shared && shm != NULL)
		store->leases = leases_new(loop, conf, shm, backplane_self(backplane).who, store);
	return store;
}

struct store *
store_new_direct(const struct conf *conf)
{
	struct store *store = new_of(conf);

	if (store == NULL)
		return NULL;
	store->direct = store->backend->open_direct(conf);
	if (store->direct != NULL)
		return store;
	arena_fini(&store->arena);
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
	if (store->direct != NULL) {
		store->backend->close_direct(store->direct);
	} else {
		leases_free(&store->leases);
		if (store->opened != NULL)
			store->backend->close(store->opened);
		loop_post_cancel(store->loop, &store->post);
		loop_timer_stop(store->loop, &store->probe);
		while ((job = list_first(&store->refused, struct job, node)) != NULL)
			job_drop(job);
	}
	arena_fini(&store->arena);
	free(store);
	*ref = NULL;
}

int
store_migrate(const struct conf *conf)
{
	const struct backend *backend = backend_of(conf);

	return backend != NULL ? backend->migrate(conf) : E_UNAVAILABLE;
}
