/*
 * delta - see delta.h. A cursor over the text; every step either takes what it
 * expects or says that this is not a text it knows.
 */
#include "worker/provider/delta.h"

#include <string.h>

struct cursor {
	const char *p, *end;
	struct buf *scratch;
	struct str content;
	bool has_choices, has_delta, has_content;
};

/* ---- tokens ---- */

static void
skip_space(struct cursor *c)
{
	while (c->p < c->end && (*c->p == ' ' || *c->p == '\t' || *c->p == '\n' || *c->p == '\r'))
		c->p++;
}

/* The next byte that is no space; 0 at the end. */
static char
peek(struct cursor *c)
{
	skip_space(c);
	return c->p < c->end ? *c->p : '\0';
}

static bool
take(struct cursor *c, char byte)
{
	if (peek(c) != byte)
		return false;
	c->p++;
	return true;
}

static bool
take_word(struct cursor *c, const char *word)
{
	size_t len = strlen(word);

	skip_space(c);
	if ((size_t)(c->end - c->p) < len || memcmp(c->p, word, len) != 0)
		return false;
	c->p += len;
	return true;
}

/* A whole number that no reader stumbles over; what follows it is the caller's to check. */
static bool
take_number(struct cursor *c, bool *ret_is_zero)
{
	const char *from;

	skip_space(c);
	from = c->p;
	while (c->p < c->end && *c->p >= '0' && *c->p <= '9')
		c->p++;
	*ret_is_zero = c->p - from == 1 && *from == '0';
	return c->p - from >= 1 && c->p - from <= 15 && (*from != '0' || *ret_is_zero);
}

/* The end of a string's run of bytes that stand for themselves. */
static const char *
plain_end(const char *p, const char *end)
{
	while (p < end && (unsigned char)*p >= 0x20 && *p != '"' && *p != '\\')
		p++;
	return p;
}

static bool
take_string(struct cursor *c, struct str *ret)
{
	const char *from;

	if (!take(c, '"'))
		return false;
	from = c->p;
	c->p = plain_end(from, c->end);
	*ret = str_sub(from, (size_t)(c->p - from));
	return c->p < c->end && *c->p++ == '"' && str_is_utf8(*ret);
}

/* The byte that a short escape stands for; 0: it is none. */
static char
unescaped(char c)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *at = c != '\0' ? strchr(from, c) : NULL;

	return at != NULL ? to[at - from] : '\0';
}

/* A string whose escapes are undone in scratch. */
static bool
take_text(struct cursor *c, struct str *ret)
{
	const char *from = (skip_space(c), c->p), *to;

	if (take_string(c, ret))
		return true;
	c->p = from;
	if (!take(c, '"'))
		return false;
	buf_clear(c->scratch);
	for (;;) {
		to = plain_end(c->p, c->end);
		buf_add(c->scratch, c->p, (size_t)(to - c->p));
		c->p = to + 1;
		if (to < c->end && *to == '"')
			break;
		if (c->end - to < 2 || *to != '\\' || unescaped(to[1]) == '\0')
			return false;
		buf_add_char(c->scratch, unescaped(to[1]));
		c->p = to + 2;
	}
	*ret = buf_str(c->scratch);
	return str_is_utf8(*ret);
}

/* A value that says nothing to us. */
static bool
take_scalar(struct cursor *c)
{
	struct str unused;
	bool is_zero;

	switch (peek(c)) {
	case '"':
		return take_string(c, &unused);
	case 'n':
		return take_word(c, "null");
	case 't':
		return take_word(c, "true");
	case 'f':
		return take_word(c, "false");
	default:
		return take_number(c, &is_zero);
	}
}

/* ---- members ---- */

typedef bool take_member(struct cursor *, struct str name);

static bool
take_object(struct cursor *c, take_member *take_value)
{
	struct str name;

	if (!take(c, '{'))
		return false;
	if (take(c, '}'))
		return true;
	do {
		if (!take_string(c, &name) || !take(c, ':') || !take_value(c, name))
			return false;
	} while (take(c, ','));
	return take(c, '}');
}

static bool
take_of_delta(struct cursor *c, struct str name)
{
	struct str role;

	if (str_eq(name, STR("content")) && peek(c) == '"') {
		bool is_second = c->has_content;

		c->has_content = true;
		return !is_second && take_text(c, &c->content);
	}
	if (str_eq(name, STR("role")))
		return take_string(c, &role);
	return !str_eq(name, STR("content")) && take_word(c, "null");
}

static bool
take_of_choice(struct cursor *c, struct str name)
{
	bool is_zero;

	if (str_eq(name, STR("index")))
		return take_number(c, &is_zero) && is_zero;
	if (str_eq(name, STR("delta"))) {
		bool is_second = c->has_delta;

		c->has_delta = true;
		return !is_second && take_object(c, take_of_delta);
	}
	return take_word(c, "null"); /* finish_reason, logprobs */
}

static bool
take_of_root(struct cursor *c, struct str name)
{
	if (str_eq(name, STR("choices"))) {
		bool is_second = c->has_choices;

		c->has_choices = true;
		return !is_second && take(c, '[') && take_object(c, take_of_choice) && take(c, ']');
	}
	if (str_eq(name, STR("error")) || str_eq(name, STR("usage")) || str_eq(name, STR("x_groq")))
		return take_word(c, "null");
	return take_scalar(c);
}

bool
delta_read(struct str json, struct buf *scratch, struct str *ret_content)
{
	struct cursor c = {.p = json.p, .end = json.p + json.len, .scratch = scratch};

	if (json.len == 0 || !take_object(&c, take_of_root) || peek(&c) != '\0' || c.p != c.end)
		return false;
	*ret_content = c.content;
	return true;
}
