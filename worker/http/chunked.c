/*
 * chunked - a state per kind of byte.
 *
 *   SIZE -> EXTENSION -> SIZE_LF -> DATA -> DATA_CR -> DATA_LF -> SIZE ..
 *                           | size 0
 *                           +-> TRAILER -> TRAILER_LINE -> TRAILER_LINE_LF -> TRAILER ..
 *                                  +-> END_LF -> done
 */
#include "worker/http/chunked.h"

#include <string.h>

#include "common/check.h"

enum state {
	SIZE,
	EXTENSION,
	SIZE_LF,
	DATA,
	DATA_CR,
	DATA_LF,
	TRAILER,
	TRAILER_LINE,
	TRAILER_LINE_LF,
	END_LF,
	DONE,
	BAD,
};

/* 2^60 bytes and more are nonsense, and the sum of sizes must not overflow. */
enum { DIGITS_MAX = 15 };

_Static_assert(sizeof(struct phr_chunked_decoder) == 16, "h2o allocates 16 bytes");

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static enum state
on_size(struct phr_chunked_decoder *d, char c)
{
	int digit = hex_value(c);

	if (digit >= 0) {
		d->bytes_left = d->bytes_left << 4 | (size_t)digit;
		return ++d->digits > DIGITS_MAX ? BAD : SIZE;
	}
	if (d->digits == 0)
		return BAD;
	if (c == '\r')
		return SIZE_LF;
	return c == ';' || c == ' ' || c == '\t' ? EXTENSION : BAD;
}

/* Text of an extension or a trailer: visible bytes, spaces, tabs, up to CR. */
static enum state
on_overhead(struct phr_chunked_decoder *d, char c, enum state same, enum state after_cr)
{
	if (c == '\r')
		return after_cr;
	if (((unsigned char)c < ' ' && c != '\t') || c == 0x7f)
		return BAD;
	return ++d->overhead > CHUNKED_OVERHEAD_MAX ? BAD : same;
}

static enum state
on_trailer(struct phr_chunked_decoder *d, char c)
{
	if (c == '\r')
		return END_LF;
	return c == ' ' || c == '\t' ? BAD : on_overhead(d, c, TRAILER_LINE, BAD);
}

static enum state
on_size_lf(struct phr_chunked_decoder *d, char c)
{
	d->digits = 0;
	if (c != '\n')
		return BAD;
	return d->bytes_left > 0 ? DATA : TRAILER;
}

/* One byte that is not data. */
static enum state
step(struct phr_chunked_decoder *d, char c)
{
	switch ((enum state)d->state) {
	case SIZE:
		return on_size(d, c);
	case EXTENSION:
		return on_overhead(d, c, EXTENSION, SIZE_LF);
	case SIZE_LF:
		return on_size_lf(d, c);
	case DATA_CR:
		return c == '\r' ? DATA_LF : BAD;
	case DATA_LF:
		return c == '\n' ? SIZE : BAD;
	case TRAILER:
		return on_trailer(d, c);
	case TRAILER_LINE:
		return on_overhead(d, c, TRAILER_LINE, TRAILER_LINE_LF);
	case TRAILER_LINE_LF:
		return c == '\n' ? TRAILER : BAD;
	case END_LF:
		return c == '\n' ? DONE : BAD;
	default:
		return BAD;
	}
}

/* Moves the data at `from` down to `to`; how many bytes. */
static size_t
take_data(struct phr_chunked_decoder *d, char *to, const char *from, size_t have)
{
	size_t n = have < d->bytes_left ? have : d->bytes_left;

	memmove(to, from, n);
	d->bytes_left -= n;
	if (d->bytes_left == 0)
		d->state = DATA_CR;
	return n;
}

long
chunked_decode(struct phr_chunked_decoder *d, char *buf, size_t *len)
{
	size_t in = 0, out = 0, n;

	while (in < *len && d->state != DONE && d->state != BAD) {
		if (d->state == DATA) {
			n = take_data(d, buf + out, buf + in, *len - in);
			in += n;
			out += n;
		} else {
			d->state = (uint8_t)step(d, buf[in++]);
		}
	}
	if (d->state == DONE)
		memmove(buf + out, buf + in, *len - in);
	n = *len - in;
	*len = out;
	if (d->state == BAD)
		return CHUNKED_BAD;
	return d->state == DONE ? (long)n : CHUNKED_MORE;
}
