/* places_test - exact, given back by the dead, left to who waits for longest. */
#include "t/unit/unit.h"

#include <stdio.h>

#include "common/places.h"
#include "common/upstreams.h"

static struct shm *shm;
static struct shm_who a, b;
static struct places *places;

static int
setup(void **state)
{
	(void)state;
	shm = shm_create(2);
	assert_true(shm_row_claim(shm, 0, 1, &a));
	assert_true(shm_row_claim(shm, 1, 2, &b));
	places = &upstreams_provider(shm, STR("x"))->places;
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	shm_free(&shm);
	return 0;
}

static void
test_take_and_give(void **state)
{
	uint32_t hint_a = 0, hint_b = 0;
	int of_a[2], of_b;

	(void)state;
	assert_int_equal(places_take(places, 0, shm, a, &hint_a), -1);
	of_a[0] = places_take(places, 3, shm, a, &hint_a);
	of_b = places_take(places, 3, shm, b, &hint_b);
	of_a[1] = places_take(places, 3, shm, a, &hint_a);
	assert_true(of_a[0] >= 0 && of_b >= 0 && of_a[1] >= 0);
	assert_int_equal(places_take(places, 3, shm, b, &hint_b), -1);
	assert_int_equal(places_held(places, 3, shm), 3);
	places_give(places, of_a[0], a);
	assert_int_equal(places_held(places, 3, shm), 2);
	assert_int_equal(places_take(places, 3, shm, b, &hint_b), of_a[0]);
	/* fewer than are held: none until they are back */
	assert_int_equal(places_take(places, 2, shm, b, &hint_b), -1);
}

static void
test_the_dead_hold_nothing(void **state)
{
	uint32_t hint_a = 0, hint_b = 0;

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_true(places_take(places, 3, shm, a, &hint_a) >= 0);
	assert_int_equal(places_take(places, 3, shm, b, &hint_b), -1);
	shm_row_reap(shm, a);
	assert_int_equal(places_held(places, 3, shm), 0);
	for (int i = 0; i < 3; i++)
		assert_true(places_take(places, 3, shm, b, &hint_b) >= 0);
	assert_int_equal(places_take(places, 3, shm, b, &hint_b), -1);
}

static void
test_the_oldest_first(void **state)
{
	(void)state;
	places_wait(places, a, 100, 100);
	assert_true(places_has_older(places, shm, b, 101, 110));
	assert_false(places_has_older(places, shm, b, 100, 110));
	assert_false(places_has_older(places, shm, b, 99, 110));
	assert_false(places_has_older(places, shm, a, 101, 110)); /* not itself */
	/* silent for too long */
	assert_false(places_has_older(places, shm, b, 101, 101 + PLACES_SEEN_MS));
	places_wait(places, a, 100, 200);
	assert_true(places_has_older(places, shm, b, 101, 210));
	shm_row_reap(shm, a);
	assert_false(places_has_older(places, shm, b, 101, 210));
}

static void
test_no_longer_waiting(void **state)
{
	(void)state;
	places_wait(places, a, 100, 100);
	places_wait(places, a, 0, 110);
	assert_false(places_has_older(places, shm, b, 101, 110));
}

static void
test_found_by_name(void **state)
{
	char name[16];

	(void)state;
	assert_ptr_equal(upstreams_provider(shm, STR("x")), upstreams_provider(shm, STR("x")));
	assert_ptr_not_equal(upstreams_provider(shm, STR("x")), upstreams_provider(shm, STR("y")));
	assert_ptr_equal(
	    upstreams_target(shm, STR("x"), STR("m")), upstreams_target(shm, STR("x"), STR("m")));
	assert_ptr_not_equal(
	    upstreams_target(shm, STR("x"), STR("m")), upstreams_target(shm, STR("xm"), STR("")));
	for (int i = 0; i < UPSTREAMS_MAX - 2; i++) {
		snprintf(name, sizeof(name), "p%d", i);
		assert_non_null(upstreams_provider(shm, str_of(name)));
	}
	assert_null(upstreams_provider(shm, STR("one too many")));
	assert_non_null(upstreams_provider(shm, STR("x")));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_take_and_give, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_the_dead_hold_nothing, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_the_oldest_first, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_no_longer_waiting, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_found_by_name, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
