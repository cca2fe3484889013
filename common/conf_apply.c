/*
 * conf_apply - from texts to values: each option by its type and range.
 *
 * Walks the table and the tree side by side. It knows nothing of what the
 * options mean; what must hold between them is conf_check's.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/check.h"
#include "common/conf_load.h"
#include "common/conf_spec.h"
#include "common/conf_value.h"

enum { SECRET_FILE_MAX = 64 * 1024, SHOWN_MAX = 60 };

struct walk {
	struct conf_loader *loader;
	struct buf path;            /* of the option at hand: "providers[0].name" */
	const struct conf_node *at; /* the map that it is in, or what is in place of that */
	bool is_shapeless; /* that is no map, which was reported: no more about what it lacks */
};

static size_t
path_push(struct walk *w, const char *name)
{
	size_t before = w->path.len;

	buf_printf(&w->path, "%s%s", before > 0 ? "." : "", name);
	return before;
}

static void
path_pop(struct walk *w, size_t before)
{
	w->path.len = before;
	w->path.data[before] = '\0';
}

/* "expected ..., got ..": the value is shown only where it cannot be a secret. */
static void
fail_value(
    struct walk *w, const struct conf_opt *o, const struct conf_node *node, const char *expected)
{
	struct buf got = BUF_INIT;
	bool is_secret = o->type == CONF_SECRET || o->type == CONF_URL || o->type == CONF_MAP;

	if (node->kind == CONF_SCALAR && !is_secret && !node->is_substituted) {
		struct str text = str_of(node->text);

		buf_add_cstr(&got, ", got \"");
		buf_add_json_escaped(
		    &got, str_sub(text.p, text.len < SHOWN_MAX ? text.len : SHOWN_MAX));
		buf_add_cstr(&got, text.len > SHOWN_MAX ? "..\"" : "\"");
	} else if (node->kind != CONF_SCALAR) {
		buf_add_cstr(&got, node->kind == CONF_MAPPING ? ", got a map" : ", got a list");
	}
	conf_fail(
	    w->loader, node, w->path.data, "expected %s%s", expected, got.len > 0 ? got.data : "");
	buf_fini(&got);
}

static bool
is_null(const struct conf_node *n)
{
	struct str text;

	if (n->kind != CONF_SCALAR || !n->is_plain)
		return false;
	text = str_of(n->text);
	return text.len == 0 || str_eq(text, STR("~")) || str_eq(text, STR("null"));
}

/* ---- numbers ---- */

static bool
set_int(const struct conf_opt *o, struct str s, int64_t *ret)
{
	int64_t v, min, max;

	check(conf_parse_int(str_of(o->min), &min) && conf_parse_int(str_of(o->max), &max));
	if (o->type == CONF_AUTO && str_ieq(s, STR("auto"))) {
		*ret = 0;
		return true;
	}
	if (!conf_parse_int(s, &v) || v < min || v > max)
		return false;
	*ret = v;
	return true;
}

static bool
set_float(const struct conf_opt *o, struct str s, double *ret)
{
	double v, min, max;

	check(conf_parse_float(str_of(o->min), &min) && conf_parse_float(str_of(o->max), &max));
	if (!conf_parse_float(s, &v) || v < min || v > max)
		return false;
	*ret = v;
	return true;
}

static bool
set_amount(
    const struct conf_opt *o, struct str s, bool (*parse)(struct str, uint64_t *), uint64_t *ret)
{
	uint64_t v, min, max;

	check(parse(str_of(o->min), &min) && parse(str_of(o->max), &max));
	if (!parse(s, &v) || v < min || v > max)
		return false;
	*ret = v;
	return true;
}

static bool
set_number(const struct conf_opt *o, struct str s, void *ret)
{
	switch (o->type) {
	case CONF_BOOL:
		return conf_parse_bool(s, ret);
	case CONF_INT:
	case CONF_AUTO:
		return set_int(o, s, ret);
	case CONF_FLOAT:
		return set_float(o, s, ret);
	case CONF_DURATION:
		return set_amount(o, s, conf_parse_duration, ret);
	default:
		check(o->type == CONF_SIZE);
		return set_amount(o, s, conf_parse_size, ret);
	}
}

static void
fail_number(struct walk *w, const struct conf_opt *o, const struct conf_node *node)
{
	struct buf what = BUF_INIT;

	if (o->type == CONF_BOOL) {
		buf_add_cstr(&what, "true or false");
	} else {
		static const char *const names[] = {[CONF_INT] = "a whole number",
		    [CONF_AUTO] = "auto or a whole number",
		    [CONF_FLOAT] = "a number",
		    [CONF_DURATION] = "a duration (500ms, 30s, 5m, 1h, 1d)",
		    [CONF_SIZE] = "a size (512, 16KiB, 1MiB)"};

		buf_printf(&what, "%s from %s to %s", names[o->type], o->min, o->max);
	}
	fail_value(w, o, node, what.data);
	buf_fini(&what);
}

/* ---- texts ---- */

static const char *
keep(struct walk *w, struct str s)
{
	return s.len > 0 ? arena_strdup(&w->loader->conf->arena, s) : "";
}

/* A scheme of the choices, and no blanks or control characters. */
static bool
is_url(const char *schemes, struct str s)
{
	struct str rest = str_of(schemes), one;

	for (size_t i = 0; i < s.len; i++) {
		if ((unsigned char)s.p[i] <= ' ' || s.p[i] == 0x7f)
			return false;
	}
	while (conf_choice_next(&rest, &one)) {
		if (str_starts(s, one) && s.len > one.len)
			return true;
	}
	return false;
}

static bool
set_text(struct walk *w, const struct conf_opt *o, const struct conf_node *node, struct str s,
    const char **ret)
{
	struct buf what = BUF_INIT;

	if (!str_is_utf8(s)) {
		buf_add_cstr(&what, "text in UTF-8");
	} else if (o->type == CONF_ENUM && !conf_choices_have(o->choices, s)) {
		conf_choices_describe(&what, o->choices);
	} else if (o->type == CONF_URL && (s.len > 0 || o->def == NULL) && !is_url(o->choices, s)) {
		buf_add_cstr(&what, "an address that begins with ");
		conf_choices_describe(&what, o->choices);
	} else if (o->type == CONF_STRING && s.len == 0 && o->def == NULL) {
		buf_add_cstr(&what, "a text that is not empty");
	} else {
		*ret = keep(w, s);
		return true;
	}
	fail_value(w, o, node, what.data);
	buf_fini(&what);
	return false;
}

/* 0 or errno. Regular files only: a device or a pipe could hold us up. */
static int
read_secret_file(const char *path, struct buf *ret)
{
	struct stat st;
	int error = 0, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return errno;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > SECRET_FILE_MAX) {
		error = EINVAL;
	} else {
		ssize_t n = read(fd, buf_reserve(ret, SECRET_FILE_MAX), SECRET_FILE_MAX);

		if (n < 0)
			error = errno;
		else
			ret->len = (size_t)n;
	}
	close(fd);
	while (ret->len > 0 && (ret->data[ret->len - 1] == '\n' || ret->data[ret->len - 1] == '\r'))
		ret->len--;
	if (ret->len > 0 && memchr(ret->data, '\0', ret->len) != NULL)
		error = EINVAL;
	return error;
}

static bool
is_scalar_here(struct walk *w, const struct conf_opt *o, const struct conf_node *node)
{
	if (node->kind != CONF_SCALAR) {
		fail_value(w, o, node, "one value");
		return false;
	}
	if (node->missing != NULL && !(o->type == CONF_SECRET && *node->text == '\0')) {
		conf_fail(
		    w->loader, node, w->path.data, "the environment has no %s", node->missing);
		return false;
	}
	return true;
}

static bool
set_from_file(
    struct walk *w, const struct conf_opt *o, const struct conf_node *node, const char **ret)
{
	static const struct conf_opt path_text = {.type = CONF_STRING, .def = ""};
	struct buf text = BUF_INIT;
	bool is_ok = false;

	buf_add_cstr(&w->path, "_file");
	if (!is_scalar_here(w, &path_text, node))
		return false;
	if (*node->text == '\0')
		return true; /* as if absent */
	int error = read_secret_file(node->text, &text);
	if (error != 0)
		conf_fail(w->loader, node, w->path.data,
		    "expected a readable file of at most 64KiB of text: %s", strerror(error));
	else
		is_ok = set_text(w, o, node, buf_str(&text), ret);
	buf_fini(&text);
	return is_ok;
}

static bool
set_scalar(struct walk *w, const struct conf_opt *o, const struct conf_node *node, void *ret)
{
	if (!is_scalar_here(w, o, node))
		return false;
	if (conf_opt_is_text(o)) {
		if (node->missing != NULL)
			conf_warn(w->loader, node, w->path.data, "the environment has no %s",
			    node->missing);
		return set_text(w, o, node, is_null(node) ? STR("") : str_of(node->text), ret);
	}
	if (set_number(o, str_of(node->text), ret))
		return true;
	fail_number(w, o, node);
	return false;
}

/* ---- lists of texts, maps of texts ---- */

static void
split_commas(struct walk *w, struct str text, struct conf_list *ret)
{
	struct arena *arena = &w->loader->conf->arena;
	struct conf_list list = {NULL, 0};
	size_t room = 1;

	for (size_t i = 0; i < text.len; i++)
		room += text.p[i] == ',';
	list.v = arena_calloc(arena, room * sizeof(*list.v));
	while (text.len > 0) {
		struct str one = str_trim(str_split(&text, ','));

		if (one.len > 0)
			list.v[list.n++] = arena_strdup(arena, one);
	}
	*ret = list;
}

static void
set_strings(
    struct walk *w, const struct conf_opt *o, const struct conf_node *node, struct conf_list *ret)
{
	struct conf_opt text = {.type = CONF_STRING, .def = ""};
	struct conf_list list = {NULL, 0};

	if (node->kind == CONF_SCALAR && node->origin != NULL && str_is_utf8(str_of(node->text))) {
		split_commas(w, str_of(node->text), ret);
		return;
	}
	if (node->kind != CONF_SEQUENCE) {
		fail_value(w, o, node, "a list, as in [\"a\", \"b\"]");
		return;
	}
	list.v = arena_calloc(&w->loader->conf->arena, (node->count + 1) * sizeof(*list.v));
	for (const struct conf_node *n = node->first; n != NULL; n = n->next) {
		if (set_scalar(w, &text, n, &list.v[list.n]))
			list.n++;
	}
	*ret = list;
}

static void
set_map(
    struct walk *w, const struct conf_opt *o, const struct conf_node *node, struct conf_map *ret)
{
	struct conf_map map = {NULL, 0};

	if (is_null(node))
		return;
	if (node->kind != CONF_MAPPING) {
		fail_value(w, o, node, "a map, as in {name: \"value\"}");
		return;
	}
	map.v = arena_calloc(&w->loader->conf->arena, (node->count + 1) * sizeof(*map.v));
	for (const struct conf_node *n = node->first; n != NULL; n = n->next) {
		struct conf_opt text = {.type = CONF_MAP, .def = ""};
		struct conf_pair *pair = &map.v[map.n];
		size_t before = path_push(w, n->key);

		if (is_scalar_here(w, &text, n) &&
		    set_text(w, &text, n, str_of(n->text), &pair->value)) {
			pair->name = keep(w, str_of(n->key));
			map.n++;
		}
		path_pop(w, before);
	}
	*ret = map;
}

/* ---- defaults ---- */

static void
set_default(struct walk *w, const struct conf_opt *o, void *ret)
{
	const char *def = o->def != NULL ? o->def : "";

	if (o->type == CONF_STRINGS)
		split_commas(w, str_of(def), ret);
	else if (o->type == CONF_MAP)
		*(struct conf_map *)ret = (struct conf_map){NULL, 0};
	else if (conf_opt_is_text(o))
		*(const char **)ret = def;
	else
		check(set_number(o, str_of(def), ret));
}

/* ---- the walk ---- */

static void apply_level(
    struct walk *, const struct conf_opt *level, const struct conf_node *map, char *base);

static void
apply_option(struct walk *w, const struct conf_opt *o, const struct conf_node *map, void *ret)
{
	const struct conf_node *node = map != NULL ? conf_node_child(map, str_of(o->name)) : NULL;
	const struct conf_node *file = NULL;

	set_default(w, o, ret);
	if (map != NULL && o->has_file) {
		struct buf name = BUF_INIT;

		buf_printf(&name, "%s_file", o->name);
		file = conf_node_child(map, buf_str(&name));
		buf_fini(&name);
	}
	if (node != NULL && file != NULL)
		conf_fail(w->loader, file, w->path.data, "expected %s or %s_file, got both",
		    o->name, o->name);
	else if (node == NULL && file == NULL && o->def == NULL && !w->is_shapeless)
		conf_fail(w->loader, w->at, w->path.data, "must be given");
	else if (file != NULL)
		set_from_file(w, o, file, ret);
	else if (node != NULL && o->type == CONF_STRINGS)
		set_strings(w, o, node, ret);
	else if (node != NULL && o->type == CONF_MAP)
		set_map(w, o, node, ret);
	else if (node != NULL)
		set_scalar(w, o, node, ret);
}

static void
apply_section(struct walk *w, const struct conf_opt *o, const struct conf_node *node, char *base)
{
	struct walk outer = *w;

	if (node != NULL) {
		w->at = node;
		if (node->kind != CONF_MAPPING && !is_null(node)) {
			fail_value(w, o, node, "a map of options");
			w->is_shapeless = true;
		}
	}
	apply_level(
	    w, conf_spec_inside(o), node != NULL && node->kind == CONF_MAPPING ? node : NULL, base);
	w->at = outer.at;
	w->is_shapeless = outer.is_shapeless;
}

static void
apply_list(struct walk *w, const struct conf_opt *o, const struct conf_node *node, void *ret)
{
	struct { /* as every list of maps begins */
		void *v;
		size_t n;
	} list = {NULL, 0};

	if (node != NULL && node->kind == CONF_SEQUENCE) {
		char *v = arena_calloc(&w->loader->conf->arena, (node->count + 1) * o->size);
		size_t i = 0, before = w->path.len;

		for (const struct conf_node *n = node->first; n != NULL; n = n->next, i++) {
			buf_printf(&w->path, "[%zu]", i);
			apply_section(w, o, n, v + i * o->size);
			path_pop(w, before);
		}
		list.v = v;
		list.n = i;
	} else if (node != NULL && !is_null(node)) {
		fail_value(w, o, node, "a list of maps");
	}
	memcpy(ret, &list, sizeof(list));
}

static void
fail_unknown(struct walk *w, const struct conf_opt *level, const struct conf_node *node)
{
	struct buf meant = BUF_INIT;
	size_t before = path_push(w, node->key);

	if (conf_spec_suggest(level, str_of(node->key), &meant))
		conf_fail(
		    w->loader, node, w->path.data, "unknown key; did you mean %s?", meant.data);
	else
		conf_fail(w->loader, node, w->path.data, "unknown key");
	path_pop(w, before);
	buf_fini(&meant);
}

static void
apply_level(struct walk *w, const struct conf_opt *level, const struct conf_node *map, char *base)
{
	for (const struct conf_opt *o = level; o->type != CONF_END; o = conf_spec_next(o)) {
		const struct conf_node *node =
		    map != NULL ? conf_node_child(map, str_of(o->name)) : NULL;
		size_t before = path_push(w, o->name);

		if (o->type == CONF_SECTION)
			apply_section(w, o, node, base + o->offset);
		else if (o->type == CONF_LIST_OF)
			apply_list(w, o, node, base + o->offset);
		else
			apply_option(w, o, map, base + o->offset);
		path_pop(w, before);
	}
	for (const struct conf_node *n = map != NULL ? map->first : NULL; n != NULL; n = n->next) {
		struct str key = str_of(n->key);

		if (conf_spec_find(level, key) == NULL && conf_spec_find_file(level, key) == NULL)
			fail_unknown(w, level, n);
	}
}

void
conf_apply(struct conf_loader *l)
{
	struct walk w = {.loader = l, .path = BUF_INIT};

	buf_add_cstr(&w.path, "");
	apply_level(&w, conf_spec(), l->root, (char *)l->conf);
	buf_fini(&w.path);
}
