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
