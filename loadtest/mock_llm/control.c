/* control - counters, the last requests, faults for the next ones. */
#include "loadtest/mock_llm/control.h"

#include <jansson.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/strmap.h"

enum { KEPT_REQUESTS = 64, KEPT_BODY_MAX = 256 << 10, QUEUED_FAULTS_MAX = 64 };

struct kept {
	char *method, *path;
	struct buf headers, body;
};

struct queued_fault {
	char *text;
	uint64_t left;
};

struct control {
	uint64_t requests, chats, embeddings, models;
	uint64_t live, live_streams, completed, aborted, faults;
	uint64_t aborted_at_us;          /* the last; CLOCK_MONOTONIC */
	struct kept kept[KEPT_REQUESTS]; /* a ring: kept[requests % KEPT_REQUESTS] is the next */
	struct queued_fault queue[QUEUED_FAULTS_MAX];
	size_t queued;
	struct strmap *spent; /* key -> requests that had the fault, as a pointer's value */
};

static void
kept_fini(struct kept *k)
{
	free(k->method);
	free(k->path);
	buf_fini(&k->headers);
	buf_fini(&k->body);
	*k = (struct kept){0};
}

static void
control_clear(struct control *c)
{
	for (size_t i = 0; i < KEPT_REQUESTS; i++)
		kept_fini(&c->kept[i]);
	for (size_t i = 0; i < c->queued; i++)
		free(c->queue[i].text);
	c->queued = 0;
	strmap_free(&c->spent);
	c->spent = strmap_new();
	c->requests = c->chats = c->embeddings = c->models = 0;
	c->completed = c->aborted = c->faults = 0;
}

struct control *
control_new(void)
{
	struct control *c = xcalloc(1, sizeof(*c));

	c->spent = strmap_new();
	return c;
}

void
control_free(struct control **cp)
{
	struct control *c = *cp;

	if (c == NULL)
		return;
	*cp = NULL;
	control_clear(c);
	strmap_free(&c->spent);
	free(c);
}

/* ---- requests ---- */

static bool
ends_with(struct str s, struct str end)
{
	return s.len >= end.len && str_eq(str_sub(s.p + s.len - end.len, end.len), end);
}

void
control_note(struct control *c, const struct request *r)
{
	struct kept *k = &c->kept[c->requests++ % KEPT_REQUESTS];

	c->chats +=
	    ends_with(r->path, STR("/chat/completions")) || ends_with(r->path, STR("/messages"));
	c->embeddings += ends_with(r->path, STR("/embeddings"));
	c->models += ends_with(r->path, STR("/models"));
	kept_fini(k);
	k->method = xstrndup(r->method.p, r->method.len);
	k->path = xstrndup(r->path.p, r->path.len);
	buf_add_str(&k->headers, r->headers);
	buf_add(&k->body, r->body.p, r->body.len < KEPT_BODY_MAX ? r->body.len : KEPT_BODY_MAX);
}

void
control_apply(struct control *c, struct plan *plan)
{
	const char *error;

	if (c->queued == 0)
		return;
	plan_parse(plan, str_of(c->queue[0].text), &error);
	if (--c->queue[0].left > 0)
		return;
	free(c->queue[0].text);
	memmove(c->queue, c->queue + 1, --c->queued * sizeof(c->queue[0]));
}

bool
control_spend(struct control *c, const struct plan *plan)
{
	struct str key = str_of(plan->fault_key != NULL ? plan->fault_key : "");

	if (plan->fault == FAULT_NONE)
		return false;
	if (plan->fault_times > 0) {
		uintptr_t spent = (uintptr_t)strmap_get(c->spent, key);

		if (spent >= plan->fault_times)
			return false;
		strmap_set(c->spent, key, (void *)(spent + 1));
	}
	c->faults++;
	return true;
}

void
control_begin(struct control *c, bool is_streamed)
{
	c->live++;
	c->live_streams += is_streamed;
}

void
control_end(struct control *c, bool is_streamed, bool is_aborted)
{
	c->live--;
	c->live_streams -= is_streamed;
	if (is_aborted) {
		c->aborted++;
		c->aborted_at_us = clock_mono_us();
	} else
		c->completed++;
}

/* ---- answers ---- */

static json_t *
text_json(struct str s)
{
	json_t *j = json_stringn(s.len > 0 ? s.p : "", s.len);

	return j != NULL ? j : json_string("(not UTF-8)");
}

static json_t *
headers_json(struct str rest)
{
	json_t *headers = json_object();

	while (rest.len > 0) {
		char name[128];
		struct str value = str_split(&rest, '\n');
		struct str key = str_split(&value, ':');

		if (value.len > 0 && value.p[value.len - 1] == '\r')
			value.len--;
		if (key.len == 0 || key.len >= sizeof(name))
			continue;
		for (size_t i = 0; i < key.len; i++)
			name[i] =
			    key.p[i] >= 'A' && key.p[i] <= 'Z' ? (char)(key.p[i] | 0x20) : key.p[i];
		name[key.len] = '\0';
		json_object_set_new(headers, name, text_json(str_trim(value)));
	}
	return headers;
}

static json_t *
kept_json(const struct kept *k)
{
	json_t *body = json_loadb(k->body.len > 0 ? k->body.data : "", k->body.len, 0, NULL);

	if (body == NULL)
		body = text_json(buf_str(&k->body));
	return json_pack("{s:s, s:s, s:o, s:o}", "method", k->method, "path", k->path, "headers",
	    headers_json(buf_str(&k->headers)), "body", body);
}

/* The newest first. */
static json_t *
requests_json(const struct control *c, size_t max)
{
	json_t *list = json_array();

	for (uint64_t i = c->requests; i > 0 && c->requests - i < max; i--)
		json_array_append_new(list, kept_json(&c->kept[(i - 1) % KEPT_REQUESTS]));
	return list;
}

static json_t *
stats_json(const struct control *c, const struct server_stats *s)
{
	json_t *newest = requests_json(c, 1);
	json_t *last =
	    json_array_size(newest) > 0 ? json_incref(json_array_get(newest, 0)) : json_null();

	json_decref(newest);
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}",
	    "requests", (json_int_t)c->requests, "chats", (json_int_t)c->chats, "embeddings",
	    (json_int_t)c->embeddings, "models", (json_int_t)c->models, "active_requests",
	    (json_int_t)c->live, "active_streams", (json_int_t)c->live_streams, "completed",
	    (json_int_t)c->completed, "aborted", (json_int_t)c->aborted, "aborted_at_us",
	    (json_int_t)c->aborted_at_us, "faults", (json_int_t)c->faults, "faults_queued",
	    (json_int_t)c->queued, "connections_open", (json_int_t)s->open, "connections_accepted",
	    (json_int_t)s->accepted, "last", last);
}

static void
reply_json(struct conn *conn, int status, json_t *body)
{
	char *text = json_dumps(body, JSON_COMPACT);

	json_decref(body);
	conn_reply(conn, status, "application/json", "", str_of(text));
	free(text);
}

/* {"fault":"status:503","retry_after":2} as the directive's words. */
static void
directive_of_json(json_t *spec, struct buf *out)
{
	const char *key;
	json_t *value;

	json_object_foreach(spec, key, value)
	{
		char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);

		if (strcmp(key, "next") != 0)
			buf_printf(out, "%s=%s ", key, text);
		free(text);
	}
}

static const char *
queue_fault(struct control *c, struct str body)
{
	json_t *spec = json_loadb(body.p, body.len, 0, NULL);
	const char *error = "expected {\"next\":n, \"fault\":\"..\", ..}";
	struct plan trial;
	struct buf text = BUF_INIT;

	if (!json_is_object(spec) || c->queued == QUEUED_FAULTS_MAX) {
		json_decref(spec);
		return c->queued == QUEUED_FAULTS_MAX ? "too many faults wait" : error;
	}
	const json_t *next = json_object_get(spec, "next");
	uint64_t count = json_is_integer(next) ? (uint64_t)json_integer_value(next) : 1;
	directive_of_json(spec, &text);
	json_decref(spec);
	plan_init(&trial);
	if (count > 0 && plan_parse(&trial, buf_str(&text), &error)) {
		c->queue[c->queued++] =
		    (struct queued_fault){.text = buf_take(&text, NULL), .left = count};
		error = NULL;
	}
	plan_fini(&trial);
	buf_fini(&text);
	return error;
}

bool
control_answer(struct control *c, struct server *s, struct conn *conn, const struct request *r)
{
	bool is_post = str_eq(r->method, STR("POST"));

	if (!str_starts(r->path, STR("/mock/")))
		return false;
	if (str_eq(r->path, STR("/mock/stats"))) {
		reply_json(conn, 200, stats_json(c, server_stats(s)));
	} else if (str_eq(r->path, STR("/mock/requests"))) {
		reply_json(conn, 200, requests_json(c, KEPT_REQUESTS));
	} else if (is_post && str_eq(r->path, STR("/mock/reset"))) {
		control_clear(c);
		reply_json(conn, 200, json_pack("{s:b}", "ok", 1));
	} else if (is_post && str_eq(r->path, STR("/mock/fault"))) {
		const char *error = queue_fault(c, r->body);

		if (error != NULL)
			reply_json(conn, 400, json_pack("{s:s}", "error", error));
		else
			reply_json(conn, 200, json_pack("{s:b}", "ok", 1));
	} else
		reply_json(conn, 404, json_pack("{s:s}", "error", "no such control"));
	return true;
}
