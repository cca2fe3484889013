/*
 * parse - one pass over the bytes, a cursor and a refusal.
 */
#include "worker/http/parse.h"

#include <string.h>

#include "common/check.h"
#include "common/err.h"

static const struct {
	int err;
	const char *text;
} refusals[REFUSE_COUNT] = {
#define X(name, err, text) [name] = {err, text},
#include "worker/http/refusals.tbl"
#undef X
};

int
http_refusal_err(enum http_refusal r)
{
	check(r > REFUSE_NOTHING && r < REFUSE_COUNT);
	return refusals[r].err;
}

const char *
http_refusal_text(enum http_refusal r)
{
	check(r > REFUSE_NOTHING && r < REFUSE_COUNT);
	return refusals[r].text;
}

enum {
	CH_TOKEN = 1,  /* tchar */
	CH_VALUE = 2,  /* field-vchar, SP, HTAB, obs-text */
	CH_TARGET = 4, /* visible ASCII but '#' */
	CH_HOST = 8,
};

#define ALNUM CH_TOKEN | CH_VALUE | CH_TARGET | CH_HOST
#define MARK  CH_TOKEN | CH_VALUE | CH_TARGET | CH_HOST
#define VISI  CH_VALUE | CH_TARGET

static const uint8_t classes[256] = {
    ['\t'] = CH_VALUE,
    [' '] = CH_VALUE,
    ['0' ... '9'] = ALNUM,
    ['A' ... 'Z'] = ALNUM,
    ['a' ... 'z'] = ALNUM,
    ['!'] = MARK,
    ['$'] = MARK,
    ['%'] = MARK,
    ['&'] = MARK,
    ['\''] = MARK,
    ['*'] = MARK,
    ['+'] = MARK,
    ['-'] = MARK,
    ['.'] = MARK,
    ['_'] = MARK,
    ['~'] = MARK,
    ['#'] = CH_TOKEN | CH_VALUE,
    ['^'] = CH_TOKEN | CH_VALUE | CH_TARGET,
    ['`'] = CH_TOKEN | CH_VALUE | CH_TARGET,
    ['|'] = CH_TOKEN | CH_VALUE | CH_TARGET,
    ['('] = VISI | CH_HOST,
    [')'] = VISI | CH_HOST,
    [','] = VISI | CH_HOST,
    [';'] = VISI | CH_HOST,
    ['='] = VISI | CH_HOST,
    [':'] = VISI | CH_HOST,
    ['['] = VISI | CH_HOST,
    [']'] = VISI | CH_HOST,
    ['"'] = VISI,
    ['/'] = VISI,
    ['<'] = VISI,
    ['>'] = VISI,
    ['?'] = VISI,
    ['@'] = VISI,
    ['\\'] = VISI,
    ['{'] = VISI,
    ['}'] = VISI,
    [0x80 ... 0xff] = CH_VALUE,
};

static bool
is_class(char c, int class)
{
	return (classes[(uint8_t)c] & class) != 0;
}

static bool
is_all(struct str s, int class)
{
	for (size_t i = 0; i < s.len; i++) {
		if (!is_class(s.p[i], class))
			return false;
	}
	return true;
}

enum { METHOD_MAX = 32 };

struct cursor {
	const char *p, *end;
	struct http_head *head;
};

enum step { STEP_DONE, STEP_MORE, STEP_REFUSED };

static enum step
refuse(struct cursor *c, enum http_refusal why)
{
	c->head->refusal = why;
	return STEP_REFUSED;
}

/* After the last byte of a line: CRLF and nothing else. `otherwise` says what another byte is. */
static enum step
take_crlf(struct cursor *c, enum http_refusal otherwise)
{
	if (c->p == c->end)
		return STEP_MORE;
	if (*c->p == '\n')
		return refuse(c, REFUSE_BARE_LF);
	if (*c->p != '\r')
		return refuse(c, otherwise);
	if (c->p + 1 == c->end)
		return STEP_MORE;
	if (c->p[1] != '\n')
		return refuse(c, REFUSE_BARE_CR);
	c->p += 2;
	return STEP_DONE;
}

/* One empty line before the request is ignored (RFC 9112, 2.2). */
static enum step
take_empty_line(struct cursor *c)
{
	if (c->p == c->end)
		return STEP_MORE;
	return *c->p == '\r' ? take_crlf(c, REFUSE_REQUEST_LINE) : STEP_DONE;
}

/* A run of bytes of a class, then one space. */
static enum step
take_word(struct cursor *c, int class, enum http_refusal otherwise, struct str *ret)
{
	const char *start = c->p;

	while (c->p < c->end && is_class(*c->p, class))
		c->p++;
	if (c->p == c->end)
		return STEP_MORE;
	if (*c->p != ' ' || c->p == start)
		return refuse(c, *c->p == '\n' ? REFUSE_BARE_LF : otherwise);
	*ret = str_sub(start, (size_t)(c->p - start));
	c->p++;
	return STEP_DONE;
}

static enum step
take_version(struct cursor *c)
{
	static const char name[] = "HTTP/1.";
	size_t have = (size_t)(c->end - c->p);

	if (memcmp(c->p, name, have < 7 ? have : 7) != 0)
		return refuse(c, REFUSE_VERSION);
	if (have < 8)
		return STEP_MORE;
	if (c->p[7] != '0' && c->p[7] != '1')
		return refuse(c, REFUSE_VERSION);
	c->head->minor_version = c->p[7] - '0';
	c->p += 8;
	return take_crlf(c, REFUSE_VERSION);
}

/* Origin form, "*" of OPTIONS, or absolute form, of which the path and query remain. */
static enum http_refusal
check_target(struct http_head *head)
{
	struct str t = head->target;
	size_t scheme_len;
	const char *slash;

	if (t.p[0] == '/')
		return REFUSE_NOTHING;
	if (str_eq(t, STR("*")))
		return str_eq(head->method, STR("OPTIONS")) ? REFUSE_NOTHING : REFUSE_TARGET;
	scheme_len = str_starts(t, STR("http://")) ? 7 : str_starts(t, STR("https://")) ? 8 : 0;
	t = str_sub(t.p + scheme_len, t.len - scheme_len);
	if (scheme_len == 0 || t.len == 0)
		return REFUSE_TARGET;
	slash = memchr(t.p, '/', t.len);
	if (slash == t.p || (slash == NULL && memchr(t.p, '?', t.len) != NULL))
		return REFUSE_TARGET;
	head->target = slash == NULL ? STR("/") : str_sub(slash, t.len - (size_t)(slash - t.p));
	return REFUSE_NOTHING;
}

static enum step
take_request_line(struct cursor *c)
{
	struct http_head *head = c->head;
	enum http_refusal why;
	enum step s;

	if ((s = take_word(c, CH_TOKEN, REFUSE_METHOD, &head->method)) != STEP_DONE ||
	    (s = take_word(c, CH_TARGET, REFUSE_TARGET, &head->target)) != STEP_DONE ||
	    (s = take_version(c)) != STEP_DONE)
		return s;
	if (head->method.len > METHOD_MAX)
		return refuse(c, REFUSE_METHOD);
	why = check_target(head);
	return why == REFUSE_NOTHING ? STEP_DONE : refuse(c, why);
}

static enum step
take_header_name(struct cursor *c, struct phr_header *h)
{
	h->name = c->p;
	while (c->p < c->end && is_class(*c->p, CH_TOKEN))
		c->p++;
	if (c->p == c->end)
		return STEP_MORE;
	h->name_len = (size_t)(c->p - h->name);
	if (*c->p == ':' && h->name_len > 0) {
		c->p++;
		return STEP_DONE;
	}
	if (*c->p == '\n')
		return refuse(c, REFUSE_BARE_LF);
	if (*c->p == ' ' || *c->p == '\t')
		return refuse(c, h->name_len > 0 ? REFUSE_SPACE_BEFORE_COLON : REFUSE_FOLDED);
	return refuse(c, REFUSE_HEADER_NAME);
}

static enum step
take_header_value(struct cursor *c, struct phr_header *h)
{
	struct str value;
	enum step s;

	h->value = c->p;
	while (c->p < c->end && is_class(*c->p, CH_VALUE))
		c->p++;
	value = str_trim(str_sub(h->value, (size_t)(c->p - h->value)));
	if ((s = take_crlf(c, REFUSE_HEADER_VALUE)) != STEP_DONE)
		return s;
	h->value = value.p;
	h->value_len = value.len;
	return STEP_DONE;
}

/* The header lines and the empty line after them. */
static enum step
take_headers(struct cursor *c, const struct http_parse_limits *limits)
{
	struct http_head *head = c->head;
	size_t max = head->header_cap < limits->headers ? head->header_cap : limits->headers;
	struct phr_header h;
	enum step s;

	for (;;) {
		if (c->p == c->end)
			return STEP_MORE;
		if (*c->p == '\r')
			return take_crlf(c, REFUSE_HEADER_NAME);
		if ((s = take_header_name(c, &h)) != STEP_DONE ||
		    (s = take_header_value(c, &h)) != STEP_DONE)
			return s;
		if (head->header_count == max)
			return refuse(c, REFUSE_TOO_MANY_HEADERS);
		head->headers[head->header_count++] = h;
	}
}

static enum http_refusal
check_length(struct http_head *head, struct str value)
{
	if (head->has_length)
		return REFUSE_LENGTH_TWICE;
	if (!str_to_u64(value, &head->content_length))
		return REFUSE_LENGTH;
	head->has_length = true;
	return REFUSE_NOTHING;
}

static enum http_refusal
check_coding(struct http_head *head, struct str value)
{
	if (head->is_chunked || !str_ieq(value, STR("chunked")) || head->minor_version == 0)
		return REFUSE_CODING;
	head->is_chunked = true;
	return REFUSE_NOTHING;
}

static enum http_refusal
check_host(struct http_head *head, struct str value, bool *has_host)
{
	if (*has_host)
		return REFUSE_HOST_TWICE;
	*has_host = true;
	(void)head;
	return is_all(value, CH_HOST) ? REFUSE_NOTHING : REFUSE_HOST;
}

static enum http_refusal
check_header(struct http_head *head, const struct phr_header *h, bool *has_host)
{
	struct str name = str_sub(h->name, h->name_len), value = str_sub(h->value, h->value_len);

	switch (h->name_len) {
	case 4:
		return str_ieq(name, STR("host")) ? check_host(head, value, has_host)
						  : REFUSE_NOTHING;
	case 6:
		return str_ieq(name, STR("expect")) && !str_ieq(value, STR("100-continue"))
			   ? REFUSE_EXPECT
			   : REFUSE_NOTHING;
	case 14:
		return str_ieq(name, STR("content-length")) ? check_length(head, value)
							    : REFUSE_NOTHING;
	case 17:
		return str_ieq(name, STR("transfer-encoding")) ? check_coding(head, value)
							       : REFUSE_NOTHING;
	default:
		return REFUSE_NOTHING;
	}
}

/* What the headers say about each other. */
static enum http_refusal
check_head(struct http_head *head)
{
	bool has_host = false;

	for (size_t i = 0; i < head->header_count; i++) {
		enum http_refusal why = check_header(head, &head->headers[i], &has_host);

		if (why != REFUSE_NOTHING)
			return why;
	}
	if (!has_host && head->minor_version > 0)
		return REFUSE_NO_HOST;
	if (head->has_length && head->is_chunked)
		return REFUSE_LENGTH_WITH_CODING;
	return REFUSE_NOTHING;
}

static enum step
parse(struct cursor *c, const struct http_parse_limits *limits)
{
	const char *line, *headers;
	enum step s;

	if ((s = take_empty_line(c)) != STEP_DONE)
		return s;
	line = c->p;
	s = take_request_line(c);
	headers = c->p;
	if ((size_t)(headers - line) > limits->request_line_bytes + 2)
		return refuse(c, REFUSE_LINE_TOO_LONG);
	if (s != STEP_DONE)
		return s;
	s = take_headers(c, limits);
	if ((size_t)(c->p - headers) > limits->header_bytes)
		return refuse(c, REFUSE_HEADER_TOO_LONG);
	return s;
}

long
http_parse_head(
    const struct http_parse_limits *limits, const char *buf, size_t len, struct http_head *head)
{
	struct cursor c = {buf, buf + len, head};

	*head = (struct http_head){.headers = head->headers, .header_cap = head->header_cap};
	switch (parse(&c, limits)) {
	case STEP_REFUSED:
		return -1;
	case STEP_MORE:
		if (len <= limits->incomplete_bytes)
			return 0;
		head->refusal = REFUSE_INCOMPLETE_TOO_LONG;
		return -1;
	case STEP_DONE:
		break;
	}
	head->refusal = check_head(head);
	return head->refusal == REFUSE_NOTHING ? (long)(c.p - buf) : -1;
}
