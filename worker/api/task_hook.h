/*
 * task_hook - the webhook that a task names: {"url","secret"?,"headers"?,"events"?}, checked, as an
 * endpoint of the outbox and as the task's row remembers it.
 */
#ifndef WORKER_API_TASK_HOOK_H
#define WORKER_API_TASK_HOOK_H

#include "worker/api/call.h"

/* Texts live as long as the call. False: it was answered. webhook NULL: nothing is wanted. */
bool task_hook_read(struct api_call *, const json_t *webhook, bool is_existing,
    const char **ret_json, struct store_webhook_endpoint **ret_endpoint);

#endif
