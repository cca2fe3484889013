/* peers - counted over all rows, never beyond the limit, gone with their worker. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/wait.h>
#include <unistd.h>

#include "common/peers.h"

#define HASH(n) ((uint64_t)(n)*0x9e3779b97f4a7c15ULL)

static void
test_limit(void **state)
{
	struct shm *shm = shm_create(2);
	struct shm_who a, b;
	uint16_t place[4], other;

	(void)state;
	assert_true(shm_row_claim(shm, 0, 1, &a));
	assert_true(shm_row_claim(shm, 1, 2, &b));
	assert_true(peers_enter(shm, a, HASH(1), 3, &place[0]));
	assert_true(peers_enter(shm, b, HASH(1), 3, &place[1]));
	assert_true(peers_enter(shm, a, HASH(1), 3, &place[2]));
	assert_int_not_equal(place[0], 0);
	assert_int_equal(place[0], place[2]);
	assert_false(peers_enter(shm, a, HASH(1), 3, &place[3]));
	assert_false(peers_enter(shm, b, HASH(1), 3, &place[3]));
	/* Another address, and a limit that was raised. */
	assert_true(peers_enter(shm, b, HASH(2), 1, &other));
	assert_true(peers_enter(shm, b, HASH(1), 4, &place[3]));
	peers_leave(shm, b, place[3]);

	peers_leave(shm, b, place[1]);
	assert_true(peers_enter(shm, a, HASH(1), 3, &place[1]));
	assert_false(peers_enter(shm, b, HASH(1), 3, &place[3]));
	/* What a dead worker had is free. */
	shm_row_reap(shm, a);
	for (int i = 0; i < 3; i++)
		assert_true(peers_enter(shm, b, HASH(1), 3, &place[i]));
	assert_false(peers_enter(shm, b, HASH(1), 3, &place[3]));
	peers_leave(shm, b, 0);
	shm_free(&shm);
}

/* More addresses in one bucket than it has places. */
static void
test_full(void **state)
{
	struct shm *shm = shm_create(1);
	struct shm_who me;
	uint16_t place[17];

	(void)state;
	assert_true(shm_row_claim(shm, 0, 1, &me));
	for (uint64_t i = 0; i < 17; i++)
		assert_true(peers_enter(shm, me, (i + 1) << 20, 1, &place[i]));
	assert_int_equal(place[16], 0);
	assert_true(peers_enter(shm, me, 17 << 20, 1, &place[16]));
	assert_false(peers_enter(shm, me, 16 << 20, 1, &place[16]));
	peers_leave(shm, me, place[3]);
	assert_true(peers_enter(shm, me, 17 << 20, 1, &place[16]));
	assert_int_equal(place[16], place[3]);
	shm_free(&shm);
}

enum { LIMIT = 20, ROUNDS = 20000 };

/* Enters and leaves; 1 when the sum of those that are in ever passed the limit. */
static int
storm(struct shm *shm, struct shm_who me, _Atomic int *in)
{
	uint16_t place[LIMIT];
	int have = 0, was_over = 0;

	for (int i = 0; i < ROUNDS; i++) {
		if (have < LIMIT && peers_enter(shm, me, HASH(7), LIMIT, &place[have])) {
			have++;
			was_over |= atomic_fetch_add(in, 1) >= LIMIT;
		} else if (have > 0) {
			atomic_fetch_sub(in, 1);
			peers_leave(shm, me, place[--have]);
		}
		if (i % 7 == 0 && have > 0) {
			atomic_fetch_sub(in, 1);
			peers_leave(shm, me, place[--have]);
		}
	}
	while (have > 0) {
		atomic_fetch_sub(in, 1);
		peers_leave(shm, me, place[--have]);
	}
	return was_over;
}

static void
test_many_at_once(void **state)
{
	struct shm *shm = shm_create(4);
	_Atomic int *in = (_Atomic int *)(void *)shm_word(shm, SHM_WORD_STORE_WRITER);
	uint16_t place;
	struct shm_who me;

	(void)state;
	for (uint32_t i = 0; i < 4; i++) {
		assert_true(shm_row_claim(shm, i, 1, &me));
		if (fork() == 0)
			_exit(storm(shm, me, in));
	}
	for (int i = 0; i < 4; i++) {
		int status;

		assert_true(wait(&status) > 0);
		assert_int_equal(status, 0);
	}
	for (int i = 0; i < LIMIT; i++)
		assert_true(peers_enter(shm, me, HASH(7), LIMIT, &place));
	assert_false(peers_enter(shm, me, HASH(7), LIMIT, &place));
	shm_free(&shm);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_limit),
	    cmocka_unit_test(test_full),
	    cmocka_unit_test(test_many_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
