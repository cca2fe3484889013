/*
 * http_link - carries messages to an upstream over HTTP: one POST for each, whose answer is JSON or
 * a stream of events; and streams that are asked for with GET. What comes back is http_feed.c's.
 */
#include "worker/mcp/http_link.h"

#include <stdlib.h>

#include "worker/mcp/http_feed.h"
#include "worker/mcp/http_headers.h"

enum { KEEPALIVE_MS = 30000, LEAVE_MS = 1000, STREAMS_MAX = 2 };

/* ---- requests ---- */

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
	    &http_feed_handlers, f);
	http_headers_fini(&h);
}

static void
http_send(struct call *c)
{
	struct feed_in *f = http_feed_new(c->upstream, FEED_CALL);
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
	struct feed_in *f = http_feed_new(u, FEED_NOTE);

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
		http_feed_free(c->feed);
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

	http_feed_free(f);
	http_feed_end_stream(u, 0);
}

static void
get(struct feed_in *f, struct str last_event)
{
	struct upstream *u = f->upstream;
	struct http_headers h;

	http_headers_init(&h);
	http_headers_add(&h, "Accept", STR("text/event-stream"));
	if (last_event.len > 0)
		http_headers_add(&h, "Last-Event-ID", last_event);
	add_headers(&h, u, NULL);
	f->transfer = client_start(u->http->pool,
	    &(struct client_request){
		.method = "GET", .url = u->conf->url, .headers = h.v, .header_count = h.n},
	    &http_feed_handlers, f);
	http_headers_fini(&h);
}

void
http_link_ask_rest(struct feed_in *f)
{
	get(f, buf_str(&f->events.id));
}

static void
open_stream(struct upstream *u)
{
	struct feed_in *f = http_feed_new(u, FEED_STREAM);

	u->http->stream = f;
	listing_stream_opened(u, &u->listen_pause);
	if (u->step == STEP_FALLBACK) {
		f->timer.on_fire = on_no_endpoint;
		loop_timer_set(u->all->of.loop, &f->timer, u->conf->probe_timeout_ms);
	}
	get(f, STR_NONE);
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
			http_feed_free(f);
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
	struct http_link *l = u->http;
	struct http_headers h;

	if (l == NULL)
		return;
	if (l->session != NULL) {
		struct feed_in *f = http_feed_new(u, FEED_LEAVE);

		u->all->leaving++;
		http_headers_init(&h);
		add_headers(&h, u, NULL);
		f->transfer = client_start(l->pool,
		    &(struct client_request){.method = "DELETE",
			.url = u->conf->url,
			.headers = h.v,
			.header_count = h.n,
			.total_timeout_ms = LEAVE_MS},
		    &http_feed_handlers, f);
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
		http_feed_free(list_entry(node, struct feed_in, node));
	client_pool_free(&l->pool);
	u->http = NULL;
	free(l);
}

const struct transport http_transport = {
    .begin = http_begin,
    .send = http_send,
    .abandon = http_abandon,
    .release = http_feed_release,
    .notify = http_notify,
    .listen = http_listen,
    .end = http_end,
    .leave = http_leave,
    .fini = http_fini,
};
