/* mcp_ask - see mcp_impl.h. */
#include <inttypes.h>
#include <stdlib.h>

#include "common/check.h"
#include "worker/api/mcp_impl.h"
#include "worker/mcp/reply.h"

/* ---- life ---- */

static void
ask_free(struct mcp_ask *a)
{
	struct api_call *call = a->call;

	struct mcp_feed *pair = a->is_paired ? mcp_pair_find(a->front, a->session) : NULL;

	mcp_cancel(a->front->api->upstreams, a->upstream);
	list_del(&a->node);
	mcp_questions_drop(a);
	mcp_round_drop(a);
	if (a->own != NULL)
		a->own->drop(a->own);
	loop_timer_stop(a->front->api->loop, &a->quiet);
	if (pair != NULL)
		pair->asks--;
	if (a->batch == NULL)
		call_end(call);
	free(a);
}

static bool
is_modern(const struct mcp_ask *a)
{
	return mcp_revision_info(a->revision)->is_modern;
}

static void
on_client_gone(void *arg)
{
	struct mcp_ask *a = arg;

	a->sse = NULL;
	if (is_modern(a) || (a->upstream == 0 && a->own == NULL))
		ask_free(a);
}

void
mcp_ask_drop(struct mcp_ask *a)
{
	struct http_req *req = call_req(a->call);
	struct mcp_batch *batch = a->batch;

	if (batch == NULL && a->sse != NULL)
		sse_end(a->sse);
	else if (batch == NULL && req != NULL)
		http_on_gone(req, NULL, NULL);
	a->sse = NULL;
	ask_free(a);
	if (batch != NULL)
		mcp_batch_drop(batch);
}

void
mcp_ask_leave(struct mcp_ask *a)
{
	ask_free(a);
}

/* "*" and "text/event-stream" among what it takes, or nothing said. */
static bool
takes_stream(struct http_req *req)
{
	struct str accept = http_header_list(req, "accept");

	if (accept.p == NULL)
		return true;
	while (accept.len > 0) {
		struct str type = str_split(&accept, ',');
		struct str name = str_trim(str_split(&type, ';'));

		if (str_ieq(name, STR("text/event-stream")) || str_ieq(name, STR("*/*")) ||
		    str_ieq(name, STR("text/*")))
			return true;
	}
	return false;
}

static struct str
keep(struct mcp_ask *a, struct str s)
{
	return s.len > 0 ? str_sub(arena_strdup(&a->call->arena, s), s.len) : STR_NONE;
}

static struct str
progress_token(struct str params)
{
	struct str meta, token;
	bool is_there = params.len > 0 && params.p[0] == '{' &&
			jsonrpc_member(params, "_meta", &meta) && meta.p[0] == '{' &&
			jsonrpc_member(meta, "progressToken", &token);

	return is_there && token.len <= JSONRPC_ID_MAX ? token : STR_NONE;
}

struct mcp_ask *
mcp_ask_new(struct mcp_front *front, struct api_call *call, struct http_req *req,
    enum mcp_revision revision, const struct jsonrpc *m)
{
	struct mcp_ask *a = xcalloc(1, sizeof(*a));

	check(m->kind == JSONRPC_REQUEST);
	a->front = front;
	a->call = call;
	a->revision = revision;
	a->level = MCP_LEVEL_NONE;
	a->id = keep(a, m->id);
	a->params = m->params;
	a->takes_stream = req != NULL && takes_stream(req);
	a->token = a->takes_stream ? keep(a, progress_token(m->params)) : STR_NONE;
	list_init(&a->questions);
	list_add_tail(&front->asks, &a->node);
	if (req != NULL)
		http_on_gone(req, on_client_gone, a);
	return a;
}

struct mcp_ask *
mcp_ask_new_paired(struct mcp_feed *f, struct api_call *call, const struct jsonrpc *m)
{
	struct mcp_ask *a = mcp_ask_new(f->front, call, NULL, f->revision, m);

	a->is_paired = true;
	a->session = f->session;
	a->takes_stream = true;
	a->caps = f->caps;
	a->token = keep(a, progress_token(m->params));
	f->asks++;
	return a;
}

void
mcp_asks_drop_paired(struct mcp_front *front, uint64_t session)
{
	list_for_safe (node, &front->asks) {
		struct mcp_ask *a = list_entry(node, struct mcp_ask, node);

		if (a->is_paired && a->session == session)
			ask_free(a);
	}
}

/* ---- the answer ---- */

static void
send_alone(struct mcp_ask *a, int status, struct buf *message)
{
	struct http_req *req = call_req(a->call);

	if (a->is_paired) {
		mcp_pair_answer(a->front, a->session, message);
	} else if (a->sse != NULL) {
		jsonrpc_flatten(message, 0);
		sse_end_with(a->sse, STR("message"), buf_str(message));
	} else if (req != NULL) {
		http_on_gone(req, NULL, NULL);
		http_reply(req, status, "application/json", buf_str(message));
	}
}

/* A batch hears of it at last: with its last answer ends the call, whose the ask's parts are. */
static void
send(struct mcp_ask *a, int status, struct buf *message)
{
	struct mcp_batch *batch = a->batch;

	mcp_questions_drop(a);
	if (batch == NULL)
		send_alone(a, status, message);
	ask_free(a);
	if (batch != NULL)
		mcp_batch_add(batch, buf_str(message));
}

void
mcp_ask_refuse(struct mcp_ask *a, int status, int64_t code, const char *message, struct str data)
{
	struct buf b = BUF_INIT;

	jsonrpc_add_error(&b, a->id, code, str_of(message), data);
	send(a, is_modern(a) ? status : 200, &b);
	buf_fini(&b);
}

void
mcp_ask_reply(struct mcp_ask *a, struct str result)
{
	struct buf b = BUF_INIT, r = BUF_INIT;

	if (mcp_reply_add_result(&r, a->revision, result)) {
		jsonrpc_add_result(&b, a->id, buf_str(&r));
		send(a, 200, &b);
	} else {
		mcp_ask_refuse(
		    a, 200, MCP_INTERNAL_ERROR, "The server's answer is no result.", STR_NONE);
	}
	buf_fini(&b);
	buf_fini(&r);
}

void
mcp_ask_take_back(struct mcp_front *front, uint64_t session, struct str id)
{
	list_for_safe (node, &front->asks) {
		struct mcp_ask *a = list_entry(node, struct mcp_ask, node);

		if (a->session == session && str_eq(a->id, id)) {
			mcp_ask_refuse(
			    a, 200, MCP_REQUEST_CANCELLED, "Request cancelled", STR_NONE);
			return;
		}
	}
}

/* ---- an upstream's ---- */

/* Nothing of the request is left then. NULL: the client has gone. */
struct sse *
mcp_ask_stream(struct mcp_ask *a)
{
	struct http_req *req = call_req(a->call);
	struct mcp_feed *pair = a->is_paired ? mcp_pair_find(a->front, a->session) : NULL;

	if (pair != NULL)
		return pair->sse;
	if (a->sse == NULL && req != NULL && a->takes_stream) {
		loop_timer_stop(a->front->api->loop, &a->quiet);
		http_on_gone(req, NULL, NULL);
		a->sse = sse_start(req, on_client_gone, a);
	}
	return a->sse;
}

/* An older client that has set no level gets what the server thinks right. */
static bool
wants_message(const struct mcp_ask *a, const struct jsonrpc *m)
{
	int least = is_modern(a) ? a->level : mcp_note_level(a->front, a->session);

	if (strcmp(m->method, "notifications/message") != 0)
		return false;
	if (least == MCP_LEVEL_NONE)
		return !is_modern(a);
	return mcp_level_of(m->params) >= least;
}

static void
on_notification(void *arg, const struct jsonrpc *m)
{
	struct mcp_ask *a = arg;
	struct buf params = BUF_INIT, b = BUF_INIT;
	bool is_progress = strcmp(m->method, "notifications/progress") == 0;

	if (is_progress ? a->token.len == 0 : !wants_message(a, m))
		return;
	if (!a->takes_stream || m->params.len == 0 || m->params.p[0] != '{')
		return;
	if (is_progress)
		mcp_reply_add_progress(&params, m->params, a->token);
	else
		buf_add_str(&params, m->params);
	jsonrpc_add_notification(&b, m->method, buf_str(&params));
	jsonrpc_flatten(&b, 0);
	struct sse *sse = mcp_ask_stream(a);
	if (sse != NULL) /* who does not keep up goes without */
		sse_send(sse, STR_NONE, STR("message"), buf_str(&b));
	buf_fini(&params);
	buf_fini(&b);
}

static void
reply_failed(struct mcp_ask *a, const char *why)
{
	struct buf b = BUF_INIT;

	buf_add_cstr(&b, "{\"content\":[{\"type\":\"text\",\"text\":");
	jsonrpc_add_string(&b, str_of(why));
	buf_add_cstr(&b, "}],\"isError\":true}");
	mcp_ask_reply(a, buf_str(&b));
	buf_fini(&b);
}

/* What went wrong on the way is the tool's failure, which a model is told. */
void
mcp_ask_fail(struct mcp_ask *a, const char *why)
{
	if (a->is_tool)
		reply_failed(a, why);
	else
		mcp_ask_refuse(a, 200, MCP_INTERNAL_ERROR, why, STR_NONE);
}

static void
refuse_as_upstream(struct mcp_ask *a, const struct mcp_answer *answer)
{
	struct buf message = BUF_INIT;
	int64_t code = answer->code;
	int status = 200;

	if (answer->message.len == 0 || !json_scan_decode(answer->message, &message) ||
	    message.len == 0) {
		buf_clear(&message);
		buf_add_cstr(&message, "The server refused.");
	}
	/* It is not the client's method that is unknown. */
	if (code == MCP_METHOD_NOT_FOUND)
		code = MCP_INTERNAL_ERROR;
	/* What it lacks is the client's: its capabilities are what the upstream was told. */
	if (answer->upstream_code == MCP_CAPABILITY_MISSING && is_modern(a)) {
		code = MCP_CAPABILITY_MISSING;
		status = 400;
	}
	mcp_ask_refuse(a, status, code, message.data, answer->data);
	buf_fini(&message);
}

static void
reply_as_upstream(struct mcp_ask *a, struct str result)
{
	struct buf b = BUF_INIT;
	struct str ttl;

	/* Its server does not say: it may change at any time. */
	if (a->is_cacheable && is_modern(a) && result.p[0] == '{' &&
	    !jsonrpc_member(result, "ttlMs", &ttl)) {
		jsonrpc_without(&b, result, "cacheScope");
		b.len--;
		buf_add_cstr(&b, b.len > 1 ? "," : "");
		buf_add_cstr(&b, "\"ttlMs\":0,\"cacheScope\":\"private\"}");
		mcp_ask_reply(a, buf_str(&b));
	} else {
		mcp_ask_reply(a, result);
	}
	buf_fini(&b);
}

void
mcp_asks_end(struct mcp_front *front)
{
	const char *why = err_info(E_DRAINING)->text;
	struct mcp_ask *a;

	while ((a = list_first(&front->asks, struct mcp_ask, node)) != NULL)
		mcp_ask_fail(a, why);
}

static void
on_answer(void *arg, const struct mcp_answer *answer)
{
	struct mcp_ask *a = arg;

	a->upstream = 0;
	if (answer->err != 0)
		mcp_ask_fail(a, answer->why);
	else if (answer->result.len == 0)
		refuse_as_upstream(a, answer);
	else if (!mcp_round_take(a, answer->result))
		reply_as_upstream(a, answer->result);
}

/* Comments follow, so that nobody on the way takes it for dead. */
static void
on_quiet(struct loop_timer *timer)
{
	mcp_ask_stream(container_of(timer, struct mcp_ask, quiet));
}

static void
on_question(void *arg, const struct jsonrpc *m, uint64_t number)
{
	mcp_question_put(arg, m, number);
}

static void
on_withdrawn(void *arg, uint64_t number)
{
	mcp_question_withdraw(arg, number);
}

void
mcp_ask_keep_alive(struct mcp_ask *a)
{
	struct api *api = a->front->api;

	a->quiet.on_fire = on_quiet;
	if (a->takes_stream && !a->is_paired)
		loop_timer_set(api->loop, &a->quiet, api->conf->sse.keepalive_interval_ms);
}

void
mcp_ask_progress(struct mcp_ask *a, uint64_t progress)
{
	struct buf params = BUF_INIT;
	struct jsonrpc m = {.kind = JSONRPC_NOTIFICATION, .method = "notifications/progress"};

	buf_printf(&params, "{\"progress\":%" PRIu64 "}", progress);
	m.params = buf_str(&params);
	on_notification(a, &m);
	buf_fini(&params);
}

static void
set_meta(struct buf *params, const char *name, struct str value)
{
	struct buf b = BUF_INIT, meta = BUF_INIT;
	struct str given = STR("{}");

	if (jsonrpc_member(buf_str(params), "_meta", &given) && given.p[0] != '{')
		given = STR("{}");
	mcp_reply_replace(&meta, given, name, value);
	mcp_reply_replace(&b, buf_str(params), "_meta", buf_str(&meta));
	buf_clear(params);
	buf_add_str(params, buf_str(&b));
	buf_fini(&b);
	buf_fini(&meta);
}

/* What an older client has said once a modern server is told with each request. */
static void
add_session(const struct mcp_ask *a, size_t server, struct buf *params)
{
	int level = mcp_note_level(a->front, a->session);
	uint8_t caps = mcp_question_may(a, server);
	struct buf value = BUF_INIT;

	if (level != MCP_LEVEL_NONE) {
		jsonrpc_add_string(&value, str_of(mcp_level_name(level)));
		set_meta(params, MCP_META_LOG_LEVEL, buf_str(&value));
	}
	if (caps != 0) {
		buf_clear(&value);
		mcp_question_add_caps(&value, caps);
		set_meta(params, MCP_META_CAPABILITIES, buf_str(&value));
	}
	buf_fini(&value);
}

void
mcp_ask_send(struct mcp_ask *a, size_t server, const char *method, struct str params)
{
	static const struct mcp_handlers handlers = {
	    on_notification, on_answer, on_question, on_withdrawn};

	a->upstream = mcp_call(a->front->api->upstreams, server,
	    &(struct mcp_request){
		.method = method, .params = params, .wants_progress = a->token.len > 0},
	    &handlers, a);
}

void
mcp_ask_forward_with(
    struct mcp_ask *a, size_t server, const char *method, const char *member, struct str value)
{
	struct mcp_upstream_info info;
	struct buf params = BUF_INIT;

	mcp_upstream_get(a->front->api->upstreams, server, &info);
	mcp_reply_replace(&params, a->params, member, value);
	a->params = STR_NONE;
	mcp_ask_keep_alive(a);
	/* Of which revision it is may turn out later. */
	if (!is_modern(a) &&
	    (info.revision == MCP_REVISION_NONE || mcp_revision_info(info.revision)->is_modern)) {
		add_session(a, server, &params);
		mcp_round_keep(a, server, method, buf_str(&params));
	}
	mcp_ask_send(a, server, method, buf_str(&params));
	buf_fini(&params);
}

void
mcp_ask_forward(
    struct mcp_ask *a, size_t server, const char *method, const char *member, struct str name)
{
	struct buf text = BUF_INIT;

	jsonrpc_add_string(&text, name);
	mcp_ask_forward_with(a, server, method, member, buf_str(&text));
	buf_fini(&text);
}
