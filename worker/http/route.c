/*
 * route - literal paths in a map, those with parameters in a list by number of segments.
 */
#include "worker/http/route.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/strmap.h"

enum { METHODS_MAX = 6 };

struct route_path {
	const char *pattern;
	struct str segments[ROUTE_SEGMENTS_MAX];
	unsigned segment_count, literal_count;
	struct route_entry methods[METHODS_MAX];
	unsigned method_count;
	struct route_path *next;
};

struct route_table {
	struct route_path *paths;  /* all */
	struct strmap *literal;    /* those without parameters */
	struct strmap *by_pattern; /* all */
	struct route_path *
	    *with_params[ROUTE_SEGMENTS_MAX + 1]; /* by segment_count; most literal first */
	unsigned with_params_count[ROUTE_SEGMENTS_MAX + 1];
};

static bool
is_param(struct str segment)
{
	return segment.len >= 2 && segment.p[0] == '{';
}

/* Segments of "/a/b": "a", "b". The count, or ROUTE_SEGMENTS_MAX + 1 when there are more. */
static unsigned
split_path(struct str path, struct str *ret)
{
	unsigned n = 0;

	path = str_sub(path.p + 1, path.len - 1);
	for (;;) {
		const char *slash = memchr(path.p, '/', path.len);
		size_t len = slash != NULL ? (size_t)(slash - path.p) : path.len;

		if (n == ROUTE_SEGMENTS_MAX)
			return n + 1;
		ret[n++] = str_sub(path.p, len);
		if (slash == NULL)
			return n;
		path = str_sub(slash + 1, path.len - len - 1);
	}
}

static void
index_params(struct route_table *t, struct route_path *p)
{
	unsigned n = p->segment_count, i = t->with_params_count[n]++;
	struct route_path **v =
	    xrealloc(t->with_params[n], t->with_params_count[n] * sizeof(struct route_path *));

	t->with_params[n] = v;
	for (; i > 0 && v[i - 1]->literal_count < p->literal_count; i--)
		v[i] = v[i - 1];
	v[i] = p;
}

static struct route_path *
add_path(struct route_table *t, const char *pattern)
{
	struct route_path *p = strmap_get(t->by_pattern, str_of(pattern));

	if (p != NULL)
		return p;
	check(pattern[0] == '/');
	p = xcalloc(1, sizeof(*p));
	p->pattern = pattern;
	p->segment_count = split_path(str_of(pattern), p->segments);
	check(p->segment_count <= ROUTE_SEGMENTS_MAX);
	for (unsigned i = 0; i < p->segment_count; i++)
		p->literal_count += !is_param(p->segments[i]);
	check(p->segment_count - p->literal_count <= ROUTE_PARAMS_MAX);
	p->next = t->paths;
	t->paths = p;
	strmap_set(t->by_pattern, str_of(pattern), p);
	if (p->literal_count == p->segment_count)
		strmap_set(t->literal, str_of(pattern), p);
	else
		index_params(t, p);
	return p;
}

static const struct route_entry *
find_method(const struct route_path *p, struct str method)
{
	if (str_eq(method, STR("HEAD")))
		method = STR("GET");
	for (unsigned i = 0; i < p->method_count; i++) {
		if (str_eq(str_of(p->methods[i].route->method), method))
			return &p->methods[i];
	}
	return NULL;
}

void
route_table_add(struct route_table *t, const struct http_route *route, void *arg, unsigned label)
{
	struct route_path *p = add_path(t, route->pattern);

	check(p->method_count < METHODS_MAX && find_method(p, str_of(route->method)) == NULL);
	p->methods[p->method_count++] = (struct route_entry){route, arg, label};
}

static bool
matches(const struct route_path *p, const struct str *segments, struct route_match *m)
{
	m->param_count = 0;
	for (unsigned i = 0; i < p->segment_count; i++) {
		struct str want = p->segments[i];

		if (is_param(want)) {
			if (segments[i].len == 0)
				return false;
			m->params[m->param_count].name = str_sub(want.p + 1, want.len - 2);
			m->params[m->param_count++].value = segments[i];
		} else if (!str_eq(want, segments[i])) {
			return false;
		}
	}
	return true;
}

static const struct route_path *
find_path(const struct route_table *t, struct str path, struct route_match *m)
{
	struct route_path *p = strmap_get(t->literal, path);
	struct str segments[ROUTE_SEGMENTS_MAX];
	unsigned n;

	if (p != NULL || path.len == 0 || path.p[0] != '/')
		return p;
	n = split_path(path, segments);
	for (unsigned i = 0; n <= ROUTE_SEGMENTS_MAX && i < t->with_params_count[n]; i++) {
		if (matches(t->with_params[n][i], segments, m))
			return t->with_params[n][i];
	}
	return NULL;
}

void
route_find(const struct route_table *t, struct str method, struct str path, struct route_match *m)
{
	m->param_count = 0;
	m->path = find_path(t, path, m);
	m->entry = m->path != NULL ? find_method(m->path, method) : NULL;
}

void
route_methods(const struct route_path *p, struct buf *out)
{
	for (unsigned i = 0; i < p->method_count; i++) {
		const char *method = p->methods[i].route->method;

		buf_printf(out, "%s, ", method);
		if (strcmp(method, "GET") == 0)
			buf_add_cstr(out, "HEAD, ");
	}
	buf_add_cstr(out, "OPTIONS");
}

unsigned
route_flags(const struct route_path *p)
{
	unsigned flags = 0;

	for (unsigned i = 0; i < p->method_count; i++)
		flags |= p->methods[i].route->flags;
	return flags;
}

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool
route_decode(struct str text, bool is_query, char *dst, size_t *ret_len)
{
	char *out = dst;

	for (size_t i = 0; i < text.len; i++) {
		char c = text.p[i];

		if (c == '+' && is_query)
			c = ' ';
		if (c == '%') {
			int high = i + 2 < text.len ? hex_value(text.p[i + 1]) : -1;
			int low = i + 2 < text.len ? hex_value(text.p[i + 2]) : -1;

			if (high < 0 || low < 0 || high + low == 0)
				return false;
			c = (char)(high << 4 | low);
			i += 2;
		}
		*out++ = c;
	}
	*out = '\0';
	*ret_len = (size_t)(out - dst);
	return true;
}

struct route_table *
route_table_new(void)
{
	struct route_table *t = xcalloc(1, sizeof(*t));

	t->literal = strmap_new();
	t->by_pattern = strmap_new();
	return t;
}

void
route_table_free(struct route_table **tp)
{
	struct route_table *t = *tp;

	if (t == NULL)
		return;
	*tp = NULL;
	for (struct route_path *p = t->paths, *next; p != NULL; p = next) {
		next = p->next;
		free(p);
	}
	for (unsigned i = 0; i <= ROUTE_SEGMENTS_MAX; i++)
		free(t->with_params[i]);
	strmap_free(&t->literal);
	strmap_free(&t->by_pattern);
	free(t);
}
