/* conf_yaml - quoting, and comments broken into lines. */
#include "common/conf_yaml.h"

void
conf_yaml_quote(struct buf *out, struct str s)
{
	/* JSON's escapes are YAML's, except that YAML also wants DEL escaped. */
	buf_add_char(out, '"');
	for (size_t i = 0; i < s.len; i++) {
		if (s.p[i] == 0x7f)
			buf_add_cstr(out, "\\x7f");
		else
			buf_add_json_escaped(out, str_sub(s.p + i, 1));
	}
	buf_add_char(out, '"');
}

void
conf_yaml_comment(struct buf *out, unsigned indent, unsigned width, struct str text)
{
	size_t column = 0;

	while (text.p != NULL) {
		struct str word = str_split(&text, ' ');

		if (column > 0 && column + 1 + word.len > width) {
			buf_add_char(out, '\n');
			column = 0;
		}
		if (column == 0) {
			buf_printf(out, "%*s#", (int)indent, "");
			column = indent + 1;
		}
		buf_printf(out, " %.*s", (int)word.len, word.p);
		column += 1 + word.len;
	}
	buf_add_char(out, '\n');
}
