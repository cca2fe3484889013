/* options: every option, what it is without them, and what is refused. */
#include "t/unit/unit.h"

#include "loadtest/parley_load/expect.c"
#include "loadtest/parley_load/options.c"

/* The words of a line, after the program's name; terminated. */
static bool
parse(struct options *ret, const char *line, const char **ret_error)
{
	static char text[1024];
	static char *argv[128];
	int argc = 1;

	snprintf(text, sizeof(text), "%s", line);
	argv[0] = text + sizeof(text) - 1; /* "" */
	for (char *word = strtok(text, " "); word != NULL; word = strtok(NULL, " "))
		argv[argc++] = word;
	argv[argc] = NULL;
	return options_parse(ret, argc, argv, ret_error);
}

static void
test_without_any(void **state)
{
	struct options o;
	const char *error;

	assert_true(parse(&o, "turns", &error));
	assert_string_equal(o.scenario, "turns");
	assert_string_equal(o.host, "127.0.0.1");
	assert_int_equal(o.port, 8080);
	assert_null(o.key);
	assert_int_equal(o.processes, 0);
	assert_int_equal(o.hold_s, 0);
	assert_int_equal(o.leave_bytes, 256 << 20);
	assert_int_equal(o.users, 16);
	assert_int_equal(o.count, 1000);
	assert_int_equal(o.limit_s, 60);
	assert_int_equal(o.tokens, 20);
	assert_int_equal(o.interval_ms, 0);
	assert_int_equal(o.turns, 10);
	assert_false(o.is_plain);
	assert_string_equal(o.path, "/ws/chat");
	assert_int_equal(o.key_in, KEY_IN_HEADER);
	assert_null(o.say);
	assert_int_equal(o.window, 1);
	assert_false(o.offers_deflate);
	assert_null(o.greet);
	assert_int_equal(o.expect_count, 0);
}

static void
test_all(void **state)
{
	struct options o;
	const char *error;

	assert_true(parse(&o,
	    "--target 127.0.0.9:99 --key pc_x --processes 3 --sources 4 --users 50 --count 70 "
	    "--duration 8 --limit 9 --rate 0.5 --offer 120 --pace 2.5 --tokens 6 --interval 7 "
	    "--turns 5 --stall 3 --plain --path /x --key-in query "
	    "--say hello --window 8 --deflate --greet 40 --greeted 4 --hold 4 "
	    "--leave-memory 2GiB --join --devices d --sample 5 --active 1% --tools 12.5% "
	    "--within 1.5 --passive "
	    "--expect failed<3 --expect "
	    "first_p99_us<50000 chat",
	    &error));
	assert_string_equal(o.host, "127.0.0.9");
	assert_int_equal(o.port, 99);
	assert_string_equal(o.key, "pc_x");
	assert_int_equal(o.processes, 3);
	assert_int_equal(o.sources, 4);
	assert_int_equal(o.users, 50);
	assert_int_equal(o.count, 70);
	assert_int_equal(o.duration_s, 8);
	assert_int_equal(o.limit_s, 9);
	assert_true(o.rate == 0.5);
	assert_true(o.offered == 120);
	assert_true(o.pace_s == 2.5);
	assert_int_equal(o.tokens, 6);
	assert_int_equal(o.interval_ms, 7);
	assert_int_equal(o.turns, 5);
	assert_int_equal(o.stall_s, 3);
	assert_true(o.is_plain);
	assert_string_equal(o.path, "/x");
	assert_int_equal(o.key_in, KEY_IN_QUERY);
	assert_string_equal(o.say, "hello");
	assert_int_equal(o.window, 8);
	assert_true(o.offers_deflate);
	assert_string_equal(o.greet, "40");
	assert_string_equal(o.greeted, "4");
	assert_int_equal(o.hold_s, 4);
	assert_true(o.joins);
	assert_string_equal(o.devices, "d");
	assert_true(o.samples_per_s == 5);
	assert_true(o.active == 0.01);
	assert_true(o.tools == 0.125);
	assert_true(o.within_s == 1.5);
	assert_true(o.is_passive);
	assert_int_equal(o.leave_bytes, 2ULL << 30);
	assert_int_equal(o.expect_count, 2);
	assert_string_equal(o.expects[1].text, "first_p99_us<50000");
	assert_string_equal(o.scenario, "chat");
}

static void
test_a_duration_needs_no_count(void **state)
{
	struct options o;
	const char *error;

	assert_true(parse(&o, "--duration 5 chat", &error));
	assert_int_equal(o.count, 0);
}

static void
test_help_needs_no_scenario(void **state)
{
	struct options o;
	const char *error;

	assert_true(parse(&o, "--help", &error));
	assert_true(o.wants_help);
}

static void
test_what_is_refused(void **state)
{
	static const char *const bad[] = {"", "a b", "--users", "--users 0 t", "--users x t",
	    "--users -1 t", "--users 1.5 t", "--users 99999999999999999999 t", "--unknown t",
	    "--target 127.0.0.1 t", "--target localhost:80 t", "--target 127.0.0.1:0 t",
	    "--target 127.0.0.1:65536 t", "--target :80 t", "--target 1111111111111111111:80 t",
	    "--rate 0 t", "--rate -1 t", "--rate x t", "--rate 1x t", "--expect failed t",
	    "--users 2 --processes 3 t", "--plain=yes t", "--key-in cookie t", "--greet x t",
	    "--greeted x t", "--leave-memory much t", "--active 1 t", "--active 101% t",
	    "--active % t", "--active -1% t", "--active 12345678901234567890% t"};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct options o;
		const char *error = NULL;

		if (parse(&o, bad[i], &error))
			fail_msg("taken: %s", bad[i]);
		assert_non_null(error);
		assert_true(strlen(error) > 0);
	}
}

static void
test_expectations_are_limited(void **state)
{
	struct options o;
	char line[400] = "";
	const char *error;

	for (int i = 0; i < OPTIONS_EXPECTS_MAX; i++)
		strcat(line, "--expect done>1 ");
	strcat(line, "turns");
	assert_true(parse(&o, line, &error));
	assert_int_equal(o.expect_count, OPTIONS_EXPECTS_MAX);
	strcat(line, " --expect done>1");
	assert_false(parse(&o, line, &error));
}

static void
test_the_help_names_all(void **state)
{
	char text[4096] = "";
	FILE *f = fmemopen(text, sizeof(text) - 1, "w");

	options_print(f);
	fclose(f);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_non_null(strstr(text, rows[i].name));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_without_any),
	    cmocka_unit_test(test_all),
	    cmocka_unit_test(test_a_duration_needs_no_count),
	    cmocka_unit_test(test_help_needs_no_scenario),
	    cmocka_unit_test(test_what_is_refused),
	    cmocka_unit_test(test_expectations_are_limited),
	    cmocka_unit_test(test_the_help_names_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
