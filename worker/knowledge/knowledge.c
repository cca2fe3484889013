/* knowledge - see knowledge.h. */
#include "worker/knowledge/knowledge.h"

#include <stdlib.h>

#include "common/buf.h"
#include "common/check.h"
#include "common/idmap.h"
#include "common/list.h"
#include "common/log.h"
#include "common/metric.h"

enum { HEADERS_MAX = 4, KEEPALIVE_MS = 30000 };

struct asking {
	struct list node;
	struct knowledge *knowledge;
	uint64_t handle, transfer;
	knowledge_on_answer *on_answer;
	void *arg;
	uint32_t top_k;
	int status;
	bool is_too_large;
	struct buf body;
	struct loop_post post;
	char *session_id; /* for the log */
};

struct knowledge {
	struct loop *loop;
	struct client *client;
	const struct conf *conf;
	struct client_pool *pool;
	struct idmap *handles;
	struct list all;
};

static void
asking_free(struct asking *a)
{
	idmap_remove(a->knowledge->handles, a->handle);
	loop_post_cancel(a->knowledge->loop, &a->post);
	list_del(&a->node);
	buf_fini(&a->body);
	free(a->session_id);
	free(a);
}

/* ---- the answer ---- */

static void
answer(struct asking *a, const struct knowledge_answer *what, unsigned outcome)
{
	knowledge_on_answer *on_answer = a->on_answer;
	void *arg = a->arg;

	metric_add(METRIC_KNOWLEDGE, outcome, 0, 1);
	asking_free(a);
	on_answer(arg, what);
}

static void
fail(struct asking *a, bool is_timeout, const char *detail)
{
	struct knowledge_answer what = {
	    .error_code = is_timeout ? "knowledge_timeout" : "knowledge_error",
	    .error_message = is_timeout ? "The knowledge base did not answer in time."
					: "The knowledge base failed.",
	};

	log_info("knowledge not used session=%s status=%d reason=\"%s\"", a->session_id, a->status,
	    detail);
	answer(a, &what, is_timeout ? KNOWLEDGE_OUTCOME_TIMEOUT : KNOWLEDGE_OUTCOME_ERROR);
}

static void
succeed(struct asking *a)
{
	struct knowledge_answer what = {.error_code = NULL};
	struct buf prompt = BUF_INIT;

	if (!knowledge_read(buf_str(&a->body), a->top_k,
		(size_t)a->knowledge->conf->knowledge.max_text_bytes, &what.sources, &prompt)) {
		fail(a, false, "not {\"results\":[..]}");
	} else {
		what.prompt = buf_str(&prompt);
		answer(a, &what, KNOWLEDGE_OUTCOME_OK);
	}
	json_decref(what.sources);
	buf_fini(&prompt);
}

static void
run_too_large(struct loop_post *post)
{
	struct asking *a = container_of(post, struct asking, post);

	if (a->transfer != 0)
		client_cancel(a->knowledge->client, a->transfer);
	fail(a, false, "too large");
}

static void
on_head(void *arg, const struct client_head *head)
{
	((struct asking *)arg)->status = head->status;
}

static bool
on_body(void *arg, struct str bytes)
{
	struct asking *a = arg;

	if (a->is_too_large)
		return false;
	if (a->body.len + bytes.len <= a->knowledge->conf->knowledge.max_response_bytes) {
		buf_add_str(&a->body, bytes);
		return true;
	}
	a->is_too_large = true;
	a->post.run = run_too_large;
	loop_post(a->knowledge->loop, &a->post);
	return false;
}

static void
on_done(void *arg, enum client_outcome outcome, const char *detail)
{
	struct asking *a = arg;

	a->transfer = 0;
	if (a->is_too_large)
		return; /* is just being told */
	if (outcome == CLIENT_OK && a->status == 200)
		succeed(a);
	else if (outcome == CLIENT_OK)
		fail(a, false, "status");
	else
		fail(a,
		    outcome == CLIENT_TIMEOUT || outcome == CLIENT_POOL_TIMEOUT ||
			outcome == CLIENT_CONNECT_TIMEOUT,
		    detail);
}

/* ---- the question ---- */

/* At the beginning of a character. */
static struct str
clip(struct str s)
{
	if (s.len <= KNOWLEDGE_QUERY_MAX)
		return s;
	s.len = KNOWLEDGE_QUERY_MAX;
	while (s.len > 0 && ((unsigned char)s.p[s.len] & 0xc0) == 0x80)
		s.len--;
	return s;
}

uint64_t
knowledge_ask(struct knowledge *k, const struct knowledge_question *q,
    knowledge_on_answer *on_answer, void *arg)
{
	static const struct client_handlers handlers = {on_head, on_body, on_done};
	struct client_header headers[HEADERS_MAX] = {
	    {"Content-Type", "application/json"}, {"Accept", "application/json"}};
	struct asking *a = xcalloc(1, sizeof(*a));
	struct buf body = BUF_INIT;
	size_t n = 2;

	a->knowledge = k;
	a->on_answer = on_answer;
	a->arg = arg;
	a->top_k = q->top_k;
	a->session_id = xstrdup(q->session_id);
	a->handle = idmap_add(k->handles, a);
	list_add_tail(&k->all, &a->node);
	if (q->request_id != NULL)
		headers[n++] = (struct client_header){"X-Request-Id", q->request_id};
	if (q->traceparent != NULL)
		headers[n++] = (struct client_header){"traceparent", q->traceparent};
	buf_add_cstr(&body, "{\"query\":\"");
	buf_add_json_escaped(&body, clip(q->query));
	buf_printf(&body, "\",\"session\":\"%s\",\"top_k\":%u}", q->session_id, q->top_k);
	a->transfer = client_start(k->pool,
	    &(struct client_request){.method = "POST",
		.url = q->url,
		.headers = headers,
		.header_count = n,
		.body = buf_str(&body),
		.total_timeout_ms = (uint32_t)k->conf->knowledge.timeout_ms},
	    &handlers, a);
	buf_fini(&body);
	return a->handle;
}

static void
stop(struct asking *a)
{
	if (a->transfer != 0)
		client_cancel(a->knowledge->client, a->transfer);
	asking_free(a);
}

void
knowledge_cancel(struct knowledge *k, uint64_t handle)
{
	struct asking *a = handle != 0 ? idmap_get(k->handles, handle) : NULL;

	if (a != NULL)
		stop(a);
}

/* ---- life ---- */

struct knowledge *
knowledge_new(struct loop *loop, struct client *client, const struct conf *conf)
{
	struct knowledge *k = xcalloc(1, sizeof(*k));
	uint32_t timeout_ms = (uint32_t)conf->knowledge.timeout_ms;
	uint32_t connections = (uint32_t)conf->knowledge.connections;
	const struct client_pool_conf pool = {.name = "knowledge",
	    .connections_max = connections,
	    .keepalive_max = connections,
	    .keepalive_ms = KEEPALIVE_MS,
	    .connect_timeout_ms = timeout_ms,
	    .write_timeout_ms = timeout_ms,
	    .pool_timeout_ms = timeout_ms,
	    .queue_max = (uint32_t)conf->knowledge.max_queue};

	k->loop = loop;
	k->client = client;
	k->conf = conf;
	k->pool = client_pool_new(client, &pool);
	k->handles = idmap_new();
	list_init(&k->all);
	return k;
}

void
knowledge_free(struct knowledge **ref)
{
	struct knowledge *k = *ref;
	struct asking *a;

	if (k == NULL)
		return;
	*ref = NULL;
	while ((a = list_first(&k->all, struct asking, node)) != NULL)
		stop(a);
	client_pool_free(&k->pool);
	idmap_free(&k->handles);
	free(k);
}
