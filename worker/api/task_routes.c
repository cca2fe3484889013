/*
 * task_routes - images and videos under the names that existing clients use, their requests and
 * answers as those clients know them. What happens is what /v1/tasks does.
 */
#include <string.h>

#include "common/clock.h"
#include "worker/api/endpoints.h"
#include "worker/api/fields.h"
#include "worker/api/shapes.h"
#include "worker/api/task_shape.h"

enum { VIDEO_ESTIMATE_MS = 120000 }; /* of what nobody can know */

/* ---- what is asked ---- */

/* The body is the input, but for what is about the task. */
static const json_t *
webhook_of(json_t *body)
{
	json_t *webhook = json_object_get(body, "webhook"), *url, *headers, *secret;

	if (json_is_object(webhook))
		return webhook;
	url = json_object_get(body, "webhook_url");
	if (url == NULL || json_is_null(url))
		return NULL;
	headers = json_object_get(body, "webhook_headers");
	secret = json_object_get(body, "webhook_secret");
	webhook = json_pack("{s:O,s:O?,s:O?,s:[s,s,s,s,s,s]}", "url", url, "headers", headers,
	    "secret", secret, "events", "task.started", "task.progress", "task.completed",
	    "task.failed", "task.cancelled", "task.timed_out");
	json_object_set_new(body, "webhook", webhook);
	return webhook;
}

static void
post(struct api_call *call, struct http_req *req, enum task_type type, task_on_ordered *on_ordered)
{
	static const char *const ours[] = {
	    "webhook", "webhook_url", "webhook_headers", "webhook_secret", "partition_key"};
	struct task_order order = {.type = type, .is_existing = true};
	json_t *input;

	if (!fields_body(call, req, true) ||
	    !field_text(call, "partition_key", 256, &order.partition_key))
		return;
	order.webhook = webhook_of(call->body);
	input = json_copy(call->body);
	for (size_t i = 0; i < sizeof(ours) / sizeof(*ours); i++)
		json_object_del(input, ours[i]);
	order.input = input;
	task_order(call, req, &order, on_ordered);
	json_decref(input);
}

/* ---- images ---- */

static void
on_image_ordered(struct api_call *call, const struct store_task *t, bool is_new)
{
	const char *url = arena_printf(&call->arena, "/v1/images/generations/%s/status", t->id);

	(void)is_new;
	call_reply_json(call, 202,
	    json_pack("{s:s,s:s,s:s,s:o}", "task_id", t->id, "status", t->state, "check_status_url",
		url, "created_at", shape_time(t->created_at)));
}

static void
post_image(struct api_call *call, struct http_req *req)
{
	post(call, req, TASK_IMAGE, on_image_ordered);
}

static void
reply_image(struct api_call *call, const struct store_task *t)
{
	json_t *json = json_pack("{s:s,s:s,s:i,s:o,s:o}", "task_id", t->id, "status", t->state,
	    "progress", t->progress, "created_at", shape_time(t->created_at), "updated_at",
	    shape_time(t->updated_at));

	if (t->result_json != NULL)
		json_object_set_new(json, "result", shape_stored(t->result_json));
	if (t->error_message != NULL && t->ended_at != 0)
		json_object_set_new(json, "error", json_string(t->error_message));
	call_reply_json(call, 200, json);
}

static void
get_image(struct api_call *call, struct http_req *req)
{
	if (task_id_of_path(call, req, "task"))
		task_await(call, 0, TASK_IMAGE, reply_image);
}

static void
reply_error(
    struct api_call *call, int status, const char *type, const char *code, const char *message)
{
	struct http_req *req = call_req(call);

	call_reply_json(call, status,
	    json_pack("{s:{s:s,s:s,s:s,s:n},s:s}", "error", "message", message, "type", type,
		"code", code, "param", "request_id", req != NULL ? http_request_id(req) : ""));
}

static void
on_image_cancelled(void *arg, int err, bool has_changed, const struct store_task *t)
{
	struct api_call *call = arg;

	if (err != 0)
		call_reply_error(call, err, NULL, err == E_NOT_FOUND ? "No such task." : NULL);
	else if (!has_changed)
		reply_error(
		    call, 400, "invalid_request", "invalid_operation", "The task has ended.");
	else
		reply_image(call, t);
}

static void
cancel_image(struct api_call *call, const struct store_task *t)
{
	(void)t;
	tasks_cancel(call->api->tasks, call->object_id.s, call->app_id, "Cancelled on request.",
	    on_image_cancelled, call);
}

static void
delete_image(struct api_call *call, struct http_req *req)
{
	if (task_id_of_path(call, req, "task"))
		task_await(call, 0, TASK_IMAGE, cancel_image);
}

/* ---- videos ---- */

/* What these clients call our states. */
static const char *
video_status(const struct store_task *t)
{
	if (strcmp(t->state, "queued") == 0)
		return "pending";
	if (strcmp(t->state, "running") == 0)
		return "running";
	if (strcmp(t->state, "succeeded") == 0)
		return "completed";
	return strcmp(t->state, "timed_out") == 0 ? "timedout" : t->state;
}

static void
on_video_ordered(struct api_call *call, const struct store_task *t, bool is_new)
{
	const char *url = arena_printf(&call->arena, "/v1/videos/generations/tasks/%s", t->id);

	(void)is_new;
	call_reply_json(call, 202,
	    json_pack("{s:s,s:s,s:o,s:o,s:s}", "taskId", t->id, "status", video_status(t),
		"createdAt", shape_time(t->created_at), "estimatedCompletionTime",
		shape_time(t->created_at + VIDEO_ESTIMATE_MS), "checkStatusUrl", url));
}

static void
post_video(struct api_call *call, struct http_req *req)
{
	post(call, req, TASK_VIDEO, on_video_ordered);
}

static json_t *
video_response(const struct store_task *t)
{
	json_t *result, *url, *response;

	if (t->result_json == NULL)
		return json_null();
	result = shape_stored(t->result_json);
	url = json_object_get(result, "url");
	response = json_pack("{s:I,s:o,s:[{s:O?}]}", "created", (json_int_t)(t->ended_at / 1000),
	    "model", shape_text(t->model), "data", "url", url);
	json_decref(result);
	return response;
}

static void
reply_video(struct api_call *call, const struct store_task *t)
{
	json_t *result = shape_stored(t->result_json);
	json_t *url = json_object_get(result, "url");

	call_reply_json(call, 200,
	    json_pack("{s:s,s:s,s:i,s:o,s:o,s:o,s:o,s:O?,s:o}", "taskId", t->id, "status",
		video_status(t), "progress", t->progress, "createdAt", shape_time(t->created_at),
		"updatedAt", shape_time(t->updated_at), "completedAt", shape_time(t->ended_at),
		"error", shape_text(t->ended_at != 0 ? t->error_message : NULL), "result", url,
		"videoResponse", video_response(t)));
	json_decref(result);
}

static void
get_video(struct api_call *call, struct http_req *req)
{
	if (task_id_of_path(call, req, "task"))
		task_await(call, 0, TASK_VIDEO, reply_video);
}

static void
on_video_retried(void *arg, int err, bool has_changed, const struct store_task *t)
{
	struct api_call *call = arg;

	if (err != 0)
		call_reply_error(call, err, NULL, err == E_NOT_FOUND ? "No such task." : NULL);
	else if (!has_changed)
		reply_error(call, 400, "invalid_request", "invalid_operation",
		    "Only a task that failed, and may do better, is begun anew.");
	else
		reply_video(call, t);
}

static void
retry_found_video(struct api_call *call, const struct store_task *t)
{
	(void)t;
	tasks_retry(
	    call->api->tasks, call->object_id.s, call->app_id, true, on_video_retried, call);
}

static void
retry_video(struct api_call *call, struct http_req *req)
{
	if (task_id_of_path(call, req, "task"))
		task_await(call, 0, TASK_VIDEO, retry_found_video);
}

static void
on_video_cancelled(void *arg, int err, bool has_changed, const struct store_task *t)
{
	struct api_call *call = arg;
	struct http_req *req = call_req(call);

	(void)t;
	if (err != 0) {
		call_reply_error(call, err, NULL, err == E_NOT_FOUND ? "No such task." : NULL);
	} else if (!has_changed) {
		call_reply_error(call, E_CONFLICT, NULL, "The task has ended.");
	} else {
		if (req != NULL)
			http_reply(req, 204, "", STR_NONE);
		call_end(call);
	}
}

static void
cancel_video(struct api_call *call, const struct store_task *t)
{
	(void)t;
	tasks_cancel(call->api->tasks, call->object_id.s, call->app_id, "Cancelled on request.",
	    on_video_cancelled, call);
}

static void
delete_video(struct api_call *call, struct http_req *req)
{
	if (task_id_of_path(call, req, "task"))
		task_await(call, 0, TASK_VIDEO, cancel_video);
}

#define ORDER (HTTP_GATEWAY | HTTP_WORK)

const struct api_endpoint task_routes_endpoints[] = {
    {"POST", "/v1/images/generations/async", ORDER, API_SERVER, post_image},
    {"GET", "/v1/images/generations/{task}/status", 0, API_SERVER, get_image},
    {"DELETE", "/v1/images/generations/{task}", 0, API_SERVER, delete_image},
    {"POST", "/v1/videos/generations/async", ORDER, API_SERVER, post_video},
    {"GET", "/v1/videos/generations/tasks/{task}", 0, API_SERVER, get_video},
    {"POST", "/v1/videos/generations/tasks/{task}/retry", 0, API_SERVER, retry_video},
    {"DELETE", "/v1/videos/generations/{task}", 0, API_SERVER, delete_video},
    {NULL, NULL, 0, 0, NULL},
};
