/* rate_warn - see rate_warn.h. */
#include "worker/api/rate_warn.h"

#include <stdlib.h>

#include "common/buf.h"
#include "common/check.h"
#include "common/event_log.h"

enum {
	AGAIN_MS = 60000,
	PLACES = 256,
	NEAR = 10, /* a tenth of the limit is left */
};

struct rate_warns {
	struct loop *loop;
	struct events *events;
	struct place {
		uint64_t key; /* a hash; 0: nobody's */
		uint64_t told_ms;
	} places[PLACES];
};

static bool
is_worth_it(struct rate_warns *w, const char *key_id)
{
	uint64_t key = event_log_key(str_of(key_id)), now_ms = loop_now_ms(w->loop);
	struct place *p = &w->places[key % PLACES];

	if (p->key != 0 && now_ms - p->told_ms < AGAIN_MS)
		return false; /* or another's: the next minute */
	*p = (struct place){key, now_ms};
	return true;
}

static void
add_text(struct buf *b, const char *name, const char *text)
{
	buf_printf(b, "\"%s\":\"", name);
	buf_add_json_escaped(b, str_of(text));
	buf_add_cstr(b, "\",");
}

void
rate_warn(struct rate_warns *w, const char *app_id, const char *key_id, const struct rate_ask *r)
{
	const struct limiter_verdict *v = &r->verdict;
	struct buf b = BUF_INIT;

	if (app_id == NULL || v->limit == 0 || (v->is_allowed && v->remaining > v->limit / NEAR) ||
	    !is_worth_it(w, key_id))
		return;
	buf_add_char(&b, '{');
	add_text(&b, "app_id", app_id);
	add_text(&b, "key_id", key_id);
	add_text(&b, "limit_of", r->unit);
	buf_printf(&b, "\"limit\":%u,\"remaining\":%u,\"is_refused\":%s,\"reset_ms\":%u}", v->limit,
	    v->is_allowed ? v->remaining : 0, v->is_allowed ? "false" : "true", v->reset_ms);
	const struct events_news news = {.topic = "notifications",
	    .app_id = app_id,
	    .name = "rate_limit.warning",
	    .payload = buf_str(&b)};
	events_publish(w->events, &news);
	buf_fini(&b);
}

struct rate_warns *
rate_warns_new(struct loop *loop, struct events *events)
{
	struct rate_warns *w = xcalloc(1, sizeof(*w));

	w->loop = loop;
	w->events = events;
	return w;
}

void
rate_warns_free(struct rate_warns **ref)
{
	free(*ref);
	*ref = NULL;
}
