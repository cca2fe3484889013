/*
 * gateway_fuzz - what passes through the OpenAI-compatible routes: a request's body through
 * the editor, an answer through the scanner of events, both through Anthropic's dialect.
 *
 * The first byte says how the stream is split. The body that goes out must be JSON when the one
 * that came in was, and differ in what we rewrite only; what comes out of a stream and what is seen
 * in it must not depend on the split.
 */
#include <jansson.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/err.h"
#include "common/json_scan.h"
#include "worker/provider/anthropic.h"
#include "worker/provider/body.h"
#include "worker/provider/body_watch.h"
#include "worker/provider/chunk.h"
#include "worker/provider/event_scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- the body ---- */

static bool
is_deep(struct str text)
{
	unsigned depth = 0, deepest = 0;

	for (size_t i = 0; i < text.len; i++) {
		depth += text.p[i] == '{' || text.p[i] == '[';
		deepest = depth > deepest ? depth : deepest;
	}
	return deepest > JSON_SCAN_DEPTH_MAX;
}

/* Everything but what we rewrite is as it was. */
static void
compare(json_t *before, json_t *after, bool asks_usage)
{
	check(strcmp(json_string_value(json_object_get(after, "model")), "other \"model\"") == 0);
	json_object_del(before, "model");
	json_object_del(after, "model");
	if (asks_usage && json_is_true(json_object_get(before, "stream"))) {
		json_t *options = json_object_get(before, "stream_options");

		if (options == NULL || json_is_null(options) || json_is_object(options)) {
			if (!json_is_object(options))
				json_object_set_new(before, "stream_options", json_object());
			json_object_set_new(json_object_get(before, "stream_options"),
			    "include_usage", json_true());
		}
	}
	check(json_equal(before, after));
}

static void
edit(struct str text, bool asks_usage)
{
	struct buf model = BUF_INIT, out = BUF_INIT;
	const char *param = NULL, *why = NULL;
	struct body body;
	int rc = body_read(text, &body, &model, &param, &why);
	json_t *before = json_loadb(text.len > 0 ? text.p : "", text.len, 0, NULL);

	if (rc != 0) {
		check(why != NULL);
		/* What is refused as no JSON is none (jansson 2.14 takes a NUL behind a number). */
		check(rc != E_INVALID_JSON || !json_is_object(before) || is_deep(text) ||
		      memchr(text.p, '\0', text.len) != NULL);
	} else {
		body_write(&body, "other \"model\"", asks_usage, &out);
		json_t *after = json_loadb(out.data, out.len, 0, NULL);
		check((before == NULL) == (after == NULL));
		if (before != NULL)
			compare(before, after, asks_usage);
		json_decref(after);
	}
	json_decref(before);
	buf_fini(&model);
	buf_fini(&out);
}

/* ---- the stream ---- */

struct seen {
	struct buf passed, events;
};

static enum scan_verdict
on_event(void *arg, const struct scan_event *e)
{
	struct seen *s = arg;
	struct chunk c;

	check(!e->is_unread || e->data.p == NULL);
	/* The name of an unread one depends on how much of it was there. */
	buf_printf(&s->events, "%d|", e->is_unread);
	if (!e->is_unread)
		buf_add_str(&s->events, e->name);
	buf_add_str(&s->events, e->data);
	if (chunk_read(e->data, &c)) {
		check(str_is_utf8(e->data));
		buf_printf(&s->events, "|%d%d%d%d %ju %ju", c.has_error, c.has_choices,
		    c.has_finish, c.has_usage, (uintmax_t)c.output_bytes,
		    (uintmax_t)c.usage.output_tokens);
		check(c.usage.cached_tokens <= c.usage.input_tokens);
	}
	return e->data.len % 7 == 6 ? SCAN_DROP : e->data.len % 31 == 30 ? SCAN_STOP : SCAN_KEEP;
}

static void
on_pass(void *arg, struct str bytes)
{
	check(bytes.len > 0);
	buf_add_str(&((struct seen *)arg)->passed, bytes);
}

static void
scan(struct str text, size_t step, size_t hold_max, struct seen *seen)
{
	struct event_scan s;
	struct body_watch w;
	bool goes_on = true, watches = true;

	event_scan_init(&s, hold_max, &(struct scan_handlers){on_event, on_pass}, seen);
	body_watch_init(&w, 1);
	for (size_t at = 0; at < text.len; at += step) {
		struct str part = str_sub(text.p + at, text.len - at < step ? text.len - at : step);

		goes_on = goes_on && event_scan_feed(&s, part);
		watches = watches && body_watch_feed(&w, part);
		check(s.held.len <= hold_max);
	}
	buf_printf(&seen->events, "/%d %d %d %d ", goes_on, goes_on && event_scan_is_cut(&s),
	    watches, body_watch_is_whole(&w));
	buf_add_str(&seen->events, body_watch_usage(&w));
	event_scan_fini(&s);
	body_watch_fini(&w);
}

/* ---- Anthropic's dialect ---- */

static bool
is_object(struct str text)
{
	json_t *j = json_loadb(text.p, text.len, 0, NULL);
	bool is_it = json_is_object(j);

	json_decref(j);
	return is_it;
}

/* What comes of it is JSON, whatever went in. */
static void
translate(struct str text, bool is_streamed, size_t step)
{
	struct translation *t = anthropic_begin(is_streamed);
	struct buf ours = BUF_INIT;
	struct chunk c;
	bool ok = true;

	for (size_t at = 0; at < text.len && ok; at += step)
		ok = anthropic_feed(
		    t, str_sub(text.p + at, text.len - at < step ? text.len - at : step), &ours);
	ok = ok && anthropic_finish(t, &ours);
	struct str rest = buf_str(&ours);
	if (ok && !is_streamed)
		check(chunk_read(rest, &c) && c.has_finish);
	while (is_streamed && rest.len > 0) {
		struct str line = str_split(&rest, '\n');

		check(line.len == 0 || str_eq(line, STR("data: [DONE]")) ||
		      (str_starts(line, STR("data: ")) &&
			  chunk_read(str_sub(line.p + 6, line.len - 6), &c)));
	}
	anthropic_end(&t);
	buf_clear(&ours);
	const char *why = NULL;
	if (anthropic_request(text, &ours, &why))
		check(is_object(buf_str(&ours)));
	else
		check(why != NULL);
	buf_fini(&ours);
}

/* A CR at the end of a piece ends an event before its LF has come: that byte may go with the next
 * one, or with none. */
static bool
is_same_but_line_ends(struct str a, struct str b)
{
	size_t i = 0, j = 0;

	for (;;) {
		while (i < a.len && a.p[i] == '\n')
			i++;
		while (j < b.len && b.p[j] == '\n')
			j++;
		if (i == a.len || j == b.len)
			return i == a.len && j == b.len;
		if (a.p[i++] != b.p[j++])
			return false;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct seen whole = {0}, split = {0};

	if (size == 0)
		return 0;
	struct str text = str_sub((const char *)data + 1, size - 1);
	edit(text, (data[0] & 1) != 0);
	translate(text, (data[0] & 2) == 0, data[0] % 64 + 1u);
	/* That byte counts, so no event may be near the limit then. */
	bool has_cr = memchr(data, '\r', size) != NULL;
	size_t hold_max = has_cr ? size + 1 : 64;
	scan(text, size, hold_max, &whole);
	scan(text, data[0] % 64 + 1u, hold_max, &split);
	if (has_cr)
		check(is_same_but_line_ends(buf_str(&whole.passed), buf_str(&split.passed)));
	else {
		check(str_eq(buf_str(&whole.events), buf_str(&split.events)));
		check(str_eq(buf_str(&whole.passed), buf_str(&split.passed)));
	}
	buf_fini(&whole.passed);
	buf_fini(&whole.events);
	buf_fini(&split.passed);
	buf_fini(&split.events);
	return 0;
}
