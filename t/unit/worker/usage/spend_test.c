/* spend - which share of a budget has been passed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "worker/usage/spend.h"

static void
test_shares(void **state)
{
	(void)state;
	assert_int_equal(spend_share_passed(1000, 0, 499), 0);
	assert_int_equal(spend_share_passed(1000, 499, 500), 50);
	assert_int_equal(spend_share_passed(1000, 500, 749), 0);
	assert_int_equal(spend_share_passed(1000, 500, 750), 75);
	assert_int_equal(spend_share_passed(1000, 0, 950), 90);
	assert_int_equal(spend_share_passed(1000, 0, 5000), 100);
	assert_int_equal(spend_share_passed(1000, 1000, 5000), 0);
	assert_int_equal(spend_share_passed(INT64_MAX, 0, INT64_MAX), 100);
	assert_int_equal(spend_share_passed(1, 0, 1), 100);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_shares)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
