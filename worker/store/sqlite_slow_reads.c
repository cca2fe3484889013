/*
 * sqlite_slow_reads - reads that walk many rows, in a thread of their own.
 *
 *   loop     add -> queue               done -> job_finish
 *                     |                  ^
 *   thread            +-> one at a time -+
 */
#include "worker/store/sqlite_slow_reads.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "worker/store/sqlite_db.h"

enum { BUSY_WAIT_MS = 200 };

struct sqlite_slow_reads {
	struct loop *loop;
	char *path;
	struct loop_post post;
	bool has_thread;
	pthread_t thread;

	pthread_mutex_t mutex;
	pthread_cond_t has_work;
	struct list queue, done; /* under the mutex, with the next two */
	bool is_ending;
	struct sqlite_db *db; /* opened and used by the thread; broken off by the loop */

	/* The thread's own. */
	struct sqlite_failure failure;
	struct op_call_view view;
};

/* ---- the thread ---- */

static int
open_db(struct sqlite_slow_reads *r)
{
	struct sqlite_db_conf conf = {
	    .path = r->path, .busy_wait_ms = BUSY_WAIT_MS, .failure = &r->failure};
	struct sqlite_db *db = NULL;
	int err;

	if (r->db != NULL)
		return 0;
	err = sqlite_db_open(&conf, &db);
	pthread_mutex_lock(&r->mutex);
	r->db = db;
	pthread_mutex_unlock(&r->mutex);
	return err;
}

static void
close_db(struct sqlite_slow_reads *r)
{
	struct sqlite_db *db;

	pthread_mutex_lock(&r->mutex);
	db = r->db;
	r->db = NULL;
	pthread_mutex_unlock(&r->mutex);
	sqlite_db_close(&db);
}

static void
read_one(struct sqlite_slow_reads *r, struct job *job)
{
	int err = clock_mono_ms() < job->deadline_ms ? open_db(r) : E_STORE_UNAVAILABLE;

	check(op_call_read(buf_str(&job->wire), &r->view));
	if (err == 0)
		err = sqlite_db_read(r->db, &r->view, &job->answer);
	if (r->failure.text[0] != '\0')
		log_error("store slow read failed %s", r->failure.text);
	r->failure.text[0] = '\0';
	if (err == 0)
		return;
	op_answer_clear(&job->answer);
	job->answer.err = E_STORE_UNAVAILABLE;
	close_db(r);
}

static void *
read_for_ever(void *arg)
{
	struct sqlite_slow_reads *r = arg;
	struct job *job;

	pthread_mutex_lock(&r->mutex);
	while (!r->is_ending) {
		if ((job = list_first(&r->queue, struct job, node)) == NULL) {
			pthread_cond_wait(&r->has_work, &r->mutex);
			continue;
		}
		list_del(&job->node);
		pthread_mutex_unlock(&r->mutex);
		read_one(r, job);
		pthread_mutex_lock(&r->mutex);
		list_add_tail(&r->done, &job->node);
		loop_post(r->loop, &r->post);
	}
	pthread_mutex_unlock(&r->mutex);
	close_db(r);
	return NULL;
}

/* ---- the loop ---- */

static struct job *
take_done(struct sqlite_slow_reads *r)
{
	struct job *job;

	pthread_mutex_lock(&r->mutex);
	if ((job = list_first(&r->done, struct job, node)) != NULL)
		list_del(&job->node);
	pthread_mutex_unlock(&r->mutex);
	return job;
}

static void
on_post(struct loop_post *post)
{
	struct sqlite_slow_reads *r = container_of(post, struct sqlite_slow_reads, post);
	struct job *job;

	while ((job = take_done(r)) != NULL) {
		struct op_answer answer = job->answer;
		struct op_rows rows = op_rows_of(&answer);

		job->answer = (struct op_answer){.err = 0};
		job_finish(job, &rows);
		op_answer_fini(&answer);
	}
}

static void
start_thread(struct sqlite_slow_reads *r)
{
	sigset_t all, before;

	/* Signals are the loop's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	check(pthread_create(&r->thread, NULL, read_for_ever, r) == 0);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	r->has_thread = true;
}

void
sqlite_slow_reads_add(struct sqlite_slow_reads *r, struct job *job)
{
	if (!r->has_thread)
		start_thread(r);
	pthread_mutex_lock(&r->mutex);
	list_add_tail(&r->queue, &job->node);
	pthread_cond_signal(&r->has_work);
	pthread_mutex_unlock(&r->mutex);
}

struct sqlite_slow_reads *
sqlite_slow_reads_new(struct loop *loop, const char *path)
{
	struct sqlite_slow_reads *r = xcalloc(1, sizeof(*r));

	r->loop = loop;
	r->path = xstrdup(path);
	r->post.run = on_post;
	pthread_mutex_init(&r->mutex, NULL);
	pthread_cond_init(&r->has_work, NULL);
	list_init(&r->queue);
	list_init(&r->done);
	return r;
}

static void
end_thread(struct sqlite_slow_reads *r)
{
	if (!r->has_thread)
		return;
	pthread_mutex_lock(&r->mutex);
	r->is_ending = true;
	if (r->db != NULL)
		sqlite_db_interrupt(r->db);
	pthread_cond_signal(&r->has_work);
	pthread_mutex_unlock(&r->mutex);
	pthread_join(r->thread, NULL);
}

void
sqlite_slow_reads_free(struct sqlite_slow_reads **ref)
{
	struct sqlite_slow_reads *r = *ref;
	struct job *job;

	if (r == NULL)
		return;
	*ref = NULL;
	end_thread(r);
	loop_post_cancel(r->loop, &r->post);
	while ((job = take_done(r)) != NULL)
		job_drop(job);
	while ((job = list_first(&r->queue, struct job, node)) != NULL)
		job_drop(job);
	pthread_cond_destroy(&r->has_work);
	pthread_mutex_destroy(&r->mutex);
	free(r->path);
	free(r);
}
