/*
 * sqlite_reads - this worker's own reading of the SQLite file, on the loop.
 *
 * Jobs wait in order. While the database fails they are tried again every few
 * milliseconds, on a new connection, until their time is over.
 */
#include "worker/store/sqlite_reads.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/err.h"
#include "common/log.h"
#include "worker/store/sqlite_db.h"

enum {
	JOBS_PER_ROUND = 64, /* then the loop's other work has its turn */
	RETRY_MS = 25,
	REOPEN_WAIT_MS = 5,
};

struct sqlite_reads {
	struct loop *loop;
	char *path;
	struct store_health *health;
	struct sqlite_db *db;
	struct sqlite_failure failure;
	bool is_started; /* it has been open once */
	struct list jobs;
	struct loop_post post;
	struct loop_timer retry;
	struct op_call_view view;
	struct op_answer answer;
};

static int
open_db(struct sqlite_reads *r)
{
	/* Once the loop turns, nothing waits long on it: there are further tries. */
	struct sqlite_db_conf conf = {.path = r->path,
	    .open_wait_ms = r->is_started ? REOPEN_WAIT_MS : 0,
	    .failure = &r->failure};

	return r->db != NULL ? 0 : sqlite_db_open(&conf, &r->db);
}

static int
read_one(struct sqlite_reads *r, struct job *job)
{
	int err = open_db(r);

	check(op_call_read(buf_str(&job->wire), &r->view));
	if (err == 0)
		err = sqlite_db_read(r->db, &r->view, &r->answer);
	if (r->failure.text[0] != '\0' && err != E_BUSY)
		log_error("store read failed %s", r->failure.text);
	r->failure.text[0] = '\0';
	if (err == E_STORE_UNAVAILABLE)
		sqlite_db_close(&r->db);
	return err;
}

static void
drop_late(struct sqlite_reads *r)
{
	struct job *job;

	while ((job = list_first(&r->jobs, struct job, node)) != NULL &&
	       loop_now_ms(r->loop) >= job->deadline_ms)
		job_fail(job, E_STORE_UNAVAILABLE);
}

static void
read_some(struct sqlite_reads *r)
{
	for (int i = 0; i < JOBS_PER_ROUND && !list_empty(&r->jobs); i++) {
		struct job *job = list_first(&r->jobs, struct job, node);
		struct op_rows rows;
		int err = read_one(r, job);

		if (err != E_BUSY)
			store_health_reads(r->health, err == 0, loop_now_ms(r->loop));
		if (err != 0) {
			drop_late(r);
			loop_timer_set(r->loop, &r->retry, RETRY_MS);
			return;
		}
		rows = op_rows_of(&r->answer);
		job_finish(job, &rows);
	}
	if (!list_empty(&r->jobs))
		loop_post(r->loop, &r->post);
}

static void
on_post(struct loop_post *post)
{
	struct sqlite_reads *r = container_of(post, struct sqlite_reads, post);

	if (!loop_timer_is_set(&r->retry))
		read_some(r);
}

static void
on_retry(struct loop_timer *timer)
{
	read_some(container_of(timer, struct sqlite_reads, retry));
}

void
sqlite_reads_add(struct sqlite_reads *r, struct job *job)
{
	list_add_tail(&r->jobs, &job->node);
	loop_post(r->loop, &r->post);
}

struct sqlite_reads *
sqlite_reads_new(struct loop *loop, const char *path, struct store_health *health)
{
	struct sqlite_reads *r = xcalloc(1, sizeof(*r));

	r->loop = loop;
	r->path = xstrdup(path);
	r->health = health;
	r->post.run = on_post;
	r->retry.on_fire = on_retry;
	list_init(&r->jobs);
	r->is_started = open_db(r) == 0;
	if (r->is_started)
		return r;
	log_error("store cannot be opened %s", r->failure.text);
	sqlite_reads_free(&r);
	return NULL;
}

void
sqlite_reads_free(struct sqlite_reads **ref)
{
	struct sqlite_reads *r = *ref;
	struct job *job;

	if (r == NULL)
		return;
	*ref = NULL;
	loop_post_cancel(r->loop, &r->post);
	loop_timer_stop(r->loop, &r->retry);
	while ((job = list_first(&r->jobs, struct job, node)) != NULL)
		job_drop(job);
	sqlite_db_close(&r->db);
	op_answer_fini(&r->answer);
	free(r->path);
	free(r);
}
