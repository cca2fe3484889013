/*
 * hub_shape_test - events in the names and shapes that existing clients of hubs know: all of them.
 */
#include "t/unit/unit.h"

#include <string.h>

#include "common/check.h"
#include "worker/events/hub_shape.h"
#include "worker/events/signalr.h"

#define AT "\"2026-01-02T03:04:05.678Z\""
enum { TEXT_MAX = 1024 };

/* What a hub tells; arguments NULL: it does not tell it. ' stands for ". */
struct told {
	enum hub hub;
	const char *event, *payload;
	const char *target, *arguments;
};

static void
straighten(const char *text, char out[TEXT_MAX])
{
	size_t len = strlen(text);

	assert_true(len < TEXT_MAX);
	for (size_t i = 0; i <= len; i++)
		out[i] = text[i] == '\'' ? '"' : text[i];
}

static void
check_told(const struct told *t)
{
	char payload[TEXT_MAX], arguments[TEXT_MAX];
	struct buf got = BUF_INIT, wanted = BUF_INIT;

	straighten(t->payload, payload);
	const struct event e = {
	    .at_ms = 1767323045678, .name = str_of(t->event), .payload = str_of(payload)};
	assert_int_equal(hub_shape(t->hub, &e, &got), t->target != NULL);
	if (t->target != NULL) {
		straighten(t->arguments, arguments);
		signalr_add_invocation(&wanted, t->target, str_of(arguments));
	}
	buf_add_char(&got, '\0');
	buf_add_char(&wanted, '\0');
	assert_string_equal(got.data, wanted.data);
	buf_fini(&got);
	buf_fini(&wanted);
}

static void
check_all(const struct told *list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		check_told(&list[i]);
}

static void
tasks(void **state)
{
	static const struct told list[] = {
	    {HUB_TASKS, "task.started",
		"{'task_id':'task_1','type':'chat.completion','metadata':{'a':[1]}}", "TaskStarted",
		"'task_1','chat.completion',{'a':[1]}"},
	    {HUB_TASKS, "task.started", "{'task_id':'task_1','type':'image.generation'}",
		"TaskStarted", "'task_1','image.generation',null"},
	    {HUB_TASKS, "task.progress", "{'task_id':'task_1','progress':40,'message':'m'}",
		"TaskProgress", "'task_1',40,'m'"},
	    {HUB_TASKS, "task.completed", "{'task_id':'task_1','result':{'b':null}}",
		"TaskCompleted", "'task_1',{'b':null}"},
	    {HUB_TASKS, "task.completed", "{'task_id':'task_1','is_cut':true,'see':'task:task_1'}",
		"TaskCompleted", "'task_1',null"},
	    {HUB_TASKS, "task.failed", "{'task_id':'task_1','error':'e','is_retryable':false}",
		"TaskFailed", "'task_1','e',false"},
	    {HUB_TASKS, "task.cancelled", "{'task_id':'task_1','reason':'r'}", "TaskCancelled",
		"'task_1','r'"},
	    {HUB_TASKS, "task.timed_out", "{'task_id':'task_1','seconds':600,'error':'e'}",
		"TaskTimedOut", "'task_1',600"},
	    {HUB_TASKS, "turn.completed", "{}", NULL, NULL},
	    {HUB_TASKS, "spend.update", "{}", NULL, NULL},
	};

	(void)state;
	check_all(list, ARRAY_LEN(list));
}

static void
images(void **state)
{
	static const struct told list[] = {
	    {HUB_IMAGES, "task.started",
		"{'task_id':'t','type':'image.generation','prompt':'a fish','n':2,'size':'1x1',"
		"'style':'s'}",
		"ImageGenerationStarted",
		"{'taskId':'t','prompt':'a fish','numberOfImages':2,'size':'1x1','style':'s',"
		"'startedAt':" AT "}"},
	    {HUB_IMAGES, "task.progress",
		"{'task_id':'t','type':'image.generation','progress':50,'status':'running',"
		"'images_completed':1,'total_images':2,'message':'m'}",
		"ImageGenerationProgress",
		"{'taskId':'t','progressPercentage':50,'status':'running','imagesCompleted':1,"
		"'totalImages':2,'message':'m','timestamp':" AT "}"},
	    {HUB_IMAGES, "task.completed",
		"{'task_id':'t','type':'image.generation','image_urls':['u'],"
		"'duration_seconds':1.5,'cost':2}",
		"ImageGenerationCompleted",
		"{'taskId':'t','imageUrls':['u'],'durationSeconds':1.5,'cost':2,"
		"'completedAt':" AT "}"},
	    {HUB_IMAGES, "task.failed",
		"{'task_id':'t','type':'image.generation','error':'e','is_retryable':true}",
		"ImageGenerationFailed",
		"{'taskId':'t','error':'e','isRetryable':true,'failedAt':" AT "}"},
	    {HUB_IMAGES, "task.timed_out",
		"{'task_id':'t','type':'image.generation','seconds':5,'error':'e',"
		"'is_retryable':true}",
		"ImageGenerationFailed",
		"{'taskId':'t','error':'e','isRetryable':true,'failedAt':" AT "}"},
	    {HUB_IMAGES, "task.cancelled", "{'task_id':'t','type':'image.generation','reason':'r'}",
		"ImageGenerationCancelled", "{'taskId':'t','reason':'r','cancelledAt':" AT "}"},
	    /* Another type's task is none of this hub's. */
	    {HUB_IMAGES, "task.completed", "{'task_id':'t','type':'video.generation'}", NULL, NULL},
	    {HUB_IMAGES, "task.failed", "{'task_id':'t','type':'chat.completion'}", NULL, NULL},
	};

	(void)state;
	check_all(list, ARRAY_LEN(list));
}

static void
videos(void **state)
{
	static const struct told list[] = {
	    {HUB_VIDEOS, "task.started",
		"{'task_id':'t','type':'video.generation','provider':'p','estimated_seconds':90}",
		"VideoGenerationStarted",
		"{'taskId':'t','provider':'p','startedAt':" AT ",'estimatedSeconds':90}"},
	    {HUB_VIDEOS, "task.progress",
		"{'task_id':'t','type':'video.generation','progress':7,'status':'running',"
		"'message':null}",
		"VideoGenerationProgress",
		"{'taskId':'t','progressPercentage':7,'status':'running','message':null,"
		"'timestamp':" AT "}"},
	    {HUB_VIDEOS, "task.completed",
		"{'task_id':'t','type':'video.generation','video_url':'u','duration_seconds':3,"
		"'cost':1}",
		"VideoGenerationCompleted",
		"{'taskId':'t','videoUrl':'u','durationSeconds':3,'cost':1,'completedAt':" AT "}"},
	    {HUB_VIDEOS, "task.failed",
		"{'task_id':'t','type':'video.generation','error':'e','is_retryable':false}",
		"VideoGenerationFailed",
		"{'taskId':'t','error':'e','isRetryable':false,'failedAt':" AT "}"},
	    {HUB_VIDEOS, "task.timed_out",
		"{'task_id':'t','type':'video.generation','error':'e','is_retryable':true}",
		"VideoGenerationFailed",
		"{'taskId':'t','error':'e','isRetryable':true,'failedAt':" AT "}"},
	    {HUB_VIDEOS, "task.cancelled",
		"{'task_id':'t','type':'video.generation','reason':null}",
		"VideoGenerationCancelled", "{'taskId':'t','reason':null,'cancelledAt':" AT "}"},
	    {HUB_VIDEOS, "task.completed", "{'task_id':'t','type':'image.generation'}", NULL, NULL},
	};

	(void)state;
	check_all(list, ARRAY_LEN(list));
}

/* As they are, on which hubs. */
static void
the_rest(void **state)
{
	static const struct {
		const char *event, *target;
		unsigned hubs;
	} list[] = {
	    {"model.mapping", "OnModelMappingChanged",
		1 << HUB_NAVIGATION | 1 << HUB_NOTIFICATIONS},
	    {"provider.health", "OnProviderHealthChanged",
		1 << HUB_NAVIGATION | 1 << HUB_NOTIFICATIONS},
	    {"model.availability", "OnModelAvailabilityChanged",
		1 << HUB_NAVIGATION | 1 << HUB_NOTIFICATIONS},
	    {"model.capabilities", "OnModelCapabilitiesDiscovered",
		1 << HUB_NAVIGATION | 1 << HUB_NOTIFICATIONS},
	    {"system.announcement", "SystemAnnouncement", 1 << HUB_NOTIFICATIONS},
	    {"service.degraded", "ServiceDegraded", 1 << HUB_NOTIFICATIONS},
	    {"service.restored", "ServiceRestored", 1 << HUB_NOTIFICATIONS},
	    {"rate_limit.warning", "RateLimitWarning", 1 << HUB_NOTIFICATIONS},
	    {"config.changed", "ConfigurationChanged", 1 << HUB_NOTIFICATIONS},
	    {"webhook.attempted", "DeliveryAttempted", 1 << HUB_WEBHOOKS},
	    {"webhook.succeeded", "DeliverySucceeded", 1 << HUB_WEBHOOKS},
	    {"webhook.failed", "DeliveryFailed", 1 << HUB_WEBHOOKS},
	    {"webhook.retry_scheduled", "RetryScheduled", 1 << HUB_WEBHOOKS},
	    {"webhook.breaker", "CircuitBreakerStateChanged", 1 << HUB_WEBHOOKS},
	    {"webhook.statistics", "DeliveryStatisticsUpdated", 1 << HUB_WEBHOOKS},
	    {"spend.update", "SpendUpdate", 1 << HUB_SPEND},
	    {"budget.alert", "BudgetAlert", 1 << HUB_SPEND},
	    {"spend.summary", "SpendSummary", 1 << HUB_SPEND},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(list); i++)
		for (enum hub hub = 0; hub < HUB_COUNT; hub++) {
			bool is_told = (list[i].hubs & 1U << hub) != 0;
			const struct told t = {hub, list[i].event, "{'a':{'b':1}}",
			    is_told ? list[i].target : NULL, "{'a':{'b':1}}"};

			check_told(&t);
		}
}

static void
names(void **state)
{
	static const char *const wanted[] = {"tasks", "image-generation", "video-generation",
	    "navigation-state", "notifications", "webhooks", "spend"};
	enum hub hub;

	(void)state;
	assert_int_equal(ARRAY_LEN(wanted), HUB_COUNT);
	for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
		assert_true(hub_find(wanted[i], &hub));
		assert_int_equal(hub, i);
		assert_string_equal(hub_name(hub), wanted[i]);
	}
	assert_false(hub_find("task", &hub));
	assert_false(hub_find("", &hub));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(tasks),
	    cmocka_unit_test(images),
	    cmocka_unit_test(videos),
	    cmocka_unit_test(the_rest),
	    cmocka_unit_test(names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
