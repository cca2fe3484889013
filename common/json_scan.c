/* json_scan - see json_scan.h. */
#include "common/json_scan.h"

#include <endian.h>
#include <string.h>

#include "common/check.h"

void
json_scan_init(struct json_scan *s, struct str text)
{
	*s = (struct json_scan){.p = text.p != NULL ? text.p : "", .is_first = true};
	s->end = s->p + text.len;
}

static bool
broken(struct json_scan *s)
{
	s->is_broken = true;
	return false;
}

static void
skip_space(struct json_scan *s)
{
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t'))
		s->p++;
}

char
json_scan_peek(struct json_scan *s)
{
	skip_space(s);
	return s->p < s->end && !s->is_broken ? *s->p : '\0';
}

/* ---- strings ---- */

/* What of these bytes needs a look: a quote, a backslash, a control. The lowest bit that is set is
 * in the first of them (Hacker's Delight, 6-1); what is above it may be set for nothing. */
static uint64_t
special_bytes(uint64_t x)
{
	const uint64_t ones = UINT64_C(0x0101010101010101), highs = ones << 7;
	uint64_t quote = x ^ (ones * '"'), slash = x ^ (ones * '\\');

	return (((quote - ones) & ~quote) | ((slash - ones) & ~slash) | ((x - ones * 0x20) & ~x)) &
	       highs;
}

/* Up to a byte that needs a look, eight at a time. */
static void
skip_plain(struct json_scan *s)
{
	const uint64_t highs = UINT64_C(0x8080808080808080);
	const char *p = s->p;
	uint64_t seen = 0, x, special = 0;

	for (; s->end - p >= 8; p += 8) {
		memcpy(&x, p, 8);
		x = le64toh(x);
		special = special_bytes(x);
		if (special != 0) {
			seen |= x & ((special & -special) - 1);
			p += __builtin_ctzll(special) / 8;
			break;
		}
		seen |= x;
	}
	for (; special == 0 && p < s->end; p++) {
		unsigned char c = (unsigned char)*p;

		if (c == '"' || c == '\\' || c < 0x20)
			break;
		seen |= c;
	}
	s->has_high |= (seen & highs) != 0;
	s->p = p;
}

static bool
is_hex(char c)
{
	return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
}

/* Behind a backslash. */
static bool
skip_escape(struct json_scan *s)
{
	s->has_escape = true;
	if (s->p == s->end)
		return broken(s);
	char c = *s->p++;
	if (c != 'u')
		return (c != '\0' && strchr("\"\\/bfnrt", c) != NULL) || broken(s);
	for (int i = 0; i < 4; i++) {
		if (s->p == s->end || !is_hex(*s->p++))
			return broken(s);
	}
	return true;
}

/* Behind the opening quote; to behind the closing one. */
static bool
skip_string(struct json_scan *s)
{
	s->has_escape = false;
	for (;;) {
		skip_plain(s);
		if (s->p == s->end)
			return broken(s);
		char c = *s->p++;
		if (c == '"')
			return true;
		if (c != '\\')
			return broken(s);
		if (!skip_escape(s))
			return false;
	}
}

/* ---- numbers and words ---- */

static bool
skip_digits(struct json_scan *s)
{
	const char *from = s->p;

	while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
		s->p++;
	return s->p > from || broken(s);
}

static bool
skip_number(struct json_scan *s)
{
	if (*s->p == '-')
		s->p++;
	if (s->p < s->end && *s->p == '0')
		s->p++;
	else if (!skip_digits(s))
		return false;
	if (s->p < s->end && *s->p == '.') {
		s->p++;
		if (!skip_digits(s))
			return false;
	}
	if (s->p < s->end && (*s->p | 0x20) == 'e') {
		s->p++;
		if (s->p < s->end && (*s->p == '+' || *s->p == '-'))
			s->p++;
		return skip_digits(s);
	}
	return true;
}

static bool
skip_word(struct json_scan *s, struct str word)
{
	if ((size_t)(s->end - s->p) < word.len || memcmp(s->p, word.p, word.len) != 0)
		return broken(s);
	s->p += word.len;
	return true;
}

static bool
skip_scalar(struct json_scan *s)
{
	switch (*s->p) {
	case '"':
		s->p++;
		return skip_string(s);
	case 't':
		return skip_word(s, STR("true"));
	case 'f':
		return skip_word(s, STR("false"));
	case 'n':
		return skip_word(s, STR("null"));
	default:
		return skip_number(s);
	}
}

/* ---- containers ---- */

static bool
enter(struct json_scan *s, char open)
{
	if (json_scan_peek(s) != open)
		return broken(s);
	if (s->depth == JSON_SCAN_DEPTH_MAX) {
		s->is_deep = true;
		return broken(s);
	}
	s->p++;
	s->depth++;
	s->is_first = true;
	return true;
}

bool
json_scan_object(struct json_scan *s)
{
	return enter(s, '{');
}

bool
json_scan_array(struct json_scan *s)
{
	return enter(s, '[');
}

static int
leave(struct json_scan *s)
{
	check(s->depth > 0);
	s->p++;
	s->depth--;
	s->is_first = false;
	return 0;
}

/* Past the comma where one is due. 1: something follows; 0: the end; -1. */
static int
next(struct json_scan *s, char close)
{
	char c = json_scan_peek(s);

	if (c == close && c != '\0')
		return leave(s);
	if (!s->is_first) {
		if (c != ',')
			return broken(s) - 1;
		s->p++;
		c = json_scan_peek(s);
	}
	s->is_first = false;
	if (c == '\0' || c == close)
		return broken(s) - 1;
	return 1;
}

int
json_scan_member(struct json_scan *s, struct str *ret_key)
{
	int rc = next(s, '}');

	if (rc != 1)
		return rc;
	if (*s->p != '"')
		return broken(s) - 1;
	const char *from = ++s->p;
	if (!skip_string(s))
		return -1;
	*ret_key = str_sub(from, (size_t)(s->p - from) - 1);
	if (json_scan_peek(s) != ':')
		return broken(s) - 1;
	s->p++;
	return 1;
}

int
json_scan_element(struct json_scan *s)
{
	return next(s, ']');
}

/* ---- whole values ---- */

static bool
bit_get(const uint64_t *bits, unsigned i)
{
	return (bits[i / 64] >> i % 64 & 1) != 0;
}

static void
bit_set(uint64_t *bits, unsigned i, bool to)
{
	bits[i / 64] = (bits[i / 64] & ~(UINT64_C(1) << i % 64)) | (uint64_t)to << i % 64;
}

/* One step inside of containers that were opened since `base`. */
static bool
skip_step(struct json_scan *s, uint64_t *is_object)
{
	struct str key;
	bool in_object = bit_get(is_object, s->depth - 1);
	int rc = in_object ? json_scan_member(s, &key) : json_scan_element(s);

	if (rc <= 0)
		return rc == 0;
	char c = json_scan_peek(s);
	if (c == '{' || c == '[') {
		if (!enter(s, c))
			return false;
		bit_set(is_object, s->depth - 1, c == '{');
		return true;
	}
	return c != '\0' ? skip_scalar(s) : broken(s);
}

bool
json_scan_skip(struct json_scan *s, struct str *ret)
{
	uint64_t is_object[JSON_SCAN_DEPTH_MAX / 64] = {0};
	unsigned base = s->depth;
	char c = json_scan_peek(s);
	const char *from = s->p;
	bool ok;

	if (c == '\0')
		return broken(s);
	if (c == '{' || c == '[') {
		ok = enter(s, c);
		if (ok)
			bit_set(is_object, base, c == '{');
		while (ok && s->depth > base)
			ok = skip_step(s, is_object);
	} else
		ok = skip_scalar(s);
	s->is_first = false;
	if (ok && ret != NULL)
		*ret = str_sub(from, (size_t)(s->p - from));
	return ok;
}

bool
json_scan_end(struct json_scan *s)
{
	skip_space(s);
	return !s->is_broken && s->depth == 0 && s->p == s->end;
}

/* ---- what a string says ---- */

static unsigned
hex4(const char *p)
{
	unsigned n = 0;

	for (int i = 0; i < 4; i++)
		n = n << 4 | (unsigned)(p[i] <= '9' ? p[i] - '0' : (p[i] | 0x20) - 'a' + 10);
	return n;
}

static void
add_utf8(struct buf *out, unsigned c)
{
	if (c < 0x80) {
		buf_add_char(out, (char)c);
	} else if (c < 0x800) {
		buf_add_char(out, (char)(0xc0 | c >> 6));
		buf_add_char(out, (char)(0x80 | (c & 0x3f)));
	} else if (c < 0x10000) {
		buf_add_char(out, (char)(0xe0 | c >> 12));
		buf_add_char(out, (char)(0x80 | (c >> 6 & 0x3f)));
		buf_add_char(out, (char)(0x80 | (c & 0x3f)));
	} else {
		buf_add_char(out, (char)(0xf0 | c >> 18));
		buf_add_char(out, (char)(0x80 | (c >> 12 & 0x3f)));
		buf_add_char(out, (char)(0x80 | (c >> 6 & 0x3f)));
		buf_add_char(out, (char)(0x80 | (c & 0x3f)));
	}
}

/* At a backslash of a valid string; how many bytes it took. A surrogate without its other half
 * becomes U+FFFD. */
static size_t
decode_escape(struct str s, struct buf *out)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";

	if (s.p[1] != 'u') {
		buf_add_char(out, to[strchr(from, s.p[1]) - from]);
		return 2;
	}
	unsigned c = hex4(s.p + 2);
	if (c >= 0xd800 && c < 0xdc00 && s.len >= 12 && s.p[6] == '\\' && s.p[7] == 'u') {
		unsigned low = hex4(s.p + 8);

		if (low >= 0xdc00 && low < 0xe000) {
			add_utf8(out, 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00));
			return 12;
		}
	}
	add_utf8(out, c >= 0xd800 && c < 0xe000 ? 0xfffd : c);
	return 6;
}

bool
json_scan_decode(struct str text, struct buf *out)
{
	struct json_scan s;

	json_scan_init(&s, text);
	if (json_scan_peek(&s) != '"' || !json_scan_skip(&s, NULL) || !json_scan_end(&s))
		return false;
	struct str rest = str_sub(text.p + 1, text.len - 2);
	while (rest.len > 0) {
		const char *slash = memchr(rest.p, '\\', rest.len);
		size_t plain = slash != NULL ? (size_t)(slash - rest.p) : rest.len;

		buf_add(out, rest.p, plain);
		rest = str_sub(rest.p + plain, rest.len - plain);
		if (rest.len > 0) {
			size_t taken = decode_escape(rest, out);
			rest = str_sub(rest.p + taken, rest.len - taken);
		}
	}
	return true;
}

/* ---- keys ---- */

static bool
is_plain_ascii(struct str key)
{
	for (size_t i = 0; i < key.len; i++) {
		if (key.p[i] == '\\' || (unsigned char)key.p[i] >= 0x80)
			return false;
	}
	return true;
}

/* The text that was read has it in quotation marks, and is well-formed. */
void
json_scan_key_decode(struct str key, struct buf *out)
{
	check(key.p != NULL);
	check(json_scan_decode(str_sub(key.p - 1, key.len + 2), out));
}

bool
json_scan_key_is(struct str key, struct str name)
{
	struct buf text = BUF_INIT;
	bool is;

	if (key.len == 0 || memchr(key.p, '\\', key.len) == NULL)
		return str_eq(key, name);
	json_scan_key_decode(key, &text);
	is = str_eq(buf_str(&text), name);
	buf_fini(&text);
	return is;
}

void
json_scan_key_text(struct str key, struct buf *out)
{
	const struct str s = STR("\xc5\xbf"), k = STR("\xe2\x84\xaa");
	struct buf text = BUF_INIT;

	if (is_plain_ascii(key)) {
		buf_add_str(out, key);
		return;
	}
	json_scan_key_decode(key, &text);
	for (struct str rest = buf_str(&text); rest.len > 0;) {
		bool is_s = str_starts(rest, s), is_k = str_starts(rest, k);
		size_t taken = is_s ? s.len : is_k ? k.len : 1;

		buf_add_char(out, is_s ? 's' : is_k ? 'k' : *rest.p);
		rest = str_sub(rest.p + taken, rest.len - taken);
	}
	buf_fini(&text);
}

bool
json_scan_key_resembles(struct str key, struct str name)
{
	struct buf text = BUF_INIT;
	bool does;

	if (is_plain_ascii(key))
		return str_ieq(key, name);
	json_scan_key_text(key, &text);
	does = str_ieq(buf_str(&text), name);
	buf_fini(&text);
	return does;
}
