/* owner - addresses as text and back. */
#include "t/unit/unit.h"

#include "worker/backplane/owner.h"

static void
test_there_and_back(void **state)
{
	static const struct backplane_addr addrs[] = {{0, {0, 0}}, {1, {2, 3}},
	    {UINT64_MAX, {UINT32_MAX, UINT32_MAX}}, {0x123456789abcdef0, {11, 4711}}};

	for (size_t i = 0; i < sizeof(addrs) / sizeof(addrs[0]); i++) {
		struct backplane_addr back;
		char text[OWNER_MAX];

		owner_format(addrs[i], text);
		assert_true(strlen(text) < OWNER_MAX);
		assert_true(owner_parse(text, &back));
		assert_true(owner_equal(addrs[i], back));
		back.who.number++;
		assert_false(owner_equal(addrs[i], back));
	}
}

static void
test_how_it_looks(void **state)
{
	char text[OWNER_MAX];

	owner_format((struct backplane_addr){0xab, {1, 31}}, text);
	assert_string_equal(text, "00000000000000ab.1.1f");
	owner_format_host((struct backplane_addr){0xab, {1, 31}}, text);
	assert_string_equal(text, "00000000000000ab.");
}

static void
test_what_is_none(void **state)
{
	static const char *const bad[] = {"", ".", "..", "1.2", "1.2.", ".1.2", "1..2", "1.2.3.4",
	    "1.2.3 ", "g.1.2", "A.1.2", "-1.2.3", "0x1.2.3", "1.100000000.2", "1.2.100000000",
	    "10000000000000000.1.2", "1.2.3.", "\xff.1.2"};
	struct backplane_addr addr;

	assert_false(owner_parse(NULL, &addr));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(owner_parse(bad[i], &addr));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_there_and_back),
	    cmocka_unit_test(test_how_it_looks),
	    cmocka_unit_test(test_what_is_none),
	};

	return cmocka_run_group_tests_name("worker/turn/owner", tests, NULL, NULL);
}
