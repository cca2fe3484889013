/* expect: thresholds, and what is none. */
#include "t/unit/unit.h"

#include "loadtest/parley_load/expect.c"

static void
test_each_sign(void **state)
{
	static const struct {
		const char *text;
		double below, above;
		bool holds_below, holds_at, holds_above;
	} cases[] = {
	    {"x<5", 4, 6, true, false, false},
	    {"x<=5", 4, 6, true, true, false},
	    {"x>5", 4, 6, false, false, true},
	    {"x>=5", 4, 6, false, true, true},
	    {"x=5", 4, 6, false, true, false},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct expect e;

		assert_true(expect_parse(cases[i].text, &e));
		assert_true(str_eq(e.name, STR("x")));
		assert_int_equal(expect_holds(&e, cases[i].below), cases[i].holds_below);
		assert_int_equal(expect_holds(&e, 5), cases[i].holds_at);
		assert_int_equal(expect_holds(&e, cases[i].above), cases[i].holds_above);
	}
}

static void
test_a_number_may_have_a_fraction(void **state)
{
	struct expect e;

	assert_true(expect_parse("per_second>=0.25", &e));
	assert_true(e.bound == 0.25);
	assert_true(str_eq(e.name, STR("per_second")));
}

static void
test_what_is_none(void **state)
{
	static const char *const bad[] = {"", "<", "x", "x<", "<5", "x<y", "x<5y", "x<-5", "x<<5",
	    "x=<5", "x< 5", "x<nan", "x<inf", "5"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct expect e = {.bound = 7};

		assert_false(expect_parse(bad[i], &e));
		assert_true(e.bound == 7);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_each_sign),
	    cmocka_unit_test(test_a_number_may_have_a_fraction),
	    cmocka_unit_test(test_what_is_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
