/*
 * http_feed - see http_feed.h.
 */
#include "worker/mcp/http_feed.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "worker/mcp/http_link.h"

enum { RESUME_MS = 1000, RESUME_MAX_MS = 30000, RESUMES_MAX = 1000, LINGER_MS = 1000 };

/* ---- the life of a feed ---- */

void
http_feed_free(struct feed_in *f)
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
	http_feed_free(container_of(timer, struct feed_in, timer));
}

void
http_feed_release(struct call *c)
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
	http_feed_free(f);
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
		http_feed_free(f);
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

/* The server does not know the session that the request has named. Some say it in their own way. */
static bool
has_no_session(const struct feed_in *f)
{
	const struct upstream *u = f->upstream;

	if (f->session_number == 0 || f->call->was_repeated)
		return false;
	return f->status == 404 ||
	       (f->status == 400 && u->step == STEP_READY && f->call->handle == u->list_call &&
		   u->lists[u->listing_kind] != NULL);
}

/* The one that it named may have been replaced meanwhile. Calls of ours are made anew with it. What
 * has begun to be answered was done, and is not repeated. */
static void
take_no_session(struct feed_in *f)
{
	struct upstream *u = f->upstream;
	struct call *c = f->call;
	bool is_ours = c->is_ours;

	if (!is_ours && f->resumes == 0) {
		c->feed = NULL;
		f->call = NULL;
		call_repeat(c);
	}
	if (f->session_number == u->http->session_number)
		upstream_session_lost(u, is_ours);
	if (f->call != NULL)
		call_fail(f->call, E_GONE, "The tool server has forgotten its session meanwhile.");
	calls_flush(u);
}

static void
on_resume(struct loop_timer *timer)
{
	struct feed_in *f = container_of(timer, struct feed_in, timer);

	f->timer.on_fire = on_lingered;
	sse_parse_restart(&f->events);
	buf_clear(&f->body);
	http_link_ask_rest(f);
}

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
	if (has_no_session(f)) {
		take_no_session(f);
		return;
	}
	if (f->status == 400 && !f->call->is_ours && f->session_number == u->http->session_number)
		listing_doubt(u);
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

/* One that does not exist is not asked for again. */
void
http_feed_end_stream(struct upstream *u, int status)
{
	if (u->step == STEP_FALLBACK) {
		u->is_fallback = false;
		u->verdict = MCP_REVISION_NONE;
		upstream_failed(u, "It speaks neither the new protocol nor the old one.");
	} else if (u->is_fallback) {
		calls_fail_sent(u, E_GONE, "The connection to the tool server broke.");
		upstream_failed(u, "Its stream has ended.");
	} else if (u->step == STEP_READY && (status == 0 || (status >= 200 && status < 300))) {
		loop_timer_set(u->all->of.loop, &u->http->stream_timer,
		    listing_stream_pause_ms(u, &u->listen_pause));
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
	http_feed_free(f);
	if (is_stream)
		http_feed_end_stream(u, status);
}

/* ---- its beginning ---- */

const struct client_handlers http_feed_handlers = {on_head, on_body, on_done};

struct feed_in *
http_feed_new(struct upstream *u, enum feed_kind kind)
{
	struct feed_in *f = xcalloc(1, sizeof(*f));

	f->upstream = u;
	f->kind = kind;
	f->timer.on_fire = on_lingered;
	sse_parse_init(&f->events, (size_t)u->all->of.conf->mcp.max_message_bytes, on_event, f);
	list_add_tail(&u->http->feeds, &f->node);
	return f;
}
