/* shm - rows, their life, snapshots, attaching. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/metric.h"
#include "common/shm.h"

static void
test_rows(void **state)
{
	struct shm *shm = shm_create(2);
	struct shm_who who[9];
	struct shm_row_info info;

	(void)state;
	assert_non_null(shm);
	assert_int_equal(shm_slots(shm), 2);
	assert_int_equal(shm_rows(shm), 8);
	assert_false(shm_row_get(shm, 0, &info));
	assert_false(shm_row_was_used(shm, 0));
	for (uint32_t i = 0; i < 8; i++) {
		assert_true(shm_row_claim(shm, i % 2, 100 + (int)i, &who[i]));
		assert_int_equal(who[i].row, i);
		assert_int_equal(who[i].number, i + 1);
	}
	assert_false(shm_row_claim(shm, 0, 1, &who[8]));
	assert_true(shm_row_get(shm, 3, &info));
	assert_int_equal(info.who.number, 4);
	assert_int_equal(info.slot, 1);
	assert_int_equal(info.pid, 103);
	assert_int_equal(info.state, SHM_STARTING);
	assert_int_equal(info.bus_name_len, 0);
	shm_free(&shm);
	assert_null(shm);
}

static void
test_life(void **state)
{
	struct shm *shm = shm_create(1);
	struct shm_who old, new;
	struct shm_row_info info;

	(void)state;
	assert_true(shm_row_claim(shm, 0, 0, &old));
	shm_row_set_pid(shm, old, 77);
	shm_row_set_bus_name(shm, old, "abcde", 5);
	shm_row_set_state(shm, old, SHM_READY);
	assert_true(shm_row_get(shm, old.row, &info));
	assert_int_equal(info.pid, 77);
	assert_int_equal(info.state, SHM_READY);
	assert_int_equal(info.bus_name_len, 5);
	assert_memory_equal(info.bus_name, "abcde", 5);
	assert_true(shm_is_alive(shm, old));

	shm_row_reap(shm, old);
	assert_false(shm_is_alive(shm, old));
	assert_false(shm_row_get(shm, old.row, &info));
	assert_true(shm_row_was_used(shm, old.row));

	assert_true(shm_row_claim(shm, 0, 0, &new));
	assert_int_equal(new.row, old.row);
	assert_true(new.number > old.number);
	assert_true(shm_row_get(shm, new.row, &info));
	assert_int_equal(info.bus_name_len, 0);
	/* A dead one's last words change nothing. */
	shm_row_set_state(shm, old, SHM_READY);
	shm_row_set_bus_name(shm, old, "late", 4);
	shm_row_reap(shm, old);
	assert_true(shm_row_get(shm, new.row, &info));
	assert_int_equal(info.state, SHM_STARTING);
	assert_int_equal(info.bus_name_len, 0);
	assert_false(shm_is_alive(shm, (struct shm_who){0, 0}));
	assert_false(shm_is_alive(shm, (struct shm_who){99, 1}));
	shm_free(&shm);
}

/* What the dead leave waits for whoever comes, each by its number, the last eight of a row. */
static void
test_left(void **state)
{
	struct shm *shm = shm_create(1);
	struct shm_who who[10], found;

	(void)state;
	assert_false(shm_row_left(shm, 0, 0, &found));
	for (int i = 0; i < 3; i++) {
		assert_true(shm_row_claim(shm, 0, 0, &who[i]));
		assert_int_equal(who[i].row, 0);
		assert_false(shm_is_left(shm, who[i]));
		shm_row_reap(shm, who[i]);
		shm_row_reap(shm, who[i]);
		assert_true(shm_is_left(shm, who[i]));
	}
	shm_settle(shm, who[1]);
	assert_false(shm_is_left(shm, who[1]));
	assert_true(shm_row_left(shm, 0, 0, &found));
	assert_int_equal(found.number, who[0].number);
	assert_true(shm_row_left(shm, 0, found.number, &found));
	assert_int_equal(found.number, who[2].number);
	assert_false(shm_row_left(shm, 0, found.number, &found));
	for (int i = 3; i < 10; i++) {
		assert_true(shm_row_claim(shm, 0, 0, &who[i]));
		shm_row_reap(shm, who[i]);
	}
	assert_false(shm_is_left(shm, who[0]));
	for (int i = 2; i < 10; i++)
		assert_true(shm_is_left(shm, who[i]));
	shm_free(&shm);
}

/* Where the shape has it: magic, four numbers, eleven places and sizes, the size of the metrics. */
static off_t
shape_hash_at(void)
{
	return 8 + 4 * 4 + 11 * 8 + 8;
}

static void
test_attach(void **state)
{
	struct shm *shm = shm_create(3), *other;
	struct shm_who who;
	uint32_t junk = 0xffff;

	(void)state;
	assert_true(shm_row_claim(shm, 2, 5, &who));
	*shm_word(shm, SHM_WORD_KEYS_GENERATION) = 9;
	other = shm_attach(dup(shm_fd(shm)));
	assert_non_null(other);
	assert_int_equal(shm_host_id(other), shm_host_id(shm));
	assert_int_equal(shm_started_wall_ms(other), shm_started_wall_ms(shm));
	assert_int_equal(shm_rows(other), 10);
	assert_true(shm_is_alive(other, who));
	assert_int_equal(*shm_word(other, SHM_WORD_KEYS_GENERATION), 9);
	shm_free(&other);
	/* Other metrics: everything else is shared, they are our own. */
	uint64_t other_hash = 1;
	off_t hash_at = shape_hash_at();
	assert_int_equal(pwrite(shm_fd(shm), &other_hash, 8, hash_at), 8);
	other = shm_attach(dup(shm_fd(shm)));
	assert_non_null(other);
	assert_true(shm_is_alive(other, who));
	*(char *)shm_metrics(other, NULL) = 7;
	assert_int_equal(*(char *)shm_metrics(shm, NULL), 0);
	metric_row_clear_gauges(other, 0);
	shm_free(&other);
	/* Another version. */
	assert_int_equal(pwrite(shm_fd(shm), &junk, 4, 8), 4);
	errno = 0;
	assert_null(shm_attach(shm_fd(shm)));
	assert_int_equal(errno, EPROTO);
	shm_free(&shm);
	int fd = memfd_create("empty", 0);
	assert_null(shm_attach(fd));
	close(fd);
}

static void
test_sparse(void **state)
{
	struct shm *shm = shm_create(64);
	struct stat st;
	struct shm_who who;

	(void)state;
	for (int i = 0; i < 132; i++)
		assert_true(shm_row_claim(shm, 0, 1, &who));
	assert_int_equal(fstat(shm_fd(shm), &st), 0);
	assert_true(st.st_size > 10 << 20);
	assert_true(st.st_blocks * 512 < 128 << 10);
	shm_free(&shm);
}

/* A reader never sees one incarnation's number with another's name. */
static void
test_snapshots(void **state)
{
	struct shm *shm = shm_create(1);
	struct shm_row_info info;
	struct shm_who who;
	int status, seen = 0;

	(void)state;
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		for (int i = 0; i < 20000; i++) {
			if (!shm_row_claim(shm, 0, 1, &who))
				_exit(1);
			shm_row_set_pid(shm, who, (int)who.number);
			shm_row_set_bus_name(shm, who, (const char *)&who.number, 4);
			shm_row_set_state(shm, who, SHM_READY);
			shm_row_reap(shm, who);
		}
		_exit(0);
	}
	while (waitpid(pid, &status, WNOHANG) == 0) {
		uint32_t number;

		if (!shm_row_get(shm, 0, &info) || info.bus_name_len == 0)
			continue;
		memcpy(&number, info.bus_name, 4);
		assert_int_equal(number, info.who.number);
		seen++;
	}
	assert_int_equal(status, 0);
	print_message("%d snapshots\n", seen);
	shm_free(&shm);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_rows),
	    cmocka_unit_test(test_life),
	    cmocka_unit_test(test_left),
	    cmocka_unit_test(test_attach),
	    cmocka_unit_test(test_sparse),
	    cmocka_unit_test(test_snapshots),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
