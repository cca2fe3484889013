/* arena: what is handed out is aligned, apart from each other, and stays as written. */
#include "t/unit/unit.h"

#include <stdalign.h>
#include <stdlib.h>

#include "common/arena.h"

static void
test_alignment_and_separation(void **state)
{
	struct arena a = ARENA_INIT;
	enum { COUNT = 3000 };
	static struct {
		unsigned char *p;
		size_t size;
	} given[COUNT];

	srand(1);
	for (size_t i = 0; i < COUNT; i++) {
		size_t size = (size_t)rand() % (i % 100 == 0 ? 200000 : 300);

		given[i].p = arena_alloc(&a, size);
		given[i].size = size;
		assert_int_equal((uintptr_t)given[i].p % alignof(max_align_t), 0);
		memset(given[i].p, (int)(i & 0xff), size);
	}
	for (size_t i = 0; i < COUNT; i++) {
		for (size_t k = 0; k < given[i].size; k++)
			assert_int_equal(given[i].p[k], i & 0xff);
	}
	arena_fini(&a);
	assert_null(a.head);
	assert_int_equal(a.used_bytes, 0);
}

static void
test_a_large_one_leaves_the_block_in_use(void **state)
{
	struct arena a = ARENA_INIT;
	char *before = arena_alloc(&a, 16);

	memset(arena_alloc(&a, 1 << 20), 1, 1 << 20);
	char *after = arena_alloc(&a, 16);
	assert_ptr_equal(after, before + 16);
	arena_fini(&a);
	/* Also when it is the first of all, and the arena is usable afterwards. */
	memset(arena_alloc(&a, 1 << 20), 1, 1 << 20);
	memset(arena_alloc(&a, 100), 2, 100);
	assert_int_equal(a.used_bytes, (1 << 20) + 112);
	arena_fini(&a);
}

static void
test_text(void **state)
{
	struct arena a = ARENA_INIT;
	char *zero = arena_calloc(&a, 1000);

	for (size_t i = 0; i < 1000; i++)
		assert_int_equal(zero[i], 0);
	assert_string_equal(arena_strdup(&a, str_sub("abcdef", 3)), "abc");
	assert_string_equal(arena_strdup(&a, STR_NONE), "");
	assert_string_equal(arena_printf(&a, "%s-%05d", "x", 42), "x-00042");
	assert_int_equal(strlen(arena_printf(&a, "%070000d", 1)), 70000);
	arena_fini(&a);
	arena_fini(&a);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_alignment_and_separation),
	    cmocka_unit_test(test_a_large_one_leaves_the_block_in_use),
	    cmocka_unit_test(test_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
