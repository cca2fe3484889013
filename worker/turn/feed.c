/* feed - a ring of events, each one allocation, and the text they have told. */
#include "worker/turn/feed.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/check.h"

enum { RING_MIN = 16 };

struct feed_entry {
	uint32_t len;
	uint8_t type;
	char data[];
};

void
feed_init(struct feed *f, size_t bytes_max)
{
	*f = (struct feed){.bytes_max = bytes_max};
}

void
feed_fini(struct feed *f)
{
	for (uint32_t i = 0; i < f->count; i++)
		free(f->ring[(f->start + i) & (f->cap - 1)]);
	free(f->ring);
	buf_fini(&f->text);
	buf_fini(&f->reasoning);
	*f = (struct feed){0};
}

uint64_t
feed_first(const struct feed *f)
{
	return f->head - f->count + 1;
}

static size_t
entry_bytes(const struct feed_entry *e)
{
	return sizeof(*e) + e->len + sizeof(void *);
}

static void
drop_oldest(struct feed *f)
{
	check(f->count > 0);
	struct feed_entry *e = f->ring[f->start];

	f->bytes -= entry_bytes(e);
	free(e);
	f->start = (f->start + 1) & (f->cap - 1);
	f->count--;
}

static void
grow_ring(struct feed *f)
{
	uint32_t cap = f->cap > 0 ? f->cap * 2 : RING_MIN;
	struct feed_entry **ring = xcalloc(cap, sizeof(struct feed_entry *));

	for (uint32_t i = 0; i < f->count; i++)
		ring[i] = f->ring[(f->start + i) & (f->cap - 1)];
	free(f->ring);
	f->ring = ring;
	f->start = 0;
	f->cap = cap;
}

/* The newest event always stays: who listens now gets it from here. */
static uint64_t
push(struct feed *f, enum turn_event_type type, struct str data)
{
	struct feed_entry *e = xmalloc(sizeof(*e) + data.len);

	check(data.len <= UINT32_MAX && type < TURN_EVENT_COUNT);
	e->len = (uint32_t)data.len;
	e->type = (uint8_t)type;
	memcpy(e->data, data.p, data.len);
	if (f->count == f->cap)
		grow_ring(f);
	f->ring[(f->start + f->count++) & (f->cap - 1)] = e;
	f->bytes += entry_bytes(e);
	f->head++;
	while (f->bytes_max > 0 && f->bytes > f->bytes_max && f->count > 1)
		drop_oldest(f);
	return f->head;
}

uint64_t
feed_add(struct feed *f, enum turn_event_type type, struct str data)
{
	feed_settle(f);
	return push(f, type, data);
}

uint64_t
feed_utf16_length(struct str s)
{
	uint64_t units = 0;

	check(s.p != NULL || s.len == 0);
	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if ((c & 0xC0) != 0x80)
			units += c >= 0xF0 ? 2 : 1;
	}
	return units;
}

void
feed_text(struct feed *f, struct str text)
{
	if (f->reasoning.len > 0)
		feed_settle(f);
	buf_add_str(&f->text, text);
}

void
feed_reasoning(struct feed *f, struct str text)
{
	if (f->text.len > f->text_settled)
		feed_settle(f);
	buf_add_str(&f->reasoning, text);
}

bool
feed_is_settled(const struct feed *f)
{
	return f->text.len == f->text_settled && f->reasoning.len == 0;
}

static void
push_delta(struct feed *f, enum turn_event_type type, struct str text)
{
	struct buf data = BUF_INIT;

	buf_reserve(&data, text.len + 64);
	buf_add_cstr(&data, "{\"text\":\"");
	buf_add_json_escaped(&data, text);
	if (type == TURN_TEXT_DELTA)
		buf_printf(&data, "\",\"offset\":%" PRIu64, f->text_units);
	else
		buf_add_char(&data, '"');
	buf_printf(&data, ",\"hop\":%" PRIu32 "}", f->hop);
	push(f, type, buf_str(&data));
	buf_fini(&data);
}

void
feed_settle(struct feed *f)
{
	struct str text = str_sub(f->text.data + f->text_settled, f->text.len - f->text_settled);

	if (text.len > 0) {
		push_delta(f, TURN_TEXT_DELTA, text);
		f->text_settled = f->text.len;
		f->text_units += feed_utf16_length(text);
	}
	if (f->reasoning.len > 0) {
		push_delta(f, TURN_REASONING_DELTA, buf_str(&f->reasoning));
		buf_fini(&f->reasoning);
	}
}

void
feed_set_hop(struct feed *f, uint32_t hop)
{
	feed_settle(f);
	f->hop = hop;
}

void
feed_restart(struct feed *f, size_t keep)
{
	check(keep <= f->text.len);
	feed_settle(f);
	push(f, TURN_RESTARTED, STR("{}"));
	f->text.len = keep;
	if (f->text.data != NULL)
		f->text.data[keep] = '\0';
	f->text_settled = 0;
	f->text_units = 0;
	feed_settle(f);
}

bool
feed_get(const struct feed *f, uint64_t seq, struct turn_event *ret)
{
	if (seq < feed_first(f) || seq > f->head)
		return false;
	const struct feed_entry *e =
	    f->ring[(f->start + (uint32_t)(seq - feed_first(f))) & (f->cap - 1)];

	*ret = (struct turn_event){e->type, seq, str_sub(e->data, e->len)};
	return true;
}

struct str
feed_told_text(const struct feed *f)
{
	return str_sub(f->text.data, f->text_settled);
}

void
feed_format_snapshot(struct buf *out, uint64_t seq, struct str text, struct str tool_calls_json)
{
	buf_printf(out, "{\"seq\":%" PRIu64 ",\"text\":\"", seq);
	buf_add_json_escaped(out, text);
	buf_add_cstr(out, "\",\"tool_calls\":");
	buf_add_str(out, tool_calls_json);
	buf_add_char(out, '}');
}
