/* task_shape - see task_shape.h. */
#include "worker/api/task_shape.h"

#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/clock.h"
#include "worker/api/shapes.h"
#include "worker/api/task_hook.h"

enum { IDEMPOTENCY_KEY_MAX = 255, PROMPT_MAX = 32 << 10, FULL_RETRY_S = 5 };

json_t *
shape_task(const struct store_task *t, bool with_result)
{
	json_t *json = json_pack("{s:s,s:s,s:s,s:i,s:o,s:o,s:o,s:i,s:o,s:o,s:o,s:o}", "id", t->id,
	    "type", t->type, "status", t->state, "progress", t->progress, "message",
	    shape_text(t->message), "model", shape_text(t->model), "partition_key",
	    shape_text(t->partition_key), "attempts", (int)t->attempts, "created_at",
	    shape_time(t->created_at), "updated_at", shape_time(t->updated_at), "started_at",
	    shape_time(t->started_at), "ended_at", shape_time(t->ended_at));

	check(json != NULL);
	if (with_result)
		json_object_set_new(json, "result", shape_stored(t->result_json));
	json_object_set_new(json, "error",
	    t->error_code == NULL
		? json_null()
		: json_pack("{s:s,s:o,s:b}", "code", t->error_code, "message",
		      shape_text(t->error_message), "retryable", (int)t->is_retryable));
	return json;
}

/* ---- an order ---- */

struct ordering { /* in the call's arena */
	struct api_call *call;
	task_on_ordered *on_ordered;
	struct id id;
	struct store_task task;
};

static void
on_created(void *arg, int err, const struct store_task *existing)
{
	struct ordering *o = arg;

	if (err == 0)
		o->on_ordered(o->call, &o->task, true);
	else if (err == E_DUPLICATE && existing != NULL)
		o->on_ordered(o->call, existing, false);
	else if (err == E_QUEUE_FULL)
		call_reply_retry(o->call, err, FULL_RETRY_S, NULL);
	else
		call_reply_error(o->call, err, NULL, NULL);
}

/* NULL: answered. */
static const char *
choose_model(struct api_call *call, const json_t *input)
{
	const struct conf *conf = call->api->conf;
	const json_t *model = json_object_get(input, "model");
	const char *alias = json_is_string(model) ? json_string_value(model)
			    : conf->models.n > 0  ? conf->models.v[0].name
						  : "";

	if ((model != NULL && !json_is_string(model)) ||
	    !providers_know_model(call->api->providers, alias)) {
		call_reply_error(call, E_NOT_FOUND, "model", "There is no such model.");
		return NULL;
	}
	if (!keys_allow_model(&call->models, alias)) {
		call_reply_error(call, E_FORBIDDEN, "model", "This key may not use this model.");
		return NULL;
	}
	return arena_strdup(&call->arena, str_of(alias));
}

static const char *
fault_of_input(const struct task_order *o)
{
	const json_t *prompt = json_object_get(o->input, "prompt");

	if (json_is_true(json_object_get(o->input, "stream")))
		return "A task's answer is not streamed.";
	if (o->type == TASK_CHAT)
		return json_is_array(json_object_get(o->input, "messages"))
			   ? NULL
			   : "input.messages must be an array.";
	if (!json_is_string(prompt) || json_string_length(prompt) == 0)
		return "input.prompt must be a text.";
	return json_string_length(prompt) > PROMPT_MAX ? "input.prompt is too long." : NULL;
}

/* What holds for the key that asks, when the task runs. */
static const char *
terms_of(struct api_call *call)
{
	json_t *terms = json_pack("{s:I,s:{s:I,s:s}}", "tpm", (json_int_t)call->rate.tpm.limit,
	    "budget", "micros", (json_int_t)call->budget.amount_micros, "period",
	    budget_period_name(call->budget.period));
	const char *text = shape_dump(&call->arena, terms);

	json_decref(terms);
	return text;
}

/* It may ask for less than the operator's. */
static uint64_t
timeout_of(const struct api_call *call, const struct task_order *order)
{
	uint64_t most_ms = (uint64_t)call->api->conf->tasks.timeout_ms;

	return order->timeout_ms > 0 && order->timeout_ms < most_ms ? order->timeout_ms : most_ms;
}

void
task_order(struct api_call *call, struct http_req *req, const struct task_order *order,
    task_on_ordered *on_ordered)
{
	struct ordering *o = arena_calloc(&call->arena, sizeof(*o));
	struct str once = http_header(req, "idempotency-key");
	const char *fault = fault_of_input(order), *model, *webhook_json;
	struct store_webhook_endpoint *endpoint;

	if (fault != NULL) {
		call_reply_error(call, E_INVALID_VALUE, "input", fault);
		return;
	}
	if (once.len > IDEMPOTENCY_KEY_MAX) {
		call_reply_error(
		    call, E_INVALID_VALUE, "Idempotency-Key", "Idempotency-Key is too long.");
		return;
	}
	if ((model = choose_model(call, order->input)) == NULL ||
	    !task_hook_read(call, order->webhook, order->is_existing, &webhook_json, &endpoint))
		return;
	o->call = call;
	o->on_ordered = on_ordered;
	o->id = id_new("task");
	struct store_task_new new = {.id = o->id.s,
	    .app_id = call->app_id,
	    .key_id = call->key_id,
	    .type = task_type_name(order->type),
	    .partition_key = order->partition_key,
	    .idempotency_key = once.len > 0 ? arena_strdup(&call->arena, once) : NULL,
	    .model = model,
	    .input_json = shape_dump(&call->arena, order->input),
	    .terms_json = terms_of(call),
	    .webhook_json = webhook_json,
	    .endpoint = endpoint,
	    .timeout_ms = timeout_of(call, order)};
	o->task = (struct store_task){.id = o->id.s,
	    .app_id = call->app_id,
	    .type = new.type,
	    .partition_key = new.partition_key,
	    .state = "queued",
	    .model = model,
	    .timeout_ms = new.timeout_ms,
	    .created_at = clock_wall_ms()};
	o->task.updated_at = o->task.created_at;
	tasks_create(call->api->tasks, &new, on_created, o);
}

/* ---- one that there is ---- */

bool
task_id_of_path(struct api_call *call, struct http_req *req, const char *param)
{
	if (id_parse(str_of(http_param(req, param)), "task", &call->object_id))
		return true;
	call_reply_error(call, E_NOT_FOUND, NULL, "No such task.");
	return false;
}

struct awaiting { /* in the call's arena */
	struct api_call *call;
	struct task_wait wait;
	enum task_type type;
	task_on_found *on_found;
};

static void
on_awaited(void *arg, int err, const struct store_task *t)
{
	struct awaiting *a = arg;
	struct http_req *req = call_req(a->call);

	if (req != NULL)
		http_on_gone(req, NULL, NULL);
	if (err == 0 && a->type != TASK_TYPES && strcmp(t->type, task_type_name(a->type)) != 0)
		err = E_NOT_FOUND;
	if (err == 0)
		a->on_found(a->call, t);
	else
		call_reply_error(a->call, err, NULL, err == E_NOT_FOUND ? "No such task." : NULL);
}

/* Nobody waits for it any more: its place is free when the task has been read. */
static void
on_client_gone(void *arg)
{
	task_wait_hurry(&((struct awaiting *)arg)->wait);
}

void
task_await(struct api_call *call, uint64_t wait_s, enum task_type type, task_on_found *on_found)
{
	struct awaiting *a = arena_calloc(&call->arena, sizeof(*a));
	struct http_req *req = call_req(call);

	a->call = call;
	a->type = type;
	a->on_found = on_found;
	task_wait_start(call->api->tasks, &a->wait, &call->object_id, call->app_id,
	    (uint32_t)wait_s * 1000, on_awaited, a);
	if (req != NULL && wait_s > 0)
		http_on_gone(req, on_client_gone, a);
}
