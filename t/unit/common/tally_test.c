/* tally_test - what is counted leaves with its tenth of the window. */
#include "t/unit/unit.h"

#include "common/tally.h"

static struct tally tally;

static void
expect(uint64_t since_ms, uint64_t now_ms, uint64_t a, uint64_t b)
{
	struct tally_counts n = tally_read(&tally, 1000, since_ms, now_ms);

	assert_int_equal(n.a, a);
	assert_int_equal(n.b, b);
}

static void
test_window(void **state)
{
	(void)state;
	tally = (struct tally){0};
	expect(0, 0, 0, 0);
	tally_add(&tally, 1000, 1, 0, 50);
	tally_add(&tally, 1000, 2, 1, 99);
	expect(0, 99, 3, 1);
	tally_add(&tally, 1000, 5, 5, 100);
	expect(0, 150, 8, 6);
	expect(0, 999, 8, 6);
	expect(0, 1000, 5, 5); /* the first tenth has left */
	expect(0, 1100, 0, 0);
	tally_add(&tally, 1000, 1, 1, 1100); /* in the place of the second */
	expect(0, 1100, 1, 1);
	expect(0, 1000000, 0, 0);
}

static void
test_since(void **state)
{
	(void)state;
	tally = (struct tally){0};
	tally_add(&tally, 1000, 1, 1, 550);
	tally_add(&tally, 1000, 2, 0, 650);
	expect(0, 700, 3, 1);
	expect(500, 700, 3, 1);
	expect(501, 700, 2, 0); /* only whole tenths after it */
	expect(601, 700, 0, 0);
}

static void
test_limit(void **state)
{
	(void)state;
	tally = (struct tally){0};
	tally_add(&tally, 1000, TALLY_BUCKET_MAX, TALLY_BUCKET_MAX - 1, 0);
	tally_add(&tally, 1000, 7, 1, 0);
	tally_add(&tally, 1000, 7, UINT32_MAX, 0);
	expect(0, 0, TALLY_BUCKET_MAX, TALLY_BUCKET_MAX);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_window),
	    cmocka_unit_test(test_since),
	    cmocka_unit_test(test_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
