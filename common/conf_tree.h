/*
 * conf_tree - the text of a configuration as a tree that remembers where each
 * piece came from, before anything is known about what it means.
 *
 * The file makes the tree; the environment and flags put nodes over it. `${NAME}`
 * in a scalar of the file is replaced here, `${NAME:-text}` by the text when the
 * variable is unset or empty, `$${` is a plain `${`. Aliases, tags and more than
 * one document are refused, as are duplicate keys.
 * Private to the conf_*.c files. Everything is in the loader's arena.
 */
#ifndef COMMON_CONF_TREE_H
#define COMMON_CONF_TREE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/arena.h"
#include "common/buf.h"
#include "common/conf.h"
#include "common/str.h"

enum conf_kind { CONF_SCALAR, CONF_MAPPING, CONF_SEQUENCE };

struct conf_node {
	enum conf_kind kind;
	const char *key;       /* in a mapping; NULL in a sequence and at the root */
	const char *text;      /* of a scalar, never NULL then */
	const char *raw;       /* as written, before substitution */
	const char *missing;   /* the unset variable that it names, or NULL */
	const char *origin;    /* of an override: "--listen", "PARLEY_LISTEN"; NULL: the file */
	unsigned line, column; /* in the file, from 1; 0: nowhere */
	bool is_plain;         /* written without quotes */
	bool is_substituted;   /* holds a variable's value: not to be shown */
	struct conf_node *first, *last, *next; /* children; next sibling */
	unsigned count;                        /* children */
};

enum { CONF_ERRORS_MAX = 100, CONF_CHILDREN_MAX = 4096, CONF_DEPTH_MAX = 16 };

/* What the steps of loading share. */
struct conf_loader {
	struct arena arena; /* the tree */
	struct conf_node *root;
	const char *file;         /* for messages */
	char *const *environment; /* NULL: none */
	struct buf *errors;
	unsigned error_count;
	struct conf *conf; /* being made */
};

/* Adds a line to the errors: where the node is, the key, what was expected. node NULL: no place. */
void conf_fail(struct conf_loader *, const struct conf_node *, const char *key, const char *fmt,
    ...) __attribute__((format(printf, 4, 5)));

/* Likewise a line in conf->warnings. */
void conf_warn(struct conf_loader *, const struct conf_node *, const char *key, const char *fmt,
    ...) __attribute__((format(printf, 4, 5)));

/* Value of an environment variable, or NULL. */
const char *conf_getenv(const struct conf_loader *, struct str name);

/* Parses YAML into loader->root: a mapping, also when there was nothing at all. False: it is not
 * YAML, and the root is what was read before that was seen. */
bool conf_tree_parse(struct conf_loader *, struct str yaml, bool with_substitution);

struct conf_node *conf_node_child(const struct conf_node *, struct str key); /* NULL: none */
struct conf_node *conf_node_at(const struct conf_node *, unsigned index);    /* NULL: none */
struct conf_node *conf_node_add(struct conf_loader *, struct conf_node *parent, enum conf_kind,
    struct str key); /* key.p NULL in a sequence */
void conf_node_move(struct conf_node *parent, struct conf_node *child); /* to its end */
void conf_node_remove(struct conf_node *parent, const struct conf_node *child);

/* The node at "store.url", "keys[2].secret", or the nearest one above it; NULL: none but the root.
 */
const struct conf_node *conf_tree_find(const struct conf_loader *, const char *path);

#endif
