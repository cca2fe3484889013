/*
 * tasks - /v1/tasks: work that outlives its request. Made, shown when it has ended or after a
 * while, listed, cancelled, begun anew.
 */
#include <string.h>

#include "worker/api/endpoints.h"
#include "worker/api/fields.h"
#include "worker/api/shapes.h"
#include "worker/api/task_shape.h"

enum {
	PARTITION_KEY_MAX = 256,
	LIST_DEFAULT = 20,
	LIST_MAX = 100,
	TIMEOUT_MAX_S = 30 * 24 * 3600,
	POLL_MAX_S = 600,
};

/* ---- POST /v1/tasks ---- */

static void
on_ordered(struct api_call *call, const struct store_task *t, bool is_new)
{
	struct http_req *req = call_req(call);

	(void)is_new;
	if (req != NULL)
		http_add_header(req, "Location", arena_printf(&call->arena, "/v1/tasks/%s", t->id));
	call_reply_json(call, 202, shape_task(t, true));
}

static void
post_task(struct api_call *call, struct http_req *req)
{
	struct task_order order = {.type = TASK_CHAT};
	const char *type = NULL;
	uint64_t timeout_s = 0;

	if (!fields_body(call, req, true) || !field_text(call, "type", 64, &type) ||
	    !field_json(call, "input", JSON_OBJECT, &order.input) ||
	    !field_json(call, "webhook", JSON_OBJECT, &order.webhook) ||
	    !field_text(call, "partition_key", PARTITION_KEY_MAX, &order.partition_key) ||
	    !field_count(call, "timeout_s", 1, TIMEOUT_MAX_S, &timeout_s))
		return;
	if (type == NULL || !task_type_parse(type, &order.type)) {
		call_reply_error(call, E_INVALID_VALUE, "type",
		    "type must be chat.completion, image.generation or video.generation.");
		return;
	}
	if (order.input == NULL) {
		call_reply_error(call, E_INVALID_VALUE, "input", "input must be an object.");
		return;
	}
	order.timeout_ms = timeout_s * 1000;
	task_order(call, req, &order, on_ordered);
}

/* ---- GET ---- */

static void
reply_task(struct api_call *call, const struct store_task *t)
{
	call_reply_json(call, 200, shape_task(t, true));
}

static void
get_task(struct api_call *call, struct http_req *req)
{
	uint64_t wait_s = 0;

	if (task_id_of_path(call, req, "task") &&
	    query_count(call, req, "wait", 0, TASK_WAIT_MAX_S, &wait_s))
		task_await(call, wait_s, TASK_TYPES, reply_task);
}

/* As existing clients poll; interval is theirs to say, and nothing to us, who wait for the end. */
static void
poll_task(struct api_call *call, struct http_req *req)
{
	uint64_t timeout_s = 300;

	if (task_id_of_path(call, req, "task") &&
	    query_count(call, req, "timeout", 1, POLL_MAX_S, &timeout_s))
		task_await(call, timeout_s, TASK_TYPES, reply_task);
}

static void
on_listed(void *arg, int err, const struct store_task *tasks, size_t count)
{
	struct api_call *call = arg;
	json_t *data;

	if (err != 0) {
		call_reply_error(call, err, NULL, NULL);
		return;
	}
	data = json_array();
	for (size_t i = 0; i < count && i < call->limit; i++)
		json_array_append_new(data, shape_task(&tasks[i], false));
	call_reply_json(call, 200, shape_list(data, count > call->limit));
}

static void
list_tasks(struct api_call *call, struct http_req *req)
{
	uint64_t limit = LIST_DEFAULT;
	struct store_task_filter f = {.app_id = call->app_id,
	    .state = http_query(req, "status"),
	    .type = http_query(req, "type"),
	    .after = http_query(req, "after")};

	if (!query_count(call, req, "limit", 1, LIST_MAX, &limit))
		return;
	call->limit = (uint32_t)limit;
	f.limit = call->limit + 1;
	store_task_list(call->api->store, &f, on_listed, call);
}

/* ---- POST .../cancel, .../retry ---- */

static void
reply_changed(
    struct api_call *call, int err, bool is_fine, const struct store_task *t, const char *otherwise)
{
	if (err != 0)
		call_reply_error(call, err, NULL, err == E_NOT_FOUND ? "No such task." : NULL);
	else if (!is_fine)
		call_reply_error(call, E_CONFLICT, NULL, otherwise);
	else
		reply_task(call, t);
}

static void
on_cancelled(void *arg, int err, bool has_changed, const struct store_task *t)
{
	bool is_fine = has_changed || (err == 0 && strcmp(t->state, "cancelled") == 0);

	reply_changed(arg, err, is_fine, t, "The task has ended.");
}

static void
cancel_task(struct api_call *call, struct http_req *req)
{
	if (task_id_of_path(call, req, "task"))
		tasks_cancel(call->api->tasks, call->object_id.s, call->app_id,
		    "Cancelled on request.", on_cancelled, call);
}

static void
on_retried(void *arg, int err, bool has_changed, const struct store_task *t)
{
	reply_changed(arg, err, has_changed, t,
	    "Only a task that failed, timed out or was cancelled, and is not archived, can be "
	    "begun anew.");
}

static void
retry_task(struct api_call *call, struct http_req *req)
{
	if (task_id_of_path(call, req, "task"))
		tasks_retry(
		    call->api->tasks, call->object_id.s, call->app_id, false, on_retried, call);
}

const struct api_endpoint tasks_endpoints[] = {
    {"POST", "/v1/tasks", HTTP_GATEWAY | HTTP_WORK, API_SERVER, post_task},
    {"GET", "/v1/tasks", 0, API_SERVER, list_tasks},
    {"GET", "/v1/tasks/{task}", HTTP_LONG, API_SERVER, get_task},
    {"GET", "/v1/tasks/{task}/poll", HTTP_LONG, API_SERVER, poll_task},
    {"POST", "/v1/tasks/{task}/cancel", 0, API_SERVER, cancel_task},
    {"POST", "/v1/tasks/{task}/retry", 0, API_SERVER, retry_task},
    {NULL, NULL, 0, 0, NULL},
};
