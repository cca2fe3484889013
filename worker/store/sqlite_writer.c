/*
 * sqlite_writer - the one thread of the host that writes the SQLite file.
 *
 *   loop     push -> fresh -> queue                         done -> on_done
 *                               |                            ^
 *   thread                      +-> begin, run each, commit -+
 *
 * A transaction is open as long as writes arrive, at most gather_ms. It waits for
 * them only until it has as many as the last one: a write that comes alone is
 * committed at once.
 */
#include "worker/store/sqlite_writer.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"

enum {
	BATCH_MAX = 2000,           /* writes in one transaction */
	LOG_PAGES_SOON = 1000,      /* move the log when nothing is queued, */
	LOG_PAGES_NOW = 4000,       /* even then, */
	LOG_PAGES_TOO_MANY = 32000, /* and wait for readers to let it start anew (128 MiB) */
	REOPEN_MS = 250,
	BUSY_WAIT_MS = 200,
	IDLE_MS = 3600 * 1000, /* until something is pushed */
};

struct sqlite_writer {
	struct loop *loop;
	struct loop_post post, hand_over;
	struct list fresh; /* pushed in this round of the loop: they go over together */
	struct sqlite_writer_conf conf;
	char *path;
	pthread_t thread;

	pthread_mutex_t mutex;
	pthread_cond_t has_work;
	struct list queue, done; /* under the mutex, with the next two */
	size_t queued;           /* pushed, on_done not called */
	bool is_ending;

	/* The thread's own. */
	struct sqlite_db *db;
	struct sqlite_failure failure;
	struct op_call_view view;
	struct op_answer answer;
	uint64_t reopen_at_ms;
	size_t last_batch;
	bool is_locked_out; /* logged */
};

/* ---- the thread ---- */

static void
log_failure(struct sqlite_writer *w, int err)
{
	if (w->failure.text[0] != '\0' && err == E_BUSY && !w->is_locked_out)
		log_warn("store write waits %s", w->failure.text);
	else if (w->failure.text[0] != '\0' && err != E_BUSY)
		log_error("store write failed %s", w->failure.text);
	w->is_locked_out = err == E_BUSY;
	w->failure.text[0] = '\0';
}

static bool
open_db(struct sqlite_writer *w)
{
	struct sqlite_db_conf conf = {.path = w->path,
	    .is_writer = true,
	    .is_synced_late = w->conf.is_synced_late,
	    .busy_wait_ms = BUSY_WAIT_MS,
	    .failure = &w->failure};

	if (w->db != NULL)
		return true;
	if (clock_mono_ms() < w->reopen_at_ms)
		return false;
	w->reopen_at_ms = clock_mono_ms() + REOPEN_MS;
	return sqlite_db_open(&conf, &w->db) == 0;
}

/* A deadline in CLOCK_MONOTONIC for pthread_cond_timedwait. */
static struct timespec
in_us(uint64_t us)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	us += (uint64_t)t.tv_nsec / 1000;
	t.tv_sec += (time_t)(us / 1000000);
	t.tv_nsec = (long)(us % 1000000) * 1000;
	return t;
}

static void
move_all(struct list *from, struct list *to)
{
	for (struct list *node; !list_empty(from);) {
		node = from->next;
		list_del(node);
		list_add_tail(to, node);
	}
}

/* What is queued, or what comes within wait_us. False: nothing did. */
static bool
take(struct sqlite_writer *w, struct list *batch, uint64_t wait_us)
{
	struct timespec until = in_us(wait_us);
	bool has_any;

	pthread_mutex_lock(&w->mutex);
	while (list_empty(&w->queue) && !w->is_ending && wait_us > 0)
		if (pthread_cond_timedwait(&w->has_work, &w->mutex, &until) == ETIMEDOUT)
			break;
	has_any = !list_empty(&w->queue);
	move_all(&w->queue, batch);
	pthread_mutex_unlock(&w->mutex);
	return has_any;
}

static int
write_one(struct sqlite_writer *w, struct sqlite_write *write)
{
	int err;

	if (!op_call_read(write->wire, &w->view) || !w->view.op->is_write) {
		op_answer_clear(&w->answer);
		w->answer.err = E_INTERNAL;
		err = 0;
	} else {
		err = sqlite_db_write(w->db, &w->view, &w->answer);
	}
	if (err == 0) {
		op_answer_write(&w->answer, &write->answer);
		log_failure(w, 0);
	}
	return err;
}

/* Runs `incoming` in the open transaction and moves it to `batch`. */
static int
write_all(struct sqlite_writer *w, struct list *incoming, struct list *batch, size_t *count)
{
	struct sqlite_write *write;
	int err = 0;

	while ((write = list_first(incoming, struct sqlite_write, node)) != NULL) {
		list_del(&write->node);
		list_add_tail(batch, &write->node);
		(*count)++;
		if (err == 0 && clock_mono_ms() >= write->deadline_ms)
			write->err = E_BUSY;
		else if (err == 0)
			err = write_one(w, write);
	}
	return err;
}

/* One transaction: what is in `incoming`, and what arrives while it is open. */
static int
write_transaction(struct sqlite_writer *w, struct list *incoming, struct list *batch)
{
	uint64_t end_us = clock_mono_us() + w->conf.gather_ms * 1000, now_us;
	size_t count = 0;
	int err;

	if ((err = sqlite_db_begin(w->db)) != 0)
		return err;
	while ((err = write_all(w, incoming, batch, &count)) == 0 && count < BATCH_MAX) {
		now_us = clock_mono_us();
		if (now_us >= end_us)
			break;
		if (!take(w, incoming, count < w->last_batch ? end_us - now_us : 0))
			break;
	}
	if (err != 0)
		sqlite_db_rollback(w->db);
	else
		err = sqlite_db_commit(w->db);
	w->last_batch = count;
	return err;
}

/* Nothing of them has happened: all of them once more, in their order. */
static void
begin_again(struct list *incoming, struct list *batch)
{
	move_all(incoming, batch);
	move_all(batch, incoming);
	list_for (node, incoming) {
		struct sqlite_write *write = list_entry(node, struct sqlite_write, node);

		write->err = 0;
		buf_clear(&write->answer);
	}
}

static int
write_batch(struct sqlite_writer *w, struct list *incoming, struct list *batch)
{
	int err;

	if (!open_db(w))
		return E_STORE_UNAVAILABLE;
	err = write_transaction(w, incoming, batch);
	if (err != SQLITE_DB_TORN)
		return err;
	begin_again(incoming, batch);
	sqlite_db_be_careful(w->db, true);
	err = write_transaction(w, incoming, batch);
	sqlite_db_be_careful(w->db, false);
	return err;
}

static void
give_back(struct sqlite_writer *w, struct list *batch, int err)
{
	if (err != 0)
		list_for (node, batch)
			list_entry(node, struct sqlite_write, node)->err = err;
	pthread_mutex_lock(&w->mutex);
	move_all(batch, &w->done);
	pthread_mutex_unlock(&w->mutex);
	loop_post(w->loop, &w->post);
}

static void
checkpoint(struct sqlite_writer *w)
{
	unsigned pages = w->db != NULL ? sqlite_db_log_pages_new(w->db) : 0;
	bool is_idle;

	if (pages < LOG_PAGES_SOON)
		return;
	pthread_mutex_lock(&w->mutex);
	is_idle = list_empty(&w->queue);
	pthread_mutex_unlock(&w->mutex);
	if (!is_idle && pages < LOG_PAGES_NOW)
		return;
	/* Busy: readers hold a part of it; the next one moves that. */
	if (sqlite_db_checkpoint(w->db, sqlite_db_log_pages(w->db) > LOG_PAGES_TOO_MANY) ==
	    E_STORE_UNAVAILABLE)
		log_failure(w, E_STORE_UNAVAILABLE);
	w->failure.text[0] = '\0';
}

static bool
is_over(struct sqlite_writer *w)
{
	bool is_over;

	pthread_mutex_lock(&w->mutex);
	is_over = w->is_ending && list_empty(&w->queue);
	pthread_mutex_unlock(&w->mutex);
	return is_over;
}

static void *
write_for_ever(void *arg)
{
	struct sqlite_writer *w = arg;
	struct list incoming, batch;
	int err;

	list_init(&incoming);
	list_init(&batch);
	while (!is_over(w)) {
		if (!take(w, &incoming, IDLE_MS * UINT64_C(1000)))
			continue;
		err = write_batch(w, &incoming, &batch);
		log_failure(w, err);
		if (err == E_STORE_UNAVAILABLE)
			sqlite_db_close(&w->db);
		move_all(&incoming, &batch);
		give_back(w, &batch, err);
		checkpoint(w);
	}
	sqlite_db_close(&w->db);
	op_answer_fini(&w->answer);
	return NULL;
}

/* ---- the loop ---- */

static void
deliver(struct sqlite_writer *w)
{
	struct sqlite_write *write;
	struct list done;

	list_init(&done);
	pthread_mutex_lock(&w->mutex);
	move_all(&w->done, &done);
	pthread_mutex_unlock(&w->mutex);
	while ((write = list_first(&done, struct sqlite_write, node)) != NULL) {
		list_del(&write->node);
		w->queued--;
		write->on_done(write);
	}
}

static void
on_post(struct loop_post *post)
{
	deliver(container_of(post, struct sqlite_writer, post));
}

/* To wake the thread for each of them would have it commit the first one alone. */
static void
on_hand_over(struct loop_post *post)
{
	struct sqlite_writer *w = container_of(post, struct sqlite_writer, hand_over);
	bool was_empty;

	pthread_mutex_lock(&w->mutex);
	was_empty = list_empty(&w->queue);
	move_all(&w->fresh, &w->queue);
	if (was_empty)
		pthread_cond_signal(&w->has_work);
	pthread_mutex_unlock(&w->mutex);
}

int
sqlite_writer_push(struct sqlite_writer *w, struct sqlite_write *write)
{
	if (w->queued >= w->conf.queue_max)
		return E_BUSY;
	w->queued++;
	write->err = 0;
	write->answer = BUF_INIT;
	if (list_empty(&w->fresh))
		loop_post(w->loop, &w->hand_over);
	list_add_tail(&w->fresh, &write->node);
	return 0;
}

static void
start_thread(struct sqlite_writer *w)
{
	sigset_t all, before;

	/* Signals are the loop's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	check(pthread_create(&w->thread, NULL, write_for_ever, w) == 0);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

struct sqlite_writer *
sqlite_writer_new(struct loop *loop, const struct sqlite_writer_conf *conf)
{
	struct sqlite_writer *w = xcalloc(1, sizeof(*w));
	pthread_condattr_t attr;

	w->loop = loop;
	w->conf = *conf;
	w->path = xstrdup(conf->path);
	w->post.run = on_post;
	w->hand_over.run = on_hand_over;
	list_init(&w->fresh);
	list_init(&w->queue);
	list_init(&w->done);
	pthread_mutex_init(&w->mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->has_work, &attr);
	pthread_condattr_destroy(&attr);
	start_thread(w);
	return w;
}

void
sqlite_writer_free(struct sqlite_writer **ref)
{
	struct sqlite_writer *w = *ref;

	if (w == NULL)
		return;
	*ref = NULL;
	loop_post_cancel(w->loop, &w->hand_over);
	on_hand_over(&w->hand_over);
	pthread_mutex_lock(&w->mutex);
	w->is_ending = true;
	pthread_cond_signal(&w->has_work);
	pthread_mutex_unlock(&w->mutex);
	pthread_join(w->thread, NULL);
	loop_post_cancel(w->loop, &w->post);
	deliver(w);
	pthread_cond_destroy(&w->has_work);
	pthread_mutex_destroy(&w->mutex);
	free(w->path);
	free(w);
}
