/* position - how far somebody has heard each host: as text and back, greater and less. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "worker/events/position.h"

static void
test_text(void **state)
{
	static const char *const broken[] = {"", "-", "1-", "1-2", "1-2.", "1-.2", "x", "1-2.3-",
	    "1--2.3", "11112222333344445", "1-2.3.4", "1-2.3 ", "F"};
	struct position p = {.at_ms = 0x19a, .count = 0}, again;
	char text[POSITION_TEXT_MAX];

	(void)state;
	position_set(&p, 0xabc, 5);
	position_set(&p, 0xdef, UINT64_MAX);
	size_t len = position_format(&p, text);
	assert_string_equal(text, "19a-def.ffffffffffffffff-abc.5");
	assert_true(position_parse(str_sub(text, len), &again));
	assert_memory_equal(&p, &again, sizeof(p));
	for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++)
		assert_false(position_parse(str_of(broken[i]), &again));
	assert_true(position_parse(STR("1"), &again));
	assert_int_equal(again.count, 0);
}

static void
test_order(void **state)
{
	struct position a = {.count = 0}, b = {.count = 0};

	(void)state;
	position_set(&a, 1, 10);
	position_set(&b, 2, 5);
	assert_false(position_covers(&a, &b));
	assert_int_equal(position_get(&a, 2), 0);
	position_merge(&a, &b);
	assert_true(position_covers(&a, &b));
	assert_false(position_covers(&b, &a));
	position_set(&b, 1, 9);
	position_merge(&a, &b);
	assert_int_equal(position_get(&a, 1), 10);
}

/* The longest silent host is forgotten, and the text stays within its bounds. */
static void
test_many(void **state)
{
	struct position p = {.at_ms = INT64_MAX, .count = 0};
	char text[POSITION_TEXT_MAX];

	(void)state;
	for (uint64_t host = 0; host <= POSITION_HOSTS; host++)
		position_set(&p, UINT64_MAX - host, UINT64_MAX);
	assert_int_equal(p.count, POSITION_HOSTS);
	assert_int_equal(position_get(&p, UINT64_MAX), 0);
	assert_true(position_get(&p, UINT64_MAX - 1) > 0);
	assert_true(position_format(&p, text) < POSITION_TEXT_MAX);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_text),
	    cmocka_unit_test(test_order),
	    cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
