/*
 * call - requests to upstreams, whatever carries them: numbers, waiting, time, the way back.
 *
 *   asked -> waiting (the upstream is not ready) -> sent -> answered, failed or abandoned
 *
 * A call is in `calls` of the worker while somebody waits for it, and by its number in the upstream
 * from when it is sent. It is freed before its asker hears of the end.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/mcp/posted.h"
#include "worker/mcp/upstream_impl.h"

#define RESERVED_META STR("io.modelcontextprotocol/")

static struct list *
bucket_of(struct upstream *u, uint64_t number)
{
	return &u->sent[number % CALL_BUCKETS];
}

/* ---- life ---- */

static bool
is_counted(const struct call *c)
{
	return !c->is_ours && !c->is_errand;
}

static void
count(const struct call *c, unsigned outcome)
{
	if (!is_counted(c))
		return;
	metric_add(METRIC_MCP_CALLS_TOTAL, c->upstream->label, outcome, 1);
	if (outcome == MCP_OUTCOME_OK || outcome == MCP_OUTCOME_REFUSED)
		metric_observe_us(
		    METRIC_MCP_CALL_SECONDS, c->upstream->label, clock_mono_us() - c->asked_us);
}

static unsigned
outcome_of(const struct mcp_answer *a)
{
	switch (a->err) {
	case 0:
		return a->result.len > 0 ? MCP_OUTCOME_OK : MCP_OUTCOME_REFUSED;
	case E_TIMEOUT:
		return MCP_OUTCOME_TIMEOUT;
	case E_UNAVAILABLE:
		return MCP_OUTCOME_AWAY;
	case E_BUSY:
		return MCP_OUTCOME_BUSY;
	default:
		return MCP_OUTCOME_BROKEN;
	}
}

/* Leaves every list; nobody is told. */
static void
call_free(struct call *c)
{
	struct upstream *u = c->upstream;

	if (c->is_sent && u->transport->release != NULL)
		u->transport->release(c);
	if (list_linked(&c->node))
		list_del(&c->node);
	loop_timer_stop(u->all->of.loop, &c->timer);
	loop_post_cancel(u->all->of.loop, &c->post);
	questions_drop(c);
	idmap_remove(u->all->calls, c->handle);
	u->call_count--;
	if (!c->is_ours)
		u->all->call_count--;
	if (is_counted(c))
		metric_gauge(METRIC_MCP_CALLS, u->label, 0, -1);
	buf_fini(&c->params);
	buf_fini(&c->tool);
	free(c->method);
	free(c);
}

static void
call_end(struct call *c, const struct mcp_answer *answer)
{
	struct mcp_handlers handlers = c->handlers;
	void *arg = c->arg;

	count(c, outcome_of(answer));
	call_free(c);
	if (handlers.on_answer != NULL)
		handlers.on_answer(arg, answer);
}

void
call_fail(struct call *c, int err, const char *why)
{
	struct mcp_answer answer = {.err = err, .why = why, .status = c->status};

	check(err < 0);
	call_end(c, &answer);
}

static void
abandon(struct call *c)
{
	if (!c->is_sent)
		return;
	c->upstream->transport->abandon(c);
	if (!c->is_ours)
		questions_unclear(c->upstream, c->timeout_ms);
}

void
call_late(struct call *c)
{
	c->is_late = true;
	abandon(c);
}

static void
on_late(struct loop_timer *timer)
{
	struct call *c = container_of(timer, struct call, timer);

	call_late(c);
	call_fail(c, E_TIMEOUT, "The tool server did not answer in time.");
}

static void
run_fail(struct loop_post *post)
{
	struct call *c = container_of(post, struct call, post);

	call_fail(c, c->err,
	    c->err == E_BUSY ? "Too many requests to this tool server are in progress."
			     : "The tool server is not reachable.");
}

static void
take_name(struct call *c)
{
	const char *member = posted_name_member(c->method);

	if (member != NULL)
		jsonrpc_text_member(buf_str(&c->params), member, &c->tool);
}

static struct call *
call_new(
    struct upstream *u, const struct mcp_request *r, const struct mcp_handlers *handlers, void *arg)
{
	struct call *c = xcalloc(1, sizeof(*c));

	c->upstream = u;
	c->number = u->next_id++;
	snprintf(c->id, sizeof(c->id), "%" PRIu64, c->number);
	c->method = xstrdup(r->method);
	buf_add_str(&c->params, r->params);
	take_name(c);
	c->wants_progress = r->wants_progress;
	c->timeout_ms = r->timeout_ms;
	c->is_errand = r->is_errand;
	c->handlers = *handlers;
	c->arg = arg;
	c->timer.on_fire = on_late;
	c->post.run = run_fail;
	list_init(&c->questions);
	c->handle = idmap_add(u->all->calls, c);
	u->call_count++;
	c->asked_us = clock_mono_us();
	if (c->timeout_ms > 0)
		loop_timer_set(u->all->of.loop, &c->timer, c->timeout_ms);
	c->until_ms = loop_now_ms(u->all->of.loop) + c->timeout_ms;
	return c;
}

static void
call_send(struct call *c)
{
	check(!c->is_sent);
	if (list_linked(&c->node))
		list_del(&c->node);
	c->is_sent = true;
	list_add_tail(bucket_of(c->upstream, c->number), &c->node);
	c->upstream->transport->send(c);
}

void
call_repeat(struct call *c)
{
	check(c->is_sent);
	list_del(&c->node);
	c->is_sent = false;
	c->was_repeated = true;
	list_add_tail(&c->upstream->waiting, &c->node);
}

/* ---- verbs ---- */

void
call_fail_soon(struct call *c, int err)
{
	c->err = err;
	loop_post(c->upstream->all->of.loop, &c->post);
}

uint32_t
call_default_timeout_ms(const struct upstream *u)
{
	const struct conf *conf = u->all->of.conf;
	uint64_t ms = u->conf->timeout_ms > 0 ? u->conf->timeout_ms : conf->tools.server_timeout_ms;

	return ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX;
}

uint64_t
mcp_call(struct mcp_upstreams *all, size_t server, const struct mcp_request *request,
    const struct mcp_handlers *handlers, void *arg)
{
	struct mcp_request r = *request;

	check(server < all->count);
	struct upstream *u = all->all[server];
	if (r.timeout_ms == 0)
		r.timeout_ms = call_default_timeout_ms(u);
	struct call *c = call_new(u, &r, handlers, arg);
	all->call_count++;
	if (is_counted(c))
		metric_gauge(METRIC_MCP_CALLS, u->label, 0, 1);
	if (u->call_count > (uint64_t)all->of.conf->mcp.max_calls)
		call_fail_soon(c, E_BUSY);
	else if (u->step == STEP_OFF || u->step == STEP_PAUSE)
		call_fail_soon(c, E_UNAVAILABLE);
	else if (u->step == STEP_READY || u->step == STEP_FOLLOW)
		call_send(c);
	else
		list_add_tail(&u->waiting, &c->node);
	return c->handle;
}

uint64_t
call_ask(struct upstream *u, const char *method, struct str params, uint32_t timeout_ms,
    const struct mcp_handlers *handlers, void *arg)
{
	struct mcp_request r = {.method = method, .params = params, .timeout_ms = timeout_ms};
	struct call *c = call_new(u, &r, handlers, arg);

	c->is_ours = true;
	call_send(c);
	return c->handle;
}

struct call *
call_by_handle(struct mcp_upstreams *all, uint64_t handle)
{
	return handle != 0 ? idmap_get(all->calls, handle) : NULL;
}

void
mcp_cancel(struct mcp_upstreams *all, uint64_t handle)
{
	struct call *c = call_by_handle(all, handle);

	if (c == NULL)
		return;
	abandon(c);
	count(c, MCP_OUTCOME_CANCELLED);
	call_free(c);
}

void
calls_flush(struct upstream *u)
{
	struct call *c;

	while ((u->step == STEP_READY || u->step == STEP_FOLLOW) &&
	       (c = list_first(&u->waiting, struct call, node)) != NULL)
		call_send(c);
}

/* The list may change while its calls are told: one after the other from the front. */
static void
fail_list(struct list *list, int err, const char *why)
{
	struct list mine;
	struct call *c;

	list_init(&mine);
	while ((c = list_first(list, struct call, node)) != NULL) {
		list_del(&c->node);
		list_add_tail(&mine, &c->node);
	}
	while ((c = list_first(&mine, struct call, node)) != NULL)
		call_fail(c, err, why);
}

void
calls_fail_waiting(struct upstream *u, int err, const char *why)
{
	fail_list(&u->waiting, err, why);
}

void
calls_fail_sent(struct upstream *u, int err, const char *why)
{
	for (size_t i = 0; i < CALL_BUCKETS; i++)
		fail_list(&u->sent[i], err, why);
}

void
calls_drop(struct upstream *u)
{
	uint32_t cursor = 0;

	for (struct call *c; (c = idmap_next(u->all->calls, &cursor)) != NULL;) {
		if (c->upstream != u)
			continue;
		if (c->is_sent)
			u->transport->abandon(c);
		call_free(c);
	}
}

/* ---- the message ---- */

static void
add_member(struct buf *b, const char *name, struct str value)
{
	buf_add_cstr(b, b->data[b->len - 1] == '{' ? "\"" : ",\"");
	buf_add_cstr(b, name);
	buf_add_cstr(b, "\":");
	buf_add_str(b, value);
}

/* Also for a reader who does not tell upper from lower case. */
static bool
is_reserved(struct str key)
{
	struct str prefix = RESERVED_META;
	struct buf text = BUF_INIT;

	json_scan_key_text(key, &text);
	bool is = str_ieq(buf_str(&text), STR("progressToken")) ||
		  (text.len >= prefix.len && str_ieq(str_sub(text.data, prefix.len), prefix));
	buf_fini(&text);
	return is;
}

/* What others have put there goes on as it is, but for what is reserved. */
static void
add_foreign_meta(struct buf *b, struct str given)
{
	struct str key, value;
	struct json_scan s;

	json_scan_init(&s, given);
	if (given.len == 0 || !json_scan_object(&s))
		return;
	while (json_scan_member(&s, &key) == 1 && json_scan_skip(&s, &value)) {
		if (is_reserved(key))
			continue;
		buf_add_cstr(b, b->data[b->len - 1] == '{' ? "\"" : ",\"");
		buf_add_str(b, key);
		buf_add_cstr(b, "\":");
		buf_add_str(b, value);
	}
}

static void
add_modern_meta(struct buf *b, struct str given)
{
	struct str capabilities = STR("{}"), level;

	add_member(b, MCP_META_REVISION, STR("\"2026-07-28\""));
	add_member(
	    b, MCP_META_CLIENT, STR("{\"name\":\"parley\",\"version\":\"" PARLEY_VERSION "\"}"));
	jsonrpc_member(given, MCP_META_CAPABILITIES, &capabilities);
	add_member(b, MCP_META_CAPABILITIES, capabilities);
	if (jsonrpc_member(given, MCP_META_LOG_LEVEL, &level))
		add_member(b, MCP_META_LOG_LEVEL, level);
}

static void
add_params(struct buf *b, const struct call *c)
{
	struct str given = STR_NONE, params = buf_str(&c->params);
	struct buf rest = BUF_INIT;
	size_t before;

	if (params.len > 0)
		jsonrpc_member(params, "_meta", &given);
	jsonrpc_without(&rest, params.len > 0 ? params : STR("{}"), "_meta");
	buf_add_cstr(b, "{\"_meta\":");
	before = b->len;
	buf_add_char(b, '{');
	if (upstream_is_modern(c->upstream))
		add_modern_meta(b, given);
	if (c->wants_progress)
		add_member(b, "progressToken", str_of(c->id));
	add_foreign_meta(b, given);
	buf_add_char(b, '}');
	if (b->len == before + 2) { /* nothing to say there */
		b->len = before - sizeof("{\"_meta\":") + 1;
		buf_add_str(b, buf_str(&rest));
	} else {
		buf_add_cstr(b, rest.len > 2 ? "," : "");
		buf_add(b, rest.data + 1, rest.len - 1);
	}
	buf_fini(&rest);
}

void
call_format(const struct call *c, struct buf *b)
{
	struct buf params = BUF_INIT;
	size_t from = b->len;

	if (strcmp(c->method, "initialize") == 0)
		buf_add_str(&params, buf_str(&c->params));
	else
		add_params(&params, c);
	jsonrpc_add_request(b, str_of(c->id), c->method, buf_str(&params));
	jsonrpc_flatten(b, from);
	buf_fini(&params);
}

/* ---- what comes back ---- */

static struct call *
find_sent(struct upstream *u, struct str id)
{
	int64_t number;

	if (!jsonrpc_int(id, &number))
		return NULL;
	list_for (node, bucket_of(u, (uint64_t)number)) {
		struct call *c = list_entry(node, struct call, node);

		if (c->number == (uint64_t)number)
			return c;
	}
	return NULL;
}

struct call *
call_only(struct upstream *u)
{
	struct call *only = NULL;

	for (size_t i = 0; i < CALL_BUCKETS; i++) {
		list_for (node, &u->sent[i]) {
			struct call *c = list_entry(node, struct call, node);

			if (c->is_ours)
				continue;
			if (only != NULL)
				return NULL;
			only = c;
		}
	}
	return only;
}

void
call_answer(struct call *c, const struct jsonrpc *m)
{
	struct mcp_answer answer = {.result = m->result, .status = c->status};

	if (m->kind == JSONRPC_ERROR) {
		bool is_reserved =
		    m->code <= MCP_RESERVED_FIRST && m->code >= MCP_RESERVED_LAST && !c->is_ours;

		answer = (struct mcp_answer){.status = c->status,
		    .code = is_reserved ? MCP_INTERNAL_ERROR : m->code,
		    .upstream_code = m->code,
		    .message = m->message,
		    .data = is_reserved && m->code != MCP_CAPABILITY_MISSING ? STR_NONE : m->data};
		if (answer.code == 0)
			answer.code = MCP_INTERNAL_ERROR;
	}
	call_end(c, &answer);
}

/* Of the request whose token it names. */
static void
take_progress(struct upstream *u, const struct jsonrpc *m)
{
	struct call *c = NULL;
	struct str token;

	if (jsonrpc_member(m->params, "progressToken", &token))
		c = find_sent(u, token);
	if (c != NULL && c->wants_progress && c->handlers.on_notification != NULL)
		c->handlers.on_notification(c->arg, m);
}

/* What it logs is its asker's business, who may have no use for it. */
static void
take_message(struct upstream *u, struct call *c, const struct jsonrpc *m)
{
	if (c == NULL)
		c = question_whose(u);
	if (c == NULL || c->is_ours)
		news_take(u, m);
	else if (c->handlers.on_notification != NULL)
		c->handlers.on_notification(c->arg, m);
}

/* One that had the pipes before us has begun it, and nobody ends it: all is told once more. */
static void
end_foreign_listening(struct upstream *u, const struct jsonrpc *m)
{
	struct str meta, id;
	int64_t number;

	if (stdio_link_is_taken_over(u) && m->params.len > 0 &&
	    jsonrpc_member(m->params, "_meta", &meta) &&
	    jsonrpc_member(meta, MCP_META_SUBSCRIPTION, &id) && jsonrpc_int(id, &number) &&
	    find_sent(u, id) == NULL)
		stdio_link_stop(u, id);
}

static void
take_notification(struct upstream *u, struct call *c, const struct jsonrpc *m)
{
	size_t len = strlen(m->method);

	end_foreign_listening(u, m);
	if (len > 13 && strcmp(m->method + len - 13, "/list_changed") == 0)
		listing_changed(u, m->method);
	else if (news_is_of_resource(m))
		news_take(u, m);
	else if (strcmp(m->method, "notifications/progress") == 0)
		take_progress(u, m);
	else if (strcmp(m->method, "notifications/message") == 0)
		take_message(u, c, m);
	else if (strcmp(m->method, "notifications/cancelled") == 0)
		question_withdraw(u, m);
	else
		log_debug("mcp notification ignored server=%s method=%s", u->conf->name,
		    log_quote(str_of(m->method)).s);
}

void
call_take(struct upstream *u, struct call *c, struct str text)
{
	struct jsonrpc m;
	int err = jsonrpc_parse(text, &m);

	if (err != 0) {
		log_info("mcp message not understood server=%s bytes=%zu code=%d", u->conf->name,
		    text.len, err);
		return;
	}
	switch (m.kind) {
	case JSONRPC_REQUEST:
		if (!question_take(u, c, &m))
			upstream_asked(u, &m);
		break;
	case JSONRPC_NOTIFICATION:
		take_notification(u, c, &m);
		break;
	default:
		/* An error without an id is the one's whose stream it comes on. */
		if (m.id.len > 0 || c == NULL)
			c = find_sent(u, m.id);
		if (c != NULL)
			call_answer(c, &m);
		else
			log_debug("mcp answer to nothing server=%s", u->conf->name);
	}
}
