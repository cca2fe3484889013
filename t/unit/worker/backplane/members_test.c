/* members: who has gone. */
#include "t/unit/unit.h"

#include "worker/backplane/members.h"

static struct backplane_addr gone[8];
static unsigned gone_count;

static void
on_gone(void *arg, struct backplane_addr addr)
{
	gone[gone_count++] = addr;
}

static void
test_who_is_missing(void **state)
{
	const struct backplane_addr all[] = {{7, {1, 4}}, {3, {0, 1}}, {7, {0, 2}}, {7, {1, 3}}};
	struct members m = {.count = 0};

	gone_count = 0;
	members_replace(&m, all, 4, 10, on_gone, NULL);
	assert_int_equal(gone_count, 0);
	members_replace(&m, all + 1, 2, 20, on_gone, NULL);
	assert_int_equal(gone_count, 2);
	assert_true(gone[0].host == 7 && gone[0].who.row == 1 && gone[0].who.number == 3);
	assert_int_equal(gone[1].who.number, 4);
	/* A list that is not to be trusted yet tells nothing, then or later. */
	members_replace(&m, NULL, 0, 30, NULL, NULL);
	members_replace(&m, all, 4, 40, on_gone, NULL);
	assert_int_equal(gone_count, 2);
	members_fini(&m);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_who_is_missing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
