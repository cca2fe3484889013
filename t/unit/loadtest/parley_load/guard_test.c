/* guard: the numbers of /proc as the kernel prints them, and what is said of them. */
#include "t/unit/unit.h"

#include "common/check.h"

#include "loadtest/parley_load/guard.c"

static const char meminfo[] = "MemTotal:       24684084 kB\n"
			      "MemFree:         1000 kB\n"
			      "MemAvailable:   24145944 kB\n"
			      "Active(anon):       1632 kB\n"
			      "Active(file):     200 kB\n"
			      "Inactive(file):     30 kB\n"
			      "SReclaimable:     204188 kB\n";
static const char file_nr[] = "1127\t0\t2466170\n";
static const char sockstat[] = "sockets: used 158\n"
			       "TCP: inuse 102 orphan 14 tw 13596 alloc 103 mem 975\n"
			       "UDP: inuse 0 mem 0\n";
static const char tcp_mem[] = "287898\t383867\t575796\n";

static void
test_what_is_read(void **state)
{
	struct guard_seen seen =
	    guard_read(STR(meminfo), STR(file_nr), STR(sockstat), STR(tcp_mem));

	assert_int_equal(seen.free_bytes, 1230 * 1024);
	assert_int_equal(seen.files_open, 1127);
	assert_int_equal(seen.files_max, 2466170);
	assert_int_equal(seen.tcp_pages, 975);
	assert_int_equal(seen.tcp_pages_max, 575796);
}

static void
test_what_is_not_there_is_boundless(void **state)
{
	static const char *const texts[] = {"", "nonsense", "MemFree:", "7", "TCP: inuse 1 x\n"};

	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct str text = str_of(texts[i]);
		struct guard_seen seen = guard_read(text, text, text, text);

		assert_null(guard_judge(&seen, 1 << 30));
	}
}

static void
test_when_it_is_enough(void **state)
{
	struct guard_seen seen = {.free_bytes = 1 << 30,
	    .files_open = 1000,
	    .files_max = 100000,
	    .tcp_pages = 1000,
	    .tcp_pages_max = 100000};

	assert_null(guard_judge(&seen, 1 << 30));
	assert_non_null(strstr(guard_judge(&seen, (1 << 30) + 1), "no more memory"));
	seen.files_open = 97001;
	assert_non_null(strstr(guard_judge(&seen, 0), "no more files"));
	seen.files_open = 0;
	seen.tcp_pages = 90001;
	assert_non_null(strstr(guard_judge(&seen, 0), "no more TCP memory"));
}

static void
test_this_machine(void **state)
{
	assert_non_null(guard_look(UINT64_MAX));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_what_is_read),
	    cmocka_unit_test(test_what_is_not_there_is_boundless),
	    cmocka_unit_test(test_when_it_is_enough),
	    cmocka_unit_test(test_this_machine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
