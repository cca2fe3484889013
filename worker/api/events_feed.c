/*
 * events_feed - see events_feed.h.
 *
 *   CHECK --may hear all of it--> STREAM --event--> sse_send
 *                                   |  full: it ends, the client comes back with its last id
 *                                   |  missed something: the same
 *                                   |  its key is revoked, or drained: it ends
 *                                   +- client gone
 *
 * The first event is `ready`: from its id on nothing is missed; `gap` says that before it something
 * may be, because what the client names is older than what is kept.
 */
#include "worker/api/events_feed.h"

#include <stdlib.h>

#include "common/check.h"
#include "worker/api/call.h"
#include "worker/api/endpoints.h"
#include "worker/api/event_text.h"
#include "worker/api/farewell.h"
#include "worker/api/key_watch.h"
#include "worker/api/topic_access.h"
#include "worker/sse/sse.h"

struct events_feeds {
	struct api *api;
	struct list all;
	size_t count;
	struct event_text text;
	struct buf data; /* {text} */
	struct loop_timer drain_step;
	bool is_draining;
};

struct events_feed {
	struct list node;
	struct events_feeds *feeds;
	struct key_hold key;
	struct events_sub sub;
	struct sse *sse;
};

static void
feed_free(struct events_feed *f)
{
	events_unsubscribe(&f->sub);
	list_del(&f->node);
	f->feeds->count--;
	key_release(&f->key);
	free(f);
}

static void
on_client_gone(void *arg)
{
	feed_free(arg);
}

static void
come_back(struct events_feed *f)
{
	sse_end_for_now(f->sse, farewell_come_back_ms(f->feeds->api->conf));
	feed_free(f);
}

static void
on_key_void(struct key_hold *key)
{
	struct events_feed *f = container_of(key, struct events_feed, key);

	sse_end_with(f->sse, STR("error"),
	    STR("{\"error\":{\"message\":\"The key does not hold any more.\",\"code\":"
		"\"unauthorized\"}}"));
	feed_free(f);
}

/* ---- from the hub ---- */

static void
on_event(struct events_sub *sub, struct event *e, struct str id)
{
	struct events_feed *f = container_of(sub, struct events_feed, sub);
	struct buf *data = &f->feeds->data;

	buf_clear(data);
	buf_add_char(data, '{');
	buf_add_str(data, event_text_of(&f->feeds->text, e));
	buf_add_char(data, '}');
	bool is_taken = sse_send(f->sse, id, e->name, buf_str(data));
	if (!is_taken && (e->flags & EVENTS_PROGRESS) == 0)
		come_back(f);
}

static void
on_ready(struct events_sub *sub, struct str id, bool is_gap)
{
	struct events_feed *f = container_of(sub, struct events_feed, sub);

	if (!sse_send(
		f->sse, id, STR("ready"), is_gap ? STR("{\"gap\":true}") : STR("{\"gap\":false}")))
		come_back(f);
}

static void
on_lost(struct events_sub *sub)
{
	come_back(container_of(sub, struct events_feed, sub));
}

static const struct events_sub_handlers handlers = {on_event, on_ready, on_lost};

/* ---- opening ---- */

struct opening {
	struct api_call *call;
	struct str topics[TOPIC_ACCESS_MAX];
	size_t count;
	struct str after;
};

static void
start(struct opening *o, struct http_req *req)
{
	struct api_call *call = o->call;
	struct events_feeds *feeds = call->api->events_feeds;
	struct events_feed *f = xcalloc(1, sizeof(*f));
	const struct events_sub_of of = {
	    .app_id = call->app_id,
	    .topics = o->topics,
	    .topic_count = o->count,
	    .after = o->after,
	    .wants_final = true,
	};

	f->feeds = feeds;
	list_add_tail(&feeds->all, &f->node);
	feeds->count++;
	key_hold(call->api->key_watch, &f->key, call->key_hash, call->key_expires_at, on_key_void);
	f->sse = sse_start(req, on_client_gone, f);
	sse_set_keepalive(f->sse, call->api->conf->events.keepalive_interval_ms);
	events_subscribe(call->api->events, &f->sub, &of, &handlers);
	call_end(call);
}

static void
on_checked(void *arg, int err, struct str bad)
{
	struct opening *o = arg;
	struct api_call *call = o->call;
	struct http_req *req = call_req(call);
	struct buf message = BUF_INIT;

	if (req == NULL) {
		call_end(call);
		return;
	}
	if (err == 0) {
		start(o, req);
		return;
	}
	buf_printf(&message,
	    err == E_NOT_FOUND ? "No such topic: %.*s." : "Not for this key: %.*s.", (int)bad.len,
	    bad.p);
	call_reply_error(
	    call, err, "topics", err == E_NOT_FOUND || err == E_FORBIDDEN ? message.data : NULL);
	buf_fini(&message);
}

static void
handle_events(struct api_call *call, struct http_req *req)
{
	struct opening *o = arena_calloc(&call->arena, sizeof(*o));
	const char *topics = http_query(req, "topics"), *after = http_query(req, "after");
	struct str last = http_header(req, "last-event-id");

	o->call = call;
	if (last.p == NULL && after != NULL)
		last = str_of(after);
	o->after = str_of(arena_strdup(&call->arena, last));
	if (topics == NULL ||
	    !topics_split(str_of(arena_strdup(&call->arena, str_of(topics))), o->topics,
		(size_t)call->api->conf->events.max_topics, &o->count)) {
		call_reply_error(call, E_INVALID_REQUEST, "topics",
		    "topics is a list of 1 to events.max_topics names, with commas between them.");
		return;
	}
	if (call->api->events_feeds->is_draining) {
		call_reply_retry(call, E_DRAINING, 1, NULL);
		return;
	}
	topics_check(call->api, call->kind, call->app_id, o->topics, o->count, on_checked, o);
}

/* ---- all of them ---- */

static void
on_drain_step(struct loop_timer *t)
{
	struct events_feeds *feeds = container_of(t, struct events_feeds, drain_step);
	uint32_t n = farewell_batch(feeds->api->conf, feeds->count);
	struct events_feed *f;

	while (n-- > 0 && (f = list_first(&feeds->all, struct events_feed, node)) != NULL)
		come_back(f);
	/* One may still be opened by who was let in last. */
	loop_timer_set(feeds->api->loop, t, FAREWELL_STEP_MS);
}

void
events_feeds_drain(struct events_feeds *feeds)
{
	feeds->is_draining = true;
	on_drain_step(&feeds->drain_step);
}

struct events_feeds *
events_feeds_new(struct api *api)
{
	struct events_feeds *feeds = xcalloc(1, sizeof(*feeds));

	feeds->api = api;
	list_init(&feeds->all);
	feeds->drain_step.on_fire = on_drain_step;
	return feeds;
}

void
events_feeds_free(struct events_feeds **ref)
{
	struct events_feeds *feeds = *ref;

	if (feeds == NULL)
		return;
	*ref = NULL;
	check(list_empty(&feeds->all));
	loop_timer_stop(feeds->api->loop, &feeds->drain_step);
	event_text_fini(&feeds->text);
	buf_fini(&feeds->data);
	free(feeds);
}

const struct api_endpoint events_endpoints[] = {
    {"GET", "/v1/events", HTTP_LONG, API_CLIENT | API_SERVER | API_ADMIN | API_BY_QUERY,
	handle_events},
    {NULL, NULL, 0, 0, NULL},
};
