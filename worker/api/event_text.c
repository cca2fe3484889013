/* event_text - see event_text.h. */
#include "worker/api/event_text.h"

#include "common/clock.h"

void
event_text_members(const struct event *e, struct buf *out)
{
	char at[CLOCK_RFC3339_LEN + 1];

	clock_format(e->at_ms, at);
	buf_add_cstr(out, "\"topic\":\"");
	buf_add_json_escaped(out, e->topic);
	buf_printf(out, "\",\"at\":\"%s\",\"data\":", at);
	if (e->payload.len > 0)
		buf_add_str(out, e->payload);
	else
		buf_add_cstr(out, "null");
}

struct str
event_text_of(struct event_text *t, const struct event *e)
{
	if (t->members.len == 0 || t->host != e->host || t->number != e->number) {
		t->host = e->host;
		t->number = e->number;
		buf_clear(&t->members);
		event_text_members(e, &t->members);
	}
	return buf_str(&t->members);
}

void
event_text_fini(struct event_text *t)
{
	buf_fini(&t->members);
}
