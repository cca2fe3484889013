/* choose_test - the chain in order, equal deployments by load and weight. */
#include "t/unit/unit.h"

#include "worker/provider/choose.h"

static void
test_chain(void **state)
{
	struct choose_target t[] = {{0, 9, true}, {0, 0, true}, {0, 0, true}};

	assert_int_equal(choose_target(t, 3, 0.9), 0); /* in order, whatever its load */
	t[0].may_be_asked = false;
	assert_int_equal(choose_target(t, 3, 0.9), 1);
	t[1].may_be_asked = t[2].may_be_asked = false;
	assert_int_equal(choose_target(t, 3, 0.9), -1);
	assert_int_equal(choose_target(t, 0, 0.9), -1);
}

static void
test_weights(void **state)
{
	struct choose_target t[] = {{3, 0, true}, {1, 0, true}, {0, 0, true}};
	unsigned chosen[3] = {0};

	for (int i = 0; i < 100; i++)
		chosen[choose_target(t, 3, i / 100.0)]++;
	assert_int_equal(chosen[0], 75);
	assert_int_equal(chosen[1], 25);
	assert_int_equal(chosen[2], 0); /* only as a fallback */
	t[0].may_be_asked = false;
	assert_int_equal(choose_target(t, 3, 0), 1);
	t[1].may_be_asked = false;
	assert_int_equal(choose_target(t, 3, 0), 2);
}

static void
test_fewest_outstanding(void **state)
{
	struct choose_target t[] = {{1, 4, true}, {1, 3, true}, {2, 7, true}};

	assert_int_equal(choose_target(t, 3, 0.99), 1);
	t[2].outstanding = 5; /* 2.5 for each part of its weight */
	assert_int_equal(choose_target(t, 3, 0), 2);
	t[2].outstanding = 6; /* level with the second: chance by weight */
	assert_int_equal(choose_target(t, 3, 0.3), 1);
	assert_int_equal(choose_target(t, 3, 0.4), 2);
	t[2].may_be_asked = t[1].may_be_asked = false;
	assert_int_equal(choose_target(t, 3, 0.99), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_chain),
	    cmocka_unit_test(test_weights),
	    cmocka_unit_test(test_fewest_outstanding),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
