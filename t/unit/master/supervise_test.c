/*
 * supervise: rows that another master's workers have left are freed, those of a living master's
 * workers are left to it.
 */
#include "t/unit/unit.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/check.h"
#include "common/conf.h"
#include "master/supervise.h"

enum { LOOKS_MAX = 100 };

static const struct supervise_handlers handlers;
static struct event_base *base;
static struct shm *shm;
static struct supervise *supervise;

static int
start(void **state)
{
	struct conf_source source = {.text = STR("")};
	struct buf errors = BUF_INIT;

	base = event_base_new();
	shm = shm_create(2);
	supervise = supervise_new(base, shm, NULL, conf_load(&source, &errors), 2, &handlers, NULL);
	buf_fini(&errors);
	return 0;
}

static int
stop(void **state)
{
	supervise_free(&supervise);
	shm_free(&shm);
	event_base_free(base);
	return 0;
}

/* One whose process has ended and was waited for. */
static struct shm_who
add_dead(void)
{
	struct shm_who who;
	pid_t pid = fork();

	if (pid == 0)
		_exit(EXIT_SUCCESS);
	check(waitpid(pid, NULL, 0) == pid);
	check(shm_row_claim(shm, 0, pid, &who));
	return who;
}

static bool
is_there(struct shm_who who)
{
	struct shm_row_info info;

	return shm_row_get(shm, who.row, &info) && info.who.number == who.number;
}

static void
look(void)
{
	assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 0);
}

static void
rows_that_were_left_are_freed(void **state)
{
	struct shm_who left = add_dead(), also_left = add_dead(), alive;

	check(shm_row_claim(shm, 1, getpid(), &alive));
	supervise_other_gone(supervise);
	for (int i = 0; i < LOOKS_MAX && is_there(left); i++)
		look();
	assert_false(is_there(left) || is_there(also_left));
	assert_true(is_there(alive));
	shm_row_reap(shm, alive);
}

/* Between two looks its row is freed, and taken by one who ends as quickly. */
static void
a_living_master_frees_its_own(void **state)
{
	struct shm_who ended = add_dead();

	supervise_other_gone(supervise);
	look();
	assert_true(is_there(ended));
	shm_row_reap(shm, ended);
	ended = add_dead();
	look();
	assert_true(is_there(ended));
	look();
	assert_false(is_there(ended));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(rows_that_were_left_are_freed, start, stop),
	    cmocka_unit_test_setup_teardown(a_living_master_frees_its_own, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
