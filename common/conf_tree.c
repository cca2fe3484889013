/*
 * conf_tree - libyaml's events into our tree.
 *
 * Events, not documents: aliases must be seen to be refused, and duplicate keys
 * must be seen where they stand.
 */
#include "common/conf_tree.h"

#include <yaml.h>

#include "common/check.h"

enum { KEY_SHOWN_MAX = 200 };

/* "file:line:column: key: " as far as they are known. */
static void
add_place(
    const struct conf_loader *l, const struct conf_node *node, const char *key, struct buf *out)
{
	if (node != NULL && node->origin != NULL)
		buf_printf(out, "%s: ", node->origin);
	else if (node != NULL && node->line > 0)
		buf_printf(out, "%s:%u:%u: ", l->file, node->line, node->column);
	else
		buf_printf(out, "%s: ", l->file);
	if (key != NULL && *key != '\0') { /* may be anything that the file says */
		size_t len = strlen(key);

		buf_add_json_escaped(out, str_sub(key, len < KEY_SHOWN_MAX ? len : KEY_SHOWN_MAX));
		buf_add_cstr(out, ": ");
	}
}

void
conf_fail(
    struct conf_loader *l, const struct conf_node *node, const char *key, const char *fmt, ...)
{
	va_list ap;

	l->error_count++;
	if (l->error_count == CONF_ERRORS_MAX + 1)
		buf_printf(l->errors, "%s: too many errors, the rest is not shown\n", l->file);
	if (l->error_count > CONF_ERRORS_MAX)
		return;
	add_place(l, node, key, l->errors);
	va_start(ap, fmt);
	buf_vprintf(l->errors, fmt, ap);
	va_end(ap);
	buf_add_char(l->errors, '\n');
}

void
conf_warn(
    struct conf_loader *l, const struct conf_node *node, const char *key, const char *fmt, ...)
{
	struct conf_list *list = &l->conf->warnings;
	struct buf line = BUF_INIT;
	va_list ap;

	if (list->n >= CONF_ERRORS_MAX)
		return;
	if (list->v == NULL)
		list->v = arena_calloc(&l->conf->arena, CONF_ERRORS_MAX * sizeof(*list->v));
	add_place(l, node, key, &line);
	va_start(ap, fmt);
	buf_vprintf(&line, fmt, ap);
	va_end(ap);
	list->v[list->n++] = arena_strdup(&l->conf->arena, buf_str(&line));
	buf_fini(&line);
}

const char *
conf_getenv(const struct conf_loader *l, struct str name)
{
	for (char *const *e = l->environment; e != NULL && *e != NULL; e++) {
		if (strncmp(*e, name.p, name.len) == 0 && (*e)[name.len] == '=')
			return *e + name.len + 1;
	}
	return NULL;
}

struct conf_node *
conf_node_child(const struct conf_node *parent, struct str key)
{
	if (parent->kind != CONF_MAPPING)
		return NULL;
	for (struct conf_node *n = parent->first; n != NULL; n = n->next) {
		if (str_eq(str_of(n->key), key))
			return n;
	}
	return NULL;
}

struct conf_node *
conf_node_at(const struct conf_node *parent, unsigned index)
{
	struct conf_node *n = parent->kind == CONF_SEQUENCE ? parent->first : NULL;

	while (n != NULL && index-- > 0)
		n = n->next;
	return n;
}

static struct conf_node *
new_node(struct conf_loader *l, enum conf_kind kind)
{
	struct conf_node *n = arena_calloc(&l->arena, sizeof(*n));

	n->kind = kind;
	if (kind == CONF_SCALAR)
		n->text = n->raw = "";
	return n;
}

static void
append(struct conf_node *parent, struct conf_node *n)
{
	if (parent->last != NULL)
		parent->last->next = n;
	else
		parent->first = n;
	parent->last = n;
	parent->count++;
}

void
conf_node_move(struct conf_node *parent, struct conf_node *child)
{
	child->next = NULL;
	append(parent, child);
}

struct conf_node *
conf_node_add(struct conf_loader *l, struct conf_node *parent, enum conf_kind kind, struct str key)
{
	struct conf_node *n = new_node(l, kind);

	check(parent->kind == (key.p != NULL ? CONF_MAPPING : CONF_SEQUENCE));
	if (key.p != NULL)
		n->key = arena_strdup(&l->arena, key);
	append(parent, n);
	return n;
}

void
conf_node_remove(struct conf_node *parent, const struct conf_node *child)
{
	struct conf_node *before = NULL;

	for (struct conf_node **at = &parent->first; *at != NULL; at = &(*at)->next) {
		if (*at == child) {
			*at = child->next;
			parent->count--;
			if (parent->last == child)
				parent->last = before;
			return;
		}
		before = *at;
	}
}

static const struct conf_node *
file_variant(const struct conf_node *parent, struct str name)
{
	struct buf key = BUF_INIT;

	buf_printf(&key, "%.*s_file", (int)name.len, name.p);
	const struct conf_node *n = conf_node_child(parent, buf_str(&key));
	buf_fini(&key);
	return n;
}

/* Also finds the option's file variant in its place. */
const struct conf_node *
conf_tree_find(const struct conf_loader *l, const char *path)
{
	const struct conf_node *at = l->root;
	struct str rest = str_of(path);

	while (at != NULL && rest.len > 0) {
		struct str index = str_split(&rest, '.'), name = str_split(&index, '[');
		const struct conf_node *next = conf_node_child(at, name);
		uint64_t i;

		if (next == NULL)
			next = file_variant(at, name);
		if (next != NULL && index.len > 1 &&
		    str_to_u64(str_sub(index.p, index.len - 1), &i)) {
			const struct conf_node *element = conf_node_at(next, (unsigned)i);

			next = element != NULL ? element : next;
		}
		if (next == NULL)
			break;
		at = next;
	}
	return at != l->root ? at : NULL;
}

/* ---- ${NAME} ---- */

static bool
is_name(struct str s)
{
	for (size_t i = 0; i < s.len; i++) {
		char c = s.p[i];

		if (c != '_' && !(c >= 'A' && c <= 'Z') && !(c >= 'a' && c <= 'z') &&
		    (i == 0 || c < '0' || c > '9'))
			return false;
	}
	return s.len > 0;
}

/* inner is what stands between the braces. */
static bool
add_variable(struct conf_loader *l, struct conf_node *node, struct str inner, struct buf *out)
{
	const char *dash = memmem(inner.p, inner.len, ":-", 2);
	struct str name = dash != NULL ? str_sub(inner.p, (size_t)(dash - inner.p)) : inner;

	if (!is_name(name)) {
		conf_fail(l, node, node->key,
		    "expected ${NAME} or ${NAME:-text}; write $${ for a plain ${");
		return false;
	}
	const char *value = conf_getenv(l, name);
	if (dash != NULL && (value == NULL || *value == '\0')) {
		buf_add(out, dash + 2, inner.len - name.len - 2);
		return true;
	}
	node->is_substituted = true;
	if (value != NULL)
		buf_add_cstr(out, value);
	else
		node->missing = arena_strdup(&l->arena, name);
	return true;
}

static void
substitute(struct conf_loader *l, struct conf_node *node)
{
	struct str rest = str_of(node->raw);
	struct buf out = BUF_INIT;

	for (;;) {
		const char *dollar = memmem(rest.p, rest.len, "${", 2);

		if (dollar == NULL)
			break;
		size_t before = (size_t)(dollar - rest.p);
		if (before > 0 && dollar[-1] == '$') { /* escaped */
			buf_add(&out, rest.p, before);
			buf_add_char(&out, '{');
			rest = str_sub(dollar + 2, rest.len - before - 2);
			continue;
		}
		const char *end = memchr(dollar, '}', rest.len - before);
		buf_add(&out, rest.p, before);
		if (end == NULL) {
			conf_fail(l, node, node->key, "expected a } after ${");
			break;
		}
		if (!add_variable(l, node, str_sub(dollar + 2, (size_t)(end - dollar) - 2), &out))
			break;
		rest = str_sub(end + 1, rest.len - (size_t)(end + 1 - rest.p));
	}
	buf_add_str(&out, rest);
	node->text = arena_strdup(&l->arena, buf_str(&out));
	buf_fini(&out);
}

/* ---- events ---- */

struct reader {
	struct conf_loader *loader;
	yaml_parser_t parser;
	bool with_substitution;
	bool is_broken; /* no more events can be had */
};

static void
place(struct conf_node *n, yaml_mark_t mark)
{
	n->line = (unsigned)mark.line + 1;
	n->column = (unsigned)mark.column + 1;
}

static void
syntax_error(struct reader *r)
{
	struct conf_node at = {.kind = CONF_SCALAR};
	const yaml_parser_t *p = &r->parser;

	r->is_broken = true;
	place(&at, p->problem_mark);
	conf_fail(r->loader, &at, NULL, "not valid YAML: %s%s%s",
	    p->problem != NULL ? p->problem : "cannot be read", p->context != NULL ? ", " : "",
	    p->context != NULL ? p->context : "");
}

/* False when there is none; then the reader is broken. The caller deletes the event. */
static bool
next_event(struct reader *r, yaml_event_t *ret)
{
	if (!r->is_broken && yaml_parser_parse(&r->parser, ret))
		return true;
	if (!r->is_broken)
		syntax_error(r);
	return false;
}

static struct conf_node *
refuse(struct reader *r, const yaml_event_t *e, const char *what)
{
	struct conf_node at = {.kind = CONF_SCALAR};

	place(&at, e->start_mark);
	conf_fail(r->loader, &at, NULL, "%s", what);
	return NULL;
}

static struct conf_node *
scalar(struct reader *r, const yaml_event_t *e, const char *key)
{
	struct conf_loader *l = r->loader;
	struct str text = str_sub((const char *)e->data.scalar.value, e->data.scalar.length);

	if (memchr(text.p, '\0', text.len) != NULL)
		return refuse(r, e, "expected a text without NUL characters");
	if (e->data.scalar.tag != NULL)
		return refuse(r, e, "tags are not understood here");
	struct conf_node *n = new_node(l, CONF_SCALAR);
	n->key = key;
	place(n, e->start_mark);
	n->is_plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	n->text = n->raw = arena_strdup(&l->arena, text);
	if (r->with_substitution)
		substitute(l, n);
	return n;
}

static struct conf_node *read_node(
    struct reader *, yaml_event_t *, const char *key, unsigned depth);

static struct conf_node *
read_value(struct reader *r, const char *key, unsigned depth)
{
	yaml_event_t e;

	if (!next_event(r, &e))
		return NULL;
	struct conf_node *n = read_node(r, &e, key, depth);
	yaml_event_delete(&e);
	return n;
}

static void
add_child(struct reader *r, struct conf_node *parent, struct conf_node *n)
{
	if (n == NULL)
		return;
	if (parent->count >= CONF_CHILDREN_MAX) {
		conf_fail(r->loader, n, n->key, "more than %d entries", CONF_CHILDREN_MAX);
		r->is_broken = true;
		return;
	}
	const struct conf_node *first =
	    n->key != NULL ? conf_node_child(parent, str_of(n->key)) : NULL;
	if (first != NULL)
		conf_fail(r->loader, n, n->key, "given twice: first in line %u", first->line);
	else
		append(parent, n);
}

/* e is the key; its value follows. Errors about a value that is absent point to the key. */
static void
read_pair(struct reader *r, struct conf_node *parent, const yaml_event_t *e, unsigned depth)
{
	if (e->type != YAML_SCALAR_EVENT) {
		refuse(r, e, "expected a key");
		r->is_broken = true;
		return;
	}
	struct str text = str_sub((const char *)e->data.scalar.value, e->data.scalar.length);
	if (memchr(text.p, '\0', text.len) != NULL) {
		refuse(r, e, "expected a key without NUL characters");
		r->is_broken = true;
		return;
	}
	struct conf_node *n = read_value(r, arena_strdup(&r->loader->arena, text), depth);
	if (n != NULL)
		place(n, e->start_mark);
	add_child(r, parent, n);
}

static struct conf_node *
read_children(struct reader *r, struct conf_node *parent, yaml_event_type_t end, unsigned depth)
{
	yaml_event_t e;

	while (!r->is_broken && next_event(r, &e)) {
		bool is_end = e.type == end;

		if (!is_end && parent->kind == CONF_MAPPING)
			read_pair(r, parent, &e, depth + 1);
		else if (!is_end)
			add_child(r, parent, read_node(r, &e, NULL, depth + 1));
		yaml_event_delete(&e);
		if (is_end)
			break;
	}
	return parent;
}

static struct conf_node *
read_node(struct reader *r, yaml_event_t *e, const char *key, unsigned depth)
{
	bool is_mapping = e->type == YAML_MAPPING_START_EVENT;

	if (e->type == YAML_ALIAS_EVENT)
		return refuse(r, e, "aliases are not understood here: write the value");
	if (e->type == YAML_SCALAR_EVENT)
		return scalar(r, e, key);
	check(is_mapping || e->type == YAML_SEQUENCE_START_EVENT);
	if (depth >= CONF_DEPTH_MAX) {
		r->is_broken = true;
		return refuse(r, e, "nested too deeply");
	}
	struct conf_node *n = new_node(r->loader, is_mapping ? CONF_MAPPING : CONF_SEQUENCE);
	n->key = key;
	place(n, e->start_mark);
	return read_children(
	    r, n, is_mapping ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT, depth);
}

/* One document, or none. */
static struct conf_node *
read_document(struct reader *r)
{
	struct conf_node *root = NULL;
	unsigned documents = 0;
	yaml_event_t e;
	bool is_end = false;

	while (!is_end && next_event(r, &e)) {
		is_end = e.type == YAML_STREAM_END_EVENT;
		if (e.type == YAML_DOCUMENT_START_EVENT && ++documents > 1) {
			refuse(r, &e, "expected one document");
			is_end = true;
		} else if (e.type == YAML_SCALAR_EVENT || e.type == YAML_ALIAS_EVENT ||
			   e.type == YAML_SEQUENCE_START_EVENT ||
			   e.type == YAML_MAPPING_START_EVENT) {
			root = read_node(r, &e, NULL, 0);
		}
		yaml_event_delete(&e);
	}
	return root;
}

bool
conf_tree_parse(struct conf_loader *l, struct str yaml, bool with_substitution)
{
	struct reader r = {.loader = l, .with_substitution = with_substitution};

	check(yaml_parser_initialize(&r.parser));
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)yaml.p, yaml.len);
	struct conf_node *root = read_document(&r);
	yaml_parser_delete(&r.parser);
	if (root != NULL && root->kind != CONF_MAPPING &&
	    !(root->kind == CONF_SCALAR && *root->text == '\0'))
		conf_fail(l, root, NULL, "expected options, as in `max_connections: 1000`");
	l->root = root != NULL && root->kind == CONF_MAPPING ? root : new_node(l, CONF_MAPPING);
	return !r.is_broken;
}
