/* redis_url: what is understood, what is refused. */
#include "t/unit/unit.h"

#include "common/check.h"
#include "common/redis_url.h"

static void
test_good(void **state)
{
	static const struct {
		const char *text, *host, *path, *user, *password;
		uint16_t port;
		uint32_t db;
		bool is_tls;
	} good[] = {
	    {"redis://h", "h", "", "", "", 6379, 0, false},
	    {"redis://h/", "h", "", "", "", 6379, 0, false},
	    {"redis://h:1/3", "h", "", "", "", 1, 3, false},
	    {"rediss://h.example:65535/0", "h.example", "", "", "", 65535, 0, true},
	    {"redis://:s@h", "h", "", "", "s", 6379, 0, false},
	    {"redis://u:p%40%3a%2F@h:7/1", "h", "", "u", "p@:/", 7, 1, false},
	    {"redis://u:p@p@h", "h", "", "u", "p@p", 6379, 0, false},
	    {"redis://u@h", "h", "", "u", "", 6379, 0, false},
	    {"redis://[::1]", "::1", "", "", "", 6379, 0, false},
	    {"redis://u:p@[fe80::1]:9/2", "fe80::1", "", "u", "p", 9, 2, false},
	    {"unix:/run/r.sock", "", "/run/r.sock", "", "", 0, 0, false},
	    {"unix:r?db=4", "", "r", "", "", 0, 4, false},
	    {"unix:/a%3fb?user=u&password=%26&db=65535", "", "/a?b", "u", "&", 0, 65535, false},
	};

	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		struct redis_url u;

		assert_null(redis_url_parse(str_of(good[i].text), &u));
		assert_string_equal(u.host, good[i].host);
		assert_string_equal(u.path, good[i].path);
		assert_string_equal(u.user, good[i].user);
		assert_string_equal(u.password, good[i].password);
		assert_int_equal(u.port, good[i].port);
		assert_int_equal(u.db, good[i].db);
		assert_int_equal(u.is_tls, good[i].is_tls);
	}
}

static void
test_bad(void **state)
{
	static const char *const bad[] = {"", "redis:", "redis://", "redis:///0", "redis://:1",
	    "redis://h:", "redis://h:0", "redis://h:65536", "redis://h:x", "redis://h/x",
	    "redis://h/65536", "redis://h/0/1", "redis://h/-1", "redis://u:%4@h", "redis://%zz@h",
	    "redis://%00@h", "redis://[::1", "redis://[::1]x", "redis://[::1]:", "redis://[]:1",
	    "redis://u:p@", "unix:", "unix:?db=1", "unix:p?x=1", "unix:p?db=x", "http://h",
	    "REDIS://h"};
	char path[5 + REDIS_URL_PATH_MAX + 1] = "unix:";
	struct redis_url u;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_non_null(redis_url_parse(str_of(bad[i]), &u));
	memset(path + 5, 'p', REDIS_URL_PATH_MAX);
	assert_non_null(redis_url_parse(str_of(path), &u));
	path[5 + REDIS_URL_PATH_MAX - 1] = '\0';
	assert_null(redis_url_parse(str_of(path), &u));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_good),
	    cmocka_unit_test(test_bad),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
