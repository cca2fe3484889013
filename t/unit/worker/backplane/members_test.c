/* members: who has gone, and when a host is known to be. */
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

static void
test_a_host_is_gone_after_a_later_list(void **state)
{
	const struct backplane_addr all[] = {{7, {1, 4}}, {8, {0, 1}}};
	struct members m = {.count = 0};
	bool ask;

	members_replace(&m, all, 1, 10, on_gone, NULL);
	assert_false(members_is_host_gone(&m, 7, 100, &ask));
	assert_false(ask);
	/* It may have begun since the list was read. */
	assert_false(members_is_host_gone(&m, 8, 100, &ask));
	assert_true(ask);
	members_replace(&m, all, 1, 100, on_gone, NULL); /* asked for before the question */
	assert_false(members_is_host_gone(&m, 8, 105, &ask));
	members_replace(&m, all, 1, 101, on_gone, NULL);
	assert_true(members_is_host_gone(&m, 8, 110, &ask));
	members_replace(&m, all, 2, 120, on_gone, NULL);
	assert_false(members_is_host_gone(&m, 8, 130, &ask));
	members_fini(&m);
}

static void
test_doubts_are_bounded(void **state)
{
	struct members m = {.count = 0};
	bool ask;

	for (uint64_t host = 1; host <= 1000; host++)
		assert_false(members_is_host_gone(&m, host, 5, &ask));
	members_replace(&m, NULL, 0, 6, on_gone, NULL);
	assert_true(members_is_host_gone(&m, 1000, 7, &ask));
	assert_false(members_is_host_gone(&m, 1, 7, &ask)); /* forgotten, and doubted anew */
	members_fini(&m);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_who_is_missing),
	    cmocka_unit_test(test_a_host_is_gone_after_a_later_list),
	    cmocka_unit_test(test_doubts_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
