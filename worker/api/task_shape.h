/*
 * task_shape - tasks as clients see them, and what the task routes of both families share.
 */
#ifndef WORKER_API_TASK_SHAPE_H
#define WORKER_API_TASK_SHAPE_H

#include "worker/api/call.h"
#include "worker/task/task.h"

enum { TASK_WAIT_MAX_S = 60 };

json_t *shape_task(const struct store_task *, bool with_result);

/* What is to be done, as it was asked for; texts live as long as the call. */
struct task_order {
	enum task_type type;
	const json_t *input; /* an object, borrowed from the call's body */
	const json_t *webhook;
	bool is_existing; /* its webhook's body is the one of the existing routes */
	const char *partition_key;
	uint64_t timeout_ms; /* 0: tasks.timeout */
};
/* Checks the rest (model, input, webhook), and stores the task; then on_task as of tasks_create()
 * with a call that still wants an answer; what is new is given too, as it will be read. Otherwise
 * the call was answered. */
typedef void task_on_ordered(struct api_call *, const struct store_task *, bool is_new);
void task_order(struct api_call *, struct http_req *, const struct task_order *, task_on_ordered *);

/* The task id of the path. False: answered, 404. */
bool task_id_of_path(struct api_call *, struct http_req *, const char *param);
/* Its task when it has ended, or after wait_s; on_task with err 0 and the task, or it was answered:
 * 404. type: others are 404 too; TASK_TYPES: any. */
typedef void task_on_found(struct api_call *, const struct store_task *);
void task_await(struct api_call *, uint64_t wait_s, enum task_type, task_on_found *);

#endif
