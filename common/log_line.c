/* log_line - the text form as it is, the JSON form by taking the pairs out of the text. */
#include "common/log_line.h"

#include <ctype.h>

#include "common/check.h"
#include "common/clock.h"

size_t
log_line_clean(char *message, size_t len, size_t max)
{
	if (len > max) {
		len = max;
		while (len > 0 && ((unsigned char)message[len] & 0xc0) == 0x80)
			len--;
	}
	bool is_utf8 = str_is_utf8(str_sub(message, len));
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)message[i];

		if (c < 0x20 || c == 0x7f || (c >= 0x80 && !is_utf8))
			message[i] = '?';
	}
	return len;
}

void
log_line_text(struct buf *out, const struct log_line_head *head, struct str message)
{
	char time[CLOCK_RFC3339_LEN + 1], level[8];
	size_t i;

	clock_format(head->wall_ms, time);
	for (i = 0; i < sizeof(level) - 1 && head->level[i] != '\0'; i++)
		level[i] = (char)toupper((unsigned char)head->level[i]);
	level[i] = '\0';
	buf_clear(out);
	buf_printf(out, "%s %-5s ", time, level);
	buf_add_str(out, message);
	if (head->slot >= 0)
		buf_printf(out, " worker=%d", head->slot);
	buf_add_char(out, '\n');
}

static bool
is_key_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_' || c == '.' || c == '-';
}

/* The length of `"..."` at the start of s with its quotes; 0 when it has no end. */
static size_t
quoted_len(struct str s)
{
	for (size_t i = 1; i < s.len; i++) {
		if (s.p[i] == '\\')
			i++;
		else if (s.p[i] == '"')
			return i + 1;
	}
	return 0;
}

/* Cuts the next word off: up to a space that is not inside a quoted value. */
static struct str
take_word(struct str *rest)
{
	size_t i = 0;

	while (i < rest->len && is_key_char(rest->p[i]))
		i++;
	if (i > 0 && i + 1 < rest->len && rest->p[i] == '=' && rest->p[i + 1] == '"')
		i += 1 + quoted_len(str_sub(rest->p + i + 1, rest->len - i - 1));
	while (i < rest->len && rest->p[i] != ' ')
		i++;
	struct str word = str_sub(rest->p, i);
	*rest = str_sub(rest->p + i, rest->len - i);
	return word;
}

static bool
is_pair(struct str word, struct str *ret_key, struct str *ret_value)
{
	size_t i = 0;

	while (i < word.len && is_key_char(word.p[i]))
		i++;
	if (i == 0 || i == word.len || word.p[i] != '=')
		return false;
	*ret_key = str_sub(word.p, i);
	*ret_value = str_sub(word.p + i + 1, word.len - i - 1);
	return true;
}

/* A number as JSON writes it, short enough that no reader loses digits. */
static bool
is_json_number(struct str s)
{
	size_t i = 0, digits = 0;

	if (i < s.len && s.p[i] == '-')
		i++;
	size_t first = i;
	for (; i < s.len && isdigit((unsigned char)s.p[i]); i++)
		digits++;
	if (digits == 0 || (digits > 1 && s.p[first] == '0'))
		return false;
	if (i < s.len && s.p[i] == '.') {
		size_t point = i++;

		for (; i < s.len && isdigit((unsigned char)s.p[i]); i++)
			digits++;
		if (i == point + 1)
			return false;
	}
	return i == s.len && digits <= 15;
}

/* The escapes of log_quote() are undone, those of JSON done. */
static void
add_quoted(struct buf *out, struct str inside)
{
	buf_add_char(out, '"');
	for (size_t i = 0; i < inside.len; i++) {
		if (inside.p[i] == '\\' && i + 1 < inside.len)
			i++;
		buf_add_json_escaped(out, str_sub(inside.p + i, 1));
	}
	buf_add_char(out, '"');
}

static void
add_value(struct buf *out, struct str v)
{
	if (v.len >= 2 && v.p[0] == '"' && quoted_len(v) == v.len) {
		add_quoted(out, str_sub(v.p + 1, v.len - 2));
	} else if (is_json_number(v) || str_eq(v, STR("true")) || str_eq(v, STR("false"))) {
		buf_add_str(out, v);
	} else {
		buf_add_char(out, '"');
		buf_add_json_escaped(out, v);
		buf_add_char(out, '"');
	}
}

static void
add_pair(struct buf *out, struct str key, struct str value)
{
	static const char *const taken[] = {"time", "level", "pid", "slot", "msg"};
	bool is_taken = false;

	for (size_t i = 0; i < ARRAY_LEN(taken); i++)
		is_taken = is_taken || str_eq(key, str_of(taken[i]));
	buf_add_cstr(out, is_taken ? ",\"of_" : ",\"");
	buf_add_str(out, key);
	buf_add_cstr(out, "\":");
	add_value(out, value);
}

void
log_line_json(struct buf *out, const struct log_line_head *head, struct str message)
{
	char time[CLOCK_RFC3339_LEN + 1];
	struct str rest = message, word, key, value;
	bool is_first = true;

	clock_format(head->wall_ms, time);
	buf_clear(out);
	buf_printf(out, "{\"time\":\"%s\",\"level\":\"%s\",\"pid\":%d,\"slot\":%d,\"msg\":\"", time,
	    head->level, head->pid, head->slot);
	while ((rest = str_trim(rest)).len > 0) {
		word = take_word(&rest);
		if (is_pair(word, &key, &value))
			continue;
		if (!is_first)
			buf_add_char(out, ' ');
		buf_add_json_escaped(out, word);
		is_first = false;
	}
	buf_add_char(out, '"');
	for (rest = message; (rest = str_trim(rest)).len > 0;) {
		word = take_word(&rest);
		if (is_pair(word, &key, &value))
			add_pair(out, key, value);
	}
	buf_add_cstr(out, "}\n");
}
