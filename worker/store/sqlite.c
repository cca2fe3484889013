/*
 * sqlite - the record in a SQLite file: one elected worker of the host writes, everyone reads.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/err.h"
#include "common/log.h"
#include "worker/store/backend.h"
#include "worker/store/migrations.h"
#include "worker/store/sqlite_db.h"
#include "worker/store/sqlite_reads.h"
#include "worker/store/sqlite_slow_reads.h"
#include "worker/store/sqlite_writes.h"

enum { DIRECT_WAIT_MS = 10000 }; /* for the lock of the server's writer */

struct sqlite {
	struct sqlite_reads *reads;
	struct sqlite_slow_reads *slow_reads;
	struct sqlite_writes *writes;
};

struct direct {
	struct sqlite_db *db;
	struct sqlite_failure failure;
};

static bool
is_ours(const char *url)
{
	return sqlite_path_of(url) != NULL;
}

static void
sqlite_close(void *backend)
{
	struct sqlite *s = backend;

	sqlite_writes_free(&s->writes);
	sqlite_reads_free(&s->reads);
	sqlite_slow_reads_free(&s->slow_reads);
	free(s);
}

static void *
sqlite_open(const struct backend_env *env)
{
	const char *path = sqlite_path_of(env->conf->store.url);
	struct sqlite *s = xcalloc(1, sizeof(*s));

	s->reads = sqlite_reads_new(env->loop, path, env->health);
	s->slow_reads = sqlite_slow_reads_new(env->loop, path);
	if (s->reads != NULL)
		s->writes = sqlite_writes_new(
		    env->loop, env->conf, path, env->shm, env->backplane, env->health);
	if (s->writes != NULL)
		return s;
	sqlite_close(s);
	return NULL;
}

static void
sqlite_add(void *backend, struct job *job)
{
	struct sqlite *s = backend;

	job_count(job);
	if (job->op->is_write)
		sqlite_writes_add(s->writes, job);
	else if (job->op->is_slow)
		sqlite_slow_reads_add(s->slow_reads, job);
	else
		sqlite_reads_add(s->reads, job);
}

static bool
sqlite_is_elected(const void *backend)
{
	return sqlite_writes_is_writer(((const struct sqlite *)backend)->writes);
}

/* ---- for the command line ---- */

static void *
open_direct(const struct conf *conf)
{
	struct direct *d = xcalloc(1, sizeof(*d));
	struct sqlite_db_conf db = {.path = sqlite_path_of(conf->store.url),
	    .is_writer = true,
	    .busy_wait_ms = DIRECT_WAIT_MS,
	    .failure = &d->failure};

	if (sqlite_db_open(&db, &d->db) == 0) {
		sqlite_db_be_careful(
		    d->db, true); /* one operation at a time: nothing is run again */
		return d;
	}
	log_error("store cannot be opened %s", d->failure.text);
	free(d);
	return NULL;
}

static void
close_direct(void *backend)
{
	struct direct *d = backend;

	sqlite_db_close(&d->db);
	free(d);
}

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
run_direct(void *backend, struct op_call *call, struct op_answer *answer)
{
	struct direct *d = backend;
	struct op_call_view view;

	check(op_call_read(buf_str(&call->wire), &view));
	if (run_in_transaction(d->db, &view, answer) != 0) {
		op_answer_clear(answer);
		answer->err = E_STORE_UNAVAILABLE;
	}
	if (d->failure.text[0] != '\0')
		log_error("store failed %s", d->failure.text);
	d->failure.text[0] = '\0';
	op_call_fini(call);
}

static int
migrate(const struct conf *conf)
{
	return sqlite_migrate(sqlite_path_of(conf->store.url));
}

const struct backend sqlite_backend = {
    .is_ours = is_ours,
    .open = sqlite_open,
    .close = sqlite_close,
    .add = sqlite_add,
    .is_elected = sqlite_is_elected,
    .open_direct = open_direct,
    .close_direct = close_direct,
    .run_direct = run_direct,
    .migrate = migrate,
};
