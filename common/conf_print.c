/*
 * conf_print - the values in effect as YAML, and what differs between two
 * configurations. Never a secret: those are "***", the password of an address, too.
 */
#include "common/check.h"
#include "common/conf.h"
#include "common/conf_spec.h"
#include "common/conf_value.h"
#include "common/conf_yaml.h"

/* As every list of maps begins. */
struct elements {
	char *v;
	size_t n;
};

static struct elements
elements_at(const char *base, const struct conf_opt *list)
{
	struct elements e;

	memcpy(&e, base + list->offset, sizeof(e));
	return e;
}

static bool
is_secret_word(struct str name)
{
	static const struct str words[] = {STR("password"), STR("sslpassword"), STR("token"),
	    STR("secret"), STR("key"), STR("api_key")};

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (str_ieq(name, words[i]))
			return true;
	}
	return false;
}

/*
 * scheme://user:SECRET@host/path?password=SECRET. Up to the last @ of all, because a
 * careless password may hold any character; what stands alone before the @ of a web
 * address is a token.
 */
static void
redact_url(const char *url, struct buf *out)
{
	const char *sep = strstr(url, "://"), *at = strrchr(url, '@');
	bool is_web = strncmp(url, "http", 4) == 0;
	struct str query = str_of(url);

	if (sep != NULL && at != NULL && at > sep) {
		const char *user = sep + 3;
		const char *colon = memchr(user, ':', (size_t)(at - user));
		const char *shown_end = colon != NULL ? colon + 1 : is_web ? user : at;

		buf_add(out, url, (size_t)(shown_end - url));
		buf_add_cstr(out, shown_end < at ? "***" : "");
		query = str_of(at);
	}
	buf_add_str(out, str_split(&query, '?'));
	for (char before = '?'; query.p != NULL; before = '&') {
		struct str value = str_split(&query, '&'), name = str_split(&value, '=');
		bool is_secret = is_secret_word(name);

		buf_printf(out, "%c%.*s", before, (int)name.len, name.p != NULL ? name.p : "");
		if (value.p != NULL)
			buf_printf(out, "=%.*s", is_secret ? 3 : (int)value.len,
			    is_secret ? "***" : value.p);
	}
}

static void
print_text(const struct conf_opt *o, const char *text, struct buf *out)
{
	struct buf redacted = BUF_INIT;

	if (o->type == CONF_ENUM) {
		buf_add_cstr(out, text);
	} else if (o->type == CONF_SECRET) {
		buf_add_cstr(out, *text != '\0' ? "\"***\"" : "\"\"");
	} else if (o->type == CONF_URL) {
		buf_add_cstr(&redacted, "");
		redact_url(text, &redacted);
		conf_yaml_quote(out, buf_str(&redacted));
	} else {
		conf_yaml_quote(out, str_of(text));
	}
	buf_fini(&redacted);
}

static void
print_strings(const struct conf_list *list, struct buf *out)
{
	buf_add_char(out, '[');
	for (size_t i = 0; i < list->n; i++) {
		buf_add_cstr(out, i > 0 ? ", " : "");
		conf_yaml_quote(out, str_of(list->v[i]));
	}
	buf_add_char(out, ']');
}

static void
print_map(const struct conf_map *map, struct buf *out)
{
	buf_add_char(out, '{');
	for (size_t i = 0; i < map->n; i++) {
		buf_add_cstr(out, i > 0 ? ", " : "");
		conf_yaml_quote(out, str_of(map->v[i].name));
		buf_add_cstr(out, ": \"***\"");
	}
	buf_add_char(out, '}');
}

static void
print_value(const struct conf_opt *o, const void *value, struct buf *out)
{
	int64_t n;

	switch (o->type) {
	case CONF_BOOL:
		buf_add_cstr(out, *(const bool *)value ? "true" : "false");
		break;
	case CONF_INT:
	case CONF_AUTO:
		n = *(const int64_t *)value;
		if (o->type == CONF_AUTO && n == 0)
			buf_add_cstr(out, "auto");
		else
			buf_printf(out, "%lld", (long long)n);
		break;
	case CONF_FLOAT:
		conf_format_float(out, *(const double *)value);
		break;
	case CONF_DURATION:
		conf_format_duration(out, *(const uint64_t *)value);
		break;
	case CONF_SIZE:
		conf_format_size(out, *(const uint64_t *)value);
		break;
	case CONF_STRINGS:
		print_strings(value, out);
		break;
	case CONF_MAP:
		print_map(value, out);
		break;
	default:
		check(conf_opt_is_text(o));
		print_text(o, *(const char *const *)value, out);
	}
}

static void print_level(const struct conf_opt *level, const char *base, unsigned indent,
    bool is_element, struct buf *out);

static void
print_elements(const struct conf_opt *o, const char *base, unsigned indent, struct buf *out)
{
	struct elements e = elements_at(base, o);

	buf_add_cstr(out, e.n == 0 ? " []\n" : "\n");
	for (size_t i = 0; i < e.n; i++)
		print_level(conf_spec_inside(o), e.v + i * o->size, indent + 4, true, out);
}

/* The first line of an element of a list has its dash. */
static void
print_level(const struct conf_opt *level, const char *base, unsigned indent, bool is_element,
    struct buf *out)
{
	for (const struct conf_opt *o = level; o->type != CONF_END; o = conf_spec_next(o)) {
		if (is_element && o == level)
			buf_printf(out, "%*s- %s:", (int)indent - 2, "", o->name);
		else
			buf_printf(out, "%*s%s:", (int)indent, "", o->name);
		if (o->type == CONF_SECTION) {
			buf_add_char(out, '\n');
			print_level(conf_spec_inside(o), base + o->offset, indent + 2, false, out);
		} else if (o->type == CONF_LIST_OF) {
			print_elements(o, base, indent, out);
		} else {
			buf_add_char(out, ' ');
			print_value(o, base + o->offset, out);
			buf_add_char(out, '\n');
		}
	}
}

void
conf_print(const struct conf *conf, struct buf *out)
{
	print_level(conf_spec(), (const char *)conf, 0, false, out);
}

/* ---- what a reload cannot change ---- */

static bool
is_same(const struct conf_opt *o, const void *a, const void *b)
{
	struct buf text_a = BUF_INIT, text_b = BUF_INIT;

	check(o->type != CONF_MAP);                        /* printed without its values */
	if (o->type == CONF_SECRET || o->type == CONF_URL) /* printed without what may differ */
		return strcmp(*(const char *const *)a, *(const char *const *)b) == 0;
	print_value(o, a, &text_a);
	print_value(o, b, &text_b);
	bool result = str_eq(buf_str(&text_a), buf_str(&text_b));
	buf_fini(&text_a);
	buf_fini(&text_b);
	return result;
}

/* Elements of lists are all live: the table has no other. */
static size_t
diff_level(const struct conf_opt *level, const char *prefix, const char *a, const char *b,
    struct buf *keys)
{
	size_t count = 0;

	for (const struct conf_opt *o = level; o->type != CONF_END; o = conf_spec_next(o)) {
		struct buf name = BUF_INIT;

		buf_printf(&name, "%s%s", prefix, o->name);
		if (o->type == CONF_SECTION) {
			buf_add_char(&name, '.');
			count += diff_level(
			    conf_spec_inside(o), name.data, a + o->offset, b + o->offset, keys);
		} else if (!o->is_live && !is_same(o, a + o->offset, b + o->offset)) {
			buf_printf(keys, "%s\n", name.data);
			count++;
		}
		buf_fini(&name);
	}
	return count;
}

size_t
conf_diff_needs_restart(const struct conf *old, const struct conf *new, struct buf *keys)
{
	return diff_level(conf_spec(), "", (const char *)old, (const char *)new, keys);
}
