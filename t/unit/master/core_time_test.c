/* core_time: lines of the kernel's, with names made to mislead, cut at every byte. */
#include "t/unit/unit.h"

#include <stdio.h>
#include <unistd.h>

#include "common/check.h"
#include "master/core_time.h"

#define REST " 1 7 7 0 -1 4194560 52 0 0 0 250 125 0 0 20 0 3 0 81 9 12"

static void
test_lines(void **state)
{
	static const struct {
		const char *line;
		bool is_runnable;
	} lines[] = {
	    {"7 (parleyd) R" REST, true},
	    {"7 (parleyd) S" REST, false},
	    {"7 (a) R 1 (b) D" REST, false},
	    {"7 ()) ) T" REST, false},
	};

	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		struct core_time t;

		assert_true(core_time_parse(str_of(lines[i].line), 100, &t));
		assert_int_equal(t.is_runnable, lines[i].is_runnable);
		assert_int_equal(t.used_ms, 3750);
	}
}

static void
test_what_is_no_line(void **state)
{
	static const char whole[] = "7 (parleyd) R" REST;
	const size_t needed = strlen("7 (parleyd) R 1 7 7 0 -1 4194560 52 0 0 0 250 1");
	struct core_time t;

	for (size_t len = 0; len < needed; len++)
		assert_false(core_time_parse(str_sub(whole, len), 100, &t));
	assert_false(
	    core_time_parse(STR("7 (parleyd) R 1 7 7 0 -1 4194560 52 0 0 0 x y 0"), 100, &t));
}

static void
test_of_ourselves(void **state)
{
	struct core_time t;

	assert_true(core_time_read(getpid(), &t));
	assert_true(t.is_runnable);
	assert_false(core_time_read(-1, &t));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_lines),
	    cmocka_unit_test(test_what_is_no_line),
	    cmocka_unit_test(test_of_ourselves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
