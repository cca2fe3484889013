/* sqlite_db: many processes that open the same file at once, as workers do at their start. */
#include "t/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/conf.h"
#include "worker/store/sqlite_db.h"
#include "worker/store/store.h"

enum { PROCESSES = 8, ROUNDS = 20 };

static char dir[64];

static void
open_in_child(const char *path, int gate)
{
	struct sqlite_failure failure = {""};
	struct sqlite_db_conf conf = {.path = path, .failure = &failure};
	struct sqlite_db *db;
	char go;

	if (read(gate, &go, 1) != 0) /* all at once: when the parent closes its end */
		_exit(2);
	if (sqlite_db_open(&conf, &db) != 0) {
		fprintf(stderr, "%s\n", failure.text);
		_exit(1);
	}
	sqlite_db_close(&db);
	_exit(0);
}

static void
test_nobody_is_turned_away(void **state)
{
	char text[128], path[96];
	struct conf_source source = {.text = STR_NONE};
	struct buf errors = BUF_INIT;
	int gate[2], status;

	snprintf(path, sizeof(path), "%s/parley.db", dir);
	snprintf(text, sizeof(text), "store: {url: \"sqlite:%s\"}\n", path);
	source.text = str_of(text);
	struct conf *conf = conf_load(&source, &errors);
	assert_non_null(conf);
	for (int round = 0; round < ROUNDS; round++) {
		if (round % 4 == 0)
			assert_int_equal(store_migrate(conf), 0);
		assert_int_equal(pipe(gate), 0);
		for (int i = 0; i < PROCESSES; i++) {
			if (fork() == 0) {
				close(gate[1]);
				open_in_child(path, gate[0]);
			}
		}
		close(gate[0]);
		close(gate[1]);
		for (int i = 0; i < PROCESSES; i++) {
			assert_true(wait(&status) > 0);
			assert_int_equal(status, 0);
		}
	}
	conf_free(&conf);
	buf_fini(&errors);
}

static int
make_dir(void **state)
{
	strcpy(dir, "/tmp/parley-open-XXXXXX");
	return mkdtemp(dir) != NULL ? 0 : -1;
}

static int
remove_dir(void **state)
{
	char command[96];

	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_nobody_is_turned_away),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
