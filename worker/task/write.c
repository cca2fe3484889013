/*
 * write - the one way of a task's changes into the record, and who is told of them.
 *
 * Changes wait while a write is under way and go together with the next: under load a
 * transaction carries many. What tells of a change (the webhook) is in its transaction; subscribers
 * hear of it behind the commit. While the record is away changes wait: the leases do not end sooner
 * than others can read them.
 */
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/task/news.h"
#include "worker/task/task_impl.h"

enum { AGAIN_MS = 200 };

struct write {
	struct list node;
	struct arena arena;
	struct store_task task; /* as it was */
	struct said said;
	struct id webhook_id;
	struct store_task_change change;
	task_on_written *on_written;
	void *arg;
	bool is_sent, is_alone;
};

static void flush(struct tasks *ts);

/* ---- what is kept of it ---- */

static const char *
dup(struct arena *a, const char *text)
{
	return text != NULL ? arena_strdup(a, str_of(text)) : NULL;
}

static void
copy_task(struct arena *a, struct store_task *to, const struct store_task *t)
{
	*to = *t;
	to->id = dup(a, t->id);
	to->app_id = dup(a, t->app_id);
	to->type = dup(a, t->type);
	to->partition_key = dup(a, t->partition_key);
	to->state = dup(a, t->state);
	to->model = dup(a, t->model);
	to->provider = dup(a, t->provider);
	to->provider_model = dup(a, t->provider_model);
	to->job_id = dup(a, t->job_id);
	to->webhook_json = dup(a, t->webhook_json);
	to->input_json = news_needs_input(t) ? dup(a, t->input_json) : NULL;
	/* Nobody is told of these: they are the caller's, and may be gone by then. */
	to->key_id = to->owner = to->message = to->error_code = to->error_message = NULL;
	to->terms_json = to->result_json = NULL;
}

static void
copy_said(struct arena *a, struct said *to, const struct said *s)
{
	*to = *s;
	to->state = dup(a, s->state);
	to->message = dup(a, s->message);
	to->error_code = dup(a, s->error_code);
	to->error_message = dup(a, s->error_message);
	to->result = s->result.p != NULL ? str_of(arena_strdup(a, s->result)) : STR_NONE;
}

static void
fill_change(const struct tasks *ts, struct write *w)
{
	const struct store_task *t = &w->task;
	const struct said *s = &w->said;

	w->change = (struct store_task_change){
	    .id = t->id,
	    .app_id = t->app_id,
	    .partition_key = t->partition_key,
	    .fence = t->fence,
	    .take_step = s->is_taken ? store_task_take_step() : 0,
	    .state = s->state,
	    .progress = s->progress,
	    .message = s->message,
	    .result_json = s->result.p,
	    .error_code = s->error_code,
	    .error_message = s->error_message,
	    .is_retryable = s->is_retryable,
	    .attempts = t->attempts,
	    .losses = s->is_loss ? s->losses : t->losses,
	    .provider = t->provider,
	    .provider_model = t->provider_model,
	    .job_id = t->job_id,
	    .is_ended = s->is_ended,
	    .is_kept = s->is_kept,
	    .due_in_ms = s->due_in_ms,
	};
	news_webhook(t, s, &w->arena, &w->webhook_id, &w->change);
	news_hooks(&ts->of.conf->webhooks, t, s, &w->arena, &w->change);
}

void
task_change(struct tasks *ts, const struct store_task *t, const struct said *s,
    task_on_written *on_written, void *arg)
{
	struct write *w = xcalloc(1, sizeof(*w));

	copy_task(&w->arena, &w->task, t);
	copy_said(&w->arena, &w->said, s);
	w->on_written = on_written;
	w->arg = arg;
	fill_change(ts, w);
	list_add_tail(&ts->writes, &w->node);
	ts->write_count++;
	flush(ts);
}

static void
write_free(struct tasks *ts, struct write *w)
{
	ts->write_count--;
	list_del(&w->node);
	arena_fini(&w->arena);
	free(w);
}

void
writes_forget(struct tasks *ts, void *arg)
{
	list_for (node, &ts->writes) {
		struct write *w = list_entry(node, struct write, node);

		if (w->arg == arg)
			w->on_written = NULL;
	}
}

void
writes_free(struct tasks *ts)
{
	loop_timer_stop(ts->of.loop, &ts->write_again);
	list_for_safe (node, &ts->writes)
		write_free(ts, list_entry(node, struct write, node));
}

/* ---- behind the commit ---- */

static void
count_end(const struct store_task *t, const struct said *s)
{
	enum task_type type;
	int64_t now = clock_wall_ms();

	if (!s->is_ended || !task_type_parse(t->type, &type))
		return;
	metric_add(METRIC_TASKS, type,
	    strcmp(s->state, "succeeded") == 0   ? TASK_OUTCOME_SUCCEEDED
	    : strcmp(s->state, "failed") == 0    ? TASK_OUTCOME_FAILED
	    : strcmp(s->state, "cancelled") == 0 ? TASK_OUTCOME_CANCELLED
						 : TASK_OUTCOME_TIMED_OUT,
	    1);
	if (t->started_at > 0 && now > t->started_at)
		metric_observe_us(
		    METRIC_TASK_RUN_SECONDS, type, (uint64_t)(now - t->started_at) * 1000);
}

void
task_announce(struct tasks *ts, const struct store_task *t, const struct said *s)
{
	count_end(t, s);
	news_publish(ts->of.events, t, s);
	if (s->is_ended && t->partition_key != NULL)
		queue_hint(ts);
}

static void
written(struct tasks *ts, struct write *w, int err, bool is_done)
{
	task_on_written *on_written = w->on_written;

	if (err == 0 && is_done) {
		task_announce(ts, &w->task, &w->said);
		if ((w->change.webhook_id != NULL || w->change.hook_count > 0) &&
		    ts->of.on_outbox != NULL)
			ts->of.on_outbox(ts->of.on_outbox_arg);
	}
	if (on_written != NULL)
		on_written(w->arg, err, is_done);
	write_free(ts, w);
}

static bool
has_id(const char *const *ids, size_t count, const char *id)
{
	for (size_t i = 0; i < count; i++)
		if (ids[i] != NULL && strcmp(ids[i], id) == 0)
			return true;
	return false;
}

/* Those that were sent are the first. One that the record cannot take must not keep the others. */
static void
failed(struct tasks *ts, int err)
{
	struct write *first = list_first(&ts->writes, struct write, node);
	size_t sent = 0;

	list_for (node, &ts->writes) {
		struct write *w = list_entry(node, struct write, node);

		sent += w->is_sent;
		w->is_alone |= w->is_sent && err != E_STORE_UNAVAILABLE;
		w->is_sent = false;
	}
	if (err == E_STORE_UNAVAILABLE || sent > 1) {
		ts->is_writing = false;
		loop_timer_set(ts->of.loop, &ts->write_again, AGAIN_MS);
		return;
	}
	log_error("task not written task=%s state=%s err=%s", first->task.id, first->said.state,
	    err_info(err)->name);
	written(ts, first, err, false);
	ts->is_writing = false;
	flush(ts);
}

static void
on_ids(void *arg, int err, const char *const *ids, size_t count)
{
	struct tasks *ts = arg;
	struct write *w;

	if (err != 0) {
		failed(ts, err);
		return;
	}
	while ((w = list_first(&ts->writes, struct write, node)) != NULL && w->is_sent) {
		w->is_sent = false;
		written(ts, w, 0, has_id(ids, count, w->task.id));
	}
	ts->is_writing = false;
	flush(ts);
}

/* Of one task one at a time: what the record answers is the ids of those that were changed. */
static bool
has_change(const struct store_task_change *changes, size_t count, const struct write *w)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(changes[i].id, w->task.id) == 0)
			return true;
	return false;
}

static void
flush(struct tasks *ts)
{
	struct store_task_change changes[TASK_WRITES_MAX];
	size_t n = 0;

	if (ts->is_writing || loop_timer_is_set(&ts->write_again) || list_empty(&ts->writes))
		return;
	list_for (node, &ts->writes) {
		struct write *w = list_entry(node, struct write, node);

		if (n == TASK_WRITES_MAX || (n > 0 && w->is_alone) || has_change(changes, n, w))
			break;
		w->is_sent = true;
		changes[n++] = w->change;
		if (w->is_alone)
			break;
	}
	ts->is_writing = true;
	store_task_change(ts->of.store, changes, n, on_ids, ts);
}

void
writes_on_again(struct loop_timer *timer)
{
	flush(container_of(timer, struct tasks, write_again));
}
