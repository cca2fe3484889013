/* conf_spec - the table of options, and finding one's way in it. */
#include "common/conf_spec.h"

#include "common/check.h"
#include "common/conf.h"

enum { START, LIVE };
#define NONE NULL

/* clang-format off */
static const struct conf_opt opts[] = {
#define SECTION(o, n, h)                    {.type = CONF_SECTION, .name = #n, .help = h, .offset = offsetof(struct o, n)},
#define END_SECTION(n)                      {.type = CONF_END},
#define LIST_OF(o, n, element, key, h)      {.type = CONF_LIST_OF, .name = #n, .names = key, .help = h, .is_live = true, \
                                             .offset = offsetof(struct o, n), .size = sizeof(struct element)},
#define END_LIST(n)                         {.type = CONF_END},
#define BOOL(o, n, d, r, h)                 {.type = CONF_BOOL, .name = #n, .def = #d, .is_live = r, .help = h, .offset = offsetof(struct o, n)},
#define INT(o, n, u, d, lo, hi, r, h)       {.type = CONF_INT, .name = #n, .unit = u, .def = #d, .min = #lo, .max = #hi, .is_live = r, .help = h, .offset = offsetof(struct o, n)},
#define AUTO(o, n, u, lo, hi, r, h)         {.type = CONF_AUTO, .name = #n, .unit = u, .def = "auto", .min = #lo, .max = #hi, .is_live = r, .help = h, .offset = offsetof(struct o, n)},
#define FLOAT(o, n, u, d, lo, hi, r, h)     {.type = CONF_FLOAT, .name = #n, .unit = u, .def = #d, .min = #lo, .max = #hi, .is_live = r, .help = h, .offset = offsetof(struct o, n)},
#define DURATION(o, n, d, lo, hi, r, h)     {.type = CONF_DURATION, .name = #n, .def = d, .min = lo, .max = hi, .is_live = r, .help = h, .offset = offsetof(struct o, n##_ms)},
#define SIZE(o, n, d, lo, hi, r, h)         {.type = CONF_SIZE, .name = #n, .def = d, .min = lo, .max = hi, .is_live = r, .help = h, .offset = offsetof(struct o, n##_bytes)},
#define STRING(o, n, d, r, h)               {.type = CONF_STRING, .name = #n, .def = d, .is_live = r, .help = h, .offset = offsetof(struct o, n)},
#define ENUM(o, n, c, d, r, h)              {.type = CONF_ENUM, .name = #n, .choices = c, .def = d, .is_live = r, .help = h, .offset = offsetof(struct o, n)},
#define SECRET(o, n, r, h)                  {.type = CONF_SECRET, .name = #n, .def = "", .has_file = true, .is_live = r, .help = h, .offset = offsetof(struct o, n)},
#define URL(o, n, c, d, r, h)               {.type = CONF_URL, .name = #n, .choices = c, .def = d, .is_live = r, .help = h, .offset = offsetof(struct o, n)},
#define DSN(o, n, c, d, r, h)               {.type = CONF_URL, .name = #n, .choices = c, .has_file = true, .def = d, .is_live = r, .help = h, .offset = offsetof(struct o, n)},
#define STRINGS(o, n, d, r, h)              {.type = CONF_STRINGS, .name = #n, .def = d, .is_live = r, .help = h, .offset = offsetof(struct o, n)},
#define MAP(o, n, r, h)                     {.type = CONF_MAP, .name = #n, .def = "", .is_live = r, .help = h, .offset = offsetof(struct o, n)},
#include "common/conf.tbl"
#include "common/conf_undef.h"
	{.type = CONF_END},
};
/* clang-format on */

const struct conf_opt *
conf_spec(void)
{
	return opts;
}

const struct conf_opt *
conf_spec_inside(const struct conf_opt *o)
{
	check(o->type == CONF_SECTION || o->type == CONF_LIST_OF);
	return o + 1;
}

const struct conf_opt *
conf_spec_next(const struct conf_opt *o)
{
	unsigned depth = 0;

	check(o->type != CONF_END);
	do {
		if (o->type == CONF_SECTION || o->type == CONF_LIST_OF)
			depth++;
		else if (o->type == CONF_END)
			depth--;
		o++;
	} while (depth > 0);
	return o;
}

const struct conf_opt *
conf_spec_find(const struct conf_opt *level, struct str name)
{
	for (const struct conf_opt *o = level; o->type != CONF_END; o = conf_spec_next(o)) {
		if (str_eq(str_of(o->name), name))
			return o;
	}
	return NULL;
}

bool
conf_opt_is_scalar(const struct conf_opt *o)
{
	return o->type >= CONF_BOOL && o->type <= CONF_URL;
}

bool
conf_opt_is_text(const struct conf_opt *o)
{
	return o->type >= CONF_STRING && o->type <= CONF_MAP;
}

const struct conf_opt *
conf_spec_find_file(const struct conf_opt *level, struct str name)
{
	static const struct str suffix = {"_file", 5};

	if (name.len <= suffix.len ||
	    !str_eq(str_sub(name.p + name.len - suffix.len, suffix.len), suffix))
		return NULL;
	const struct conf_opt *o = conf_spec_find(level, str_sub(name.p, name.len - suffix.len));
	return o != NULL && o->has_file ? o : NULL;
}

bool
conf_choices_have(const char *choices, struct str s)
{
	struct str rest = str_of(choices), one;

	while (conf_choice_next(&rest, &one)) {
		if (str_eq(one, s))
			return true;
	}
	return false;
}

void
conf_choices_describe(struct buf *out, const char *choices)
{
	struct str rest = str_of(choices), one;
	const char *between = "";

	while (conf_choice_next(&rest, &one)) {
		buf_add_cstr(out, between);
		buf_add_str(out, one);
		between = rest.p != NULL && memchr(rest.p, '|', rest.len) == NULL ? " or " : ", ";
	}
}

/* Levenshtein's distance, or a large number when a name is absurdly long. */
static size_t
edit_distance(struct str a, struct str b)
{
	enum { LONGEST = 64 };
	size_t row[LONGEST + 1];

	if (a.len > LONGEST || b.len > LONGEST)
		return SIZE_MAX;
	for (size_t j = 0; j <= b.len; j++)
		row[j] = j;
	for (size_t i = 1; i <= a.len; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= b.len; j++) {
			size_t best = diagonal + (a.p[i - 1] != b.p[j - 1]);

			diagonal = row[j];
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
		}
	}
	return row[b.len];
}

/* The dotted path of the first option anywhere that has exactly this name. */
static bool
find_elsewhere(struct str name, struct buf *ret)
{
	struct str path[8];
	size_t depth = 0;

	for (const struct conf_opt *o = opts; o < opts + ARRAY_LEN(opts) - 1; o++) {
		if (o->type == CONF_END) {
			depth--;
			continue;
		}
		if (str_eq(str_of(o->name), name)) {
			for (size_t i = 0; i < depth; i++)
				buf_printf(ret, "%.*s.", (int)path[i].len, path[i].p);
			buf_add_str(ret, name);
			return true;
		}
		if (o->type == CONF_SECTION || o->type == CONF_LIST_OF) {
			check(depth < ARRAY_LEN(path));
			path[depth++] = str_of(o->name);
		}
	}
	return false;
}

bool
conf_spec_suggest(const struct conf_opt *level, struct str name, struct buf *ret)
{
	const struct conf_opt *nearest = NULL;
	size_t best = name.len < 5 ? 2 : 3; /* one slip of the pen or two */

	for (const struct conf_opt *o = level; o->type != CONF_END; o = conf_spec_next(o)) {
		size_t distance = edit_distance(name, str_of(o->name));

		if (distance < best) {
			best = distance;
			nearest = o;
		}
	}
	if (nearest != NULL) {
		buf_add_cstr(ret, nearest->name);
		return true;
	}
	return find_elsewhere(name, ret);
}
