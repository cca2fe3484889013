/*
 * hubs_call - what a client of a hub may call: topics to hear, or not any more, and streams of a
 * task.
 */
#include <stdio.h>
#include <stdlib.h>

#include "worker/api/hubs_impl.h"
#include "worker/api/topic_access.h"

static const char not_yours[] = "Unauthorized access to task";

/* ---- streams that are not there yet ---- */

void
hub_wait_begin(struct hub_conn *c, struct hub_wait *w, const char *invocation_id)
{
	w->invocation_id = invocation_id;
	list_add_tail(&c->waits, &w->node);
}

static struct hub_wait *
wait_find(const struct hub_conn *c, const char *invocation_id)
{
	list_for (node, &c->waits) {
		struct hub_wait *w = list_entry(node, struct hub_wait, node);

		if (strcmp(w->invocation_id, invocation_id) == 0)
			return w;
	}
	return NULL;
}

/* ---- topics are checked before they are subscribed to ---- */

struct hub_ask {
	struct hubs *hubs;
	uint64_t conn;
	struct hub_wait wait; /* of a stream */
	char *invocation_id;  /* NULL: nobody waits */
	bool is_stream, is_counted;
	size_t count;
	char *topics[];
};

static void
ask_free(struct hub_ask *a)
{
	struct hub_conn *c = idmap_get(a->hubs->conns, a->conn);

	if (c != NULL && a->is_counted)
		c->checking -= (uint16_t)a->count;
	hub_wait_end(&a->wait);
	for (size_t i = 0; i < a->count; i++)
		free(a->topics[i]);
	free(a->invocation_id);
	free(a);
}

static const char *
reason_of(int err, const char *topic)
{
	if (err == E_NOT_FOUND && str_starts(str_of(topic), STR("task:")))
		return not_yours;
	return err == E_NOT_FOUND || err == E_FORBIDDEN ? "Unauthorized access"
							: err_info(err)->text;
}

/* The last one answers, when it is there. */
static void
subscribe_all(struct hub_conn *c, const struct hub_ask *a)
{
	uint64_t handle = c->handle;
	struct hubs *hubs = c->hubs;
	bool is_answered = false;

	for (size_t i = 0; i < a->count; i++) {
		bool answers = i + 1 == a->count;

		if (idmap_get(hubs->conns, handle) != c || c->is_ending)
			return;
		if (!a->is_stream && hub_sub_find(c, a->topics[i]) != NULL)
			continue;
		hub_sub_new(c, a->topics[i], answers || a->is_stream ? a->invocation_id : NULL,
		    a->is_stream);
		is_answered = is_answered || answers;
	}
	if (!is_answered)
		hub_complete(c, a->invocation_id, NULL, STR_NONE);
}

static void
on_checked(void *arg, int err, struct str bad)
{
	struct hub_ask *a = arg;
	struct hub_conn *c = idmap_get(a->hubs->conns, a->conn);

	(void)bad;
	if (c != NULL && !c->is_ending) {
		if (a->wait.is_cancelled)
			hub_complete(c, a->invocation_id, NULL, STR_NONE);
		else if (err != 0)
			hub_complete(c, a->invocation_id, reason_of(err, a->topics[0]), STR_NONE);
		else if (c->sub_count + a->count > (size_t)c->hubs->api->conf->events.max_topics)
			hub_complete(c, a->invocation_id, "This connection has events.max_topics.",
			    STR_NONE);
		else if (a->is_stream && c->stream_count >= c->hubs->api->conf->events.max_streams)
			hub_complete(c, a->invocation_id, "This connection has events.max_streams.",
			    STR_NONE);
		else
			subscribe_all(c, a);
	}
	ask_free(a);
}

static struct hub_ask *
ask_new(struct hub_conn *c, const struct signalr_message *m, size_t count)
{
	struct hub_ask *a = xcalloc(1, sizeof(*a) + count * sizeof(a->topics[0]));

	a->hubs = c->hubs;
	a->conn = c->handle;
	a->invocation_id = m->invocation_id != NULL ? xstrdup(m->invocation_id) : NULL;
	a->is_stream = m->type == SIGNALR_STREAM;
	return a;
}

/* The record is asked for each topic: no more at once than a connection may have at all. */
static bool
may_ask(struct hub_conn *c, size_t count, const char *invocation_id)
{
	if (c->checking + count <= (size_t)c->hubs->api->conf->events.max_topics)
		return true;
	hub_complete(
	    c, invocation_id, "This connection asks for events.max_topics already.", STR_NONE);
	return false;
}

static void
ask(struct hub_conn *c, struct hub_ask *a)
{
	struct str topics[TOPIC_ACCESS_MAX];

	if (!may_ask(c, a->count, a->invocation_id)) {
		ask_free(a);
		return;
	}
	a->is_counted = true;
	c->checking += (uint16_t)a->count;
	if (a->is_stream)
		hub_wait_begin(c, &a->wait, a->invocation_id);
	for (size_t i = 0; i < a->count; i++)
		topics[i] = str_of(a->topics[i]);
	topics_check(
	    c->hubs->api, (enum key_kind)c->kind, c->app_id, topics, a->count, on_checked, a);
}

/* ---- statistics: what became of an app's deliveries, by endpoint ---- */

enum { STATISTICS_PAGE = 1000, STATISTICS_PAGES = 10, STATISTICS_SHOWN = 50 };

struct hub_statistics {
	struct hubs *hubs;
	uint64_t conn;
	char *invocation_id; /* NULL: nobody waits */
	int pages;
	uint64_t delivered, failed, dead, count, open;
	json_t *endpoints;
};

static void
statistics_free(struct hub_statistics *s)
{
	struct hub_conn *c = idmap_get(s->hubs->conns, s->conn);

	if (c != NULL)
		c->checking--;
	json_decref(s->endpoints);
	free(s->invocation_id);
	free(s);
}

static void
add_endpoint(struct hub_statistics *s, const struct store_webhook_endpoint *e)
{
	bool is_open = e->probe_at != 0;

	s->count++;
	s->open += is_open;
	s->delivered += e->delivered;
	s->failed += e->failed;
	s->dead += e->dead;
	if (json_array_size(s->endpoints) < STATISTICS_SHOWN)
		json_array_append_new(s->endpoints,
		    json_pack("{s:s,s:I,s:I,s:I,s:s}", "url", e->url, "delivered",
			(json_int_t)e->delivered, "failed", (json_int_t)e->failed, "dead",
			(json_int_t)e->dead, "breaker", is_open ? "open" : "closed"));
}

static void
tell_statistics(struct hub_conn *c, struct hub_statistics *s)
{
	json_t *all = json_pack("{s:I,s:I,s:I,s:I,s:I,s:O}", "endpoint_count", (json_int_t)s->count,
	    "breakers_open", (json_int_t)s->open, "delivered", (json_int_t)s->delivered, "failed",
	    (json_int_t)s->failed, "dead", (json_int_t)s->dead, "endpoints", s->endpoints);
	char *text = json_dumps(all, JSON_COMPACT);
	struct hubs *hubs = c->hubs;
	uint64_t handle = c->handle;
	struct buf b = BUF_INIT;

	signalr_add_invocation(&b, "DeliveryStatisticsUpdated", str_of(text));
	hub_conn_say(c, buf_str(&b));
	buf_fini(&b);
	free(text);
	json_decref(all);
	if (idmap_get(hubs->conns, handle) == c && !c->is_ending)
		hub_complete(c, s->invocation_id, NULL, STR_NONE);
}

static void
on_endpoints(
    void *arg, int err, const struct store_webhook_endpoint *list, size_t count, bool has_more)
{
	struct hub_statistics *s = arg;
	struct hub_conn *c = idmap_get(s->hubs->conns, s->conn);

	if (c == NULL || c->is_ending || err != 0) {
		if (c != NULL && !c->is_ending)
			hub_complete(c, s->invocation_id, err_info(err)->text, STR_NONE);
		statistics_free(s);
		return;
	}
	for (size_t i = 0; i < count; i++)
		if (list[i].app_id != NULL && c->app_id != NULL &&
		    strcmp(list[i].app_id, c->app_id) == 0)
			add_endpoint(s, &list[i]);
	if (has_more && count > 0 && ++s->pages < STATISTICS_PAGES) {
		store_webhook_endpoint_list(
		    c->hubs->api->store, list[count - 1].id, STATISTICS_PAGE, on_endpoints, s);
		return;
	}
	tell_statistics(c, s);
	statistics_free(s);
}

static void
ask_statistics(struct hub_conn *c, const char *invocation_id)
{
	struct hub_statistics *s;

	if (!may_ask(c, 1, invocation_id))
		return;
	c->checking++;
	s = xcalloc(1, sizeof(*s));
	s->hubs = c->hubs;
	s->conn = c->handle;
	s->invocation_id = invocation_id != NULL ? xstrdup(invocation_id) : NULL;
	s->endpoints = json_array();
	store_webhook_endpoint_list(c->hubs->api->store, NULL, STATISTICS_PAGE, on_endpoints, s);
}

/* ---- methods ---- */

enum verb { SUBSCRIBE, UNSUBSCRIBE, STATISTICS };
enum takes { NOTHING, A_NAME, NAMES };

static const struct method {
	const char *name;
	const char *topic; /* what the name is put behind */
	unsigned hubs;
	enum verb verb;
	enum takes takes;
	bool may_stream; /* it is a stream, and nothing else */
} methods[] = {
    {"SubscribeToTask", "task:", 1U << HUB_TASKS | 1U << HUB_IMAGES | 1U << HUB_VIDEOS, SUBSCRIBE,
	A_NAME, false},
    {"UnsubscribeFromTask", "task:", 1U << HUB_TASKS | 1U << HUB_IMAGES | 1U << HUB_VIDEOS,
	UNSUBSCRIBE, A_NAME, false},
    {"SubscribeToTaskType", "tasks:", 1U << HUB_TASKS, SUBSCRIBE, A_NAME, false},
    {"UnsubscribeFromTaskType", "tasks:", 1U << HUB_TASKS, UNSUBSCRIBE, A_NAME, false},
    {"StreamTask", "task:", 1U << HUB_TASKS | 1U << HUB_IMAGES | 1U << HUB_VIDEOS, SUBSCRIBE,
	A_NAME, true},
    {"SubscribeToUpdates", "navigation-state", 1U << HUB_NAVIGATION, SUBSCRIBE, NOTHING, false},
    {"UnsubscribeFromUpdates", "navigation-state", 1U << HUB_NAVIGATION, UNSUBSCRIBE, NOTHING,
	false},
    {"SubscribeToModel", "model:", 1U << HUB_NAVIGATION, SUBSCRIBE, A_NAME, false},
    {"UnsubscribeFromModel", "model:", 1U << HUB_NAVIGATION, UNSUBSCRIBE, A_NAME, false},
    {"SubscribeToWebhooks", "webhook:", 1U << HUB_WEBHOOKS, SUBSCRIBE, NAMES, false},
    {"UnsubscribeFromWebhooks", "webhook:", 1U << HUB_WEBHOOKS, UNSUBSCRIBE, NAMES, false},
    {"RequestStatistics", "webhooks", 1U << HUB_WEBHOOKS, STATISTICS, NOTHING, false},
};

static const struct method *
method_find(enum hub hub, const struct signalr_message *m)
{
	for (size_t i = 0; i < ARRAY_LEN(methods); i++)
		if ((methods[i].hubs & 1U << hub) != 0 && strcmp(methods[i].name, m->target) == 0 &&
		    methods[i].may_stream == (m->type == SIGNALR_STREAM))
			return &methods[i];
	return NULL;
}

static bool
add_topic(struct hub_ask *a, const struct method *method, const json_t *name)
{
	const char *text = json_string_value(name);
	char topic[EVENTS_TOPIC_MAX + 1];
	int len;

	if (text == NULL || text[0] == '\0' || strlen(text) != json_string_length(name) ||
	    strchr(text, '\n') != NULL)
		return false;
	len = snprintf(topic, sizeof(topic), "%s%s", method->topic, text);
	if (len < 0 || (size_t)len >= sizeof(topic))
		return false;
	a->topics[a->count++] = xstrdup(topic);
	return true;
}

/* NULL: the arguments are not the method's. */
static struct hub_ask *
read_topics(struct hub_conn *c, const struct method *method, const struct signalr_message *m)
{
	const json_t *first = json_array_get(m->arguments, 0);
	size_t count = method->takes == NAMES ? json_array_size(first) : 1;
	struct hub_ask *a;
	bool is_good = count >= 1 && count <= TOPIC_ACCESS_MAX;

	if (!is_good)
		return NULL;
	a = ask_new(c, m, count);
	if (method->takes == NOTHING)
		a->topics[a->count++] = xstrdup(method->topic);
	else if (method->takes == A_NAME)
		is_good = add_topic(a, method, first);
	for (size_t i = 0; method->takes == NAMES && is_good && i < count; i++)
		is_good = add_topic(a, method, json_array_get(first, i));
	if (is_good)
		return a;
	ask_free(a);
	return NULL;
}

/* Who waits for the subscription to be there is answered, too. False: the connection has ended. */
static bool
unsubscribe_one(struct hub_conn *c, struct hub_sub *s)
{
	char *invocation_id = s->invocation_id;
	uint64_t handle = c->handle;
	struct hubs *hubs = c->hubs;

	s->invocation_id = NULL;
	hub_sub_free(s);
	hub_complete(c, invocation_id, NULL, STR_NONE);
	free(invocation_id);
	return idmap_get(hubs->conns, handle) == c && !c->is_ending;
}

static void
unsubscribe(struct hub_conn *c, struct hub_ask *a)
{
	bool is_there = true;

	for (size_t i = 0; i < a->count && is_there; i++) {
		struct hub_sub *s = hub_sub_find(c, a->topics[i]);

		if (s != NULL)
			is_there = unsubscribe_one(c, s);
	}
	if (is_there)
		hub_complete(c, a->invocation_id, NULL, STR_NONE);
	ask_free(a);
}

void
hub_invoke(struct hub_conn *c, const struct signalr_message *m)
{
	const struct method *method = method_find((enum hub)c->hub, m);
	struct hub_ask *a;

	if (method == NULL) {
		hub_complete(c, m->invocation_id, "Method does not exist.", STR_NONE);
		return;
	}
	if (m->type == SIGNALR_STREAM && (hub_stream_find(c, m->invocation_id) != NULL ||
					     wait_find(c, m->invocation_id) != NULL)) {
		hub_complete(c, m->invocation_id, "There is a stream of this id.", STR_NONE);
		return;
	}
	if (method->verb == STATISTICS) {
		ask_statistics(c, m->invocation_id);
		return;
	}
	a = read_topics(c, method, m);
	if (a == NULL)
		hub_complete(
		    c, m->invocation_id, "The arguments are not those of the method.", STR_NONE);
	else if (method->verb == UNSUBSCRIBE)
		unsubscribe(c, a);
	else
		ask(c, a);
}

static void
cancel(struct hub_conn *c, const char *invocation_id)
{
	struct hub_sub *s = hub_stream_find(c, invocation_id);
	struct hub_wait *w = wait_find(c, invocation_id);

	if (w != NULL)
		w->is_cancelled = true; /* it is completed when it would begin */
	if (s == NULL)
		return; /* it has ended meanwhile */
	hub_sub_free(s);
	hub_complete(c, invocation_id, NULL, STR_NONE);
}

void
hub_call(struct hub_conn *c, const struct signalr_message *m)
{
	switch (m->type) {
	case SIGNALR_INVOCATION:
	case SIGNALR_STREAM:
		if (c->carrier == HUB_BY_SOCKET)
			hub_toll_invoke(c, m);
		else
			hub_invoke(c, m); /* the POST was paid for */
		break;
	case SIGNALR_CANCEL:
		cancel(c, m->invocation_id);
		break;
	case SIGNALR_ITEM: /* no method takes a stream; nothing was asked of the client */
	case SIGNALR_COMPLETION:
	case SIGNALR_PING:
	case SIGNALR_CLOSE:
		break;
	}
}
