/*
 * conf_env - the environment and the flags, laid over the tree.
 *
 *   PARLEY_HTTP__MAX_BODY            http.max_body
 *   PARLEY_PROVIDERS__0__BASE_URL    by index; the next free index makes an element
 *   PARLEY_PROVIDERS__OPENAI__..     by name
 *
 * A variable with `__` that names no option is an error. One without is left
 * alone, because platforms set such names, too (PARLEY_PORT for a service of
 * that name); where it is nearly an option, there is a warning.
 */
#include <ctype.h>

#include "common/check.h"
#include "common/conf_load.h"
#include "common/conf_spec.h"

enum { PATH_MAX_LEN = 256 };

static const struct str prefix = {"PARLEY_", 7};

struct place {
	const struct conf_opt *level;
	struct conf_node *map;
	const char *origin;
};

static struct conf_node *
add_origin(struct conf_loader *l, struct place *at, enum conf_kind kind, struct str key)
{
	struct conf_node *n = conf_node_add(l, at->map, kind, key);

	n->origin = at->origin;
	return n;
}

/* Does the element's name, as it would be written in a variable, equal the token? */
static bool
is_named(const struct conf_opt *list, const struct conf_node *element, struct str token)
{
	const struct conf_node *name = conf_node_child(element, str_of(list->names));

	if (name == NULL || name->kind != CONF_SCALAR || strlen(name->text) != token.len)
		return false;
	for (size_t i = 0; i < token.len; i++) {
		int c = isalnum((unsigned char)name->text[i])
			    ? tolower((unsigned char)name->text[i])
			    : '_';

		if (c != token.p[i])
			return false;
	}
	return true;
}

/* The element of a list that the token means, by index or name; made when it is the next one. */
static struct conf_node *
find_element(struct conf_loader *l, struct place *at, const struct conf_opt *list, struct str token)
{
	struct conf_node *seq = conf_node_child(at->map, str_of(list->name));
	uint64_t index;

	if (seq == NULL)
		seq = add_origin(l, at, CONF_SEQUENCE, str_of(list->name));
	if (seq->kind != CONF_SEQUENCE)
		return NULL;
	if (str_to_u64(token, &index)) {
		if (index == seq->count && seq->count < CONF_CHILDREN_MAX) {
			struct conf_node *n = conf_node_add(l, seq, CONF_MAPPING, STR_NONE);

			n->origin = at->origin;
			return n;
		}
		return index < seq->count ? conf_node_at(seq, (unsigned)index) : NULL;
	}
	for (struct conf_node *n = seq->first; n != NULL; n = n->next) {
		if (is_named(list, n, token))
			return n;
	}
	return NULL;
}

static struct str
next_token(struct str *rest, const char *separator)
{
	const char *at = memmem(rest->p, rest->len, separator, strlen(separator));
	struct str token = *rest;

	if (at == NULL) {
		*rest = STR_NONE;
		return token;
	}
	token.len = (size_t)(at - rest->p);
	*rest = str_sub(at + strlen(separator), rest->len - token.len - strlen(separator));
	return token;
}

/* One step down. False: no such place. */
static bool
descend(struct conf_loader *l, struct place *at, const struct conf_opt *o, struct str *rest,
    const char *separator)
{
	struct conf_node *next;

	if (o->type == CONF_LIST_OF) {
		next = find_element(l, at, o, next_token(rest, separator));
	} else {
		next = conf_node_child(at->map, str_of(o->name));
		if (next == NULL)
			next = add_origin(l, at, CONF_MAPPING, str_of(o->name));
	}
	if (next == NULL || next->kind != CONF_MAPPING || rest->p == NULL)
		return false;
	at->map = next;
	at->level = conf_spec_inside(o);
	return true;
}

static void
remove_key(struct conf_node *map, const char *name, const char *suffix)
{
	struct buf key = BUF_INIT;

	buf_printf(&key, "%s%s", name, suffix);
	const struct conf_node *n = conf_node_child(map, buf_str(&key));
	if (n != NULL)
		conf_node_remove(map, n);
	buf_fini(&key);
}

/* name and name_file stand for each other: the new one replaces both. */
static void
put_value(struct conf_loader *l, struct place *at, const struct conf_opt *o, bool is_file,
    const char *value)
{
	struct buf key = BUF_INIT;

	buf_printf(&key, "%s%s", o->name, is_file ? "_file" : "");
	remove_key(at->map, o->name, "");
	if (o->has_file)
		remove_key(at->map, o->name, "_file");
	struct conf_node *n = add_origin(l, at, CONF_SCALAR, buf_str(&key));
	n->text = n->raw = arena_strdup(&l->arena, str_of(value));
	buf_fini(&key);
}

/* False: the path (lower case) names no scalar or list of texts. An empty value of a number is as
 * if absent: compose files pass `X: ${X:-}`. */
static bool
put(struct conf_loader *l, struct str path, const char *separator, const char *value,
    const char *origin)
{
	struct place at = {.level = conf_spec(), .map = l->root, .origin = origin};

	while (path.p != NULL) {
		struct str token = next_token(&path, separator);
		const struct conf_opt *o = conf_spec_find(at.level, token);
		const struct conf_opt *file = conf_spec_find_file(at.level, token);

		if (path.p == NULL) {
			if (o == NULL && file == NULL)
				return false;
			if (o != NULL && !conf_opt_is_scalar(o) && o->type != CONF_STRINGS)
				return false;
			if (o == NULL || conf_opt_is_text(o) || *value != '\0')
				put_value(l, &at, o != NULL ? o : file, o == NULL, value);
			return true;
		}
		if (o == NULL || (o->type != CONF_SECTION && o->type != CONF_LIST_OF) ||
		    !descend(l, &at, o, &path, separator))
			return false;
	}
	return false;
}

/* ---- the environment ---- */

/* WORKERS and its like; an empty one is as if unset. */
static void
put_known(struct conf_loader *l, const char *name, const char *path)
{
	const char *value = conf_getenv(l, str_of(name));

	if (value != NULL && *value != '\0')
		check(put(l, str_of(path), ".", value, arena_strdup(&l->arena, str_of(name))));
}

/* OPENAI_API_KEY for the provider `openai`, and so on. */
static void
put_provider_keys(struct conf_loader *l)
{
	const struct conf_node *list = conf_node_child(l->root, STR("providers"));
	struct buf name = BUF_INIT, path = BUF_INIT;
	unsigned i = 0;

	for (const struct conf_node *n = list != NULL ? list->first : NULL; n != NULL;
	     n = n->next, i++) {
		const struct conf_node *named = conf_node_child(n, STR("name"));

		if (n->kind != CONF_MAPPING || list->kind != CONF_SEQUENCE || named == NULL ||
		    named->kind != CONF_SCALAR)
			continue;
		buf_clear(&name);
		buf_clear(&path);
		for (const char *c = named->text; *c != '\0'; c++)
			buf_add_char(&name,
			    (char)(isalnum((unsigned char)*c) ? toupper((unsigned char)*c) : '_'));
		buf_add_cstr(&name, "_API_KEY");
		buf_printf(&path, "providers.%u.api_key", i);
		put_known(l, name.data, path.data);
	}
	buf_fini(&name);
	buf_fini(&path);
}

static void
report_unknown(struct conf_loader *l, const char *name, struct str path)
{
	struct conf_node at = {.origin = name};
	struct buf meant = BUF_INIT;

	if (memmem(path.p, path.len, "__", 2) != NULL) {
		conf_fail(l, &at, NULL,
		    "names no option; expected PARLEY_SECTION__KEY, as in PARLEY_HTTP__MAX_BODY");
	} else if (conf_spec_suggest(conf_spec(), path, &meant) &&
		   strchr(meant.data, '.') == NULL) {
		for (size_t i = 0; i < meant.len; i++)
			meant.data[i] = (char)toupper((unsigned char)meant.data[i]);
		conf_warn(l, &at, NULL, "names no option; did you mean PARLEY_%s?", meant.data);
	}
	buf_fini(&meant);
}

static void
put_variable(struct conf_loader *l, const char *entry)
{
	const char *equals = strchr(entry, '=');
	struct str name = str_sub(entry, equals != NULL ? (size_t)(equals - entry) : 0);
	char path[PATH_MAX_LEN];

	if (!str_starts(name, prefix) || name.len - prefix.len >= sizeof(path))
		return;
	size_t len = name.len - prefix.len;
	for (size_t i = 0; i < len; i++)
		path[i] = (char)tolower((unsigned char)name.p[prefix.len + i]);
	const char *origin = arena_strdup(&l->arena, name);
	if (!put(l, str_sub(path, len), "__", equals + 1, origin))
		report_unknown(l, origin, str_sub(path, len));
}

void
conf_env_put(struct conf_loader *l)
{
	put_known(l, "WORKERS", "workers");
	put_known(l, "DATABASE_URL", "store.url");
	put_known(l, "REDIS_URL", "backplane.url");
	put_provider_keys(l);
	for (char *const *e = l->environment; e != NULL && *e != NULL; e++)
		put_variable(l, *e);
}

void
conf_override_put(struct conf_loader *l, const struct conf_override *o)
{
	struct conf_node at = {.origin = o->origin};

	if (!put(l, str_of(o->key), ".", o->value, o->origin))
		conf_fail(l, &at, o->key, "unknown key");
}
