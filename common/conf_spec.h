/*
 * conf_spec - conf.tbl as data: what options there are, where their values lie.
 *
 * A flat array in the order of the table. A section or a list of maps is a row
 * that opens, the rows within, and a row that closes:
 *
 *   listen | tls certificate key .. END | .. | providers name .. END | .. | END
 *
 * Private to the conf_*.c files.
 */
#ifndef COMMON_CONF_SPEC_H
#define COMMON_CONF_SPEC_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "common/str.h"

enum conf_type {
	CONF_SECTION,
	CONF_LIST_OF,
	CONF_BOOL,
	CONF_INT,
	CONF_AUTO,
	CONF_FLOAT,
	CONF_DURATION,
	CONF_SIZE,
	CONF_STRING,
	CONF_ENUM,
	CONF_SECRET,
	CONF_URL,
	CONF_STRINGS,
	CONF_MAP,
	CONF_END,
};

struct conf_opt {
	enum conf_type type;
	const char *name;
	const char *unit;      /* NULL: none */
	const char *def;       /* NULL: must be given */
	const char *min, *max; /* NULL: no range */
	const char *choices;   /* a|b|c: of an enum, or the schemes of a URL */
	const char *names;     /* of a list: the member that names an element, or "" */
	const char *help;
	bool is_live;  /* takes effect on reload */
	bool has_file; /* name_file is understood, too: a file that holds the value */
	size_t offset; /* in the struct that owns it */
	size_t size;   /* of a list: of one element */
};

/* The first row; the last is CONF_END. */
const struct conf_opt *conf_spec(void);
/* The row after this one on the same level: skips what is within. */
const struct conf_opt *conf_spec_next(const struct conf_opt *);
/* The rows within a section or a list. */
const struct conf_opt *conf_spec_inside(const struct conf_opt *);
/* Among the rows of one level, by name; NULL: none. */
const struct conf_opt *conf_spec_find(const struct conf_opt *level, struct str name);

bool conf_opt_is_scalar(const struct conf_opt *);
bool conf_opt_is_text(const struct conf_opt *); /* may be empty */
/* The option whose file variant has this name; NULL: none. */
const struct conf_opt *conf_spec_find_file(const struct conf_opt *level, struct str name);

/* Is s one of a|b|c? */
bool conf_choices_have(const char *choices, struct str s);
/* "a, b or c" */
void conf_choices_describe(struct buf *, const char *choices);

/*
 * What was probably meant by an unknown name: a name of this level, or the dotted
 * path of an option elsewhere that has exactly this name. False: no idea.
 */
bool conf_spec_suggest(const struct conf_opt *level, struct str name, struct buf *ret);

/* The text between name and next `|`. Start with *rest = str_of(choices). */
static inline bool
conf_choice_next(struct str *rest, struct str *ret)
{
	if (rest->p == NULL)
		return false;
	*ret = str_split(rest, '|');
	return true;
}

#endif
