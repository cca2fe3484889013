/*
 * event_scan - see event_scan.h.
 *
 *   fed:   | held: rest of an event | event | event | .. | beginning of one |
 *                                   ^ run ............... ^ at
 */
#include "worker/provider/event_scan.h"

#include "common/check.h"

enum { HELD_ROOM_KEPT = 2 << 10 };

void
event_scan_init(
    struct event_scan *s, size_t hold_bytes_max, const struct scan_handlers *handlers, void *arg)
{
	*s = (struct event_scan){
	    .handlers = *handlers, .arg = arg, .hold_bytes_max = hold_bytes_max};
}

void
event_scan_fini(struct event_scan *s)
{
	buf_fini(&s->held);
	buf_fini(&s->data);
	buf_fini(&s->name);
}

bool
event_scan_is_cut(const struct event_scan *s)
{
	return s->is_in_event;
}

bool
event_scan_has_passed_part(const struct event_scan *s)
{
	return s->is_passing && s->is_in_event;
}

/* ---- the fields of an event ---- */

/* Length up to the first CR or LF; all of it when there is none. */
static size_t
line_length(struct str bytes)
{
	const char *lf = memchr(bytes.p, '\n', bytes.len);
	size_t len = lf != NULL ? (size_t)(lf - bytes.p) : bytes.len;
	const char *cr = memchr(bytes.p, '\r', len);

	return cr != NULL ? (size_t)(cr - bytes.p) : len;
}

static struct str
next_line(struct str *rest)
{
	size_t len = line_length(*rest), taken = len;
	struct str line = str_sub(rest->p, len);

	if (taken < rest->len && rest->p[taken] == '\r' && taken + 1 < rest->len &&
	    rest->p[taken + 1] == '\n')
		taken++;
	if (taken < rest->len)
		taken++;
	*rest = str_sub(rest->p + taken, rest->len - taken);
	return line;
}

static struct str
without_bom(struct str line)
{
	if (str_starts(line, STR("\xef\xbb\xbf")))
		return str_sub(line.p + 3, line.len - 3);
	return line;
}

/* One `data` line is given where it lies. */
static void
take_data(struct event_scan *s, struct scan_event *e, struct str value)
{
	if (e->data.p == NULL) {
		e->data = value;
		return;
	}
	if (e->data.p != s->data.data) {
		buf_clear(&s->data);
		buf_add_str(&s->data, e->data);
	}
	buf_add_char(&s->data, '\n');
	buf_add_str(&s->data, value);
	e->data = buf_str(&s->data);
}

static void
read_event(struct event_scan *s, struct str raw, struct scan_event *e)
{
	struct str rest = raw;

	*e = (struct scan_event){0};
	while (rest.len > 0) {
		struct str value = without_bom(next_line(&rest));
		struct str field = str_split(&value, ':');

		if (value.len > 0 && value.p[0] == ' ')
			value = str_sub(value.p + 1, value.len - 1);
		if (str_eq(field, STR("data")))
			take_data(s, e, value.p != NULL ? value : STR(""));
		else if (str_eq(field, STR("event")))
			e->name = value;
	}
}

/* ---- what happens to it ---- */

static void
pass(struct event_scan *s, struct str bytes)
{
	if (bytes.len > 0)
		s->handlers.on_pass(s->arg, bytes);
}

static void
release_held(struct event_scan *s)
{
	if (s->held.cap > HELD_ROOM_KEPT)
		buf_fini(&s->held);
	buf_clear(&s->held);
}

/* The present event ends at the end of raw, which is all of it unless it went by. */
static enum scan_verdict
end_event(struct event_scan *s, struct str raw)
{
	struct scan_event e = {.is_unread = true};
	enum scan_verdict verdict;

	if (s->is_passing)
		e.name = buf_str(&s->name);
	else
		read_event(s, raw, &e);
	verdict = s->handlers.on_event(s->arg, &e);
	s->is_passing = false;
	buf_fini(&s->name);
	s->is_in_event = false;
	s->is_in_line = false;
	s->has_stopped = verdict == SCAN_STOP;
	return verdict;
}

/* The present event is too large to be held: it goes by from here on. */
static void
begin_passing(struct event_scan *s, struct str tail)
{
	struct scan_event e;

	buf_add_str(&s->held, tail);
	read_event(s, buf_str(&s->held), &e);
	buf_add_str(&s->name, e.name);
	s->is_passing = true;
	pass(s, buf_str(&s->held));
	buf_fini(&s->held);
}

/* ---- bytes ---- */

/* How far the present event goes in bytes: to behind its empty line; then *ret_ends. */
static size_t
event_length(struct event_scan *s, struct str bytes, bool *ret_ends)
{
	size_t at = 0;

	*ret_ends = false;
	if (bytes.len > 0 && s->skips_lf && bytes.p[0] == '\n')
		at++;
	if (bytes.len > 0)
		s->skips_lf = false;
	while (at < bytes.len) {
		size_t len = line_length(str_sub(bytes.p + at, bytes.len - at));
		bool is_empty = len == 0 && !s->is_in_line;

		s->is_in_event |= len > 0 || !is_empty;
		at += len;
		if (at == bytes.len) {
			s->is_in_line |= len > 0;
			return at;
		}
		bool is_cr = bytes.p[at++] == '\r';
		if (is_cr && at < bytes.len && bytes.p[at] == '\n')
			at++;
		else
			s->skips_lf = is_cr && at == bytes.len;
		s->is_in_line = false;
		if (is_empty) {
			*ret_ends = true;
			return at;
		}
	}
	return at;
}

/* The event that was begun earlier: its rest is at the front of *rest. False: stopped. */
static bool
feed_rest(struct event_scan *s, struct str *rest)
{
	bool ends;
	size_t len = event_length(s, *rest, &ends);
	struct str part = str_sub(rest->p, len);

	*rest = str_sub(rest->p + len, rest->len - len);
	if (s->is_passing) {
		pass(s, part);
		return !ends || end_event(s, part) != SCAN_STOP;
	}
	if (s->held.len + len > s->hold_bytes_max) {
		begin_passing(s, part);
		return !ends || end_event(s, STR_NONE) != SCAN_STOP;
	}
	buf_add_str(&s->held, part);
	if (!ends)
		return true;
	enum scan_verdict verdict = end_event(s, buf_str(&s->held));
	if (verdict == SCAN_KEEP)
		pass(s, buf_str(&s->held));
	release_held(s);
	return verdict != SCAN_STOP;
}

/* The beginning of an event. */
static void
hold(struct event_scan *s, struct str bytes)
{
	if (bytes.len > s->hold_bytes_max)
		begin_passing(s, bytes);
	else
		buf_add_str(&s->held, bytes);
}

bool
event_scan_feed(struct event_scan *s, struct str bytes)
{
	struct str run;
	bool ends;

	if (s->has_stopped)
		return false;
	if ((s->held.len > 0 || s->is_passing) && !feed_rest(s, &bytes))
		return false;
	run = str_sub(bytes.p, 0);
	while (bytes.len > 0) {
		size_t len = event_length(s, bytes, &ends);
		struct str part = str_sub(bytes.p, len);

		bytes = str_sub(bytes.p + len, bytes.len - len);
		if (!ends) {
			pass(s, run);
			hold(s, part);
			return true;
		}
		if (len > s->hold_bytes_max) { /* by the same rule however it was split */
			pass(s, run);
			begin_passing(s, part);
			if (end_event(s, STR_NONE) == SCAN_STOP)
				return false;
			run = str_sub(bytes.p, 0);
			continue;
		}
		enum scan_verdict verdict = end_event(s, part);
		if (verdict == SCAN_KEEP) {
			run.len += len;
			continue;
		}
		pass(s, run);
		if (verdict == SCAN_STOP)
			return false;
		run = str_sub(bytes.p, 0);
	}
	pass(s, run);
	return true;
}
