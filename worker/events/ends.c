/*
 * ends - how something ended, told by who has read it in the record: for who came late, and for
 * ends whose news were lost (their worker died between the record and the log, or Redis was away).
 *
 * Each subscriber of a topic is told one end of it, from wherever it came first; what is not an end
 * opens the topic again. It goes the way of all events, behind what is told already, as of no host:
 * it is in no log, and no position names it.
 */
#include <stdlib.h>

#include "worker/events/events_impl.h"

static struct events_link *
link_of(struct events_sub *sub, const struct event *e)
{
	struct events_topic *t = events_topic_find(sub->events, e->app, e->topic);

	for (uint16_t i = 0; t != NULL && i < sub->link_count; i++)
		if (sub->links[i].topic == t)
			return &sub->links[i];
	return NULL;
}

static void
set_end(struct events_link *l, bool has_end, bool is_of_record)
{
	l->sub->end_count += (uint16_t)(has_end - l->has_end);
	l->has_end = has_end;
	l->is_of_record = is_of_record;
}

bool
ends_may_tell(struct events_sub *sub, const struct event *e)
{
	bool is_end = (e->flags & EVENTS_FINAL) != 0, is_of_record = e->host == ENDS_HOST;
	struct events_link *l;

	if (!is_end && sub->end_count == 0)
		return true;
	if ((l = link_of(sub, e)) == NULL)
		return true; /* it hears the other topic */
	if (!is_end) {
		set_end(l, false, false);
		return true;
	}
	/* The same end once from the record and once as news; two that are news are two. */
	bool is_known = l->has_end && (is_of_record || l->is_of_record);
	set_end(l, true, is_of_record);
	/* Who comes back was there when it ended. */
	return !is_known && !(is_of_record && e->at_ms <= sub->after_ms);
}

void
events_tell_end(struct events *ev, const struct events_news *news, int64_t at_ms)
{
	struct events_topic *t = events_topic_find(ev, str_of(news->app_id), str_of(news->topic));
	struct events_news n = *news;
	struct buf bytes = BUF_INIT, cut = BUF_INIT;

	if (t == NULL || ev->queue_count >= EVENTS_QUEUE_MAX)
		return; /* the next look says it again */
	n.also = NULL;  /* who hears that has not asked for this one */
	n.flags |= EVENTS_FINAL;
	events_cut(&n, &cut);
	event_format(&n, at_ms, &bytes);
	events_queue(ev, event_parse(buf_str(&bytes), ENDS_HOST, ++ev->end_count));
	buf_fini(&bytes);
	buf_fini(&cut);
}

static size_t
ask_on(struct events *ev, struct str kind, uint64_t now_ms, uint64_t after_ms,
    struct events_asked *out, size_t max)
{
	size_t count = 0;
	struct str name;
	void *value;

	while (count < max && strmap_next(ev->topics, &ev->ask_cursor, &name, &value)) {
		struct events_topic *t = value;
		struct str app = str_split(&name, '\n');

		if (t->is_ended || now_ms - t->asked_ms < after_ms || !str_starts(name, kind))
			continue;
		t->asked_ms = now_ms;
		out[count++] = (struct events_asked){app, name};
	}
	return count;
}

size_t
events_topics_to_ask(
    struct events *ev, struct str kind, uint64_t after_ms, struct events_asked *out, size_t max)
{
	uint64_t now_ms = loop_now_ms(ev->loop);
	bool is_from_first = ev->ask_cursor == 0;
	size_t count;

	/* On from where the last one ended, or the first would always be all. */
	count = ask_on(ev, kind, now_ms, after_ms, out, max);
	if (count == max)
		return count;
	ev->ask_cursor = 0;
	if (!is_from_first)
		count += ask_on(ev, kind, now_ms, after_ms, out + count, max - count);
	return count;
}
