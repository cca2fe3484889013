/* cpus: quotas of both kinds of cgroup, from texts and from a tree of files. */
#include "t/unit/unit.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/check.h"
#include "common/cpus.h"

static void
test_quota_of_version_2(void **state)
{
	assert_int_equal(cpus_of_cgroup2(STR("200000 100000\n")), 2);
	assert_int_equal(cpus_of_cgroup2(STR("150000 100000\n")), 2); /* a part is one */
	assert_int_equal(cpus_of_cgroup2(STR("10000 100000")), 1);
	assert_int_equal(cpus_of_cgroup2(STR("max 100000\n")), 0);
	assert_int_equal(cpus_of_cgroup2(STR("")), 0);
	assert_int_equal(cpus_of_cgroup2(STR("200000")), 0);
	assert_int_equal(cpus_of_cgroup2(STR("200000 0\n")), 0);
	assert_int_equal(cpus_of_cgroup2(STR("0 100000\n")), 0);
	assert_int_equal(cpus_of_cgroup2(STR("x y\n")), 0);
}

static void
test_quota_of_version_1(void **state)
{
	assert_int_equal(cpus_of_cgroup1(STR("400000\n"), STR("100000\n")), 4);
	assert_int_equal(cpus_of_cgroup1(STR("50000\n"), STR("100000\n")), 1);
	assert_int_equal(cpus_of_cgroup1(STR("-1\n"), STR("100000\n")), 0);
	assert_int_equal(cpus_of_cgroup1(STR(""), STR("100000\n")), 0);
	assert_int_equal(cpus_of_cgroup1(STR("400000\n"), STR("")), 0);
}

static void
assert_path(struct str got, const char *expected)
{
	assert_true(str_eq(got, str_of(expected)));
	assert_int_equal(got.p == NULL, expected == NULL);
}

static void
test_paths(void **state)
{
	struct str v2 = STR("0::/system.slice/parley.service\n");
	struct str v1 =
	    STR("12:pids:/a\n4:cpu,cpuacct:/docker/abc\n3:cpuset:/c\n1:name=systemd:/d\n");
	struct str both = STR("4:cpuacct,cpu:/one\n0::/two\n");

	assert_path(cpus_cgroup2_path(v2), "/system.slice/parley.service");
	assert_path(cpus_cgroup1_path(v2), NULL);
	assert_path(cpus_cgroup2_path(v1), NULL);
	assert_path(cpus_cgroup1_path(v1), "/docker/abc");
	assert_path(cpus_cgroup1_path(both), "/one");
	assert_path(cpus_cgroup2_path(both), "/two");
	assert_path(cpus_cgroup2_path(STR("")), NULL);
	assert_path(cpus_cgroup2_path(STR("0::\n0:\nnonsense\n::\n")), NULL);
}

/* A file below a root of our own, with its folders. */
static void
put_file(const char *root, const char *name, const char *content)
{
	char *path = xasprintf("%s%s", root, name);

	for (char *slash = path + strlen(root) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
		*slash = '\0';
		mkdir(path, 0700);
		*slash = '/';
	}
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(content, f);
	fclose(f);
	free(path);
}

static void
drop_root(const char *root)
{
	char *command = xasprintf("rm -r '%s'", root);

	assert_int_equal(system(command), 0);
	free(command);
}

static void
test_the_tightest_ancestor_counts(void **state)
{
	char root[] = "/tmp/parley-cpus-XXXXXX";

	assert_non_null(mkdtemp(root));
	assert_int_equal(cpus_of_quota(root), 0); /* no /proc at all */
	put_file(root, "/proc/self/cgroup", "0::/a/b/c\n");
	assert_int_equal(cpus_of_quota(root), 0);
	put_file(root, "/sys/fs/cgroup/a/b/c/cpu.max", "max 100000\n");
	assert_int_equal(cpus_of_quota(root), 0);
	put_file(root, "/sys/fs/cgroup/a/cpu.max", "300000 100000\n");
	assert_int_equal(cpus_of_quota(root), 3);
	put_file(root, "/sys/fs/cgroup/a/b/c/cpu.max", "800000 100000\n");
	assert_int_equal(cpus_of_quota(root), 3);
	put_file(root, "/sys/fs/cgroup/cpu.max", "200000 100000\n"); /* a container's own root */
	assert_int_equal(cpus_of_quota(root), 2);
	drop_root(root);
}

static void
test_version_1_and_both(void **state)
{
	char root[] = "/tmp/parley-cpus-XXXXXX";

	assert_non_null(mkdtemp(root));
	put_file(root, "/proc/self/cgroup", "4:cpu,cpuacct:/docker/abc\n0::/x\n");
	put_file(root, "/sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us", "500000\n");
	assert_int_equal(cpus_of_quota(root), 0); /* no period */
	put_file(root, "/sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us", "100000\n");
	assert_int_equal(cpus_of_quota(root), 5);
	put_file(root, "/sys/fs/cgroup/x/cpu.max", "400000 100000\n");
	assert_int_equal(cpus_of_quota(root), 4);
	drop_root(root);
}

static void
test_here(void **state)
{
	cpu_set_t all, one;

	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	assert_in_range(cpus_available(), 1, CPU_COUNT(&all));
	CPU_ZERO(&one);
	for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++) {
		if (CPU_ISSET(i, &all))
			CPU_SET(i, &one);
	}
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
	assert_int_equal(cpus_available(), 1);
	assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_quota_of_version_2),
	    cmocka_unit_test(test_quota_of_version_1),
	    cmocka_unit_test(test_paths),
	    cmocka_unit_test(test_the_tightest_ancestor_counts),
	    cmocka_unit_test(test_version_1_and_both),
	    cmocka_unit_test(test_here),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
