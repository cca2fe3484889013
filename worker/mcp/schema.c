/*
 * schema - see schema.h.
 *
 * A table of keywords, each with a function that says whether the value matches what stands there.
 * The reason is written by whoever finds the mismatch, unless it only tries (anyOf and its like).
 */
#include "worker/mcp/schema.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/str.h"

enum { UNIQUE_ITEMS_MAX = 1000, PATH_MAX_BYTES = 512, SHOWN_MAX = 200 };

struct walk {
	const json_t *root;
	struct buf path; /* of the value at hand: "location.city[2]" */
	struct buf *why; /* NULL: it only tries */
	unsigned steps, depth;
};

struct at { /* a schema that is an object, and a value */
	struct walk *walk;
	const json_t *schema, *value;
};

static bool matches(struct walk *, const json_t *schema, const json_t *value);

static bool fail(const struct at *, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static bool
fail(const struct at *a, const char *fmt, ...)
{
	struct buf *why = a->walk->why;
	va_list ap;

	if (why == NULL || why->len > 0)
		return false;
	if (a->walk->path.len > 0)
		buf_printf(why, "%s: ", a->walk->path.data);
	va_start(ap, fmt);
	buf_vprintf(why, fmt, ap);
	va_end(ap);
	return false;
}

/* Whether it matches, without a word. */
static bool
tries(struct walk *w, const json_t *schema, const json_t *value)
{
	struct buf *why = w->why;

	w->why = NULL;
	bool does = matches(w, schema, value);
	w->why = why;
	return does;
}

static size_t
push_name(struct walk *w, const char *name)
{
	size_t before = w->path.len;

	if (before < PATH_MAX_BYTES)
		buf_printf(&w->path, "%s%.*s", before > 0 ? "." : "", 100, name);
	return before;
}

static size_t
push_index(struct walk *w, size_t i)
{
	size_t before = w->path.len;

	if (before < PATH_MAX_BYTES)
		buf_printf(&w->path, "[%zu]", i);
	return before;
}

static void
pop(struct walk *w, size_t before)
{
	if (w->path.data != NULL) {
		w->path.len = before;
		w->path.data[before] = '\0';
	}
}

/* ---- any value ---- */

static bool
is_of_type(const json_t *value, const char *type)
{
	if (type == NULL)
		return true;
	if (strcmp(type, "string") == 0)
		return json_is_string(value);
	if (strcmp(type, "object") == 0)
		return json_is_object(value);
	if (strcmp(type, "array") == 0)
		return json_is_array(value);
	if (strcmp(type, "boolean") == 0)
		return json_is_boolean(value);
	if (strcmp(type, "null") == 0)
		return json_is_null(value);
	if (strcmp(type, "number") == 0)
		return json_is_number(value);
	if (strcmp(type, "integer") == 0)
		return json_is_integer(value) ||
		       (json_is_real(value) &&
			   json_real_value(value) == trunc(json_real_value(value)));
	return true;
}

static bool
check_type(const struct at *a, const json_t *type)
{
	struct buf names = BUF_INIT;

	if (json_is_string(type)) {
		const char *name = json_string_value(type);

		return is_of_type(a->value, name) ||
		       fail(
			   a, "expected %s %s.", strchr("aio", name[0]) != NULL ? "an" : "a", name);
	}
	for (size_t i = 0; i < json_array_size(type); i++) {
		const char *name = json_string_value(json_array_get(type, i));

		if (is_of_type(a->value, name)) {
			buf_fini(&names);
			return true;
		}
		if (names.len < SHOWN_MAX)
			buf_printf(&names, "%s%s", i > 0 ? " or " : "", name);
	}
	bool does = names.len == 0 || fail(a, "expected %s.", names.data);
	buf_fini(&names);
	return does;
}

static bool
are_equal(const json_t *a, const json_t *b)
{
	if (json_is_number(a) && json_is_number(b))
		return json_number_value(a) == json_number_value(b);
	return json_equal(a, b) == 1;
}

static bool
check_const(const struct at *a, const json_t *wanted)
{
	return are_equal(a->value, wanted) || fail(a, "expected another, fixed value.");
}

static bool
check_enum(const struct at *a, const json_t *choices)
{
	struct buf names = BUF_INIT;

	if (!json_is_array(choices))
		return true;
	for (size_t i = 0; i < json_array_size(choices); i++) {
		if (are_equal(a->value, json_array_get(choices, i)))
			return true;
	}
	for (size_t i = 0; i < json_array_size(choices) && names.len < SHOWN_MAX; i++) {
		char *one = json_dumps(json_array_get(choices, i), JSON_COMPACT | JSON_ENCODE_ANY);

		buf_printf(&names, "%s%.*s", i > 0 ? ", " : "", 60, one != NULL ? one : "");
		free(one);
	}
	fail(a, "expected one of %s.", names.len > 0 ? names.data : "nothing");
	buf_fini(&names);
	return false;
}

/* ---- objects ---- */

static bool
is_required(const json_t *schema, const char *name)
{
	const json_t *names = json_object_get(schema, "required");

	for (size_t i = 0; i < json_array_size(names); i++) {
		const char *one = json_string_value(json_array_get(names, i));

		if (one != NULL && strcmp(one, name) == 0)
			return true;
	}
	return false;
}

static bool
check_properties(const struct at *a, const json_t *properties)
{
	const char *name;
	json_t *schema;

	if (!json_is_object(a->value) || !json_is_object(properties))
		return true;
	json_object_foreach((json_t *)properties, name, schema)
	{
		const json_t *value = json_object_get(a->value, name);
		size_t before = push_name(a->walk, name);
		bool is_none =
		    value == NULL || (json_is_null(value) && !is_required(a->schema, name));
		bool does = is_none || matches(a->walk, schema, value);

		pop(a->walk, before);
		if (!does)
			return false;
	}
	return true;
}

static bool
check_required(const struct at *a, const json_t *names)
{
	for (size_t i = 0; json_is_object(a->value) && i < json_array_size(names); i++) {
		const char *name = json_string_value(json_array_get(names, i));

		if (name != NULL && json_object_get(a->value, name) == NULL)
			return fail(a, "\"%.100s\" is required.", name);
	}
	return true;
}

static bool
check_additional(const struct at *a, const json_t *schema)
{
	const json_t *known = json_object_get(a->schema, "properties");
	const char *name;
	json_t *value;

	if (!json_is_object(a->value) || json_object_get(a->schema, "patternProperties") != NULL)
		return true;
	json_object_foreach((json_t *)a->value, name, value)
	{
		if (json_object_get(known, name) != NULL)
			continue;
		if (json_is_false(schema))
			return fail(a, "\"%.100s\" is not known.", name);
		size_t before = push_name(a->walk, name);
		bool does = matches(a->walk, schema, value);
		pop(a->walk, before);
		if (!does)
			return false;
	}
	return true;
}

static bool
check_names(const struct at *a, const json_t *schema)
{
	const char *name;
	json_t *value;

	if (!json_is_object(a->value))
		return true;
	json_object_foreach((json_t *)a->value, name, value)
	{
		json_t *text = json_string(name);
		bool does = tries(a->walk, schema, text);

		json_decref(text);
		if (!does)
			return fail(a, "\"%.100s\" is no name that is allowed.", name);
	}
	return true;
}

static bool
check_dependent(const struct at *a, const json_t *all)
{
	const char *name;
	json_t *names;

	if (!json_is_object(a->value) || !json_is_object(all))
		return true;
	json_object_foreach((json_t *)all, name, names)
	{
		if (json_object_get(a->value, name) != NULL && !check_required(a, names))
			return false;
	}
	return true;
}

/* A limit that is no number from 0 limits nothing. */
static bool
is_within(const json_t *limit, size_t n, bool is_least)
{
	double max = json_number_value(limit);

	if (!json_is_number(limit) || max < 0)
		return true;
	return is_least ? (double)n >= max : (double)n <= max;
}

static bool
check_min_properties(const struct at *a, const json_t *limit)
{
	return !json_is_object(a->value) || is_within(limit, json_object_size(a->value), true) ||
	       fail(a, "expected at least %.0f properties.", json_number_value(limit));
}

static bool
check_max_properties(const struct at *a, const json_t *limit)
{
	return !json_is_object(a->value) || is_within(limit, json_object_size(a->value), false) ||
	       fail(a, "expected at most %.0f properties.", json_number_value(limit));
}

/* ---- arrays ---- */

static bool
check_from(const struct at *a, const json_t *schema, size_t first, size_t end)
{
	for (size_t i = first; i < end && i < json_array_size(a->value); i++) {
		size_t before = push_index(a->walk, i);
		bool does = matches(a->walk, schema, json_array_get(a->value, i));

		pop(a->walk, before);
		if (!does)
			return false;
	}
	return true;
}

static bool
check_tuple(const struct at *a, const json_t *schemas)
{
	for (size_t i = 0; i < json_array_size(schemas); i++) {
		if (!check_from(a, json_array_get(schemas, i), i, i + 1))
			return false;
	}
	return true;
}

static bool
check_items(const struct at *a, const json_t *schema)
{
	if (json_is_array(schema)) /* before draft 2020-12 */
		return check_tuple(a, schema);
	return check_from(
	    a, schema, json_array_size(json_object_get(a->schema, "prefixItems")), SIZE_MAX);
}

static bool
check_additional_items(const struct at *a, const json_t *schema)
{
	const json_t *items = json_object_get(a->schema, "items");

	return !json_is_array(items) || check_from(a, schema, json_array_size(items), SIZE_MAX);
}

static bool
check_contains(const struct at *a, const json_t *schema)
{
	if (!json_is_array(a->value) || json_object_get(a->schema, "minContains") != NULL)
		return true;
	for (size_t i = 0; i < json_array_size(a->value); i++) {
		if (tries(a->walk, schema, json_array_get(a->value, i)))
			return true;
	}
	return fail(a, "expected an item that it lacks.");
}

static bool
check_min_items(const struct at *a, const json_t *limit)
{
	return !json_is_array(a->value) || is_within(limit, json_array_size(a->value), true) ||
	       fail(a, "expected at least %.0f items.", json_number_value(limit));
}

static bool
check_max_items(const struct at *a, const json_t *limit)
{
	return !json_is_array(a->value) || is_within(limit, json_array_size(a->value), false) ||
	       fail(a, "expected at most %.0f items.", json_number_value(limit));
}

static bool
check_unique(const struct at *a, const json_t *is_wanted)
{
	size_t n = json_array_size(a->value);

	if (!json_is_true(is_wanted) || n > UNIQUE_ITEMS_MAX)
		return true;
	for (size_t i = 0; i < n; i++) {
		for (size_t j = 0; j < i; j++) {
			if (a->walk->steps++ > SCHEMA_STEPS_MAX)
				return true;
			if (are_equal(json_array_get(a->value, i), json_array_get(a->value, j)))
				return fail(a, "item %zu repeats item %zu.", i, j);
		}
	}
	return true;
}

/* ---- texts and numbers ---- */

static size_t
length_of(const json_t *text)
{
	const char *s = json_string_value(text);
	size_t n = 0;

	for (size_t i = 0; i < json_string_length(text); i++)
		n += ((unsigned char)s[i] & 0xc0) != 0x80;
	return n;
}

static bool
check_min_length(const struct at *a, const json_t *limit)
{
	return !json_is_string(a->value) || is_within(limit, length_of(a->value), true) ||
	       fail(a, "expected at least %.0f characters.", json_number_value(limit));
}

static bool
check_max_length(const struct at *a, const json_t *limit)
{
	return !json_is_string(a->value) || is_within(limit, length_of(a->value), false) ||
	       fail(a, "expected at most %.0f characters.", json_number_value(limit));
}

static bool
check_minimum(const struct at *a, const json_t *limit)
{
	double v = json_number_value(a->value), min = json_number_value(limit);
	bool is_open = json_is_true(json_object_get(a->schema, "exclusiveMinimum"));

	if (!json_is_number(a->value) || !json_is_number(limit) || v > min ||
	    (v == min && !is_open))
		return true;
	return fail(a, "expected a number %s %.15g.", is_open ? "above" : "from", min);
}

static bool
check_maximum(const struct at *a, const json_t *limit)
{
	double v = json_number_value(a->value), max = json_number_value(limit);
	bool is_open = json_is_true(json_object_get(a->schema, "exclusiveMaximum"));

	if (!json_is_number(a->value) || !json_is_number(limit) || v < max ||
	    (v == max && !is_open))
		return true;
	return fail(a, "expected a number %s %.15g.", is_open ? "below" : "up to", max);
}

static bool
check_above(const struct at *a, const json_t *limit)
{
	if (!json_is_number(a->value) || !json_is_number(limit) ||
	    json_number_value(a->value) > json_number_value(limit))
		return true;
	return fail(a, "expected a number above %.15g.", json_number_value(limit));
}

static bool
check_below(const struct at *a, const json_t *limit)
{
	if (!json_is_number(a->value) || !json_is_number(limit) ||
	    json_number_value(a->value) < json_number_value(limit))
		return true;
	return fail(a, "expected a number below %.15g.", json_number_value(limit));
}

static bool
check_multiple(const struct at *a, const json_t *of)
{
	double step = json_number_value(of);

	if (!json_is_number(a->value) || !json_is_number(of) || step <= 0)
		return true;
	double n = json_number_value(a->value) / step;
	/* 0.3 is a multiple of 0.1, for who writes schemas. */
	return fabs(n - round(n)) <= 1e-9 * fmax(1, fabs(n)) ||
	       fail(a, "expected a multiple of %.15g.", step);
}

/* ---- schemas of schemas ---- */

static bool
check_all_of(const struct at *a, const json_t *schemas)
{
	for (size_t i = 0; i < json_array_size(schemas); i++) {
		if (!matches(a->walk, json_array_get(schemas, i), a->value))
			return false;
	}
	return true;
}

static size_t
count_of(const struct at *a, const json_t *schemas, size_t enough)
{
	size_t n = 0;

	for (size_t i = 0; n < enough && i < json_array_size(schemas); i++)
		n += tries(a->walk, json_array_get(schemas, i), a->value);
	return n;
}

static bool
check_any_of(const struct at *a, const json_t *schemas)
{
	return json_array_size(schemas) == 0 || count_of(a, schemas, 1) > 0 ||
	       fail(a, "it matches none of the forms that are allowed.");
}

static bool
check_one_of(const struct at *a, const json_t *schemas)
{
	if (json_array_size(schemas) == 0)
		return true;
	switch (count_of(a, schemas, 2)) {
	case 0:
		return fail(a, "it matches none of the forms that are allowed.");
	case 1:
		return true;
	default:
		return a->walk->steps > SCHEMA_STEPS_MAX || a->walk->depth > SCHEMA_DEPTH_MAX ||
		       fail(a, "it matches more than one of the forms, of which it must be one.");
	}
}

static bool
check_not(const struct at *a, const json_t *schema)
{
	bool does = tries(a->walk, schema, a->value);

	return !does || a->walk->steps > SCHEMA_STEPS_MAX ||
	       fail(a, "it is of a form that is not allowed.");
}

static bool
check_if(const struct at *a, const json_t *schema)
{
	const json_t *next =
	    json_object_get(a->schema, tries(a->walk, schema, a->value) ? "then" : "else");

	return next == NULL || matches(a->walk, next, a->value);
}

/* RFC 6901, after the #. NULL: not there. */
static const json_t *
find(const json_t *root, const char *pointer)
{
	struct buf part = BUF_INIT;

	while (root != NULL && *pointer == '/') {
		buf_clear(&part);
		for (pointer++; *pointer != '\0' && *pointer != '/'; pointer++) {
			if (pointer[0] == '~' && (pointer[1] == '0' || pointer[1] == '1'))
				buf_add_char(&part, *++pointer == '0' ? '~' : '/');
			else
				buf_add_char(&part, *pointer);
		}
		uint64_t i;
		if (json_is_array(root))
			root = str_to_u64(buf_str(&part), &i) ? json_array_get(root, i) : NULL;
		else
			root = json_object_get(root, part.len > 0 ? part.data : "");
	}
	buf_fini(&part);
	return *pointer == '\0' ? root : NULL;
}

static bool
check_ref(const struct at *a, const json_t *ref)
{
	const char *text = json_string_value(ref);
	const json_t *there = text != NULL && text[0] == '#' ? find(a->walk->root, text + 1) : NULL;

	return there == NULL || matches(a->walk, there, a->value);
}

/* ---- all of it ---- */

static const struct {
	const char *name;
	bool (*holds)(const struct at *, const json_t *what);
} keywords[] = {
    {"type", check_type},
    {"$ref", check_ref},
    {"enum", check_enum},
    {"const", check_const},
    {"required", check_required},
    {"properties", check_properties},
    {"additionalProperties", check_additional},
    {"propertyNames", check_names},
    {"dependentRequired", check_dependent},
    {"minProperties", check_min_properties},
    {"maxProperties", check_max_properties},
    {"prefixItems", check_tuple},
    {"items", check_items},
    {"additionalItems", check_additional_items},
    {"contains", check_contains},
    {"minItems", check_min_items},
    {"maxItems", check_max_items},
    {"uniqueItems", check_unique},
    {"minLength", check_min_length},
    {"maxLength", check_max_length},
    {"minimum", check_minimum},
    {"maximum", check_maximum},
    {"exclusiveMinimum", check_above},
    {"exclusiveMaximum", check_below},
    {"multipleOf", check_multiple},
    {"allOf", check_all_of},
    {"anyOf", check_any_of},
    {"oneOf", check_one_of},
    {"not", check_not},
    {"if", check_if},
};

static bool
matches(struct walk *w, const json_t *schema, const json_t *value)
{
	struct at a = {w, schema, value};
	bool does = true;

	if (json_is_false(schema))
		return fail(&a, "nothing is allowed here.");
	if (!json_is_object(schema) || w->steps++ > SCHEMA_STEPS_MAX ||
	    w->depth >= SCHEMA_DEPTH_MAX)
		return true;
	w->depth++;
	for (size_t i = 0; does && i < ARRAY_LEN(keywords); i++) {
		const json_t *what = json_object_get(schema, keywords[i].name);

		does = what == NULL || keywords[i].holds(&a, what);
	}
	w->depth--;
	return does;
}

bool
schema_matches(const json_t *schema, const json_t *value, struct buf *why)
{
	struct walk w = {.root = schema, .why = why};

	buf_clear(why);
	bool does = matches(&w, schema, value);
	buf_fini(&w.path);
	return does;
}
