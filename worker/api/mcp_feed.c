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
	uint64_t session;
	struct sse *sse;
};

static void
feed_free(struct feed *f)
{
	list_del(&f->node);
	f->feeds->count--;
	if (f->has_key)
		key_release(&f->key);
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

void
mcp_feed_start(struct mcp_front *front, struct api_call *call, struct http_req *req,
    const struct mcp_ticket *t)
{
	struct feed *f = xcalloc(1, sizeof(*f));

	f->feeds = front->feeds;
	f->session = t->nonce;
	f->has_key = call->key_id != NULL;
	if (f->has_key)
		key_hold(front->api->key_watch, &f->key, call->key_hash, on_key_void);
	list_add_tail(&front->feeds->all, &f->node);
	front->feeds->count++;
	f->sse = sse_start(req, on_client_gone, f);
	call_end(call);
}

void
mcp_feeds_tell(struct mcp_front *front, const char *method)
{
	struct buf b = BUF_INIT;

	jsonrpc_add_notification(&b, method, STR_NONE);
	list_for_safe (node, &front->feeds->all)
		sse_send(list_entry(node, struct feed, node)->sse, STR_NONE, STR("message"),
		    buf_str(&b));
	buf_fini(&b);
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

	while (n-- > 0 && (f = list_first(&feeds->all, struct feed, node)) != NULL) {
		sse_end_for_now(f->sse, farewell_come_back_ms(conf));
		feed_free(f);
	}
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
