/* err: the table is whole, and text leads back to the number. */
#include "t/unit/unit.h"

#include <string.h>

#include "common/err.h"

static void
test_the_table(void **state)
{
	for (int err = -1; err >= -ERR_COUNT; err--) {
		const struct err_info *info = err_info(err);

		assert_int_equal(strncmp(info->name, "E_", 2), 0);
		assert_in_range(info->status, 400, 599);
		assert_true(*info->type && *info->code && *info->text);
		assert_int_equal(err_by_code(info->code), err);
	}
}

static void
test_known_ones(void **state)
{
	assert_int_equal(err_info(E_TURN_IN_PROGRESS)->status, 409);
	assert_string_equal(err_info(E_TURN_IN_PROGRESS)->type, "conflict");
	assert_string_equal(err_info(E_RATE_LIMITED)->name, "E_RATE_LIMITED");
	assert_int_equal(err_by_code("worker_lost"), E_WORKER_LOST);
	assert_int_equal(err_by_code("no_such_code"), E_INTERNAL);
	assert_int_equal(err_by_code(""), E_INTERNAL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_the_table),
	    cmocka_unit_test(test_known_ones),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
