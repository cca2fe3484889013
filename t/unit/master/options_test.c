/* options: flags before and after verbs, overrides, and what is refused. */
#include "t/unit/unit.h"

#include <string.h>

#include "master/options.h"

enum { ARGS_MAX = 16 };

struct parsed {
	struct options o;
	bool is_good;
	struct buf error;
	char text[512];
	char *argv[ARGS_MAX + 1];
};

/* The command line in one text, cut at spaces. */
static void
parse(struct parsed *p, const char *line)
{
	int argc = 0;

	*p = (struct parsed){.error = BUF_INIT};
	strcpy(p->text, line);
	for (char *word = strtok(p->text, " "); word != NULL; word = strtok(NULL, " "))
		p->argv[argc++] = word;
	p->is_good = options_parse(&p->o, argc, p->argv, &p->error);
}

static void
release(struct parsed *p)
{
	options_fini(&p->o);
	buf_fini(&p->error);
}

static void
assert_override(const struct parsed *p, size_t i, const char *key, const char *value)
{
	assert_true(i < p->o.override_count);
	assert_string_equal(p->o.overrides[i].key, key);
	assert_string_equal(p->o.overrides[i].value, value);
}

static void
test_nothing_serves(void **state)
{
	struct parsed p;

	parse(&p, "parleyd");
	assert_true(p.is_good);
	assert_int_equal(p.o.verb, VERB_SERVE);
	assert_null(p.o.config);
	assert_int_equal(p.o.override_count, 0);
	release(&p);
}

static void
test_flags_become_overrides(void **state)
{
	struct parsed p;

	parse(&p, "parleyd --config a.yaml --listen 127.0.0.1:1 --workers=auto --max-connections 5 "
		  "--log-level debug --log-format json --listen=[::1]:2 --workers 3");
	assert_true(p.is_good);
	assert_string_equal(p.o.config, "a.yaml");
	assert_int_equal(p.o.override_count, 5);
	assert_override(&p, 0, "listen", "127.0.0.1:1,[::1]:2");
	assert_override(&p, 1, "workers", "3");
	assert_override(&p, 2, "max_connections", "5");
	assert_override(&p, 3, "log.level", "debug");
	assert_override(&p, 4, "log.format", "json");
	assert_string_equal(p.o.overrides[2].origin, "--max-connections");
	release(&p);
}

static void
test_verbs(void **state)
{
	static const struct {
		const char *line;
		enum options_verb verb;
	} cases[] = {
	    {"parleyd migrate", VERB_MIGRATE},
	    {"parleyd status --config a", VERB_STATUS},
	    {"parleyd --config a reload", VERB_RELOAD},
	    {"parleyd drain", VERB_DRAIN},
	    {"parleyd drain --restart", VERB_DRAIN},
	    {"parleyd --check-config", VERB_CHECK_CONFIG},
	    {"parleyd --workers 2 --print-config", VERB_PRINT_CONFIG},
	    {"parleyd --version", VERB_VERSION},
	    {"parleyd -h", VERB_HELP},
	    {"parleyd --check-config --help", VERB_HELP},
	    {"parleyd status --help", VERB_HELP},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct parsed p;

		parse(&p, cases[i].line);
		assert_true(p.is_good);
		assert_int_equal(p.o.verb, cases[i].verb);
		release(&p);
	}
}

static void
test_what_follows_key_or_status_is_the_verbs(void **state)
{
	struct parsed p;

	parse(&p, "parleyd status --watch --config a.yaml");
	assert_true(p.is_good);
	assert_int_equal(p.o.verb, VERB_STATUS);
	assert_int_equal(p.o.verb_argc, 1);
	assert_string_equal(p.o.verb_argv[0], "--watch");
	release(&p);
	parse(&p, "parleyd key create --app demo --config a.yaml --name --help");
	assert_true(p.is_good);
	assert_int_equal(p.o.verb, VERB_KEY);
	assert_string_equal(p.o.config, "a.yaml");
	assert_int_equal(p.o.verb_argc, 5);
	assert_string_equal(p.o.verb_argv[0], "create");
	assert_string_equal(p.o.verb_argv[2], "demo");
	assert_string_equal(p.o.verb_argv[4], "--help");
	assert_null(p.o.verb_argv[5]);
	release(&p);
}

static void
test_mistakes_are_named(void **state)
{
	static const struct {
		const char *line, *error;
	} cases[] = {
	    {"parleyd --wrokers 3", "unknown option --wrokers"},
	    {"parleyd -x", "unknown option -x"},
	    {"parleyd --work=3", "unknown option --work=3"},
	    {"parleyd --config", "--config needs a value"},
	    {"parleyd --version=1", "--version takes no value"},
	    {"parleyd start", "unknown command start"},
	    {"parleyd status drain", "drain cannot be combined with what stands before it"},
	    {"parleyd --check-config migrate",
		"migrate cannot be combined with what stands before it"},
	    {"parleyd status --print-config",
		"--print-config cannot be combined with what stands before it"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct parsed p;

		parse(&p, cases[i].line);
		assert_false(p.is_good);
		assert_string_equal(p.error.data, cases[i].error);
		release(&p);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_nothing_serves),
	    cmocka_unit_test(test_flags_become_overrides),
	    cmocka_unit_test(test_verbs),
	    cmocka_unit_test(test_what_follows_key_or_status_is_the_verbs),
	    cmocka_unit_test(test_mistakes_are_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
