/*
 * http_link - carries messages to an upstream over HTTP: one POST for each, whose answer is JSON or
 * a stream of events; and streams that are asked for with GET.
 *
 * A feed is a transfer on its way from a request to messages. The one of a call lives on for a
 * moment when the call was answered, so that the connection can be used again.
 *
 *   feed    for
 *   CALL    a request; its answer, and what is said before that. A legacy server may end the stream
 *           before it has answered, if it has given its events ids: it is asked for the rest
 *   NOTE    a message that has no answer
 *   STREAM  GET: what a legacy server says unasked; of 2024-11-05 all that it says
 *   LEAVE   DELETE: our session there
 */
#include "worker/mcp/http_link.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "worker/mcp/http_headers.h"
#include "worker/mcp/upstream_impl.h"
#include "worker/provider/sse_parse.h"

enum {
	RESUME_MS = 1000,
	RESUME_MAX_MS = 30000,
	RESUMES_MAX = 1000,
	LINGER_MS = 1000,
	KEEPALIVE_MS = 30000,
	LEAVE_MS = 1000,
	STREAMS_MAX = 2,
	SESSION_HEADER_MAX = 1024
};

enum feed_kind { FEED_CALL, FEED_NOTE, FEED_STREAM, FEED_LEAVE };

struct http_link {
	struct upstream *upstream;
	struct client_pool *pool;
	char *session;           /* Mcp-Session-Id; NULL: none */
	uint32_t session_number; /* of the present one, or of the next; from 1 */
	char *post_url;          /* of 2024-11-05; NULL: conf->url */
	struct feed_in *stream;
	struct list feeds;
	struct loop_timer stream_timer;
	struct loop_post begin;
};

struct feed_in {
	struct list node;
	struct upstream *upstream;
	struct call *call; /* FEED_CALL, until it was answered */
	enum feed_kind kind;
	uint64_t transfer;
	int status;
	uint32_t session_number; /* that the request named; 0: none */
	bool is_sse, is_awaited, keeps_session;
	bool is_feeding, is_dead; /* freed when the bytes at hand are done with */
	bool is_too_large;
	unsigned resumes; /* how often the rest of its stream was asked for */
	struct sse_parse events;
	struct buf body;
	struct loop_timer timer;
};

static void open_stream(struct upstream *);

/* ---- the life of a feed ---- */

static void
feed_free(struct feed_in *f)
{
	struct upstream *u = f->upstream;

	if (f->call != NULL)
		f->call->feed = NULL;
	f->call = NULL;
	if (u->http->stream == f)
		u->http->stream = NULL;
	if (f->transfer != 0)
		client_cancel(u->all->of.client, f->transfer);
	f->transfer = 0;
	loop_timer_stop(u->all->of.loop, &f->timer);
	if (list_linked(&f->node))
		list_del(&f->node);
	if (f->is_feeding) {
		f->is_dead = true;
		return;
	}
	sse_parse_fini(&f->events);
	buf_fini(&f->body);
	free(f);
}

static void
on_lingered(struct loop_timer *timer)
{
	feed_free(container_of(timer, struct feed_in, timer));
}

static void
http_release(struct call *c)
{
	struct feed_in *f = c->feed;

	if (f == NULL)
		return;
	c->feed = NULL;
	f->call = NULL;
	f->timer.on_fire = on_lingered;
	loop_timer_set(c->upstream->all->of.loop, &f->timer, LINGER_MS);
}

/* ---- bytes to messages ---- */

static void
take_endpoint(struct upstream *u, struct str endpoint)
{
	char *url = http_link_resolve(u->conf->url, endpoint);

	if (url == NULL) {
		upstream_failed(u, "Its endpoint is of another origin.");
		return;
	}
	free(u->http->post_url);
	u->http->post_url = url;
	loop_timer_stop(u->all->of.loop, &u->http->stream->timer);
	upstream_connected(u);
}

static int
on_event(void *arg, const struct sse_event *e)
{
	struct feed_in *f = arg;
	struct upstream *u = f->upstream;

	if (str_eq(e->name, STR("endpoint"))) {
		if (f->kind == FEED_STREAM && u->step == STEP_FALLBACK)
			take_endpoint(u, e->data);
	} else if (e->data.len > 0 && (e->name.len == 0 || str_eq(e->name, STR("message")))) {
		call_take(u, f->call, e->data);
	}
	return f->is_dead ? E_CANCELLED : 0;
}

static void
on_head(void *arg, const struct client_head *head)
{
	struct feed_in *f = arg;
	bool is_good = head->status >= 200 && head->status < 300;

	f->status = head->status;
	f->is_sse = is_good && str_eq(head->content_type, STR("text/event-stream"));
	if (f->call != NULL)
		f->call->status = head->status;
	if (f->keeps_session && is_good && head->kept.len > 0) {
		free(f->upstream->http->session);
		f->upstream->http->session = xstrndup(head->kept.p, head->kept.len);
	}
}

static void
too_large(struct feed_in *f)
{
	struct call *c = f->call;

	f->is_too_large = true;
	if (c != NULL)
		call_fail(c, E_PAYLOAD_TOO_LARGE, "The tool server's answer is too large.");
	feed_free(f);
}

static bool
on_body(void *arg, struct str bytes)
{
	struct feed_in *f = arg;
	int err = 0;

	f->is_feeding = true;
	if (f->is_sse)
		err = sse_parse_feed(&f->events, bytes);
	else if (f->body.len + bytes.len <= f->upstream->all->of.conf->mcp.max_message_bytes)
		buf_add_str(&f->body, bytes);
	else
		err = E_PAYLOAD_TOO_LARGE;
	if (err == E_PAYLOAD_TOO_LARGE && !f->is_dead)
		too_large(f);
	f->is_feeding = false;
	if (f->is_dead) {
		feed_free(f);
		return false;
	}
	return true;
}

/* ---- the end of a feed ---- */

static void
take_body(struct feed_in *f)
{
	struct str text = buf_str(&f->body), one;
	struct jsonrpc_batch batch;

	if (text.len == 0)
		return;
	if (!jsonrpc_is_batch(text)) {
		call_take(f->upstream, f->call, text);
		return;
	}
	jsonrpc_batch_init(&batch, text);
	while (jsonrpc_batch_next(&batch, &one) == 1)
		call_take(f->upstream, f->call, one);
}

static void
fail_call(struct feed_in *f, enum client_outcome outcome)
{
	struct upstream *u = f->upstream;

	switch (outcome) {
	case CLIENT_POOL_FULL:
	case CLIENT_POOL_TIMEOUT:
		call_fail(f->call, E_BUSY, "No connection to the tool server became free.");
		break;
	case CLIENT_TIMEOUT:
		call_fail(f->call, E_TIMEOUT, "The tool server did not answer in time.");
		break;
	case CLIENT_BROKEN:
		call_fail(f->call, E_GONE, "The connection to the tool server broke.");
		break;
	default:
		call_fail(f->call, E_UNAVAILABLE, "The tool server is not reachable.");
		if (u->step == STEP_READY || u->step == STEP_LIST)
			upstream_failed(u, client_outcome_name(outcome));
	}
}

/* The one that it named may have been replaced meanwhile. Calls of ours are made anew with it. */
static void
repeat_call(struct feed_in *f)
{
	struct upstream *u = f->upstream;
	struct call *c = f->call;

	if (!c->is_ours) {
		c->feed = NULL;
		f->call = NULL;
		call_repeat(c);
	}
	if (f->session_number == u->http->session_number)
		upstream_session_lost(u);
	calls_flush(u);
}

static void on_resume(struct loop_timer *);

/* False: it cannot be. The call's own time goes on. */
static bool
resume_later(struct feed_in *f)
{
	uint64_t delay_ms = f->events.has_retry ? f->events.retry_ms : RESUME_MS;

	if (!f->is_sse || f->events.id.len == 0 || f->resumes++ >= RESUMES_MAX ||
	    f->upstream->is_fallback || upstream_is_modern(f->upstream))
		return false;
	f->timer.on_fire = on_resume;
	loop_timer_set(f->upstream->all->of.loop, &f->timer,
	    delay_ms < RESUME_MAX_MS ? delay_ms : RESUME_MAX_MS);
	return true;
}

static void
end_call(struct feed_in *f, enum client_outcome outcome)
{
	struct upstream *u = f->upstream;
	char why[64];

	if (outcome == CLIENT_BROKEN && resume_later(f))
		return;
	if (outcome != CLIENT_OK) {
		fail_call(f, outcome);
		return;
	}
	if (f->status == 404 && f->session_number != 0 && !f->call->was_repeated) {
		repeat_call(f);
		return;
	}
	if (!f->is_sse)
		take_body(f);
	if (f->call == NULL || resume_later(f))
		return;
	if (u->is_fallback && f->status >= 200 && f->status < 300) {
		f->call->feed = NULL; /* the answer comes on the stream */
		f->call = NULL;
		return;
	}
	snprintf(why, sizeof(why),
	    f->status < 300 ? "The tool server's answer is no answer."
			    : "The tool server refused with status %d.",
	    f->status);
	call_fail(f->call,
	    f->status == 401 || f->status == 403 || f->status >= 500 ? E_UNAVAILABLE : E_PROVIDER,
	    why);
}

static void
end_note(struct feed_in *f, enum client_outcome outcome)
{
	if (!f->is_awaited)
		return;
	if (outcome == CLIENT_OK && f->status >= 200 && f->status < 300)
		upstream_notified(f->upstream);
	else
		upstream_failed(f->upstream, "It refused notifications/initialized.");
}

static void
on_stream_again(struct loop_timer *timer)
{
	struct http_link *l = container_of(timer, struct http_link, stream_timer);
	struct upstream *u = l->upstream;

	if (l->stream != NULL || u->step != STEP_READY)
		return;
	open_stream(u);
	listing_begin(u, LISTING_ALL); /* what was said meanwhile was not heard */
}

/* One that does not exist is not asked for again. */
static void
end_stream(struct upstream *u, int status)
{
	if (u->step == STEP_FALLBACK) {
		u->is_fallback = false;
		u->verdict = MCP_REVISION_NONE;
		upstream_failed(u, "It speaks neither the new protocol nor the old one.");
	} else if (u->is_fallback) {
		calls_fail_sent(u, E_GONE, "The connection to the tool server broke.");
		upstream_failed(u, "Its stream has ended.");
	} else if (u->step == STEP_READY && (status == 0 || (status >= 200 && status < 300))) {
		loop_timer_set(u->all->of.loop, &u->http->stream_timer, u->listen_backoff_ms);
		if (u->listen_backoff_ms * 2 <= u->all->of.conf->mcp.backoff_max_ms)
			u->listen_backoff_ms *= 2;
	}
}

static void
on_done(void *arg, enum client_outcome outcome, const char *detail)
{
	struct feed_in *f = arg;
	struct upstream *u = f->upstream;
	int status = f->status;
	bool is_stream = f->kind == FEED_STREAM;

	f->transfer = 0;
	log_debug("mcp transfer ended server=%s kind=%d status=%d outcome=%s detail=%s",
	    u->conf->name, f->kind, status, client_outcome_name(outcome),
	    log_quote(str_of(detail)).s);
	f->is_feeding = true; /* what is told may free it */
	if (f->kind == FEED_CALL && f->call != NULL)
		end_call(f, outcome);
	else if (f->kind == FEED_NOTE)
		end_note(f, outcome);
	else if (f->kind == FEED_LEAVE)
		u->all->leaving--;
	f->is_feeding = false;
	if (!f->is_dead && f->call != NULL && loop_timer_is_set(&f->timer))
		return; /* the rest is asked for */
	feed_free(f);
	if (is_stream)
		end_stream(u, status);
}

/* ---- requests ---- */

static struct feed_in *
feed_new(struct upstream *u, enum feed_kind kind)
{
	struct feed_in *f = xcalloc(1, sizeof(*f));

	f->upstream = u;
	f->kind = kind;
	f->timer.on_fire = on_lingered;
	sse_parse_init(&f->events, (size_t)u->all->of.conf->mcp.max_message_bytes, on_event, f);
	list_add_tail(&u->http->feeds, &f->node);
	return f;
}

static void
add_call_headers(struct http_headers *h, const struct call *c)
{
	struct upstream *u = c->upstream;
	struct str arguments;

	http_headers_add(h, "Mcp-Method", str_of(c->method));
	if (c->tool.len == 0)
		return;
	http_headers_add_encoded(h, "Mcp-Name", buf_str(&c->tool));
	const struct mcp_item *tool = strcmp(c->method, "tools/call") == 0
					  ? mcp_list_find(u->lists[MCP_TOOLS], buf_str(&c->tool))
					  : NULL;
	if (tool != NULL && jsonrpc_member(buf_str(&c->params), "arguments", &arguments))
		http_headers_add_params(h, tool->json, arguments);
}

static void
add_headers(struct http_headers *h, const struct upstream *u, const struct call *c)
{
	bool is_initialize = c != NULL && strcmp(c->method, "initialize") == 0;

	http_headers_add_map(h, &u->conf->headers);
	if (upstream_is_modern(u))
		http_headers_add(h, "MCP-Protocol-Version",
		    str_of(mcp_revision_info(MCP_REVISION_MODERN)->text));
	else if (!is_initialize && u->revision != MCP_REVISION_NONE)
		http_headers_add(
		    h, "MCP-Protocol-Version", str_of(mcp_revision_info(u->revision)->text));
	if (u->http->session != NULL && !is_initialize)
		http_headers_add(h, "Mcp-Session-Id", str_of(u->http->session));
	if (upstream_is_modern(u) && c != NULL)
		add_call_headers(h, c);
}

static void
post(struct feed_in *f, struct str body)
{
	static const struct client_handlers handlers = {on_head, on_body, on_done};
	struct upstream *u = f->upstream;
	struct http_headers h;

	f->session_number = u->http->session != NULL ? u->http->session_number : 0;
	http_headers_init(&h);
	http_headers_add(&h, "Content-Type", STR("application/json"));
	http_headers_add(&h, "Accept", STR("application/json, text/event-stream"));
	add_headers(&h, u, f->call);
	f->transfer = client_start(u->http->pool,
	    &(struct client_request){
		.method = "POST",
		.url = u->http->post_url != NULL ? u->http->post_url : u->conf->url,
		.headers = h.v,
		.header_count = h.n,
		.keeps = f->keeps_session ? "Mcp-Session-Id" : NULL,
		.body = body,
		.total_timeout_ms = f->kind == FEED_NOTE ? (uint32_t)u->conf->probe_timeout_ms : 0,
	    },
	    &handlers, f);
	http_headers_fini(&h);
}

static void
http_send(struct call *c)
{
	struct feed_in *f = feed_new(c->upstream, FEED_CALL);
	struct buf message = BUF_INIT;

	f->call = c;
	c->feed = f;
	f->keeps_session = strcmp(c->method, "initialize") == 0;
	if (f->keeps_session) {
		free(c->upstream->http->session);
		c->upstream->http->session = NULL;
	}
	call_format(c, &message);
	post(f, buf_str(&message));
	buf_fini(&message);
}

static void
http_notify(struct upstream *u, struct str message, bool is_awaited)
{
	struct feed_in *f = feed_new(u, FEED_NOTE);

	f->is_awaited = is_awaited;
	post(f, message);
}

/* A modern server stops when its stream is closed; a legacy one wants to be told. */
static void
http_abandon(struct call *c)
{
	struct upstream *u = c->upstream;
	struct buf message = BUF_INIT, params = BUF_INIT;

	if (c->feed != NULL)
		feed_free(c->feed);
	if (upstream_is_modern(u) || u->revision == MCP_REVISION_NONE || u->step == STEP_OFF ||
	    strcmp(c->method, "initialize") == 0)
		return;
	buf_printf(
	    &params, "{\"requestId\":%s,\"reason\":\"nobody waits for it any more\"}", c->id);
	jsonrpc_add_notification(&message, "notifications/cancelled", buf_str(&params));
	http_notify(u, buf_str(&message), false);
	buf_fini(&message);
	buf_fini(&params);
}

/* ---- streams ---- */

static void
on_no_endpoint(struct loop_timer *timer)
{
	struct feed_in *f = container_of(timer, struct feed_in, timer);
	struct upstream *u = f->upstream;

	feed_free(f);
	end_stream(u, 0);
}

/* The rest of a call's stream. */
static void
on_resume(struct loop_timer *timer)
{
	static const struct client_handlers handlers = {on_head, on_body, on_done};
	struct feed_in *f = container_of(timer, struct feed_in, timer);
	struct upstream *u = f->upstream;
	struct http_headers h;

	f->timer.on_fire = on_lingered;
	sse_parse_restart(&f->events);
	buf_clear(&f->body);
	http_headers_init(&h);
	http_headers_add(&h, "Accept", STR("text/event-stream"));
	http_headers_add(&h, "Last-Event-ID", buf_str(&f->events.id));
	add_headers(&h, u, NULL);
	f->transfer = client_start(u->http->pool,
	    &(struct client_request){
		.method = "GET", .url = u->conf->url, .headers = h.v, .header_count = h.n},
	    &handlers, f);
	http_headers_fini(&h);
}

static void
open_stream(struct upstream *u)
{
	static const struct client_handlers handlers = {on_head, on_body, on_done};
	struct feed_in *f = feed_new(u, FEED_STREAM);
	struct http_headers h;

	u->http->stream = f;
	if (u->step == STEP_FALLBACK) {
		f->timer.on_fire = on_no_endpoint;
		loop_timer_set(u->all->of.loop, &f->timer, u->conf->probe_timeout_ms);
	}
	http_headers_init(&h);
	http_headers_add(&h, "Accept", STR("text/event-stream"));
	add_headers(&h, u, NULL);
	f->transfer = client_start(u->http->pool,
	    &(struct client_request){
		.method = "GET", .url = u->conf->url, .headers = h.v, .header_count = h.n},
	    &handlers, f);
	http_headers_fini(&h);
}

static void
http_listen(struct upstream *u)
{
	if (!u->is_fallback && u->http->stream == NULL)
		open_stream(u);
}

void
http_link_fall_back(struct upstream *u)
{
	check(u->step == STEP_FALLBACK && u->http->stream == NULL);
	u->revision = MCP_REVISION_NONE;
	open_stream(u);
}

static size_t
origin_len(const char *url)
{
	const char *scheme = strstr(url, "://");

	return scheme != NULL ? (size_t)(scheme - url) + 3 + strcspn(scheme + 3, "/?#")
			      : strlen(url);
}

char *
http_link_resolve(const char *url, struct str endpoint)
{
	size_t origin = origin_len(url), path = strcspn(url, "?#");
	struct buf b = BUF_INIT;

	for (size_t i = 0; i < endpoint.len; i++) {
		if ((unsigned char)endpoint.p[i] <= ' ' || endpoint.p[i] == 0x7f)
			return NULL;
	}
	if (endpoint.len == 0 || str_starts(endpoint, STR("//")))
		return NULL;
	char *text = xstrndup(endpoint.p, endpoint.len);
	bool is_absolute = strstr(text, "://") != NULL && strcspn(text, "/?#") > strcspn(text, ":");
	if (is_absolute) {
		bool is_same = origin_len(text) == origin && memcmp(text, url, origin) == 0;

		if (is_same)
			return text;
		free(text);
		return NULL;
	}
	if (text[0] != '/') {
		while (path > origin && url[path - 1] != '/')
			path--;
		buf_add(&b, url, path);
		if (path == origin)
			buf_add_char(&b, '/');
	} else {
		buf_add(&b, url, origin);
	}
	buf_add_cstr(&b, text);
	free(text);
	return buf_take(&b, &path);
}

/* ---- the connection as a whole ---- */

static void
run_begin(struct loop_post *post)
{
	struct http_link *l = container_of(post, struct http_link, begin);

	if (l->upstream->step == STEP_WAIT)
		upstream_connected(l->upstream);
}

static void
http_new(struct upstream *u)
{
	struct http_link *l = xcalloc(1, sizeof(*l));
	uint32_t connections = (uint32_t)u->conf->max_connections;
	struct client_pool_conf pool = {.name = u->conf->name,
	    .connections_max = connections + STREAMS_MAX,
	    .keepalive_max = connections,
	    .keepalive_ms = KEEPALIVE_MS,
	    .connect_timeout_ms = (uint32_t)u->conf->connect_timeout_ms,
	    .write_timeout_ms = (uint32_t)u->conf->probe_timeout_ms,
	    .pool_timeout_ms = (uint32_t)u->all->of.conf->tools.server_timeout_ms,
	    .queue_max = (uint32_t)u->all->of.conf->mcp.max_calls};

	u->http = l;
	l->upstream = u;
	l->session_number = 1;
	l->pool = client_pool_new(u->all->of.client, &pool);
	l->stream_timer.on_fire = on_stream_again;
	l->begin.run = run_begin;
	list_init(&l->feeds);
}

static void
http_begin(struct upstream *u)
{
	if (u->http == NULL)
		http_new(u);
	loop_post(u->all->of.loop, &u->http->begin);
}

/* Feeds of calls go on. */
static void
http_end(struct upstream *u)
{
	struct http_link *l = u->http;

	if (l == NULL)
		return;
	list_for_safe (node, &l->feeds) {
		struct feed_in *f = list_entry(node, struct feed_in, node);

		if (f->kind == FEED_STREAM || (f->kind == FEED_NOTE && f->is_awaited))
			feed_free(f);
	}
	loop_timer_stop(u->all->of.loop, &l->stream_timer);
	loop_post_cancel(u->all->of.loop, &l->begin);
	free(l->session);
	free(l->post_url);
	l->session = l->post_url = NULL;
	l->session_number++;
}

static void
http_leave(struct upstream *u)
{
	static const struct client_handlers handlers = {on_head, on_body, on_done};
	struct http_link *l = u->http;
	struct http_headers h;

	if (l == NULL)
		return;
	if (l->session != NULL) {
		struct feed_in *f = feed_new(u, FEED_LEAVE);

		u->all->leaving++;
		http_headers_init(&h);
		add_headers(&h, u, NULL);
		f->transfer = client_start(l->pool,
		    &(struct client_request){.method = "DELETE",
			.url = u->conf->url,
			.headers = h.v,
			.header_count = h.n,
			.total_timeout_ms = LEAVE_MS},
		    &handlers, f);
		http_headers_fini(&h);
	}
	http_end(u);
}

static void
http_fini(struct upstream *u)
{
	struct http_link *l = u->http;

	if (l == NULL)
		return;
	list_for_safe (node, &l->feeds)
		feed_free(list_entry(node, struct feed_in, node));
	client_pool_free(&l->pool);
	u->http = NULL;
	free(l);
}

const struct transport http_transport = {
    .begin = http_begin,
    .send = http_send,
    .abandon = http_abandon,
    .release = http_release,
    .notify = http_notify,
    .listen = http_listen,
    .end = http_end,
    .leave = http_leave,
    .fini = http_fini,
};
