/*
 * news - what becomes of deliveries, as events (events.h) for the app whose they are: topic
 * webhooks, also webhook:URL. For a person who looks: above NEWS_MAX a second they are left out,
 * the log of events is for others, too. What is nobody's (app_id NULL) is told to nobody.
 */
#include "worker/events/events.h"

#include "worker/webhook/webhook_impl.h"

enum { NEWS_MAX = 50, NEWS_SPAN_MS = 1000 };

void
webhooks_use_events(struct webhooks *w, struct events *events)
{
	w->events = events;
}

static bool
may_tell(struct webhooks *w, const char *app_id)
{
	uint64_t now_ms = loop_now_ms(w->loop);

	if (w->events == NULL || app_id == NULL)
		return false;
	if (now_ms - w->news_from_ms >= NEWS_SPAN_MS) {
		w->news_from_ms = now_ms;
		w->news_count = 0;
	}
	return w->news_count++ < NEWS_MAX;
}

static void
put(struct buf *out, const char *name, const char *text)
{
	buf_printf(out, "\"%s\":", name);
	if (text == NULL) {
		buf_add_cstr(out, "null,");
		return;
	}
	buf_add_char(out, '"');
	buf_add_json_escaped(out, str_of(text));
	buf_add_cstr(out, "\",");
}

/* payload ends in a comma; it is freed. */
static void
tell(struct webhooks *w, const struct target *t, const char *app_id, const char *name,
    struct buf *payload)
{
	struct buf also = BUF_INIT;

	payload->data[payload->len - 1] = '}';
	buf_printf(&also, "webhook:%s", t->shown_url);
	events_publish(w->events, &(struct events_news){
				      .topic = "webhooks",
				      .also = also.len < EVENTS_TOPIC_MAX ? also.data : NULL,
				      .app_id = app_id,
				      .name = name,
				      .payload = buf_str(payload),
				  });
	buf_fini(&also);
	buf_fini(payload);
}

void
news_attempt(struct webhooks *w, const struct message *m)
{
	bool is_delivered = strcmp(m->state, "delivered") == 0;
	bool is_again = strcmp(m->state, "pending") == 0;
	struct buf payload = BUF_INIT;

	if (!may_tell(w, m->app_id))
		return;
	buf_add_char(&payload, '{');
	put(&payload, "webhook_id", m->id);
	put(&payload, "url", m->target->shown_url);
	put(&payload, "event", m->event);
	buf_printf(&payload, "\"attempt\":%llu,\"status\":%d,\"duration_ms\":%llu,",
	    (unsigned long long)m->attempts + 1, m->status, (unsigned long long)m->total_ms);
	tell(w, m->target, m->app_id, "webhook.attempted", &payload);
	buf_add_char(&payload, '{');
	put(&payload, "webhook_id", m->id);
	put(&payload, "endpoint", m->target->id);
	put(&payload, "url", m->target->shown_url);
	put(&payload, "event", m->event);
	put(&payload, "error", m->error);
	buf_printf(&payload, "\"attempt\":%llu,\"status\":%d,\"duration_ms\":%llu,\"is_dead\":%s,",
	    (unsigned long long)m->attempts + 1, m->status, (unsigned long long)m->total_ms,
	    is_delivered || is_again ? "false" : "true");
	tell(w, m->target, m->app_id, is_delivered ? "webhook.succeeded" : "webhook.failed",
	    &payload);
	if (!is_again)
		return;
	buf_add_char(&payload, '{');
	put(&payload, "webhook_id", m->id);
	put(&payload, "url", m->target->shown_url);
	buf_printf(&payload, "\"attempt\":%llu,\"retry_in_ms\":%llu,",
	    (unsigned long long)m->attempts + 2, (unsigned long long)m->due_in_ms);
	tell(w, m->target, m->app_id, "webhook.retry_scheduled", &payload);
}

void
news_breaker(struct webhooks *w, const struct target *t, bool is_open, uint64_t failures)
{
	struct buf payload = BUF_INIT;

	if (!may_tell(w, t->app_id))
		return;
	buf_add_char(&payload, '{');
	put(&payload, "endpoint", t->id);
	put(&payload, "url", t->shown_url);
	put(&payload, "state", is_open ? "open" : "closed");
	buf_printf(&payload, "\"failures\":%llu,", (unsigned long long)failures);
	tell(w, t, t->app_id, "webhook.breaker", &payload);
}
