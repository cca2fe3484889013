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
};

struct feed {
	struct list node;
	struct mcp_feeds *feeds;
	struct key_hold key;
	bool has_key;
	uint64_t session; /* 0: a modern client's */
	char *listen_id;  /* of its request, as it was written; NULL: not modern */
	uint32_t wishes;  /* kinds, as bits */
	struct sse *sse;
};

enum { ALL_WISHES = (1 << MCP_KIND_COUNT) - 1 };

static void
feed_free(struct feed *f)
{
	list_del(&f->node);
	f->feeds->count--;
	if (f->has_key)
		key_release(&f->key);
	free(f->listen_id);
	free(f);
}

static void
on_client_gone(void *arg)
{
	feed_free(arg);
}

static void
feed_end(struct feed *f)
{
	sse_end(f->sse);
	feed_free(f);
}

static void
on_key_void(struct key_hold *key)
{
	feed_end(container_of(key, struct feed, key));
}

static struct feed *
feed_new(struct mcp_front *front, const struct api_call *call, struct http_req *req)
{
	struct feed *f = xcalloc(1, sizeof(*f));

	f->feeds = front->feeds;
	f->has_key = call->key_id != NULL;
	if (f->has_key)
		key_hold(front->api->key_watch, &f->key, call->key_hash, on_key_void);
	list_add_tail(&front->feeds->all, &f->node);
	front->feeds->count++;
	f->sse = sse_start(req, on_client_gone, f);
	return f;
}

void
mcp_feed_start(struct mcp_front *front, struct api_call *call, struct http_req *req,
    const struct mcp_ticket *t)
{
	struct feed *f = feed_new(front, call, req);

	f->session = t->nonce;
	f->wishes = ALL_WISHES;
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
add_wishes(struct buf *b, uint32_t wishes)
{
	const char *comma = "";

	buf_add_char(b, '{');
	for (enum mcp_kind kind = 0; kind < MCP_TEMPLATES; kind++) {
		if ((wishes & 1U << kind) == 0)
			continue;
		buf_printf(b, "%s\"%s\":true", comma, mcp_kind_info(kind)->wish);
		comma = ",";
	}
	buf_add_char(b, '}');
}

static void
add_subscription(struct buf *b, const struct feed *f)
{
	buf_printf(b, "\"_meta\":{\"" MCP_META_SUBSCRIPTION "\":%s}", f->listen_id);
}

static void
acknowledge(const struct feed *f)
{
	struct buf params = BUF_INIT, b = BUF_INIT;

	buf_add_cstr(&params, "{\"notifications\":");
	add_wishes(&params, f->wishes);
	buf_add_char(&params, ',');
	add_subscription(&params, f);
	buf_add_char(&params, '}');
	jsonrpc_add_notification(&b, "notifications/subscriptions/acknowledged", buf_str(&params));
	sse_send(f->sse, STR_NONE, STR("message"), buf_str(&b));
	buf_fini(&params);
	buf_fini(&b);
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
	uint32_t wishes = read_wishes(wanted);
	http_on_gone(req, NULL, NULL);
	struct feed *f = feed_new(a->front, a->call, req);
	f->wishes = wishes;
	f->listen_id = xstrndup(a->id.p, a->id.len);
	mcp_ask_leave(a);
	acknowledge(f);
}

/* The answer to its request, or that it may come back. */
static void
say_goodbye(struct feed *f)
{
	struct buf result = BUF_INIT, b = BUF_INIT;

	if (f->listen_id != NULL) {
		buf_add_cstr(&result, "{\"resultType\":\"complete\",\"_meta\":{\"" MCP_META_SERVER
				      "\":" MCP_SERVER_INFO ",");
		buf_printf(&result, "\"" MCP_META_SUBSCRIPTION "\":%s}}", f->listen_id);
		jsonrpc_add_result(&b, str_of(f->listen_id), buf_str(&result));
		sse_end_with(f->sse, STR("message"), buf_str(&b));
	} else {
		sse_end_for_now(f->sse, farewell_come_back_ms(f->feeds->front->api->conf));
	}
	buf_fini(&result);
	buf_fini(&b);
	feed_free(f);
}

/* ---- news ---- */

static void
tell(const struct feed *f, const char *method)
{
	struct buf params = BUF_INIT, b = BUF_INIT;

	if (f->listen_id != NULL) {
		buf_add_char(&params, '{');
		add_subscription(&params, f);
		buf_add_char(&params, '}');
	}
	jsonrpc_add_notification(&b, method, buf_str(&params));
	sse_send(f->sse, STR_NONE, STR("message"), buf_str(&b));
	buf_fini(&params);
	buf_fini(&b);
}

void
mcp_feeds_tell(struct mcp_front *front, enum mcp_kind kind)
{
	list_for_safe (node, &front->feeds->all) {
		struct feed *f = list_entry(node, struct feed, node);

		if ((f->wishes & 1U << kind) != 0)
			tell(f, mcp_kind_info(kind)->changed);
	}
}

void
mcp_feeds_end(struct mcp_front *front, uint64_t session)
{
	list_for_safe (node, &front->feeds->all) {
		struct feed *f = list_entry(node, struct feed, node);

		if (f->session == session)
			feed_end(f);
	}
}

/* ---- all of them ---- */

static void
on_drain_step(struct loop_timer *t)
{
	struct mcp_feeds *feeds = container_of(t, struct mcp_feeds, drain_step);
	const struct conf *conf = feeds->front->api->conf;
	uint32_t n = farewell_batch(conf, feeds->count);
	struct feed *f;

	while (n-- > 0 && (f = list_first(&feeds->all, struct feed, node)) != NULL)
		say_goodbye(f);
	/* One may still be opened by who is let in last. */
	loop_timer_set(feeds->front->api->loop, &feeds->drain_step, FAREWELL_STEP_MS);
}

void
mcp_feeds_drain(struct mcp_front *front)
{
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
	struct feed *f;

	if (feeds == NULL)
		return;
	*ref = NULL;
	loop_timer_stop(feeds->front->api->loop, &feeds->drain_step);
	while ((f = list_first(&feeds->all, struct feed, node)) != NULL)
		feed_end(f);
	free(feeds);
}
