/* sse_parse - lines, fields, events. */
#include "worker/provider/sse_parse.h"

#include "common/err.h"

void
sse_parse_init(struct sse_parse *p, size_t event_bytes_max, sse_on_event *on_event, void *arg)
{
	*p = (struct sse_parse){
	    .on_event = on_event, .arg = arg, .event_bytes_max = event_bytes_max};
}

void
sse_parse_fini(struct sse_parse *p)
{
	buf_fini(&p->line);
	buf_fini(&p->name);
	buf_fini(&p->data);
	buf_fini(&p->id);
}

void
sse_parse_restart(struct sse_parse *p)
{
	buf_clear(&p->line);
	buf_clear(&p->name);
	buf_clear(&p->data);
	p->has_data = p->skips_lf = p->has_begun = false;
}

/* An empty line. Without data it only forgets the name. */
static int
dispatch(struct sse_parse *p)
{
	struct sse_event event = {buf_str(&p->name), buf_str(&p->data)};
	int rc = 0;

	if (p->has_data) {
		event.data.len--; /* the last line's LF */
		rc = p->on_event(p->arg, &event);
	}
	p->has_data = false;
	buf_clear(&p->name);
	buf_clear(&p->data);
	return rc;
}

static int
take_field(struct sse_parse *p, struct str line)
{
	struct str value = line, field = str_split(&value, ':');

	if (value.len > 0 && value.p[0] == ' ') {
		value.p++;
		value.len--;
	}
	if (str_eq(field, STR("event"))) {
		buf_clear(&p->name);
		buf_add_str(&p->name, value);
	} else if (str_eq(field, STR("data"))) {
		buf_add_str(&p->data, value);
		buf_add_char(&p->data, '\n');
		p->has_data = true;
	} else if (str_eq(field, STR("id")) && value.len <= SSE_ID_MAX) {
		buf_clear(&p->id);
		buf_add_str(&p->id, value);
	} else if (str_eq(field, STR("retry"))) {
		p->has_retry = str_to_u64(value, &p->retry_ms) || p->has_retry;
	}
	return p->data.len > p->event_bytes_max ? E_PAYLOAD_TOO_LARGE : 0;
}

static struct str
without_bom(struct sse_parse *p, struct str line)
{
	if (!p->has_begun && str_starts(line, STR("\xef\xbb\xbf")))
		line = str_sub(line.p + 3, line.len - 3);
	p->has_begun = true;
	return line;
}

/* A whole line: the rest of it is at `tail`, its beginning perhaps in p->line. */
static int
take_line(struct sse_parse *p, struct str tail)
{
	struct str line = tail;
	int rc;

	if (p->line.len > 0) {
		buf_add_str(&p->line, tail);
		line = buf_str(&p->line);
	}
	if (line.len > p->event_bytes_max)
		return E_PAYLOAD_TOO_LARGE;
	line = without_bom(p, line);
	rc = line.len == 0 ? dispatch(p) : take_field(p, line);
	buf_clear(&p->line);
	return rc;
}

/* Length up to the first CR or LF; all of it when there is none. */
static size_t
line_length(struct str bytes)
{
	const char *lf = memchr(bytes.p, '\n', bytes.len);
	size_t len = lf != NULL ? (size_t)(lf - bytes.p) : bytes.len;
	const char *cr = memchr(bytes.p, '\r', len);

	return cr != NULL ? (size_t)(cr - bytes.p) : len;
}

int
sse_parse_feed(struct sse_parse *p, struct str bytes)
{
	while (bytes.len > 0) {
		if (p->skips_lf && bytes.p[0] == '\n') {
			p->skips_lf = false;
			bytes = str_sub(bytes.p + 1, bytes.len - 1);
			continue;
		}
		p->skips_lf = false;
		size_t len = line_length(bytes);
		if (len == bytes.len) {
			if (p->line.len + len > p->event_bytes_max)
				return E_PAYLOAD_TOO_LARGE;
			buf_add(&p->line, bytes.p, len);
			return 0;
		}
		p->skips_lf = bytes.p[len] == '\r';
		int rc = take_line(p, str_sub(bytes.p, len));
		if (rc != 0)
			return rc;
		bytes = str_sub(bytes.p + len + 1, bytes.len - len - 1);
	}
	return 0;
}
