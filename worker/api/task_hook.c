/* task_hook - see task_hook.h. */
#include "worker/api/task_hook.h"

#include <string.h>

#include "common/check.h"
#include "worker/api/shapes.h"
#include "worker/webhook/endpoint.h"

static const char *const events[] = {"task.started", "task.progress", "task.completed",
    "task.failed", "task.cancelled", "task.timed_out"};

static bool
refuse(struct api_call *call, const char *field, const char *why)
{
	call_reply_error(
	    call, E_INVALID_VALUE, arena_printf(&call->arena, "webhook.%s", field), why);
	return false;
}

static bool
is_event(const char *name)
{
	for (size_t i = 0; name != NULL && i < ARRAY_LEN(events); i++)
		if (strcmp(events[i], name) == 0)
			return true;
	return false;
}

static bool
check_events(struct api_call *call, const json_t *list)
{
	const json_t *one;
	size_t i;

	if (list == NULL || json_is_null(list))
		return true;
	if (!json_is_array(list) || json_array_size(list) > ARRAY_LEN(events))
		return refuse(call, "events", "events must be an array of names of events.");
	json_array_foreach(list, i, one)
	{
		if (!is_event(json_string_value(one)))
			return refuse(call, "events",
			    "events may be task.started, task.progress, task.completed, "
			    "task.failed, task.cancelled and task.timed_out.");
	}
	return true;
}

static bool
read_headers(struct api_call *call, const json_t *from, struct endpoint_named *named)
{
	struct client_header *headers;
	const char *name;
	json_t *value;

	if (from == NULL || json_is_null(from))
		return true;
	if (!json_is_object(from) || json_object_size(from) > ENDPOINT_HEADERS_MAX)
		return refuse(call, "headers", "headers must be an object of a few texts.");
	headers = arena_calloc(&call->arena, (json_object_size(from) + 1) * sizeof(*headers));
	json_object_foreach((json_t *)from, name, value)
	{
		if (!json_is_string(value))
			return refuse(call, "headers", "headers must be an object of a few texts.");
		headers[named->header_count++] =
		    (struct client_header){name, json_string_value(value)};
	}
	named->headers = headers;
	return true;
}

bool
task_hook_read(struct api_call *call, const json_t *webhook, bool is_existing,
    const char **ret_json, struct store_webhook_endpoint **ret_endpoint)
{
	const struct conf_webhooks *conf = &call->api->conf->webhooks;
	const json_t *secret = json_object_get(webhook, "secret");
	struct endpoint_named named = {.app_id = call->app_id,
	    .url = json_string_value(json_object_get(webhook, "url")),
	    .secret = json_string_value(secret),
	    .batch = 1};
	const char *field = NULL, *why;
	json_t *kept;

	*ret_json = NULL;
	*ret_endpoint = NULL;
	if (webhook == NULL)
		return true;
	if (named.url == NULL)
		return refuse(call, "url", "url must be a text.");
	if (secret != NULL && !json_is_null(secret) && named.secret == NULL)
		return refuse(call, "secret", "secret must be a text.");
	if (!check_events(call, json_object_get(webhook, "events")) ||
	    !read_headers(call, json_object_get(webhook, "headers"), &named))
		return false;
	if ((why = endpoint_check(&named, conf, &field)) != NULL)
		return refuse(call, field, why);
	*ret_endpoint = arena_calloc(&call->arena, sizeof(**ret_endpoint));
	endpoint_format(&named, conf, &call->arena, *ret_endpoint);
	kept = json_pack("{s:s,s:b,s:O?}", "endpoint", (*ret_endpoint)->id, "existing",
	    (int)is_existing, "events", json_object_get(webhook, "events"));
	*ret_json = shape_dump(&call->arena, kept);
	json_decref(kept);
	return true;
}
