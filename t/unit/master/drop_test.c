/* drop: root is given up for good, with the files that were made before. As root only. */
#include "t/unit/unit.h"

#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "master/drop.h"
#include "master/run_dir.h"

static char dir[64];

static struct conf *
load(const char *more)
{
	char text[256];
	struct conf_source source = {.text = STR_NONE};
	struct buf errors = BUF_INIT;

	snprintf(text, sizeof(text), "run_dir: %s/run\n%s", dir, more);
	source.text = str_of(text);
	struct conf *conf = conf_load(&source, &errors);
	if (conf == NULL)
		fail_msg("%s", errors.data);
	buf_fini(&errors);
	return conf;
}

/* 0, or the line where it went wrong. */
static int
become_nobody(void)
{
	struct conf *conf = load("user: nobody\n");
	const struct passwd *nobody = getpwnam("nobody");
	struct run_dir *run = run_dir_open(conf);
	uid_t real, effective, saved;
	gid_t groups[16];
	struct stat st;
	char *lock = run_dir_path(conf, "lock");

	if (run == NULL || !drop_privileges(conf))
		return __LINE__;
	if (getresuid(&real, &effective, &saved) != 0 || real != nobody->pw_uid ||
	    effective != nobody->pw_uid || saved != nobody->pw_uid)
		return __LINE__;
	if (getgid() != nobody->pw_gid || setuid(0) == 0)
		return __LINE__;
	int n = getgroups(16, groups);
	for (int i = 0; i < n; i++) {
		if (groups[i] == 0)
			return __LINE__;
	}
	if (stat(conf->run_dir, &st) != 0 || st.st_uid != nobody->pw_uid ||
	    (st.st_mode & 0777) != 0700)
		return __LINE__;
	if (stat(lock, &st) != 0 || st.st_uid != nobody->pw_uid)
		return __LINE__;
	if (!drop_privileges(conf)) /* there already */
		return __LINE__;
	free(lock);
	run_dir_close(&run);
	conf_free(&conf);
	return 0;
}

static int
fail_without_root(void)
{
	struct conf *conf = load("user: daemon\n");

	if (setuid(65534) != 0 || drop_privileges(conf))
		return __LINE__;
	conf_free(&conf);
	return 0;
}

static int
in_child(int (*job)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(job());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void
test_root_becomes_nobody_with_its_files(void **state)
{
	if (getuid() != 0)
		skip();
	assert_int_equal(in_child(become_nobody), 0);
}

static void
test_only_root_can(void **state)
{
	if (getuid() != 0)
		skip();
	assert_int_equal(in_child(fail_without_root), 0);
}

static void
test_unknown_names_are_errors(void **state)
{
	struct conf *conf = load("user: no_such_user_here\n");

	assert_false(drop_privileges(conf));
	conf_free(&conf);
	conf = load("user: nobody\ngroup: no_such_group_here\n");
	assert_false(drop_privileges(conf));
	conf_free(&conf);
}

static void
test_without_user_and_group_nothing_changes(void **state)
{
	struct conf *conf = load("");
	uid_t before = getuid();

	assert_true(drop_privileges(conf));
	assert_int_equal(getuid(), before);
	conf_free(&conf);
}

static int
make_dir(void **state)
{
	strcpy(dir, "/tmp/parley-drop-XXXXXX");
	if (mkdtemp(dir) == NULL)
		return -1;
	return chmod(dir, 0755);
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
	    cmocka_unit_test(test_root_becomes_nobody_with_its_files),
	    cmocka_unit_test(test_only_root_can),
	    cmocka_unit_test(test_unknown_names_are_errors),
	    cmocka_unit_test(test_without_user_and_group_nothing_changes),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
