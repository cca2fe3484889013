/*
 * job - a task that the provider does in its own time: a video. It is begun (POST /videos), then
 * looked at (GET /videos/ID) until it has ended; between looks it has no place and no connection.
 *
 * Who begins says the same idempotency key each time, so that a job that was begun by a worker that
 * died before it could say so is not begun twice. Where it was begun it is looked at.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "worker/task/task_impl.h"

enum { ANSWER_MAX = 1 << 20, JOB_ID_MAX = 256, PATH_MAX_LEN = 3 * JOB_ID_MAX + 16 };

/* ---- where it is ---- */

/* The id is the provider's word: in a path it is a segment, whatever is in it (RFC 3986, 2.1). */
static void
path_of(const char *job_id, char out[PATH_MAX_LEN])
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				    "-._~";
	size_t len = (size_t)snprintf(out, PATH_MAX_LEN, "/videos/");

	for (const char *c = job_id; *c != '\0' && len + 4 <= PATH_MAX_LEN; c++)
		len += (size_t)snprintf(out + len, PATH_MAX_LEN - len,
		    strchr(plain, *c) != NULL ? "%c" : "%%%02X", (unsigned char)*c);
}

static bool
is_job_id(const char *id)
{
	return id != NULL && id[0] != '\0' && strlen(id) <= JOB_ID_MAX && strcmp(id, ".") != 0 &&
	       strcmp(id, "..") != 0;
}

/* ---- what it says ---- */

static const char *
text_of(const json_t *json, const char *name)
{
	return json_string_value(json_object_get(json, name));
}

static bool
is_any(const char *status, const char *const *names)
{
	for (; *names != NULL; names++)
		if (strcmp(status, *names) == 0)
			return true;
	return false;
}

/* Where the video is: providers name it differently. */
static const char *
url_of(const json_t *job)
{
	static const char *const names[] = {"url", "video_url", "output_url"};
	const json_t *first = json_array_get(json_object_get(job, "data"), 0);
	const char *url = NULL;

	for (size_t i = 0; i < ARRAY_LEN(names) && url == NULL; i++)
		url = text_of(job, names[i]);
	return url != NULL ? url : text_of(first, "url");
}

static void
succeeded(struct run *run, json_t *job)
{
	const char *url = url_of(job);
	char *text;

	if (url != NULL)
		json_object_set_new(job, "url", json_string(url));
	text = json_dumps(job, JSON_COMPACT);
	run_succeed(run, str_of(text));
	free(text);
}

static void
job_failed(struct run *run, const json_t *job)
{
	const json_t *error = json_object_get(job, "error");
	const char *message =
	    json_is_string(error) ? json_string_value(error) : text_of(error, "message");
	const char *code = text_of(error, "code");
	bool may_pass =
	    code != NULL && (strstr(code, "internal") != NULL || strstr(code, "server") != NULL ||
				strstr(code, "overload") != NULL);

	run->task.provider = run->task.provider_model = run->task.job_id = NULL;
	run_fail(run, may_pass ? E_PROVIDER : E_PROVIDER_REFUSED,
	    message != NULL ? message : "The provider's job has failed.",
	    may_pass ? TASK_AGAIN : TASK_NEVER, 0);
}

/* What a look has found. */
static void
looked(struct run *run, json_t *job)
{
	static const char *const good[] = {"completed", "succeeded", NULL};
	static const char *const bad[] = {"failed", "cancelled", "canceled", "expired", NULL};
	const char *status = text_of(job, "status");
	double said = json_number_value(json_object_get(job, "progress"));
	int progress = said >= 99 ? 99 : said > 0 ? (int)said : 0;

	if (status == NULL)
		status = "";
	if (is_any(status, good)) {
		succeeded(run, job);
	} else if (is_any(status, bad)) {
		job_failed(run, job);
	} else {
		run->job_looks = progress > run->task.progress ? 0 : run->job_looks + 1;
		run_progress(run, progress, status);
		run_wait_for_job(run);
	}
}

static void
on_begun_written(void *arg, int err, bool is_done)
{
	struct run *run = arg;

	if (run->state != RUN_CALL)
		return;
	if (err != 0 || !is_done)
		run_drop(run);
	else
		run_wait_for_job(run);
}

/* It runs there. The call is paid for; what it makes has no price of its own. */
static void
begun(struct run *run, const json_t *job)
{
	const struct relay_report report = {
	    .provider = run->job_provider, .model = run->job_model, .attempts = 1};
	const char *id = text_of(job, "id");

	run_account(run, &report);
	if (!is_job_id(id)) {
		run_fail(run, E_PROVIDER, "The provider's job has no id.", TASK_AGAIN, 0);
		return;
	}
	run->task.job_id = arena_strdup(&run->arena, str_of(id));
	run->task.provider = run->job_provider;
	run->task.provider_model = run->job_model;
	task_change(run->tasks, &run->task,
	    &(struct said){.state = "running",
		.progress = run->task.progress,
		.message = "queued",
		.is_kept = true},
	    on_begun_written, run);
}

/* ---- asking ---- */

static void
on_attempt(void *arg, const struct ask_attempt *attempt, struct buf *body)
{
	struct run *run = arg;

	buf_clear(&run->answer);
	run->job_provider = attempt->provider;
	run->job_model = attempt->model;
	if (run->task.job_id == NULL)
		body_write(&run->parsed, attempt->model, false, body);
}

static struct ask_sign
on_bytes(void *arg, struct str bytes)
{
	struct run *run = arg;

	if (run->answer.len + bytes.len > ANSWER_MAX)
		return (struct ask_sign){.progress = ASK_FAULT, .failure = FAILURE_TOO_LARGE};
	buf_add_str(&run->answer, bytes);
	return (struct ask_sign){.progress = ASK_LIFE};
}

static struct ask_sign
on_end(void *arg)
{
	const struct run *run = arg;
	json_t *job = answer_parse(buf_str(&run->answer));
	bool is_good = json_is_object(job);

	json_decref(job);
	if (is_good)
		return (struct ask_sign){.progress = ASK_DONE};
	return (struct ask_sign){.progress = ASK_FAULT, .failure = FAILURE_MALFORMED};
}

/* A job that cannot be looked at is looked at again, until the task's time is up; one that is not
 * there any more is begun anew. */
static void
look_failed(struct run *run, const struct ask_result *r)
{
	if (r->status == 404 || r->err == E_INVALID_VALUE) {
		run->task.provider = run->task.provider_model = run->task.job_id = NULL;
		run_fail(
		    run, E_PROVIDER, "The provider does not know the job any more.", TASK_AGAIN, 0);
	} else if (r->err == E_PROVIDER_REFUSED) {
		run_fail(run, r->err, r->message, TASK_NEVER, 0);
	} else {
		run->job_looks++;
		run_wait_for_job(run);
	}
}

static void
begin_failed(struct run *run, const struct ask_result *r)
{
	const struct relay_report report = {
	    .provider = r->provider, .model = r->model, .attempts = r->attempts, .err = r->err};

	run_account(run, &report);
	run_fail(run, r->err, r->message, task_again_of(r->err), r->retry_after_ms);
}

static void
on_done(void *arg, const struct ask_result *r)
{
	struct run *run = arg;
	bool is_look = run->task.job_id != NULL;

	run->ask = 0;
	if (r->err != 0) {
		if (is_look)
			look_failed(run, r);
		else
			begin_failed(run, r);
		return;
	}
	json_t *job = answer_parse(buf_str(&run->answer));
	if (is_look)
		looked(run, job);
	else
		begun(run, job);
	json_decref(job);
}

bool
job_prepare(struct run *run)
{
	return run->task.job_id != NULL || model_prepare(run);
}

void
job_start(struct run *run)
{
	static const struct ask_handlers handlers = {
	    on_attempt, NULL, on_bytes, on_end, NULL, on_done};
	char path[PATH_MAX_LEN] = "/videos", key[ID_MAX + 24];
	bool is_look = run->task.job_id != NULL;
	const struct ask_question question = {
	    .alias = run->task.model,
	    .path = path,
	    .request_id = run->task.id,
	    .idempotency_key = is_look ? NULL : key,
	    .method = is_look ? "GET" : NULL,
	    .provider = is_look ? run->task.provider : NULL,
	    .model = run->task.provider_model,
	};

	if (is_look)
		path_of(run->task.job_id, path);
	snprintf(key, sizeof(key), "%s.%u.%u", run->task.id, run->task.runs, run->task.attempts);
	run->ask = ask_start(run->tasks->of.providers, &question, &handlers, run);
}

void
job_stop(struct run *run)
{
	if (run->ask != 0)
		ask_cancel(run->tasks->of.providers, run->ask);
	run->ask = 0;
}

/* ---- the end of one that nobody wants ---- */

static void
no_body(void *arg, const struct ask_attempt *attempt, struct buf *body)
{
	(void)arg, (void)attempt, (void)body;
}

static struct ask_sign
ignore_bytes(void *arg, struct str bytes)
{
	(void)arg, (void)bytes;
	return (struct ask_sign){.progress = ASK_LIFE};
}

static struct ask_sign
ended(void *arg)
{
	(void)arg;
	return (struct ask_sign){.progress = ASK_DONE};
}

static void
on_cancelled(void *arg, const struct ask_result *r)
{
	char *id = arg;

	if (r->err != 0)
		log_info("provider's job not cancelled task=%s err=%s", id, err_info(r->err)->code);
	free(id);
}

void
job_cancel(struct tasks *ts, const struct store_task *t)
{
	static const struct ask_handlers handlers = {
	    no_body, NULL, ignore_bytes, ended, NULL, on_cancelled};
	char path[PATH_MAX_LEN];
	const struct ask_question question = {.alias = t->model,
	    .path = path,
	    .request_id = t->id,
	    .method = "DELETE",
	    .provider = t->provider,
	    .model = t->provider_model};

	if (t->job_id == NULL || t->provider == NULL || t->provider_model == NULL)
		return;
	path_of(t->job_id, path);
	ask_start(ts->of.providers, &question, &handlers, xstrdup(t->id));
}
