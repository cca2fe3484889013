/*
 * event - an event as bytes, in the log and between hosts, and as an object that many subscribers
 * share.
 *
 *   at_ms  flags  app  topic  also  name  payload      (numbers and texts as of
 * backplane/payload.c)
 */
#include <stdlib.h>

#include "worker/events/events_impl.h"

void
event_format(const struct events_news *news, int64_t at_ms, struct buf *out)
{
	backplane_put_u64(out, (uint64_t)at_ms);
	backplane_put_u64(out, news->flags);
	backplane_put_str(out, str_of(news->app_id));
	backplane_put_str(out, str_of(news->topic));
	backplane_put_str(out, str_of(news->also));
	backplane_put_str(out, str_of(news->name));
	backplane_put_str(out, news->payload);
}

static bool
read_fields(struct event *e, struct str rest)
{
	uint64_t at_ms, flags;

	if (!backplane_take_u64(&rest, &at_ms) || !backplane_take_u64(&rest, &flags) ||
	    !backplane_take_str(&rest, &e->app) || !backplane_take_str(&rest, &e->topic) ||
	    !backplane_take_str(&rest, &e->also) || !backplane_take_str(&rest, &e->name) ||
	    !backplane_take_str(&rest, &e->payload) || at_ms > INT64_MAX || flags > UINT32_MAX ||
	    e->topic.len == 0 || e->topic.len > EVENTS_TOPIC_MAX ||
	    e->also.len > EVENTS_TOPIC_MAX || memchr(e->payload.p, '\n', e->payload.len) != NULL ||
	    memchr(e->name.p, '\n', e->name.len) != NULL)
		return false;
	e->at_ms = (int64_t)at_ms;
	e->flags = (unsigned)flags;
	return true;
}

struct event *
event_parse(struct str bytes, uint64_t host, uint64_t number)
{
	struct event *e = xcalloc(1, sizeof(*e) + bytes.len + 1);

	e->refs = 1;
	e->host = host;
	e->number = number;
	memcpy(e->bytes, bytes.p, bytes.len);
	if (!read_fields(e, str_sub(e->bytes, bytes.len)))
		event_unref(&e);
	return e;
}

struct event *
event_ref(struct event *e)
{
	e->refs++;
	return e;
}

void
event_unref(struct event **ref)
{
	struct event *e = *ref;

	*ref = NULL;
	if (e != NULL && --e->refs == 0)
		free(e);
}
