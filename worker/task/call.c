/*
 * call - a task that is one call of a model: a completion, images. The answer, whole, is its
 * result.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/err.h"
#include "worker/task/task_impl.h"

static void
on_begin(void *arg, struct str content_type, bool is_stream)
{
	(void)arg, (void)content_type, (void)is_stream;
}

static void
too_large(struct run *run)
{
	run_fail(run, E_PAYLOAD_TOO_LARGE,
	    "The answer is larger than tasks.max_result: ask for addresses instead of the bytes.",
	    TASK_NEVER, 0);
}

static bool
on_bytes(void *arg, struct str bytes)
{
	struct run *run = arg;

	if (run->answer.len + bytes.len > run->tasks->of.conf->tasks.max_result_bytes)
		too_large(run);
	else
		buf_add_str(&run->answer, bytes);
	return true;
}

json_t *
answer_parse(struct str text)
{
	const size_t flags = JSON_DECODE_ANY | JSON_ALLOW_NUL;
	json_t *json = text.len > 0 ? json_loadb(text.p, text.len, flags, NULL) : NULL;

	if (json == NULL && text.len > 0)
		json = json_loadb(text.p, text.len, flags | JSON_DECODE_INT_AS_REAL, NULL);
	return json;
}

static bool
is_answer(struct str text)
{
	json_t *json = answer_parse(text);
	bool is_object = json_is_object(json);

	json_decref(json);
	return is_object;
}

static void
account(struct run *run)
{
	struct relay_report report;

	relay_report(run->relay, &report);
	run_account(run, &report);
}

static void
on_done(void *arg, const struct relay_result *r)
{
	struct run *run = arg;

	account(run);
	if (r->err == 0 && r->status != 0) {
		buf_clear(&run->answer);
		buf_add_str(&run->answer, r->body);
	}
	/* What is kept must be text that both databases take as JSON. */
	if (r->err == 0 && run->answer.len > run->tasks->of.conf->tasks.max_result_bytes)
		too_large(run);
	else if (r->err == 0 && is_answer(buf_str(&run->answer)))
		run_succeed(run, buf_str(&run->answer));
	else if (r->err == 0)
		run_fail(
		    run, E_PROVIDER, "The model provider's answer was malformed.", TASK_AGAIN, 0);
	else
		run_fail(run, r->err, r->message, task_again_of(r->err), r->retry_after_ms);
}

/* The input is the body of the request, but that it is not streamed. */
bool
model_prepare(struct run *run)
{
	json_t *input =
	    run->task.input_json != NULL ? json_loads(run->task.input_json, 0, NULL) : NULL;
	const char *param = NULL, *why = "The task's input is not valid.";
	struct buf model = BUF_INIT;
	char *text;
	int err;

	json_object_del(input, "stream");
	json_object_del(input, "stream_options");
	text = json_is_object(input) ? json_dumps(input, JSON_COMPACT) : NULL;
	json_decref(input);
	buf_clear(&run->body);
	buf_add_cstr(&run->body, text != NULL ? text : "");
	free(text);
	err = body_read(buf_str(&run->body), &run->parsed, &model, &param, &why);
	buf_fini(&model);
	if (err != 0)
		run_fail(run, err, why, TASK_NEVER, 0);
	return err == 0;
}

void
model_start(struct run *run)
{
	static const struct relay_handlers handlers = {on_begin, on_bytes, on_done};
	char key[ID_MAX + 24];
	const struct relay_question question = {
	    .kind = run->type == TASK_IMAGE ? RELAY_IMAGES : RELAY_CHAT,
	    .alias = run->task.model,
	    .body = &run->parsed,
	    .event_bytes_max = run->tasks->of.conf->http.max_incomplete_bytes,
	    .request_id = run->task.id,
	    .idempotency_key = key,
	};

	/* The same for whoever repeats what was begun; another for another attempt. */
	snprintf(key, sizeof(key), "%s.%u.%u", run->task.id, run->task.runs, run->task.attempts);
	buf_clear(&run->answer);
	run->relay = relay_start(run->tasks->of.providers, &question, &handlers, run);
}

void
model_stop(struct run *run)
{
	struct relay_report report;

	if (run->relay == NULL)
		return;
	relay_report(run->relay, &report);
	if (report.err == E_CANCELLED && report.attempts > 0)
		run_account(run, &report);
	relay_free(&run->relay);
}
