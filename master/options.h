/*
 * options - the command line: verb, flags, and what the flags override in the
 * configuration.
 *
 * Pure: nothing is opened, nothing is printed.
 */
#ifndef MASTER_OPTIONS_H
#define MASTER_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "common/conf.h"

enum options_verb {
	VERB_SERVE,
	VERB_HELP,
	VERB_VERSION,
	VERB_CHECK_CONFIG,
	VERB_PRINT_CONFIG,
	VERB_MIGRATE,
	VERB_KEY,    /* verb_argv: create, list, revoke and what follows */
	VERB_STATUS, /* verb_argv: --watch, --json */
	VERB_RELOAD,
	VERB_DRAIN,
	VERB_UPGRADE,
};

enum { OPTIONS_OVERRIDES_MAX = 8 };

struct options {
	enum options_verb verb;
	const char *config; /* NULL: the embedded demo setup */
	struct conf_override overrides[OPTIONS_OVERRIDES_MAX];
	size_t override_count;
	struct buf listen; /* the values of --listen, comma-separated */
	int verb_argc;     /* of `key` and `status`: what is theirs */
	char **verb_argv;
	char **argv; /* all of it, for a new binary */
};

/*
 * Flags may stand before and after the verb; but what follows `key` belongs to the verb,
 * save --config; --watch, -w and --json after `status` do. The texts are borrowed from argv. False:
 * *error (appended) says why. options_fini() in both cases.
 */
bool options_parse(struct options *, int argc, char **argv, struct buf *error);
void options_fini(struct options *);

/* For conf_load(): also at every reload. environment is borrowed. */
struct conf_source options_conf_source(const struct options *, char *const *environment);

#endif
