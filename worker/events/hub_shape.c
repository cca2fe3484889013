/* hub_shape - see hub_shape.h. */
#include "worker/events/hub_shape.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/clock.h"
#include "worker/events/signalr.h"

enum { PARTS_MAX = 8 };

/* A member of the shape, and the payload's that it is made of. */
struct part {
	const char *name; /* NULL: a position */
	const char *from; /* "@": the event's time */
};

struct shape {
	unsigned hubs; /* bits of enum hub */
	const char *event, *target;
	const char *type; /* a task's type begins with it; NULL: any */
	struct part parts[PARTS_MAX];
};

#define OF(hub) (1U << (hub))
#define AS_IT_IS                                                                                   \
	{                                                                                          \
		{                                                                                  \
			NULL, "*"                                                                  \
		}                                                                                  \
	}
#define NEWS (OF(HUB_NAVIGATION) | OF(HUB_NOTIFICATIONS))

static const struct shape shapes[] = {
    {OF(HUB_TASKS), "task.started", "TaskStarted", NULL,
	{{NULL, "task_id"}, {NULL, "type"}, {NULL, "metadata"}}},
    {OF(HUB_TASKS), "task.progress", "TaskProgress", NULL,
	{{NULL, "task_id"}, {NULL, "progress"}, {NULL, "message"}}},
    {OF(HUB_TASKS), "task.completed", "TaskCompleted", NULL, {{NULL, "task_id"}, {NULL, "result"}}},
    {OF(HUB_TASKS), "task.failed", "TaskFailed", NULL,
	{{NULL, "task_id"}, {NULL, "error"}, {NULL, "is_retryable"}}},
    {OF(HUB_TASKS), "task.cancelled", "TaskCancelled", NULL, {{NULL, "task_id"}, {NULL, "reason"}}},
    {OF(HUB_TASKS), "task.timed_out", "TaskTimedOut", NULL, {{NULL, "task_id"}, {NULL, "seconds"}}},

    {OF(HUB_IMAGES), "task.started", "ImageGenerationStarted", "image.",
	{{"taskId", "task_id"}, {"prompt", "prompt"}, {"numberOfImages", "n"}, {"size", "size"},
	    {"style", "style"}, {"startedAt", "@"}}},
    {OF(HUB_IMAGES), "task.progress", "ImageGenerationProgress", "image.",
	{{"taskId", "task_id"}, {"progressPercentage", "progress"}, {"status", "status"},
	    {"imagesCompleted", "images_completed"}, {"totalImages", "total_images"},
	    {"message", "message"}, {"timestamp", "@"}}},
    {OF(HUB_IMAGES), "task.completed", "ImageGenerationCompleted", "image.",
	{{"taskId", "task_id"}, {"imageUrls", "image_urls"},
	    {"durationSeconds", "duration_seconds"}, {"cost", "cost"}, {"completedAt", "@"}}},
    {OF(HUB_IMAGES), "task.failed", "ImageGenerationFailed", "image.",
	{{"taskId", "task_id"}, {"error", "error"}, {"isRetryable", "is_retryable"},
	    {"failedAt", "@"}}},
    {OF(HUB_IMAGES), "task.timed_out", "ImageGenerationFailed", "image.",
	{{"taskId", "task_id"}, {"error", "error"}, {"isRetryable", "is_retryable"},
	    {"failedAt", "@"}}},
    {OF(HUB_IMAGES), "task.cancelled", "ImageGenerationCancelled", "image.",
	{{"taskId", "task_id"}, {"reason", "reason"}, {"cancelledAt", "@"}}},

    {OF(HUB_VIDEOS), "task.started", "VideoGenerationStarted", "video.",
	{{"taskId", "task_id"}, {"provider", "provider"}, {"startedAt", "@"},
	    {"estimatedSeconds", "estimated_seconds"}}},
    {OF(HUB_VIDEOS), "task.progress", "VideoGenerationProgress", "video.",
	{{"taskId", "task_id"}, {"progressPercentage", "progress"}, {"status", "status"},
	    {"message", "message"}, {"timestamp", "@"}}},
    {OF(HUB_VIDEOS), "task.completed", "VideoGenerationCompleted", "video.",
	{{"taskId", "task_id"}, {"videoUrl", "video_url"}, {"durationSeconds", "duration_seconds"},
	    {"cost", "cost"}, {"completedAt", "@"}}},
    {OF(HUB_VIDEOS), "task.failed", "VideoGenerationFailed", "video.",
	{{"taskId", "task_id"}, {"error", "error"}, {"isRetryable", "is_retryable"},
	    {"failedAt", "@"}}},
    {OF(HUB_VIDEOS), "task.timed_out", "VideoGenerationFailed", "video.",
	{{"taskId", "task_id"}, {"error", "error"}, {"isRetryable", "is_retryable"},
	    {"failedAt", "@"}}},
    {OF(HUB_VIDEOS), "task.cancelled", "VideoGenerationCancelled", "video.",
	{{"taskId", "task_id"}, {"reason", "reason"}, {"cancelledAt", "@"}}},

    {NEWS, "model.mapping", "OnModelMappingChanged", NULL, AS_IT_IS},
    {NEWS, "provider.health", "OnProviderHealthChanged", NULL, AS_IT_IS},
    {NEWS, "model.availability", "OnModelAvailabilityChanged", NULL, AS_IT_IS},
    {NEWS, "model.capabilities", "OnModelCapabilitiesDiscovered", NULL, AS_IT_IS},
    {OF(HUB_NOTIFICATIONS), "system.announcement", "SystemAnnouncement", NULL, AS_IT_IS},
    {OF(HUB_NOTIFICATIONS), "service.degraded", "ServiceDegraded", NULL, AS_IT_IS},
    {OF(HUB_NOTIFICATIONS), "service.restored", "ServiceRestored", NULL, AS_IT_IS},
    {OF(HUB_NOTIFICATIONS), "rate_limit.warning", "RateLimitWarning", NULL, AS_IT_IS},
    {OF(HUB_NOTIFICATIONS), "config.changed", "ConfigurationChanged", NULL, AS_IT_IS},

    {OF(HUB_WEBHOOKS), "webhook.attempted", "DeliveryAttempted", NULL, AS_IT_IS},
    {OF(HUB_WEBHOOKS), "webhook.succeeded", "DeliverySucceeded", NULL, AS_IT_IS},
    {OF(HUB_WEBHOOKS), "webhook.failed", "DeliveryFailed", NULL, AS_IT_IS},
    {OF(HUB_WEBHOOKS), "webhook.retry_scheduled", "RetryScheduled", NULL, AS_IT_IS},
    {OF(HUB_WEBHOOKS), "webhook.breaker", "CircuitBreakerStateChanged", NULL, AS_IT_IS},
    {OF(HUB_WEBHOOKS), "webhook.statistics", "DeliveryStatisticsUpdated", NULL, AS_IT_IS},

    {OF(HUB_SPEND), "spend.update", "SpendUpdate", NULL, AS_IT_IS},
    {OF(HUB_SPEND), "budget.alert", "BudgetAlert", NULL, AS_IT_IS},
    {OF(HUB_SPEND), "spend.summary", "SpendSummary", NULL, AS_IT_IS},
};

static const struct {
	const char *name;
	const char *topics[4];
} hubs[HUB_COUNT] = {
    [HUB_TASKS] = {"tasks", {NULL}},
    [HUB_IMAGES] = {"image-generation", {NULL}},
    [HUB_VIDEOS] = {"video-generation", {NULL}},
    [HUB_NAVIGATION] = {"navigation-state", {NULL}},
    [HUB_NOTIFICATIONS] = {"notifications", {"notifications", "navigation-state", NULL}},
    [HUB_WEBHOOKS] = {"webhooks", {NULL}},
    [HUB_SPEND] = {"spend", {"spend", NULL}},
};

const char *
hub_name(enum hub hub)
{
	return hubs[hub].name;
}

bool
hub_find(const char *name, enum hub *ret)
{
	for (enum hub h = 0; h < HUB_COUNT; h++) {
		if (strcmp(hubs[h].name, name) == 0) {
			*ret = h;
			return true;
		}
	}
	return false;
}

const char *const *
hub_topics(enum hub hub)
{
	return hubs[hub].topics;
}

bool
hub_is_last(const struct event *e)
{
	return (e->flags & EVENTS_FINAL) != 0;
}

/* ---- */

static const struct shape *
shape_find(enum hub hub, struct str event)
{
	for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
		if ((shapes[i].hubs & OF(hub)) != 0 && str_eq(str_of(shapes[i].event), event))
			return &shapes[i];
	return NULL;
}

static void
add_value(struct buf *b, const struct event *e, const json_t *payload, const char *from)
{
	char at[CLOCK_RFC3339_LEN + 1];
	char *text;

	if (strcmp(from, "*") == 0) {
		buf_add_str(b, e->payload.len > 0 ? e->payload : STR("null"));
		return;
	}
	if (strcmp(from, "@") == 0) {
		clock_format(e->at_ms, at);
		buf_printf(b, "\"%s\"", at);
		return;
	}
	text = json_dumps(json_object_get(payload, from), JSON_COMPACT | JSON_ENCODE_ANY);
	buf_add_cstr(b, text != NULL ? text : "null");
	free(text);
}

static void
add_parts(struct buf *b, const struct shape *s, const struct event *e, const json_t *payload)
{
	bool is_object = s->parts[0].name != NULL;

	if (is_object)
		buf_add_char(b, '{');
	for (size_t i = 0; i < PARTS_MAX && s->parts[i].from != NULL; i++) {
		if (i > 0)
			buf_add_char(b, ',');
		if (is_object)
			buf_printf(b, "\"%s\":", s->parts[i].name);
		add_value(b, e, payload, s->parts[i].from);
	}
	if (is_object)
		buf_add_char(b, '}');
}

bool
hub_shape(enum hub hub, const struct event *e, struct buf *out)
{
	const struct shape *s = shape_find(hub, e->name);
	json_t *payload;
	const char *type;
	bool is_of_type;

	if (s == NULL)
		return false;
	payload = json_loadb(
	    e->payload.p != NULL ? e->payload.p : "", e->payload.len, JSON_ALLOW_NUL, NULL);
	type = json_string_value(json_object_get(payload, "type"));
	is_of_type = s->type == NULL || type == NULL || str_starts(str_of(type), str_of(s->type));
	if (is_of_type) {
		struct buf arguments = BUF_INIT;

		add_parts(&arguments, s, e, payload);
		signalr_add_invocation(out, s->target, buf_str(&arguments));
		buf_fini(&arguments);
	}
	json_decref(payload);
	return is_of_type;
}
