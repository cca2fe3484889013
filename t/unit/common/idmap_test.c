/* idmap: compared with a list of all handles ever given. */
#include "t/unit/unit.h"

#include <stdbool.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/idmap.h"

static void
test_against_a_list(void **state)
{
	enum { COUNT = 20000 };
	static struct {
		uint64_t handle;
		bool is_in;
	} given[COUNT];
	static char objects[COUNT];
	struct idmap *map = idmap_new();
	size_t in = 0;

	srand(3);
	for (size_t i = 0; i < COUNT; i++) {
		given[i].handle = idmap_add(map, &objects[i]);
		given[i].is_in = true;
		in++;
		assert_true(given[i].handle != 0);
		for (int k = rand() % 4; k > 0; k--) {
			size_t victim = (size_t)rand() % (i + 1);

			idmap_remove(map, given[victim].handle);
			in -= given[victim].is_in;
			given[victim].is_in = false;
		}
		assert_int_equal(idmap_count(map), in);
	}
	for (size_t i = 0; i < COUNT; i++)
		assert_ptr_equal(
		    idmap_get(map, given[i].handle), given[i].is_in ? &objects[i] : NULL);
	idmap_free(&map);
	assert_null(map);
	idmap_free(&map);
}

static void
test_strange_handles(void **state)
{
	struct idmap *map = idmap_new();
	int object;

	assert_null(idmap_get(map, 0));
	assert_null(idmap_get(map, UINT64_MAX));
	uint64_t handle = idmap_add(map, &object);
	assert_null(idmap_get(map, 0));
	assert_null(idmap_get(map, handle + 1));
	assert_null(idmap_get(map, handle ^ (1ULL << 40)));
	idmap_remove(map, 12345);
	assert_ptr_equal(idmap_get(map, handle), &object);
	idmap_remove(map, handle);
	idmap_remove(map, handle);
	uint64_t again = idmap_add(map, &object);
	assert_true(again != handle);
	assert_null(idmap_get(map, handle));
	idmap_free(&map);
}

static void
test_walk_while_removing(void **state)
{
	struct idmap *map = idmap_new();
	uint64_t handles[100];
	int objects[100];
	uint32_t cursor = 0;
	size_t seen = 0;

	for (size_t i = 0; i < 100; i++)
		handles[i] = idmap_add(map, &objects[i]);
	for (int *object; (object = idmap_next(map, &cursor)) != NULL; seen++) {
		assert_ptr_equal(object, &objects[seen]);
		idmap_remove(map, handles[seen]);
	}
	assert_int_equal(seen, 100);
	assert_int_equal(idmap_count(map), 0);
	cursor = 0;
	assert_null(idmap_next(map, &cursor));
	idmap_free(&map);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_against_a_list),
	    cmocka_unit_test(test_strange_handles),
	    cmocka_unit_test(test_walk_while_removing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
