/* owners - found in the rows of the living, and only there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <sys/stat.h>

#include "common/owners.h"

static void
test_find(void **state)
{
	struct shm *shm = shm_create(2);
	struct shm_who a, b, found;
	struct id turn = id_new("turn"), call = id_new("call"), other = id_new("turn");

	(void)state;
	assert_true(shm_row_claim(shm, 0, 1, &a));
	assert_true(shm_row_claim(shm, 1, 2, &b));
	assert_false(owners_find(shm, &turn, &found));
	assert_true(owners_add(shm, a, &turn));
	assert_true(owners_add(shm, b, &call));
	assert_true(owners_find(shm, &turn, &found));
	assert_int_equal(found.number, a.number);
	assert_true(owners_find(shm, &call, &found));
	assert_int_equal(found.number, b.number);
	assert_false(owners_find(shm, &other, &found));

	/* Twice is once. */
	assert_true(owners_add(shm, a, &turn));
	owners_remove(shm, a, &turn);
	owners_remove(shm, a, &turn);
	owners_remove(shm, a, &call);
	assert_false(owners_find(shm, &turn, &found));
	assert_true(owners_find(shm, &call, &found));

	/* The dead own nothing, nor do their successors. */
	shm_row_reap(shm, b);
	assert_false(owners_find(shm, &call, &found));
	assert_true(shm_row_claim(shm, 1, 3, &b));
	assert_false(owners_find(shm, &call, &found));
	shm_free(&shm);
}

static void
test_full(void **state)
{
	struct shm *shm = shm_create(1);
	struct id *ids = malloc((OWNERS_MAX + 1) * sizeof(*ids));
	struct shm_who me, found;
	struct stat st;

	(void)state;
	assert_true(shm_row_claim(shm, 0, 1, &me));
	for (int i = 0; i <= OWNERS_MAX; i++)
		ids[i] = id_new("turn");
	for (int i = 0; i < 400; i++)
		assert_true(owners_add(shm, me, &ids[i]));
	assert_int_equal(fstat(shm_fd(shm), &st), 0);
	assert_true(st.st_blocks * 512 < 64 << 10);
	for (int i = 400; i < OWNERS_MAX; i++)
		assert_true(owners_add(shm, me, &ids[i]));
	assert_false(owners_add(shm, me, &ids[OWNERS_MAX]));
	for (int i = 0; i < OWNERS_MAX; i++)
		assert_true(owners_find(shm, &ids[i], &found));
	for (int i = 0; i < OWNERS_MAX; i += 2)
		owners_remove(shm, me, &ids[i]);
	for (int i = 0; i < OWNERS_MAX; i++)
		assert_int_equal(owners_find(shm, &ids[i], &found), i % 2);
	assert_true(owners_add(shm, me, &ids[OWNERS_MAX]));
	shm_row_reap(shm, me);
	assert_int_equal(fstat(shm_fd(shm), &st), 0);
	assert_true(st.st_blocks * 512 < 64 << 10);
	free(ids);
	shm_free(&shm);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_find), cmocka_unit_test(test_full)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
