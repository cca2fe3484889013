/* id: made, read back, ordered by time. */
#include "t/unit/unit.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/id.h"

static const char *const prefixes[] = {"sess", "turn", "msg", "call", "task", "app", "key", "wh"};

static void
test_round_trip(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(prefixes); i++) {
		struct id id = id_new(prefixes[i]), back;

		assert_int_equal(strlen(id.s), strlen(prefixes[i]) + 1 + ID_BODY_LEN);
		assert_true(id_parse(id_str(&id), prefixes[i], &back));
		assert_string_equal(back.s, id.s);
		assert_false(id_parse(id_str(&id), prefixes[(i + 1) % ARRAY_LEN(prefixes)], &back));
	}
}

static void
test_the_time_comes_first(void **state)
{
	int64_t before = clock_wall_ms();
	struct id id = id_new("msg");
	int64_t after = clock_wall_ms();
	uint8_t bits[16];
	int64_t ms = 0;

	id_bits(&id, bits);
	for (int i = 0; i < 6; i++)
		ms = ms << 8 | bits[i];
	assert_true(ms >= before && ms <= after);
}

static void
test_bits(void **state)
{
	struct id id;
	uint8_t bits[16];
	static const uint8_t ones[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x04, 0x21};

	assert_true(id_parse(STR("turn_00000000000000000000000111"), "turn", &id));
	id_bits(&id, bits);
	assert_memory_equal(bits, ones, 16);
	assert_true(id_parse(STR("turn_7zzzzzzzzzzzzzzzzzzzzzzzzz"), "turn", &id));
	id_bits(&id, bits);
	for (int i = 0; i < 16; i++)
		assert_int_equal(bits[i], 0xff);
}

static void
test_text_of_bits(void **state)
{
	uint8_t bits[16];

	for (int i = 0; i < 100; i++) {
		struct id id = id_new("sess"), back;

		id_bits(&id, bits);
		back = id_of_bits("sess", bits);
		assert_string_equal(back.s, id.s);
	}
}

static void
test_bad_ones(void **state)
{
	static const char *const bad[] = {"", "turn", "turn_", "turn_0000000000000000000000011",
	    "turn_0000000000000000000000011111", "turn-00000000000000000000000111",
	    "Turn_00000000000000000000000111", "turn_80000000000000000000000000",
	    "turn_0000000000000000000000011i", "turn_0000000000000000000000011l",
	    "turn_0000000000000000000000011o", "turn_0000000000000000000000011u",
	    "turn_0000000000000000000000011 ", "sess_00000000000000000000000111"};
	struct id id = {.s = "as it was"};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		assert_false(id_parse(str_of(bad[i]), "turn", &id));
		assert_string_equal(id.s, "as it was");
	}
	assert_false(id_parse(str_sub("turn_0000000000000000000000011\0", 31), "turn", &id));
	assert_true(id_parse(STR("turn_0000000000000000000000ABCD"), "turn", &id));
	assert_string_equal(id.s, "turn_0000000000000000000000abcd");
}

static int
by_text(const void *a, const void *b)
{
	return strcmp(((const struct id *)a)->s, ((const struct id *)b)->s);
}

static void
test_never_twice(void **state)
{
	enum { COUNT = 100000 };
	struct id *ids = xcalloc(COUNT, sizeof(*ids));

	for (size_t i = 0; i < COUNT; i++)
		ids[i] = id_new("call");
	qsort(ids, COUNT, sizeof(*ids), by_text);
	for (size_t i = 1; i < COUNT; i++)
		assert_true(by_text(&ids[i - 1], &ids[i]) < 0);
	free(ids);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_round_trip),
	    cmocka_unit_test(test_the_time_comes_first),
	    cmocka_unit_test(test_bits),
	    cmocka_unit_test(test_text_of_bits),
	    cmocka_unit_test(test_bad_ones),
	    cmocka_unit_test(test_never_twice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
