/*
 * run - a task that this worker owns: its place, its money, its time, its end.
 *
 *   READY -> STARTING -> MONEY -> CALL -> ENDING
 *                          ^        |
 *                          |        v
 *                        (look) WAITING   for a provider's job
 *
 * Whoever takes the task from us has raised its fence: what we write then is not done, and the run
 * is dropped.
 */
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/task/task_impl.h"

static const char *
dup(struct run *run, const char *text)
{
	return text != NULL ? arena_strdup(&run->arena, str_of(text)) : NULL;
}

/* ---- time ---- */

static void
stop_provider(struct run *run)
{
	if (run->type == TASK_VIDEO)
		job_stop(run);
	else
		model_stop(run);
}

static void
settle_tokens(struct run *run, uint64_t used)
{
	if (run->asks_tokens)
		tokens_cancel(&run->tokens);
	run->asks_tokens = false;
	if (run->reserved_tokens > 0)
		tokens_settle(run->tasks->of.limits, &run->token_limit, run->reserved_tokens, used);
	run->reserved_tokens = 0;
}

/* What the attempt holds. */
static void
stop(struct run *run)
{
	stop_provider(run);
	settle_tokens(run, 0);
	hold_release(run->tasks->of.holds, run->hold);
	run->hold = 0;
	loop_timer_stop(run->tasks->of.loop, &run->time_up);
	loop_timer_stop(run->tasks->of.loop, &run->look);
}

/* ---- the end ---- */

static void
run_free(struct run *run)
{
	struct tasks *ts = run->tasks;

	stop(run);
	writes_forget(ts, run);
	if (list_linked(&run->node))
		run_place_give(run);
	idmap_remove(ts->runs, run->handle);
	if (run_of(ts, run->task.id) == run)
		strmap_del(ts->by_id, str_of(run->task.id));
	buf_fini(&run->body);
	buf_fini(&run->answer);
	arena_fini(&run->arena);
	free(run);
}

static void
on_over(void *arg, int err, bool is_done)
{
	struct run *run = arg;
	struct tasks *ts = run->tasks;

	(void)err;
	if (!is_done)
		log_info("task was taken from its owner task=%s", run->task.id);
	run_free(run);
	queue_go_on(ts);
}

/* The last thing that is said of it here. Its place is free at once: the record may take a while.
 */
static void
end(struct run *run, const struct said *said)
{
	struct tasks *ts = run->tasks;

	stop(run);
	run_place_give(run);
	run->state = RUN_ENDING;
	list_init(&run->node);
	ts->ended_lately++;
	task_change(ts, &run->task, said, on_over, run);
	queue_go_on(ts);
}

void
run_drop(struct run *run)
{
	struct tasks *ts = run->tasks;

	run_free(run);
	queue_go_on(ts);
}

void
run_give_back(struct run *run)
{
	end(run,
	    &(struct said){
		.state = "queued", .progress = run->task.progress, .message = run->task.message});
}

void
run_succeed(struct run *run, struct str result_json)
{
	end(run, &(struct said){.state = "succeeded",
		     .progress = 100,
		     .message = run->task.message,
		     .result = result_json,
		     .is_ended = true});
}

static void
try_again(struct run *run, const char *code, const char *message, uint64_t delay_ms)
{
	log_info("task attempt failed task=%s attempts=%u code=%s again_in_ms=%llu", run->task.id,
	    run->task.attempts, code, (unsigned long long)delay_ms);
	metric_add(METRIC_TASK_RETRIES, run->type, 0, 1);
	queue_later(run->tasks, delay_ms);
	end(run, &(struct said){.state = "queued",
		     .progress = run->task.progress,
		     .message = run->task.message,
		     .error_code = code,
		     .error_message = message,
		     .is_retryable = true,
		     .due_in_ms = (int64_t)delay_ms});
}

void
run_fail(
    struct run *run, int err, const char *message, enum task_again again, uint32_t retry_after_ms)
{
	const struct conf_tasks *conf = &run->tasks->of.conf->tasks;
	const struct err_info *info = err_info(err);
	struct task_retry retry = {.again = again,
	    .attempts = run->task.attempts + 1,
	    .attempts_max = (uint32_t)conf->max_attempts,
	    .backoff_ms = conf->backoff_ms,
	    .backoff_max_ms = conf->backoff_max_ms,
	    .retry_after_ms = retry_after_ms,
	    .left_ms =
		run->task.left_ms - (int64_t)(loop_now_ms(run->tasks->of.loop) - run->begun_ms),
	    .dice = tasks_dice(run->tasks)};
	uint64_t delay_ms;

	message = dup(run, message != NULL ? message : info->text);
	if (again == TASK_AGAIN)
		run->task.attempts++;
	if (task_retry_in(&retry, &delay_ms)) {
		try_again(run, info->code, message, delay_ms);
		return;
	}
	log_info("task failed task=%s code=%s attempts=%u", run->task.id, info->code,
	    run->task.attempts);
	end(run, &(struct said){.state = "failed",
		     .progress = run->task.progress,
		     .error_code = info->code,
		     .error_message = message,
		     .is_retryable = again != TASK_NEVER,
		     .is_ended = true});
}

static void
on_time_up(struct loop_timer *timer)
{
	struct run *run = container_of(timer, struct run, time_up);

	if (run->task.job_id != NULL)
		job_cancel(run->tasks, &run->task);
	end(run, &(struct said){.state = "timed_out",
		     .progress = run->task.progress,
		     .error_code = "timeout",
		     .error_message = "The task took too long.",
		     .is_retryable = true,
		     .is_ended = true});
}

/* ---- on its way ---- */

void
run_progress(struct run *run, int progress, const char *message)
{
	if (progress < run->task.progress)
		progress = run->task.progress;
	if (progress == run->task.progress)
		return;
	run->task.progress = progress;
	run->task.message = dup(run, message);
	task_change(run->tasks, &run->task,
	    &(struct said){
		.state = "running", .progress = progress, .message = message, .is_kept = true},
	    NULL, NULL);
}

static void
on_look(struct loop_timer *timer)
{
	struct run *run = container_of(timer, struct run, look);

	run->state = RUN_CALL;
	job_start(run);
}

/* A look is short: it takes no place either. */
void
run_wait_for_job(struct run *run)
{
	struct tasks *ts = run->tasks;
	const struct conf_tasks *conf = &ts->of.conf->tasks;
	uint64_t ms = conf->job_interval_ms;

	for (unsigned i = 0; i < run->job_looks / 3 && ms < conf->job_interval_max_ms; i++)
		ms += ms / 2;
	ms = ms < conf->job_interval_max_ms ? ms : conf->job_interval_max_ms;
	if (run->has_place) {
		run_place_give(run);
		list_add_tail(&ts->waiting, &run->node);
		ts->waiting_count++;
		run->is_waiting = true;
	}
	run->state = RUN_WAITING;
	loop_timer_set(ts->of.loop, &run->look, ms / 2 + (uint64_t)((double)ms * tasks_dice(ts)));
	queue_go_on(ts);
}

/* ---- money ---- */

static const struct conf_app *
app_of(const struct run *run)
{
	const struct conf *conf = run->tasks->of.conf;

	for (size_t i = 0; i < conf->apps.n; i++)
		if (strcmp(conf->apps.v[i].id, run->task.app_id) == 0)
			return &conf->apps.v[i];
	return NULL;
}

static struct store_usage
usage_of(const struct run *run, const struct provider_usage *u)
{
	const struct tasks *ts = run->tasks;
	const struct conf_app *app = app_of(run);

	return (struct store_usage){
	    .id = run->usage_id.s,
	    .app_id = run->task.app_id,
	    .org_id = app != NULL ? app->org : NULL,
	    .key_id = run->task.key_id,
	    .model = run->task.model,
	    .input_tokens = u->input_tokens,
	    .output_tokens = u->output_tokens,
	    .cached_tokens = u->cached_tokens,
	    .is_estimated = u->is_estimated,
	    .cost_micros = providers_cost(ts->of.providers, run->task.model, u),
	    .created_at = clock_wall_ms(),
	};
}

/* As gateway calls are: what failed costs nothing, what was broken off costs what was seen. */
void
run_account(struct run *run, const struct relay_report *r)
{
	const struct provider_usage nothing = {0};
	bool costs = r->err == 0 || (r->err == E_CANCELLED && r->attempts > 0);
	struct store_usage row = usage_of(run, costs ? &r->usage : &nothing);

	if (!costs)
		row.cost_micros = 0;
	row.provider = r->provider;
	row.provider_model = r->model;
	row.outcome = r->err == 0 ? "ok" : err_info(r->err)->code;
	row.attempts = r->attempts;
	row.first_ms = r->first_ms;
	row.total_ms = r->total_ms;
	usage_add(run->tasks->of.usages, &row, run->hold);
	run->hold = 0;
	settle_tokens(run, row.input_tokens + row.output_tokens);
}

static void
call(struct run *run)
{
	run->state = RUN_CALL;
	if (run->type == TASK_VIDEO)
		job_start(run);
	else
		model_start(run);
}

static void
on_held(void *arg, int err, const struct hold_refusal *refusal)
{
	struct run *run = arg;

	if (err == 0) {
		call(run);
		return;
	}
	run->hold = 0;
	if (err == E_FORBIDDEN)
		run_fail(run, err, "The model has no price: it cannot be used under a budget.",
		    TASK_NEVER, 0);
	else
		run_fail(run, err, refusal != NULL ? refusal->message : NULL,
		    err == E_STORE_UNAVAILABLE ? TASK_LATER : TASK_NEVER, 0);
}

static void
ask_budget(struct run *run)
{
	const struct tasks *ts = run->tasks;
	const struct conf_app *app = app_of(run);
	uint64_t output = run->parsed.output_tokens_max;
	const struct provider_usage most = {.input_tokens = (run->body.len + 3) / 4,
	    .output_tokens = output > 0 ? output : (uint64_t)ts->of.conf->budgets.output_tokens,
	    .is_estimated = true};
	struct hold_question q = {.usage = usage_of(run, &most), .key = run->budget};

	if (app != NULL)
		q.app = budget_rule_of(app->budget.amount, app->budget.period);
	if (hold_is_needed(&q))
		run->hold = hold_ask(ts->of.holds, &q, on_held, run);
	else
		call(run);
}

static void
tokens_decided(struct run *run)
{
	if (run->tokens.verdict.is_allowed) {
		run->reserved_tokens = run->tokens.tokens;
		ask_budget(run);
	} else {
		run_fail(run, E_RATE_LIMITED, NULL, TASK_LATER, run->tokens.verdict.retry_after_ms);
	}
}

static void
on_tokens(struct token_ask *tokens)
{
	struct run *run = container_of(tokens, struct run, tokens);

	run->asks_tokens = false;
	tokens_decided(run);
}

/* What held for the key when it asked: in the task's terms. */
static void
read_terms(struct run *run)
{
	const char *text = run->task.terms_json != NULL ? run->task.terms_json : "{}";
	json_t *terms = json_loads(text, 0, NULL), *budget = json_object_get(terms, "budget");
	const char *period = json_string_value(json_object_get(budget, "period"));

	run->token_limit = token_limit_of(str_of(run->task.key_id != NULL ? run->task.key_id : ""),
	    (uint32_t)json_integer_value(json_object_get(terms, "tpm")));
	run->budget.amount_micros = json_integer_value(json_object_get(budget, "micros"));
	if (period != NULL && !budget_period_parse(period, &run->budget.period))
		run->budget.amount_micros = 0;
	json_decref(terms);
}

static void
ask_money(struct run *run)
{
	run->state = RUN_MONEY;
	run->usage_id = id_new("use");
	read_terms(run);
	run->tokens = (struct token_ask){.on_decided = on_tokens};
	if (tokens_reserve(run->tasks->of.limits, &run->token_limit,
		(run->body.len + 3) / 4 + run->parsed.output_tokens_max, &run->tokens))
		tokens_decided(run);
	else
		run->asks_tokens = true;
}

/* ---- the key that asked for it ---- */

struct key_question {
	struct tasks *tasks;
	uint64_t run;
};

static void
on_key(void *arg, int err, const struct store_key *key)
{
	struct key_question q = *(struct key_question *)arg;
	struct run *run = idmap_get(q.tasks->runs, q.run);

	free(arg);
	if (run == NULL || run->state != RUN_MONEY)
		return; /* it ends already */
	if (err == 0 && key->revoked_at != 0)
		run_fail(run, E_UNAUTHORIZED, "The key that asked for the task was revoked.",
		    TASK_NEVER, 0);
	else if (err != 0 && err != E_NOT_FOUND) /* a key of the configuration is not there */
		run_fail(run, err, NULL, TASK_LATER, 0);
	else
		ask_money(run);
}

/* Keys of the record may have been revoked while the task waited. */
static void
ask_key(struct run *run)
{
	struct key_question *q;

	if (run->task.key_id == NULL || !str_starts(str_of(run->task.key_id), STR("key_"))) {
		ask_money(run);
		return;
	}
	run->state = RUN_MONEY;
	q = xmalloc(sizeof(*q));
	*q = (struct key_question){run->tasks, run->handle};
	store_key_get(run->tasks->of.store, run->task.key_id, on_key, q);
}

/* ---- the beginning ---- */

static void
on_started(void *arg, int err, bool is_done)
{
	struct run *run = arg;

	if (run->state != RUN_STARTING)
		return; /* it ends already */
	if (err != 0 || !is_done) {
		run_drop(run);
		return;
	}
	run->task.state = "running";
	if (run->task.started_at == 0)
		run->task.started_at = clock_wall_ms();
	if (run->type == TASK_TYPES) { /* of a version that knows more */
		run_fail(run, E_INVALID_VALUE, "This host does not know the task's type.",
		    TASK_NEVER, 0);
		return;
	}
	if (run->type == TASK_VIDEO ? !job_prepare(run) : !model_prepare(run))
		return;
	if (run->task.job_id != NULL) {
		run->state = RUN_CALL;
		job_start(run);
	} else
		ask_key(run);
}

/* It runs when the record says so, or a task that kills its worker would not be known for it. */
void
run_start(struct run *run)
{
	struct tasks *ts = run->tasks;
	int64_t waited_ms = clock_wall_ms() - run->task.created_at;

	run->state = RUN_STARTING;
	if (run->task.started_at == 0 && run->task.attempts == 0 && run->type < TASK_TYPES)
		metric_observe_us(METRIC_TASK_WAIT_SECONDS, run->type,
		    waited_ms > 0 ? (uint64_t)waited_ms * 1000 : 0);
	task_change(ts, &run->task,
	    &(struct said){.state = "running",
		.progress = run->task.progress,
		.message = run->task.message,
		.is_kept = true},
	    on_started, run);
}

struct run *
run_new(struct tasks *ts, const struct store_task *t)
{
	struct run *run = xcalloc(1, sizeof(*run));
	struct store_task *to = &run->task;

	run->tasks = ts;
	*to = *t;
	to->id = dup(run, t->id);
	to->app_id = dup(run, t->app_id);
	to->key_id = dup(run, t->key_id);
	to->type = dup(run, t->type);
	to->partition_key = dup(run, t->partition_key);
	to->state = dup(run, t->state);
	to->model = dup(run, t->model);
	to->input_json = dup(run, t->input_json);
	to->terms_json = dup(run, t->terms_json);
	to->message = dup(run, t->message);
	to->provider = dup(run, t->provider);
	to->provider_model = dup(run, t->provider_model);
	to->job_id = dup(run, t->job_id);
	to->webhook_json = dup(run, t->webhook_json);
	to->owner = to->result_json = to->error_code = to->error_message = NULL;
	if (!task_type_parse(t->type, &run->type))
		run->type = TASK_TYPES;
	run->begun_ms = loop_now_ms(ts->of.loop);
	run->time_up.on_fire = on_time_up;
	run->look.on_fire = on_look;
	run->handle = idmap_add(ts->runs, run);
	strmap_set(ts->by_id, str_of(to->id), run);
	loop_timer_set(ts->of.loop, &run->time_up, t->left_ms > 0 ? (uint64_t)t->left_ms : 0);
	return run;
}
