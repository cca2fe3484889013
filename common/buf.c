/* buf - growth by doubling, and text appended in a few forms. */
#include "common/buf.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"

enum { BUF_MIN = 64 };

void
buf_fini(struct buf *b)
{
	free(b->data);
	*b = BUF_INIT;
}

void
buf_clear(struct buf *b)
{
	b->len = 0;
	if (b->data != NULL)
		b->data[0] = '\0';
}

char *
buf_reserve(struct buf *b, size_t room)
{
	check(room < SIZE_MAX / 4 && b->len < SIZE_MAX / 4);
	size_t need = b->len + room + 1, cap = b->cap ? b->cap : BUF_MIN;

	if (need > b->cap) {
		while (cap < need)
			cap *= 2;
		b->data = xrealloc(b->data, cap);
		b->cap = cap;
		b->data[b->len] = '\0';
	}
	return b->data + b->len;
}

void
buf_add(struct buf *b, const void *bytes, size_t len)
{
	buf_reserve(b, len);
	if (len > 0)
		memcpy(b->data + b->len, bytes, len);
	b->len += len;
	b->data[b->len] = '\0';
}

void
buf_add_str(struct buf *b, struct str s)
{
	buf_add(b, s.p, s.len);
}

void
buf_add_cstr(struct buf *b, const char *s)
{
	buf_add(b, s, strlen(s));
}

void
buf_add_char(struct buf *b, char c)
{
	buf_add(b, &c, 1);
}

void
buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
	va_list again;

	va_copy(again, ap);
	int n = vsnprintf(buf_reserve(b, BUF_MIN), BUF_MIN, fmt, ap);
	check(n >= 0);
	if (n >= BUF_MIN)
		vsnprintf(buf_reserve(b, (size_t)n), (size_t)n + 1, fmt, again);
	va_end(again);
	b->len += (size_t)n;
}

void
buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	buf_vprintf(b, fmt, ap);
	va_end(ap);
}

void
buf_consume(struct buf *b, size_t len)
{
	check(len <= b->len);
	if (len == 0)
		return;
	memmove(b->data, b->data + len, b->len - len + 1);
	b->len -= len;
}

void
buf_add_json_escaped(struct buf *b, struct str s)
{
	static const char short_form[] = {
	    ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};
	size_t from = 0;

	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.p[i];

		if (c >= 0x20 && c != '"' && c != '\\')
			continue;
		buf_add(b, s.p + from, i - from);
		from = i + 1;
		if (c >= 0x20)
			buf_printf(b, "\\%c", c);
		else if (c < sizeof(short_form) && short_form[c] != 0)
			buf_printf(b, "\\%c", short_form[c]);
		else
			buf_printf(b, "\\u%04x", c);
	}
	if (from < s.len)
		buf_add(b, s.p + from, s.len - from);
}

char *
buf_take(struct buf *b, size_t *ret_len)
{
	buf_reserve(b, 0);
	char *data = b->data;
	if (ret_len != NULL)
		*ret_len = b->len;
	*b = BUF_INIT;
	return data;
}
