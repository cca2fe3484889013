/* strmap: compared with an array of all possible keys. */
#include "t/unit/unit.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/strmap.h"

enum { KEYS = 500 };

static struct str
key_of(size_t i, char room[600])
{
	/* Lengths 0 to 520, so that every tail of the hash is met; two keys with a NUL inside. */
	if (i == 0)
		return STR_NONE;
	int n = snprintf(room, 600, "%zu", i);
	memset(room + n, 'k', i);
	room[n] = (char)(i % 7 == 0 ? '\0' : 'x');
	return str_sub(room, (size_t)n + i);
}

static void
expect_same(const struct strmap *map, void *const model[KEYS])
{
	char room[600];
	size_t count = 0, walked = 0, cursor = 0;
	struct str key;
	void *value;

	for (size_t i = 0; i < KEYS; i++) {
		assert_ptr_equal(strmap_get(map, key_of(i, room)), model[i]);
		count += model[i] != NULL;
	}
	assert_int_equal(strmap_count(map), count);
	for (; strmap_next(map, &cursor, &key, &value); walked++)
		assert_ptr_equal(strmap_get(map, key), value);
	assert_int_equal(walked, count);
}

static void
test_against_an_array(void **state)
{
	static char values[KEYS * 4];
	void *model[KEYS] = {NULL};
	struct strmap *map = strmap_new();
	char room[600];

	srand(4);
	expect_same(map, model);
	for (int round = 0; round < 40000; round++) {
		/* Phases that fill and phases that empty, so that it is nearly full and nearly
		 * bare. */
		bool is_filling = round / 4000 % 2 == 0;
		size_t i = (size_t)rand() % KEYS;
		struct str key = key_of(i, room);

		if (rand() % 10 < (is_filling ? 8 : 2)) {
			void *value = &values[(size_t)rand() % sizeof(values)];

			assert_ptr_equal(strmap_set(map, key, value), model[i]);
			model[i] = value;
		} else {
			assert_ptr_equal(strmap_del(map, key), model[i]);
			model[i] = NULL;
		}
		if (round % 500 == 0)
			expect_same(map, model);
	}
	expect_same(map, model);
	strmap_free(&map);
	assert_null(map);
	strmap_free(&map);
}

static void
test_the_key_is_copied(void **state)
{
	struct strmap *map = strmap_new();
	char key[] = "alpha";
	int value;

	assert_null(strmap_set(map, str_of(key), &value));
	key[0] = 'b';
	assert_ptr_equal(strmap_get(map, STR("alpha")), &value);
	assert_null(strmap_get(map, str_of(key)));
	assert_null(strmap_get(map, STR("alph")));
	strmap_free(&map);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_against_an_array),
	    cmocka_unit_test(test_the_key_is_copied),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
