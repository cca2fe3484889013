/*
 * conf - the configuration: one immutable struct, from flags, environment, file
 * and defaults, in this order of precedence.
 *
 * The options are declared in conf.tbl; struct conf mirrors the YAML. Values by
 * type: duration `name_ms`, size `name_bytes`, integer, float, bool and text
 * `name` (text is "" when unset, never NULL), lists `name.v[i]`, `name.n`. What
 * it holds was checked: ranges, references between parts, addresses. It is read
 * only after loading and lives until conf_free(); a reload makes a new one.
 */
#ifndef COMMON_CONF_H
#define COMMON_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"
#include "common/buf.h"
#include "common/str.h"

struct conf_list { /* of texts */
	const char **v;
	size_t n;
};

struct conf_pair {
	const char *name, *value;
};

struct conf_map { /* in the order of the file */
	struct conf_pair *v;
	size_t n;
};

/* clang-format off */
struct conf {
#define SECTION(owner, name, help)                             struct owner##_##name {
#define END_SECTION(name)                                      } name;
#define LIST_OF(owner, name, element, names, help)             struct owner##_##name { struct element {
#define END_LIST(name)                                         } *v; size_t n; } name;
#define BOOL(owner, name, def, reload, help)                   bool name;
#define INT(owner, name, unit, def, min, max, reload, help)    int64_t name;
#define AUTO(owner, name, unit, min, max, reload, help)        int64_t name;
#define FLOAT(owner, name, unit, def, min, max, reload, help)  double name;
#define DURATION(owner, name, def, min, max, reload, help)     uint64_t name##_ms;
#define SIZE(owner, name, def, min, max, reload, help)         uint64_t name##_bytes;
#define STRING(owner, name, def, reload, help)                 const char *name;
#define ENUM(owner, name, choices, def, reload, help)          const char *name;
#define SECRET(owner, name, reload, help)                      const char *name;
#define URL(owner, name, schemes, def, reload, help)           const char *name;
#define DSN(owner, name, schemes, def, reload, help)           const char *name;
#define STRINGS(owner, name, def, reload, help)                struct conf_list name;
#define MAP(owner, name, reload, help)                         struct conf_map name;
#include "common/conf.tbl"
#include "common/conf_undef.h"
	/* Not options: */
	struct conf_list warnings; /* what is allowed and probably not meant, for the log */
	struct arena arena;        /* owns every text and list above */
};
/* clang-format on */

struct conf_override {
	const char *key;    /* "max_connections", "http.max_body", "listen" */
	const char *value;  /* as in the environment: lists comma-separated */
	const char *origin; /* what an error names: "--max-connections" */
};

struct conf_source {
	const char *file;                      /* NULL: the embedded demo setup */
	struct str text;                       /* .p not NULL: in place of the file's content */
	const struct conf_override *overrides; /* flags */
	size_t override_count;
	char *const *environment; /* "NAME=value", NULL-terminated; NULL: none */
};

/*
 * A file that names no provider, model, app or key gets those of the demo setup.
 * NULL when anything is wrong: then *errors has every error, a line each,
 * `file:line:column: key: what was expected` (or the variable's or the flag's
 * name in place of file, line and column).
 */
struct conf *conf_load(const struct conf_source *, struct buf *errors);
void conf_free(struct conf **);

/* conf->workers, or what auto means on this machine now: at least 1. */
uint32_t conf_workers(const struct conf *);

/* What is in effect, as YAML, with secrets as "***". */
void conf_print(const struct conf *, struct buf *out);

/* From the table alone: the commented sample file, and the reference in Markdown. */
void conf_write_sample(struct buf *out);
void conf_write_reference(struct buf *out);

/* Keys that differ and take effect only with a new start, one per line; their count. */
size_t conf_diff_needs_restart(const struct conf *old, const struct conf *new, struct buf *keys);
/*
 * Gives `next` the values of all such keys that `now` has: what is in effect after a reload. False:
 * the two do not go together (new demo keys on a listener that stays), and *errors says why.
 */
bool conf_keep_needs_restart(struct conf *next, const struct conf *now, struct buf *errors);

/* The well-known keys of the demo setup; refused on listeners that are not loopback. */
#define CONF_DEMO_CLIENT_KEY "pc_demo00client00key00for00loopback"
#define CONF_DEMO_SERVER_KEY "ps_demo00server00key00for00loopback"
#define CONF_DEMO_ADMIN_KEY  "pa_demo00admin00key00for00loopback0"
bool conf_is_demo_secret(const char *);

bool conf_list_has(const struct conf_list *, const char *text);

#endif
