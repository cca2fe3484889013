/* body_watch - see body_watch.h. */
#include "worker/provider/body_watch.h"

static const char usage_name[] = "usage";

void
body_watch_init(struct body_watch *w, unsigned usage_depth)
{
	*w = (struct body_watch){.usage_depth = usage_depth};
}

void
body_watch_fini(struct body_watch *w)
{
	buf_fini(&w->usage);
}

bool
body_watch_is_whole(const struct body_watch *w)
{
	return w->has_ended && !w->is_broken;
}

struct str
body_watch_usage(const struct body_watch *w)
{
	return str_trim(buf_str(&w->usage));
}

static void
keep(struct body_watch *w, char c)
{
	if (w->keeps_usage && w->usage.len < BODY_WATCH_USAGE_BYTES_MAX)
		buf_add_char(&w->usage, c);
}

static void
in_string(struct body_watch *w, char c)
{
	if (w->is_escaped) {
		w->is_escaped = false;
	} else if (c == '\\') {
		w->is_escaped = true;
	} else if (c == '"') {
		w->in_string = false;
		w->is_usage &= w->key_len == sizeof(usage_name) - 1;
		return;
	}
	if (!w->is_key)
		return;
	w->is_usage &= w->key_len < sizeof(usage_name) - 1 && usage_name[w->key_len] == c;
	w->key_len++;
}

static void
begin_string(struct body_watch *w)
{
	w->in_string = true;
	w->is_key = w->depth == w->usage_depth && w->expects_key;
	w->expects_key = false;
	if (w->is_key) {
		w->key_len = 0;
		w->is_usage = true;
	}
}

static void
open_container(struct body_watch *w, char c)
{
	w->is_broken |= !w->has_begun && c != '{';
	w->has_begun = true;
	w->depth++;
	w->expects_key = w->depth == w->usage_depth;
}

static void
close_container(struct body_watch *w)
{
	if (w->depth == w->usage_depth)
		w->keeps_usage = false;
	if (w->depth == 0)
		w->is_broken = true;
	else if (--w->depth == 0)
		w->has_ended = true;
}

static void
outside(struct body_watch *w, char c)
{
	bool is_space = c == ' ' || c == '\n' || c == '\r' || c == '\t';

	if (is_space)
		return;
	if (w->has_ended || (!w->has_begun && c != '{')) {
		w->is_broken = true;
	} else if (c == '"') {
		begin_string(w);
	} else if (c == '{' || c == '[') {
		open_container(w, c);
	} else if (c == '}' || c == ']') {
		close_container(w);
	} else if (c == ',' && w->depth == w->usage_depth) {
		w->expects_key = true;
		w->keeps_usage = false;
	} else if (c == ':' && w->depth == w->usage_depth && w->is_usage) {
		w->keeps_usage = true;
		w->is_usage = false;
		buf_clear(&w->usage);
		return; /* the colon is not of the value */
	}
}

/* How many bytes at the front of a long string mean nothing: base64 of images. */
static size_t
plain_length(struct str bytes)
{
	const char *quote = memchr(bytes.p, '"', bytes.len);
	size_t len = quote != NULL ? (size_t)(quote - bytes.p) : bytes.len;
	const char *slash = memchr(bytes.p, '\\', len);

	return slash != NULL ? (size_t)(slash - bytes.p) : len;
}

bool
body_watch_feed(struct body_watch *w, struct str bytes)
{
	for (size_t i = 0; i < bytes.len && !w->is_broken; i++) {
		char c = bytes.p[i];

		if (w->in_string && !w->is_key && !w->is_escaped && !w->keeps_usage) {
			i += plain_length(str_sub(bytes.p + i, bytes.len - i));
			if (i == bytes.len)
				break;
			c = bytes.p[i];
		}
		bool was_keeping = w->keeps_usage;
		if (w->in_string)
			in_string(w, c);
		else
			outside(w, c);
		if (was_keeping)
			keep(w, c);
	}
	return !w->is_broken;
}
