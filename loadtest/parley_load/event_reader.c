/* event_reader - lines; an empty one ends an event. */
#include "loadtest/parley_load/event_reader.h"

static void
copy_text(char *to, size_t size, struct str from)
{
	size_t n = from.len < size - 1 ? from.len : size - 1;

	if (n > 0)
		memcpy(to, from.p, n);
	to[n] = '\0';
}

static void
take_field(struct event_reader *r)
{
	struct str value = str_sub(r->line, r->line_len), name = str_split(&value, ':');

	value = str_trim(value);
	if (str_eq(name, STR("event"))) {
		copy_text(r->name, sizeof(r->name), value);
		r->has_any = true;
	} else if (str_eq(name, STR("id"))) {
		copy_text(r->turn, sizeof(r->turn), str_split(&value, '.'));
		str_to_u64(value, &r->seq);
	} else if (str_eq(name, STR("data"))) {
		r->has_any = true;
	}
}

/* The line is whole; true: it ended an event. */
static bool
end_line(struct event_reader *r, struct seen_event *ret)
{
	size_t len = r->line_len;

	if (len > 0 && r->line[len - 1] == '\r')
		r->line_len = --len;
	if (len > 0) {
		take_field(r);
		r->line_len = 0;
		return false;
	}
	if (!r->has_any)
		return false;
	ret->name = str_of(r->name);
	ret->seq = r->seq;
	r->seq = 0;
	r->has_any = false;
	return true;
}

static void
keep(struct event_reader *r, struct str part)
{
	size_t room = sizeof(r->line) - r->line_len, n = part.len < room ? part.len : room;

	if (n > 0)
		memcpy(r->line + r->line_len, part.p, n);
	r->line_len += n;
}

bool
event_reader_next(struct event_reader *r, struct str *in, struct seen_event *ret)
{
	if (!r->has_any)
		r->name[0] = '\0';
	while (in->len > 0) {
		const char *end = memchr(in->p, '\n', in->len);
		size_t n = end != NULL ? (size_t)(end - in->p) : in->len;

		keep(r, str_sub(in->p, n));
		n += end != NULL;
		*in = str_sub(in->p + n, in->len - n);
		if (end != NULL && end_line(r, ret))
			return true;
	}
	return false;
}
