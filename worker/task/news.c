/* news - see news.h. */
#include "worker/task/news.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "worker/webhook/webhook.h"

/* A larger result is not read for its news, which are cut: its pictures are in it, not at
 * addresses. Four times what an event may have, because spaces go when it is written anew. */
enum { RESULT_READ_MAX = 4 * EVENTS_PAYLOAD_MAX };

/* NULL: nobody is told of that. */
static const char *
name_of(const struct store_task *t, const struct said *s)
{
	if (strcmp(s->state, "succeeded") == 0)
		return "task.completed";
	if (strcmp(s->state, "failed") == 0)
		return "task.failed";
	if (strcmp(s->state, "cancelled") == 0)
		return "task.cancelled";
	if (strcmp(s->state, "timed_out") == 0)
		return "task.timed_out";
	if (strcmp(s->state, "running") != 0)
		return NULL;
	return strcmp(t->state, "running") == 0 ? "task.progress" : "task.started";
}

static bool
is_of(const struct store_task *t, enum task_type type)
{
	return strcmp(t->type, task_type_name(type)) == 0;
}

bool
news_needs_input(const struct store_task *t)
{
	return t->webhook_json != NULL || !is_of(t, TASK_CHAT);
}

static json_t *
parse(const char *text, size_t len)
{
	json_t *json = answer_parse(str_sub(text, text != NULL ? len : 0));

	return json != NULL ? json : json_null();
}

static json_t *
text_or_null(const char *text)
{
	return text != NULL ? json_string(text) : json_null();
}

static json_t *
time_text(int64_t wall_ms)
{
	char text[CLOCK_RFC3339_LEN + 1];

	clock_format(wall_ms, text);
	return json_string(text);
}

/* ---- what a result has ---- */

/* The addresses of its pictures. */
static json_t *
image_urls(const json_t *result)
{
	json_t *urls = json_array();
	size_t i;
	const json_t *one;

	json_array_foreach(json_object_get(result, "data"), i, one)
	{
		json_t *url = json_object_get(one, "url");

		if (json_is_string(url))
			json_array_append(urls, url);
	}
	return urls;
}

static double
seconds_of(const struct store_task *t)
{
	int64_t end = t->ended_at > 0 ? t->ended_at : clock_wall_ms();

	return t->started_at > 0 && end > t->started_at ? (double)(end - t->started_at) / 1000 : 0;
}

static void
copy_member(json_t *to, const char *as, const json_t *from, const char *name)
{
	json_t *value = json_object_get(from, name);

	if (value != NULL)
		json_object_set(to, as, value);
}

/* ---- subscribers ---- */

static void
add_input(json_t *news, const struct store_task *t)
{
	json_t *input = t->input_json != NULL ? parse(t->input_json, strlen(t->input_json)) : NULL;

	copy_member(news, "prompt", input, "prompt");
	copy_member(news, "n", input, "n");
	copy_member(news, "size", input, "size");
	copy_member(news, "style", input, "style");
	copy_member(news, "metadata", input, "metadata");
	json_decref(input);
}

static void
add_result(json_t *news, const struct store_task *t, const struct said *s)
{
	json_t *result = parse(s->result.p, s->result.len);

	if (is_of(t, TASK_IMAGE))
		json_object_set_new(news, "image_urls", image_urls(result));
	if (is_of(t, TASK_VIDEO))
		copy_member(news, "video_url", result, "url");
	json_object_set_new(news, "duration_seconds", json_real(seconds_of(t)));
	json_object_set_new(news, "result", result);
}

static json_t *
news_of(const struct store_task *t, const struct said *s, const char *name)
{
	json_t *news =
	    json_pack("{s:s,s:s,s:s}", "task_id", t->id, "type", t->type, "status", s->state);

	if (strcmp(name, "task.started") == 0) {
		add_input(news, t);
		json_object_set_new(news, "provider", text_or_null(t->provider));
	} else if (strcmp(name, "task.progress") == 0) {
		json_object_set_new(news, "progress", json_integer(s->progress));
		json_object_set_new(news, "message", text_or_null(s->message));
	} else if (strcmp(name, "task.completed") == 0) {
		add_result(news, t, s);
	} else if (strcmp(name, "task.failed") == 0) {
		json_object_set_new(news, "error", text_or_null(s->error_message));
		json_object_set_new(news, "code", text_or_null(s->error_code));
		json_object_set_new(news, "is_retryable", json_boolean(s->is_retryable));
	} else if (strcmp(name, "task.cancelled") == 0) {
		json_object_set_new(news, "reason", text_or_null(s->error_message));
	} else {
		json_object_set_new(
		    news, "seconds", json_integer((json_int_t)(t->timeout_ms / 1000)));
		json_object_set_new(news, "error", text_or_null(s->error_message));
		json_object_set_new(news, "is_retryable", json_boolean(s->is_retryable));
	}
	return news;
}

/* Without what is too large for an event, the largest first: who needs that reads the record. Which
 * task it is, and what became of it, always stays. */
static void
cut(json_t *news, const struct store_task *t)
{
	static const char *const large[] = {"result", "metadata", "prompt", "image_urls",
	    "video_url", "error", "message", "reason", "style", "size", "n"};

	json_object_set_new(news, "is_cut", json_true());
	json_object_set_new(news, "see", json_sprintf("task:%s", t->id));
	for (size_t i = 0; i < ARRAY_LEN(large); i++) {
		json_object_del(news, large[i]);
		if (json_dumpb(news, NULL, 0, JSON_COMPACT) <= EVENTS_PAYLOAD_MAX)
			return;
	}
}

/* The payload; the caller frees. */
static char *
news_text(const struct store_task *t, const struct said *s, const char *name)
{
	bool is_read = s->result.len <= RESULT_READ_MAX;
	struct said said = *s;
	json_t *news;
	char *text;

	if (!is_read)
		said.result = STR_NONE;
	news = news_of(t, &said, name);
	if (!is_read || json_dumpb(news, NULL, 0, JSON_COMPACT) > EVENTS_PAYLOAD_MAX)
		cut(news, t);
	text = json_dumps(news, JSON_COMPACT);
	json_decref(news);
	return text;
}

void
news_publish(struct events *events, const struct store_task *t, const struct said *s)
{
	const char *name = name_of(t, s);
	char topic[ID_MAX + 8], also[64];

	if (events == NULL || name == NULL)
		return;
	char *text = news_text(t, s, name);
	snprintf(topic, sizeof(topic), "task:%s", t->id);
	snprintf(also, sizeof(also), "tasks:%s", t->type);
	const struct events_news told = {.topic = topic,
	    .also = also,
	    .app_id = t->app_id,
	    .name = name,
	    .payload = str_of(text),
	    .flags = s->is_ended                          ? EVENTS_FINAL
		     : strcmp(name, "task.progress") == 0 ? EVENTS_PROGRESS
							  : 0};
	events_publish(events, &told);
	free(text);
}

/* As the record has it. */
static struct said
said_of(const struct store_task *t)
{
	return (struct said){.state = t->state,
	    .progress = t->progress,
	    .message = t->message,
	    .result = str_of(t->result_json),
	    .error_code = t->error_code,
	    .error_message = t->error_message,
	    .is_retryable = t->is_retryable,
	    .is_ended = true};
}

void
news_publish_end(struct events *events, const struct store_task *t)
{
	const struct said s = said_of(t);

	news_publish(events, t, &s);
}

/* The record's clock and ours may differ: nothing ends later than now. */
static bool
is_settling(const struct store_task *t)
{
	int64_t age_ms = clock_wall_ms() - t->ended_at;

	return age_ms > -TASK_END_SETTLE_MS && age_ms < TASK_END_SETTLE_MS;
}

bool
task_end_read(const struct store_task *t, struct arena *arena, struct events_news *ret)
{
	const struct said s = said_of(t);
	const char *name = name_of(t, &s);

	if (!task_state_is_last(t->state) || name == NULL || is_settling(t))
		return false;
	char *text = news_text(t, &s, name);
	*ret = (struct events_news){.topic = arena_printf(arena, "task:%s", t->id),
	    .app_id = arena_strdup(arena, str_of(t->app_id)),
	    .name = name,
	    .payload = str_of(arena_strdup(arena, str_of(text))),
	    .flags = EVENTS_FINAL};
	free(text);
	return true;
}

/* ---- the webhook ---- */

static bool
wants(const json_t *webhook, const char *name, bool is_ended)
{
	const json_t *events = json_object_get(webhook, "events"), *one;
	size_t i;

	if (!json_is_array(events))
		return is_ended;
	json_array_foreach(events, i, one)
	{
		if (strcmp(json_string_value(one), name) == 0)
			return true;
	}
	return false;
}

static json_t *
task_data(const struct store_task *t, const struct said *s)
{
	json_t *error = s->error_code == NULL ? json_null()
					      : json_pack("{s:s,s:o}", "code", s->error_code,
						    "message", text_or_null(s->error_message));

	return json_pack("{s:s,s:s,s:s,s:s,s:i,s:o,s:o,s:o,s:o}", "id", t->id, "app_id", t->app_id,
	    "type", t->type, "status", s->state, "progress", s->progress, "message",
	    text_or_null(s->message), "result", parse(s->result.p, s->result.len), "error", error,
	    "created_at", time_text(t->created_at));
}

static json_t *
task_body(const struct store_task *t, const struct said *s, const char *name)
{
	return json_pack("{s:s,s:o,s:o}", "type", name, "timestamp", time_text(clock_wall_ms()),
	    "data", task_data(t, s));
}

/* As existing clients of the image and video routes know it. */
static json_t *
existing_body(const struct store_task *t, const struct said *s, const char *name)
{
	bool is_image = is_of(t, TASK_IMAGE);
	json_t *input = t->input_json != NULL ? parse(t->input_json, strlen(t->input_json)) : NULL;
	json_t *result = parse(s->result.p, s->result.len);
	json_t *body = json_pack("{s:s,s:s,s:o,s:o,s:o,s:f,s:o}", "task_id", t->id, "status",
	    s->state, "timestamp", time_text(clock_wall_ms()), "webhook_type",
	    json_sprintf("%s_generation_%s", is_image ? "image" : "video", name + 5), "model",
	    text_or_null(t->model), "generation_duration_seconds", seconds_of(t), "error",
	    text_or_null(s->error_message));

	copy_member(body, "prompt", input, "prompt");
	if (is_image) {
		json_t *urls = image_urls(result), *n = json_object_get(input, "n");

		copy_member(body, "size", input, "size");
		json_object_set_new(body, "images_generated",
		    json_integer((json_int_t)json_array_size(json_object_get(result, "data"))));
		json_object_set_new(body, "images_requested",
		    json_integer(json_is_integer(n) ? json_integer_value(n) : 1));
		json_object_set_new(body, "image_urls", urls);
	} else {
		copy_member(body, "video_url", result, "url");
	}
	if (strcmp(name, "task.progress") == 0) {
		json_object_set_new(body, "progress_percentage", json_integer(s->progress));
		json_object_set_new(body, "message", text_or_null(s->message));
	}
	json_decref(input);
	json_decref(result);
	return body;
}

static void
fill(const json_t *webhook, const struct store_task *t, const struct said *s, struct arena *arena,
    struct id *id, struct store_task_change *change)
{
	const char *name = name_of(t, s), *endpoint;
	bool is_existing = json_is_true(json_object_get(webhook, "existing"));

	endpoint = json_string_value(json_object_get(webhook, "endpoint"));
	if (name == NULL || endpoint == NULL || !wants(webhook, name, s->is_ended))
		return;
	json_t *body = is_existing ? existing_body(t, s, name) : task_body(t, s, name);
	char *text = json_dumps(body, JSON_COMPACT);
	*id = id_new("wh");
	change->webhook_id = id->s;
	change->webhook_endpoint = arena_strdup(arena, str_of(endpoint));
	change->webhook_event = name;
	change->webhook_body = arena_strdup(arena, str_of(text));
	free(text);
	json_decref(body);
}

void
news_hooks(const struct conf_webhooks *conf, const struct store_task *t, const struct said *s,
    struct arena *arena, struct store_task_change *change)
{
	struct webhook_event event = {
	    .app_id = t->app_id, .event = name_of(t, s), .order_key = t->id};
	struct store_webhook_endpoint *endpoints;
	struct store_webhook *rows;

	if (event.event == NULL || !webhooks_want(conf, event.app_id, event.event))
		return;
	json_t *data = task_data(t, s);
	char *text = json_dumps(data, JSON_COMPACT);
	json_decref(data);
	event.data_json = text;
	rows = arena_alloc(arena, conf->endpoints.n * sizeof(*rows));
	endpoints = arena_alloc(arena, conf->endpoints.n * sizeof(*endpoints));
	change->hook_count = webhooks_of_event(conf, &event, arena, rows, endpoints);
	change->hooks = rows;
	free(text);
}

void
news_webhook(const struct store_task *t, const struct said *s, struct arena *arena, struct id *id,
    struct store_task_change *change)
{
	json_t *webhook;

	if (t->webhook_json == NULL)
		return;
	webhook = parse(t->webhook_json, strlen(t->webhook_json));
	fill(webhook, t, s, arena, id, change);
	json_decref(webhook);
}
