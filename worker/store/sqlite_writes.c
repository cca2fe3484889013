/*
 * sqlite_writes - the way of a write to the elected writer, which may be here.
 *
 *   waiting --send--> sent --answer--> finished
 *      ^               |
 *      +--- no luck ---+          (the writer is gone, full, or cannot write now)
 *
 * Both lists are in the order in which the writes came; so are their deadlines.
 */
#include "worker/store/sqlite_writes.h"

#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/idmap.h"
#include "common/log.h"
#include "worker/store/election.h"
#include "worker/store/sqlite_writer.h"

enum {
	RETRY_GONE_MS = 5,     /* the writer died: another is elected meanwhile */
	RETRY_BUSY_MS = 10,    /* its queue is full */
	RETRY_NOBODY_MS = 25,  /* no writer: somebody may be about to become one */
	RETRY_FAILED_MS = 100, /* the database cannot be written */
};

struct sqlite_writes {
	struct loop *loop;
	const struct conf *conf;
	char *path;
	struct backplane *backplane;
	struct store_health *health;
	struct election election;
	struct sqlite_writer *writer; /* while elected */
	struct list waiting, sent;
	struct list calls;  /* to other workers, unanswered */
	struct idmap *jobs; /* those sent, by handle */
	uint64_t next_seq;
	struct loop_post post;
	struct loop_timer retry, expiry;
};

/* A write in this worker's writer: a job's, or another worker's. */
struct local_write {
	struct sqlite_write write;
	struct sqlite_writes *owner;
	struct buf wire;
	uint64_t job; /* its handle: the job may be over before the write is. 0: */
	struct backplane_addr from;
	uint64_t call_id;
};

/* A write that another worker was asked for. */
struct remote_call {
	struct list node;
	struct sqlite_writes *owner;
	uint64_t job;
};

static void
retry_in(struct sqlite_writes *s, uint64_t delay_ms)
{
	if (!loop_timer_is_set(&s->retry) || s->retry.due_ms > loop_now_ms(s->loop) + delay_ms)
		loop_timer_set(s->loop, &s->retry, delay_ms);
}

/* ---- answers ---- */

static void
enqueue(struct list *list, struct job *job)
{
	struct list *before = list->prev;

	/* Mostly it belongs at the end. */
	while (before != list && list_entry(before, struct job, node)->seq > job->seq)
		before = before->prev;
	list_insert_between(&job->node, before, before->next);
}

/* Takes a sent job back; NULL: it is over. */
static struct job *
take_back(struct sqlite_writes *s, uint64_t handle)
{
	struct job *job = idmap_get(s->jobs, handle);

	if (job == NULL)
		return NULL;
	idmap_remove(s->jobs, handle);
	job->handle = 0;
	list_del(&job->node);
	return job;
}

static void
finish(struct sqlite_writes *s, struct job *job, struct str wire)
{
	struct op_rows rows;

	store_health_writes(s->health, true, loop_now_ms(s->loop));
	if (!op_rows_read(wire, &rows)) {
		log_error("store answer malformed op=%s", job->op->name);
		rows = (struct op_rows){.err = E_INTERNAL};
	}
	job_finish(job, &rows);
}

static void
wait_again(struct sqlite_writes *s, struct job *job, int err)
{
	enqueue(&s->waiting, job);
	if (err == E_GONE) {
		retry_in(s, RETRY_GONE_MS);
		return;
	}
	if (err == E_BUSY) {
		retry_in(s, RETRY_BUSY_MS);
		return;
	}
	store_health_writes(s->health, false, loop_now_ms(s->loop));
	retry_in(s, RETRY_FAILED_MS);
}

static void
on_answer(struct sqlite_writes *s, uint64_t handle, int err, struct str wire)
{
	struct job *job = take_back(s, handle);

	if (job == NULL)
		return;
	if (err == 0)
		finish(s, job, wire);
	else
		wait_again(s, job, err);
}

static void
fail_late(struct sqlite_writes *s, struct list *list)
{
	struct job *job;

	while ((job = list_first(list, struct job, node)) != NULL &&
	       loop_now_ms(s->loop) >= job->deadline_ms) {
		if (job->handle != 0)
			idmap_remove(s->jobs, job->handle);
		store_health_writes(s->health, false, loop_now_ms(s->loop));
		job_fail(job, E_STORE_UNAVAILABLE);
	}
}

static void
set_expiry(struct sqlite_writes *s)
{
	struct job *a = list_first(&s->waiting, struct job, node);
	struct job *b = list_first(&s->sent, struct job, node);
	uint64_t now_ms = loop_now_ms(s->loop), due_ms = UINT64_MAX;

	if (a != NULL)
		due_ms = a->deadline_ms;
	if (b != NULL && b->deadline_ms < due_ms)
		due_ms = b->deadline_ms;
	if (due_ms != UINT64_MAX)
		loop_timer_set(s->loop, &s->expiry, due_ms > now_ms ? due_ms - now_ms : 0);
}

static void
on_expiry(struct loop_timer *timer)
{
	struct sqlite_writes *s = container_of(timer, struct sqlite_writes, expiry);

	fail_late(s, &s->waiting);
	fail_late(s, &s->sent);
	set_expiry(s);
}

/* ---- this worker's writer ---- */

static void
local_free(struct local_write *local)
{
	buf_fini(&local->write.answer);
	buf_fini(&local->wire);
	free(local);
}

static void
on_written(struct sqlite_write *write)
{
	struct local_write *local = container_of(write, struct local_write, write);
	struct sqlite_writes *s = local->owner;
	struct job *job;

	if (local->call_id != 0)
		backplane_reply(
		    s->backplane, local->from, local->call_id, write->err, buf_str(&write->answer));
	else if ((job = take_back(s, local->job)) != NULL) {
		job->wire = local->wire;
		local->wire = BUF_INIT;
		if (write->err == 0)
			finish(s, job, buf_str(&write->answer));
		else
			wait_again(s, job, write->err);
	}
	local_free(local);
}

static int
push(struct sqlite_writes *s, struct local_write *local, uint64_t deadline_ms)
{
	local->owner = s;
	local->write.wire = buf_str(&local->wire);
	local->write.deadline_ms = deadline_ms;
	local->write.on_done = on_written;
	return sqlite_writer_push(s->writer, &local->write);
}

static bool
send_here(struct sqlite_writes *s, struct job *job)
{
	struct local_write *local = xcalloc(1, sizeof(*local));

	/* The thread reads the bytes, so they go with the write and come back with it. */
	local->wire = job->wire;
	if (push(s, local, job->deadline_ms) != 0) {
		free(local);
		return false;
	}
	job->wire = BUF_INIT;
	local->job = job->handle;
	return true;
}

static bool
elect(struct sqlite_writes *s)
{
	struct sqlite_writer_conf conf = {
	    .path = s->path,
	    .is_synced_late = strcmp(s->conf->store.synchronous, "normal") == 0,
	    .gather_ms = s->conf->store.commit_delay_ms,
	    .queue_max = (size_t)s->conf->store.max_queue,
	};

	if (s->writer != NULL)
		return true;
	if (!election_try(&s->election))
		return false;
	s->writer = sqlite_writer_new(s->loop, &conf);
	log_info(
	    "store writer elected row=%u number=%u", s->election.me.row, s->election.me.number);
	return true;
}

/* ---- another worker's writer ---- */

static void
on_reply(void *arg, int err, struct str payload)
{
	struct remote_call *call = arg;
	struct sqlite_writes *s = call->owner;
	uint64_t handle = call->job;

	list_del(&call->node);
	free(call);
	if (err == E_GONE)
		elect(s);
	on_answer(s, handle, err, payload);
}

/* The time that is left, then the operation's wire. */
static void
send_there(struct sqlite_writes *s, struct shm_who who, struct job *job)
{
	uint64_t now_ms = loop_now_ms(s->loop);
	uint64_t left_ms = job->deadline_ms > now_ms ? job->deadline_ms - now_ms : 1;
	struct backplane_addr to = {.host = shm_host_id(s->election.shm), .who = who};
	struct remote_call *call = xcalloc(1, sizeof(*call));
	struct buf payload = BUF_INIT;

	call->owner = s;
	call->job = job->handle;
	list_add_tail(&s->calls, &call->node);
	backplane_put_u64(&payload, left_ms);
	backplane_put_str(&payload, buf_str(&job->wire));
	backplane_send_call(s->backplane, to, BACKPLANE_STORE_RUN, buf_str(&payload),
	    (uint32_t)left_ms, on_reply, call);
	buf_fini(&payload);
}

/* Serves a write of another worker. */
static void
on_call(void *arg, const struct backplane_call *call)
{
	struct sqlite_writes *s = arg;
	struct str rest = call->payload, wire;
	struct local_write *local;
	uint64_t left_ms;

	if (s->writer == NULL || !backplane_take_u64(&rest, &left_ms) ||
	    !backplane_take_str(&rest, &wire)) {
		backplane_reply(s->backplane, call->from, call->call_id,
		    s->writer == NULL ? E_GONE : E_INVALID_REQUEST, STR_NONE);
		return;
	}
	local = xcalloc(1, sizeof(*local));
	local->from = call->from;
	local->call_id = call->call_id;
	buf_add_str(&local->wire, wire);
	if (push(s, local, loop_now_ms(s->loop) + left_ms) != 0) {
		backplane_reply(s->backplane, call->from, call->call_id, E_BUSY, STR_NONE);
		local_free(local);
	}
}

static void
on_peer_gone(void *arg, struct backplane_addr peer)
{
	struct sqlite_writes *s = arg;
	struct shm_who who;

	/* The writer's death is everyone's chance; also an idle host wants a writer. */
	if (!election_other(&s->election, &who) || who.number == peer.who.number)
		retry_in(s, 0);
}

/* ---- sending ---- */

static void
mark_sent(struct sqlite_writes *s, struct job *job)
{
	list_del(&job->node);
	enqueue(&s->sent, job);
	if (job->handle == 0)
		job->handle = idmap_add(s->jobs, job);
}

static void
send_waiting(struct sqlite_writes *s)
{
	struct shm_who who;
	struct job *job;

	while ((job = list_first(&s->waiting, struct job, node)) != NULL) {
		bool has_other = s->writer == NULL && election_other(&s->election, &who);

		if (!has_other && !elect(s)) {
			retry_in(s, RETRY_NOBODY_MS);
			return;
		}
		mark_sent(s, job);
		if (has_other) {
			send_there(s, who, job);
		} else if (!send_here(s, job)) {
			wait_again(s, take_back(s, job->handle), E_BUSY);
			return;
		}
	}
}

static void
on_retry(struct loop_timer *timer)
{
	struct sqlite_writes *s = container_of(timer, struct sqlite_writes, retry);
	struct shm_who who;

	if (!election_other(&s->election, &who) && !elect(s))
		retry_in(s, RETRY_NOBODY_MS);
	send_waiting(s);
}

static void
on_post(struct loop_post *post)
{
	struct sqlite_writes *s = container_of(post, struct sqlite_writes, post);

	/* Those behind one that waits for its next try wait too. */
	if (!loop_timer_is_set(&s->retry))
		send_waiting(s);
}

void
sqlite_writes_add(struct sqlite_writes *s, struct job *job)
{
	job->seq = s->next_seq++;
	list_add_tail(&s->waiting, &job->node);
	loop_post(s->loop, &s->post);
	if (!loop_timer_is_set(&s->expiry) || s->expiry.due_ms > job->deadline_ms)
		set_expiry(s);
}

bool
sqlite_writes_is_writer(const struct sqlite_writes *s)
{
	return s->writer != NULL;
}

/* ---- life ---- */

static void
serve(struct sqlite_writes *s)
{
	backplane_serve(s->backplane, BACKPLANE_STORE_RUN, on_call, s);
	backplane_on_peer_gone(s->backplane, on_peer_gone, s);
}

struct sqlite_writes *
sqlite_writes_new(struct loop *loop, const struct conf *conf, const char *path, struct shm *shm,
    struct backplane *backplane, struct store_health *health)
{
	struct sqlite_writes *s = xcalloc(1, sizeof(*s));
	struct shm_who me = {0, 0};
	int rc;

	check((shm == NULL) == (backplane == NULL));
	s->loop = loop;
	s->conf = conf;
	s->path = xstrdup(path);
	s->backplane = backplane;
	s->health = health;
	s->jobs = idmap_new();
	s->post.run = on_post;
	s->retry.on_fire = on_retry;
	s->expiry.on_fire = on_expiry;
	list_init(&s->waiting);
	list_init(&s->sent);
	list_init(&s->calls);
	if (backplane != NULL)
		me = backplane_self(backplane).who;
	rc = election_init(&s->election, shm, me, path);
	if (rc != 0) {
		log_error("store lock file cannot be opened path=\"%s.writer\" reason=\"%s\"", path,
		    strerror(-rc));
		sqlite_writes_free(&s);
		return NULL;
	}
	if (backplane != NULL)
		serve(s);
	retry_in(s, 0);
	return s;
}

static void
drop_all(struct sqlite_writes *s, struct list *list)
{
	struct job *job;

	while ((job = list_first(list, struct job, node)) != NULL) {
		if (job->handle != 0)
			idmap_remove(s->jobs, job->handle);
		job_drop(job);
	}
}

void
sqlite_writes_free(struct sqlite_writes **ref)
{
	struct sqlite_writes *s = *ref;
	struct remote_call *call;

	if (s == NULL)
		return;
	*ref = NULL;
	if (s->writer != NULL)
		send_waiting(s);
	/* The writer has their bytes; who asked for them may be gone already. */
	drop_all(s, &s->waiting);
	drop_all(s, &s->sent);
	sqlite_writer_free(&s->writer);
	election_fini(&s->election);
	loop_post_cancel(s->loop, &s->post);
	loop_timer_stop(s->loop, &s->retry);
	loop_timer_stop(s->loop, &s->expiry);
	while ((call = list_first(&s->calls, struct remote_call, node)) != NULL) {
		list_del(&call->node);
		free(call);
	}
	idmap_free(&s->jobs);
	free(s->path);
	free(s);
}
