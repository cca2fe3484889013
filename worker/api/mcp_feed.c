/*
 * mcp_feed - see mcp_impl.h.
 *
 *   open --list changed--> sse_send     full: this one goes without
 *     |  its session ends, its key is revoked: the stream ends
 *     |  drained: it ends, a few at a time, and the client comes back elsewhere
 *     +- client gone
 */
#include <stdlib.h>

#include "common/check.h"
#include "worker/api/farewell.h"
#include "worker/api/mcp_impl.h"
#include "worker/mcp/reply.h"

struct mcp_feeds {
	struct mcp_front *front;
	struct list all;
	size_t count;
	struct loop_timer drain_step;
	uint64_t drain_end_ms; /* until then a pair may answer what it was asked */
};

struct watched {
	struct list node;
	size_t server;
	char *uri;
};

static void
watched_free(struct mcp_feed *f, struct watched *w)
{
	mcp_unwatch(f->front->api->upstreams, w->server, str_of(w->uri));
	list_del(&w->node);
	free(w->uri);
	free(w);
}

static void
feed_free(struct mcp_feed *f)
{
	list_for_safe (node, &f->watched)
		watched_free(f, list_entry(node, struct watched, node));
	list_del(&f->node);
	f->front->feeds->count--;
	if (f->is_pair)
		mcp_pair_forget(f);
	else if (f->session != 0)
		mcp_lead_close(f);
	loop_post_cancel(f->front->api->loop, &f->overflow);
	if (f->has_key)
		key_release(&f->key);
	free(f->listen_id);
	free(f);
}

struct list *
mcp_feeds_all(struct mcp_front *front)
{
	return &front->feeds->all;
}

static void
on_client_gone(void *arg)
{
	feed_free(arg);
}

void
mcp_feed_end(struct mcp_feed *f)
{
	sse_end(f->sse);
	feed_free(f);
}

static void
on_key_void(struct key_hold *key)
{
	mcp_feed_end(container_of(key, struct mcp_feed, key));
}

struct mcp_feed *
mcp_feed_new(struct mcp_front *front, const struct api_call *call, struct http_req *req)
{
	struct mcp_feed *f = xcalloc(1, sizeof(*f));

	f->front = front;
	f->app = call->app;
	list_init(&f->watched);
	f->has_key = call->key_id != NULL;
	if (f->has_key)
		key_hold(front->api->key_watch, &f->key, call->key_hash, call->key_expires_at,
		    on_key_void);
	list_add_tail(&front->feeds->all, &f->node);
	front->feeds->count++;
	f->sse = sse_start(req, on_client_gone, f);
	return f;
}

void
mcp_feed_start(struct mcp_front *front, struct api_call *call, struct http_req *req,
    const struct mcp_ticket *t)
{
	struct mcp_feed *f = mcp_feed_new(front, call, req);

	f->session = t->nonce;
	f->wishes = MCP_ALL_WISHES;
	mcp_lead_open(f, t->nonce);
	mcp_note_follow(f);
	call_end(call);
}

/* ---- subscriptions/listen ---- */

static uint32_t
read_wishes(struct str notifications)
{
	uint32_t wishes = 0;
	bool is_wanted;

	for (enum mcp_kind kind = 0; kind < MCP_KIND_COUNT; kind++) {
		if (jsonrpc_bool_member(notifications, mcp_kind_info(kind)->wish, &is_wanted) &&
		    is_wanted)
			wishes |= 1U << kind;
	}
	return wishes;
}

/* What of it is honoured; kinds of the same wish are named once. */
static void
add_wishes(struct buf *b, const struct mcp_feed *f)
{
	const char *comma = "";

	buf_add_char(b, '{');
	for (enum mcp_kind kind = 0; kind < MCP_TEMPLATES; kind++) {
		if ((f->wishes & 1U << kind) == 0)
			continue;
		buf_printf(b, "%s\"%s\":true", comma, mcp_kind_info(kind)->wish);
		comma = ",";
	}
	if (!list_empty(&f->watched)) {
		buf_printf(b, "%s\"resourceSubscriptions\":[", comma);
		list_for (node, &f->watched) {
			buf_add_cstr(b, node != f->watched.next ? "," : "");
			jsonrpc_add_string(b, str_of(list_entry(node, struct watched, node)->uri));
		}
		buf_add_char(b, ']');
	}
	buf_add_char(b, '}');
}

static void
add_subscription(struct buf *b, const struct mcp_feed *f)
{
	buf_printf(b, "\"_meta\":{\"" MCP_META_SUBSCRIPTION "\":%s}", f->listen_id);
}

static void
acknowledge(const struct mcp_feed *f)
{
	struct buf params = BUF_INIT, b = BUF_INIT;

	buf_add_cstr(&params, "{\"notifications\":");
	add_wishes(&params, f);
	buf_add_char(&params, ',');
	add_subscription(&params, f);
	buf_add_char(&params, '}');
	jsonrpc_add_notification(&b, "notifications/subscriptions/acknowledged", buf_str(&params));
	sse_send(f->sse, STR_NONE, STR("message"), buf_str(&b));
	buf_fini(&params);
	buf_fini(&b);
}

static void
watch_wanted(struct mcp_feed *f, const struct api_call *call, struct str notifications)
{
	uint64_t left = (uint64_t)call->api->conf->mcp.max_subscriptions;
	struct str list, value;
	struct buf uri = BUF_INIT;
	struct json_scan s;
	size_t server;

	if (!jsonrpc_member(notifications, "resourceSubscriptions", &list))
		return;
	json_scan_init(&s, list);
	if (json_scan_peek(&s) != '[' || !json_scan_array(&s))
		return;
	while (left > 0 && json_scan_element(&s) == 1 && json_scan_skip(&s, &value)) {
		buf_clear(&uri);
		if (value.p[0] != '"' || !json_scan_decode(value, &uri) || uri.len == 0 ||
		    uri.len > MCP_URI_MAX || !mcp_find_resource(call, buf_str(&uri), &server))
			continue;
		mcp_feed_watch(f, server, buf_str(&uri));
		left--;
	}
	buf_fini(&uri);
}

void
mcp_feed_listen(struct mcp_ask *a)
{
	struct http_req *req = call_req(a->call);
	struct str wanted;

	if (req == NULL || a->params.len == 0 ||
	    !jsonrpc_member(a->params, "notifications", &wanted) || wanted.p[0] != '{') {
		mcp_ask_refuse(a, 200, MCP_INVALID_PARAMS, "notifications is required", STR_NONE);
		return;
	}
	/* The params are the request's, which is gone when its stream begins. */
	char *text = xstrndup(wanted.p, wanted.len);
	http_on_gone(req, NULL, NULL);
	struct mcp_feed *f = mcp_feed_new(a->front, a->call, req);
	f->wishes = read_wishes(str_of(text));
	watch_wanted(f, a->call, str_of(text));
	free(text);
	f->listen_id = xstrndup(a->id.p, a->id.len);
	mcp_ask_leave(a);
	acknowledge(f);
}

/* The answer to its request, or that it may come back. */
static void
say_goodbye(struct mcp_feed *f)
{
	struct buf result = BUF_INIT, b = BUF_INIT;

	if (f->listen_id != NULL) {
		buf_add_cstr(&result, "{\"resultType\":\"complete\",\"_meta\":{\"" MCP_META_SERVER
				      "\":" MCP_SERVER_INFO ",");
		buf_printf(&result, "\"" MCP_META_SUBSCRIPTION "\":%s}}", f->listen_id);
		jsonrpc_add_result(&b, str_of(f->listen_id), buf_str(&result));
		sse_end_with(f->sse, STR("message"), buf_str(&b));
	} else {
		sse_end_for_now(f->sse, farewell_come_back_ms(f->front->api->conf));
	}
	buf_fini(&result);
	buf_fini(&b);
	feed_free(f);
}

/* ---- resources ---- */

static struct watched *
find_watched(const struct mcp_feed *f, struct str uri)
{
	list_for (node, &f->watched) {
		struct watched *w = list_entry(node, struct watched, node);

		if (str_eq(str_of(w->uri), uri))
			return w;
	}
	return NULL;
}

void
mcp_feed_watch(struct mcp_feed *f, size_t server, struct str uri)
{
	struct watched *w;

	if (find_watched(f, uri) != NULL)
		return;
	w = xcalloc(1, sizeof(*w));
	w->server = server;
	w->uri = xstrndup(uri.p, uri.len);
	list_add_tail(&f->watched, &w->node);
	mcp_watch(f->front->api->upstreams, server, uri);
}

void
mcp_feeds_watch(struct mcp_front *front, uint64_t session, size_t server, struct str uri)
{
	list_for (node, &front->feeds->all) {
		struct mcp_feed *f = list_entry(node, struct mcp_feed, node);

		if (f->session == session)
			mcp_feed_watch(f, server, uri);
	}
}

void
mcp_feeds_unwatch(struct mcp_front *front, uint64_t session, struct str uri)
{
	list_for (node, &front->feeds->all) {
		struct mcp_feed *f = list_entry(node, struct mcp_feed, node);
		struct watched *w = f->session == session ? find_watched(f, uri) : NULL;

		if (w != NULL)
			watched_free(f, w);
	}
}

static bool
watches(const struct mcp_feed *f, size_t server, struct str uri)
{
	list_for (node, &f->watched) {
		const struct watched *w = list_entry(node, struct watched, node);

		if (w->server == server && mcp_uri_is_of(uri, str_of(w->uri)))
			return true;
	}
	return false;
}

/* ---- news ---- */

/* params: an object, or empty. */
static void
say(const struct mcp_feed *f, const char *method, struct str given)
{
	struct buf params = BUF_INIT, b = BUF_INIT, rest = BUF_INIT;

	if (f->listen_id != NULL) {
		jsonrpc_without(&rest, given.len > 0 ? given : STR("{}"), "_meta");
		buf_add_char(&params, '{');
		add_subscription(&params, f);
		buf_add_cstr(&params, rest.len > 2 ? "," : "");
		buf_add(&params, rest.data + 1, rest.len - 1);
	} else {
		buf_add_str(&params, given);
	}
	buf_fini(&rest);
	jsonrpc_add_notification(&b, method, buf_str(&params));
	jsonrpc_flatten(&b, 0);
	sse_send(f->sse, STR_NONE, STR("message"), buf_str(&b));
	buf_fini(&params);
	buf_fini(&b);
}

void
mcp_feeds_tell(struct mcp_front *front, enum mcp_kind kind)
{
	list_for_safe (node, &front->feeds->all) {
		struct mcp_feed *f = list_entry(node, struct mcp_feed, node);

		if ((f->wishes & 1U << kind) != 0 && mcp_feed_is_newest(f))
			say(f, mcp_kind_info(kind)->changed, STR_NONE);
	}
}

/* Who has set no level has not asked for what others' requests made a server say. */
static bool
wants_message(const struct mcp_feed *f, size_t server, int level)
{
	int least = f->listen_id == NULL ? mcp_note_level(f->front, f->session) : MCP_LEVEL_NONE;

	return least != MCP_LEVEL_NONE && level >= least && mcp_may_use(f->front, f->app, server);
}

void
mcp_feeds_pass_on(struct mcp_front *front, size_t server, const struct jsonrpc *m)
{
	bool is_message = strcmp(m->method, "notifications/message") == 0;
	int level = is_message ? mcp_level_of(m->params) : MCP_LEVEL_NONE;
	struct buf uri = BUF_INIT;

	if (is_message || jsonrpc_text_member(m->params, "uri", &uri)) {
		list_for (node, &front->feeds->all) {
			struct mcp_feed *f = list_entry(node, struct mcp_feed, node);

			if (mcp_feed_is_newest(f) &&
			    (is_message ? wants_message(f, server, level)
					: watches(f, server, buf_str(&uri))))
				say(f, m->method, m->params);
		}
	}
	buf_fini(&uri);
}

void
mcp_feeds_end(struct mcp_front *front, uint64_t session)
{
	list_for_safe (node, &front->feeds->all) {
		struct mcp_feed *f = list_entry(node, struct mcp_feed, node);

		if (f->session == session)
			mcp_feed_end(f);
	}
}

/* ---- all of them ---- */

static void
on_drain_step(struct loop_timer *t)
{
	struct mcp_feeds *feeds = container_of(t, struct mcp_feeds, drain_step);
	const struct conf *conf = feeds->front->api->conf;
	struct loop *loop = feeds->front->api->loop;
	bool is_last_call = loop_now_ms(loop) >= feeds->drain_end_ms;
	uint32_t n = farewell_batch(conf, feeds->count);

	list_for_safe (node, &feeds->all) {
		struct mcp_feed *f = list_entry(node, struct mcp_feed, node);

		if (f->asks + f->letters > 0 && !is_last_call)
			continue;
		if (n-- == 0)
			break;
		say_goodbye(f);
	}
	/* One may still be opened by who is let in last. */
	loop_timer_set(loop, &feeds->drain_step, FAREWELL_STEP_MS);
}

void
mcp_feeds_drain(struct mcp_front *front)
{
	front->feeds->drain_end_ms =
	    loop_now_ms(front->api->loop) + farewell_end_ms(front->api->conf);
	on_drain_step(&front->feeds->drain_step);
}

struct mcp_feeds *
mcp_feeds_new(struct mcp_front *front)
{
	struct mcp_feeds *feeds = xcalloc(1, sizeof(*feeds));

	feeds->front = front;
	list_init(&feeds->all);
	feeds->drain_step.on_fire = on_drain_step;
	return feeds;
}

void
mcp_feeds_free(struct mcp_feeds **ref)
{
	struct mcp_feeds *feeds = *ref;
	struct mcp_feed *f;

	if (feeds == NULL)
		return;
	*ref = NULL;
	loop_timer_stop(feeds->front->api->loop, &feeds->drain_step);
	while ((f = list_first(&feeds->all, struct mcp_feed, node)) != NULL)
		mcp_feed_end(f);
	free(feeds);
}
