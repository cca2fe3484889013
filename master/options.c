/*
 * options - a table of flags, a table of verbs, one pass.
 */
#include "master/options.h"

#include <stdlib.h>
#include <string.h>

#include "common/check.h"

struct flag {
	const char *name;
	const char *key;        /* overridden in the configuration; NULL: see verb */
	enum options_verb verb; /* a flag without a value: what to do instead of serving */
};

static const struct flag flags[] = {
    {"--config", NULL, VERB_SERVE},
    {"--listen", "listen", VERB_SERVE},
    {"--workers", "workers", VERB_SERVE},
    {"--max-connections", "max_connections", VERB_SERVE},
    {"--log-level", "log.level", VERB_SERVE},
    {"--log-format", "log.format", VERB_SERVE},
    {"--check-config", NULL, VERB_CHECK_CONFIG},
    {"--print-config", NULL, VERB_PRINT_CONFIG},
    {"--version", NULL, VERB_VERSION},
    {"--help", NULL, VERB_HELP},
    {"-h", NULL, VERB_HELP},
};

static const struct {
	const char *name;
	enum options_verb verb;
} verbs[] = {
    {"migrate", VERB_MIGRATE},
    {"key", VERB_KEY},
    {"status", VERB_STATUS},
    {"reload", VERB_RELOAD},
    {"drain", VERB_DRAIN},
    {"upgrade", VERB_UPGRADE},
};

static const struct flag *
find_flag(const char *arg, size_t name_len)
{
	for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
		if (strlen(flags[i].name) == name_len && memcmp(flags[i].name, arg, name_len) == 0)
			return &flags[i];
	}
	return NULL;
}

/* The override of that key, made if there is none: the last value wins. */
static struct conf_override *
override_of(struct options *o, const struct flag *flag)
{
	for (size_t i = 0; i < o->override_count; i++) {
		if (strcmp(o->overrides[i].key, flag->key) == 0)
			return &o->overrides[i];
	}
	check(o->override_count < OPTIONS_OVERRIDES_MAX);
	struct conf_override *made = &o->overrides[o->override_count++];
	*made = (struct conf_override){flag->key, "", flag->name};
	return made;
}

static void
take_value(struct options *o, const struct flag *flag, const char *value)
{
	if (flag->key == NULL) {
		o->config = value;
		return;
	}
	struct conf_override *override = override_of(o, flag);
	if (strcmp(flag->key, "listen") != 0) {
		override->value = value;
		return;
	}
	if (o->listen.len > 0)
		buf_add_char(&o->listen, ',');
	buf_add_cstr(&o->listen, value);
	override->value = o->listen.data;
}

/* --help wins over everything; of the others there is one. */
static bool
take_verb(struct options *o, const char *name, enum options_verb verb, struct buf *error)
{
	if (verb != VERB_HELP && o->verb != VERB_SERVE && o->verb != VERB_HELP) {
		buf_printf(error, "%s cannot be combined with what stands before it", name);
		return false;
	}
	if (o->verb != VERB_HELP)
		o->verb = verb;
	return true;
}

/* Both return how many arguments were used, 0 when they are wrong. */
static int
take_word(struct options *o, const char *name, struct buf *error)
{
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
		if (strcmp(verbs[i].name, name) == 0)
			return take_verb(o, name, verbs[i].verb, error);
	}
	buf_printf(error, "unknown command %s", name);
	return 0;
}

static int
take_flag(struct options *o, int argc, char **argv, struct buf *error)
{
	size_t name_len = strcspn(argv[0], "=");
	const struct flag *flag = find_flag(argv[0], name_len);
	bool has_value = argv[0][name_len] == '=';

	if (flag == NULL) {
		buf_printf(error, "unknown option %s", argv[0]);
		return 0;
	}
	if (flag->verb != VERB_SERVE && has_value) {
		buf_printf(error, "%s takes no value", flag->name);
		return 0;
	}
	if (flag->verb != VERB_SERVE)
		return take_verb(o, flag->name, flag->verb, error);
	if (!has_value && argc < 2) {
		buf_printf(error, "%s needs a value", flag->name);
		return 0;
	}
	take_value(o, flag, has_value ? argv[0] + name_len + 1 : argv[1]);
	return has_value ? 1 : 2;
}

static bool
is_config_flag(const char *arg)
{
	size_t name_len = strcspn(arg, "=");

	return name_len == strlen("--config") && memcmp(arg, "--config", name_len) == 0;
}

/* What belongs to the verb that stood before it: of `key` everything but --config. */
static bool
is_of_verb(enum options_verb verb, const char *arg)
{
	static const char *const of_status[] = {"--watch", "-w", "--json"};

	if (verb == VERB_DRAIN && strcmp(arg, "--restart") == 0)
		return true;
	for (size_t i = 0; verb == VERB_STATUS && i < ARRAY_LEN(of_status); i++) {
		if (strcmp(of_status[i], arg) == 0)
			return true;
	}
	return verb == VERB_KEY && !is_config_flag(arg);
}

bool
options_parse(struct options *o, int argc, char **argv, struct buf *error)
{
	*o = (struct options){.verb = VERB_SERVE, .argv = argv};
	o->verb_argv = xcalloc((size_t)argc + 1, sizeof(*o->verb_argv));
	for (int i = 1; i < argc;) {
		int used = 1;

		if (is_of_verb(o->verb, argv[i]))
			o->verb_argv[o->verb_argc++] = argv[i];
		else if (argv[i][0] == '-')
			used = take_flag(o, argc - i, argv + i, error);
		else
			used = take_word(o, argv[i], error);
		if (used == 0)
			return false;
		i += used;
	}
	return true;
}

void
options_fini(struct options *o)
{
	buf_fini(&o->listen);
	free(o->verb_argv);
}

struct conf_source
options_conf_source(const struct options *o, char *const *environment)
{
	return (struct conf_source){.file = o->config,
	    .overrides = o->overrides,
	    .override_count = o->override_count,
	    .environment = environment};
}
