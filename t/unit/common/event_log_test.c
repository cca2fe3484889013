/* event_log - one order for all writers, whole events, and nothing of the dead. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/event_log.h"

static const uint64_t keys[EVENT_LOG_KEYS] = {7, 0};

static void
test_read_back(void **state)
{
	struct shm *shm = shm_create(1);
	struct shm_who me;
	uint64_t found[EVENT_LOG_KEYS];
	struct buf out = BUF_INIT;
	char big[3 * EVENT_LOG_SLOT_BYTES + 1];

	(void)state;
	assert_true(shm_row_claim(shm, 0, 1, &me));
	assert_int_equal(event_log_look(shm, 1, found), EVENT_LOG_END);
	assert_int_equal(event_log_add(shm, me, keys, STR("one")), 1);
	memset(big, 'x', sizeof(big));
	assert_int_equal(event_log_add(shm, me, keys, str_sub(big, sizeof(big))), 2);
	assert_int_equal(event_log_add(shm, me, keys, STR("three")), 6);
	assert_int_equal(event_log_look(shm, 1, found), EVENT_LOG_EVENT);
	assert_int_equal(found[0], 7);
	assert_true(event_log_read(shm, 1, &out));
	assert_true(str_eq(buf_str(&out), STR("one")));
	buf_clear(&out);
	assert_int_equal(event_log_look(shm, 2, found), EVENT_LOG_EVENT);
	assert_true(event_log_read(shm, 2, &out));
	assert_int_equal(out.len, sizeof(big));
	assert_memory_equal(out.data, big, sizeof(big));
	for (uint64_t piece = 3; piece <= 5; piece++) {
		assert_int_equal(event_log_look(shm, piece, found), EVENT_LOG_NOTHING);
		assert_false(event_log_read(shm, piece, &out));
	}
	assert_int_equal(event_log_look(shm, 6, found), EVENT_LOG_EVENT);
	assert_int_equal(event_log_look(shm, 7, found), EVENT_LOG_END);
	buf_fini(&out);
	shm_free(&shm);
}

/* What is older than the log is told to be lost, not read as something else. */
static void
test_overwritten(void **state)
{
	struct shm *shm = shm_create(1);
	struct shm_who me;
	uint64_t found[EVENT_LOG_KEYS];
	struct buf out = BUF_INIT;

	(void)state;
	assert_true(shm_row_claim(shm, 0, 1, &me));
	for (int i = 0; i < EVENT_LOG_SLOTS + 10; i++)
		assert_int_not_equal(event_log_add(shm, me, keys, STR("e")), 0);
	assert_int_equal(event_log_oldest(shm), 11);
	assert_int_equal(event_log_look(shm, 10, found), EVENT_LOG_LOST);
	assert_false(event_log_read(shm, 10, &out));
	assert_int_equal(event_log_look(shm, 11, found), EVENT_LOG_EVENT);
	buf_fini(&out);
	shm_free(&shm);
}

/* What a writer that was a lap late has written over is not read, neither as its nor as the
 * other's. */
static void
test_spoilt(void **state)
{
	struct shm *shm = shm_create(1);
	struct shm_who me;
	uint64_t found[EVENT_LOG_KEYS];
	struct buf out = BUF_INIT;
	char bytes[EVENT_LOG_SLOT_BYTES + 100], *there;

	(void)state;
	assert_true(shm_row_claim(shm, 0, 1, &me));
	memset(bytes, 'q', sizeof(bytes));
	memcpy(bytes, "here it begins", 14);
	assert_int_equal(event_log_add(shm, me, keys, str_sub(bytes, sizeof(bytes))), 1);
	there = memmem(shm_event_log(shm), event_log_shm_bytes(1), "here it begins", 14);
	assert_non_null(there);
	memset(there, 'x', 20);
	assert_int_equal(event_log_look(shm, 1, found), EVENT_LOG_EVENT);
	assert_false(event_log_read(shm, 1, &out));
	assert_int_equal(out.len, 0);
	memcpy(there, bytes, 20);
	assert_true(event_log_read(shm, 1, &out));
	assert_memory_equal(out.data, bytes, sizeof(bytes));
	buf_fini(&out);
	shm_free(&shm);
}

/* A number that nobody writes is given up, and its writer takes another one. */
static void
test_given_up(void **state)
{
	struct shm *shm = shm_create(1);
	struct shm_who me;
	uint64_t found[EVENT_LOG_KEYS];

	(void)state;
	assert_true(shm_row_claim(shm, 0, 1, &me));
	event_log_give_up(shm, 1);
	assert_int_equal(event_log_add(shm, me, keys, STR("late")), 2);
	assert_int_equal(event_log_look(shm, 1, found), EVENT_LOG_NOTHING);
	assert_int_equal(event_log_look(shm, 2, found), EVENT_LOG_EVENT);
	shm_free(&shm);
}

static void
test_wants(void **state)
{
	struct shm *shm = shm_create(2);
	struct shm_who a, b;
	uint64_t key = event_log_key(STR("demo\ntask:1"));

	(void)state;
	assert_true(shm_row_claim(shm, 0, 1, &a));
	assert_true(shm_row_claim(shm, 1, 2, &b));
	event_log_want(shm, a, key, true);
	assert_true(event_log_wants(shm, a.row, key));
	assert_false(event_log_wants(shm, b.row, key));
	assert_true(event_log_wake(shm, a.row));
	assert_false(event_log_wake(shm, a.row));
	event_log_awake(shm, a);
	assert_true(event_log_wake(shm, a.row));
	shm_row_reap(shm, a);
	assert_false(event_log_wants(shm, a.row, key));
	shm_free(&shm);
}

/* ---- writers that are killed at any instruction ---- */

enum { WRITERS = 3, KILLS = 40 };

static void
write_for_ever(struct shm *shm, struct shm_who me)
{
	char text[2 * EVENT_LOG_SLOT_BYTES];
	const uint64_t own[EVENT_LOG_KEYS] = {me.number, 0};

	for (unsigned i = 0;; i++) {
		size_t len = 1 + i % (sizeof(text) - 1);

		memset(text, 'a' + (int)(me.number % 26), len);
		event_log_add(shm, me, own, str_sub(text, len));
	}
}

static int
start_writer(struct shm *shm, uint32_t slot, struct shm_who *ret)
{
	assert_true(shm_row_claim(shm, slot, getpid(), ret));
	int pid = fork();

	if (pid == 0)
		write_for_ever(shm, *ret);
	return pid;
}

static void
check_event(struct shm *shm, uint64_t number, uint64_t key, struct buf *out)
{
	buf_clear(out);
	if (!event_log_read(shm, number, out))
		return; /* overwritten since */
	for (size_t i = 0; i < out->len; i++)
		assert_int_equal(out->data[i], 'a' + (int)(key % 26));
}

static void
test_killed_writers(void **state)
{
	struct shm *shm = shm_create(WRITERS);
	struct shm_who who[WRITERS];
	int pids[WRITERS];
	uint64_t found[EVENT_LOG_KEYS], cursor = 1, read = 0;
	struct buf out = BUF_INIT;

	(void)state;
	srand(1);
	for (uint32_t i = 0; i < WRITERS; i++)
		pids[i] = start_writer(shm, i, &who[i]);
	for (int kills = 0; kills < KILLS;) {
		for (int n = 0; n < 2000; n++) {
			switch (event_log_look(shm, cursor, found)) {
			case EVENT_LOG_EVENT:
				check_event(shm, cursor++, found[0], &out);
				read++;
				break;
			case EVENT_LOG_LOST:
				cursor = event_log_oldest(shm);
				break;
			case EVENT_LOG_SOON:
				if (n == 1999)
					event_log_give_up(shm, cursor++);
				break;
			case EVENT_LOG_NOTHING:
				cursor++;
				break;
			case EVENT_LOG_END:
				break;
			}
		}
		int i = rand() % WRITERS;
		kill(pids[i], SIGKILL);
		waitpid(pids[i], NULL, 0);
		shm_row_reap(shm, who[i]);
		pids[i] = start_writer(shm, (uint32_t)i, &who[i]);
		kills++;
	}
	for (int i = 0; i < WRITERS; i++) {
		kill(pids[i], SIGKILL);
		waitpid(pids[i], NULL, 0);
		shm_row_reap(shm, who[i]);
	}
	/* Nothing is unfinished for ever: all that is left is events, or void. */
	for (uint64_t n = event_log_oldest(shm); n < event_log_next(shm); n++) {
		enum event_log_at at = event_log_look(shm, n, found);

		if (at == EVENT_LOG_SOON) /* it took the number and died before it could claim it */
			event_log_give_up(shm, n);
		assert_int_not_equal(event_log_look(shm, n, found), EVENT_LOG_SOON);
	}
	assert_true(read > 0);
	buf_fini(&out);
	shm_free(&shm);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_read_back),
	    cmocka_unit_test(test_overwritten),
	    cmocka_unit_test(test_spoilt),
	    cmocka_unit_test(test_given_up),
	    cmocka_unit_test(test_wants),
	    cmocka_unit_test(test_killed_writers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
