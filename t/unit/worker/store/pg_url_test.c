/* pg_url_test - addresses of PostgreSQL, and names that must be looked up before libpq sees them.
 */
#include "t/unit/unit.h"

#include <stdlib.h>
#include <string.h>

#include "worker/store/pg_url.h"

static const char *
value_of(const struct pg_url *url, const char *keyword)
{
	for (size_t i = 0; i < url->count; i++)
		if (strcmp(url->keywords[i], keyword) == 0)
			return url->values[i];
	return "-";
}

static void
an_address_becomes_keywords(void **state)
{
	struct pg_url url;

	assert_true(pg_url_parse("postgres://u:p%40ss@db.example:5433/parley?sslmode=verify-full"
				 "&keepalives_idle=7",
	    &url));
	assert_string_equal(value_of(&url, "user"), "u");
	assert_string_equal(value_of(&url, "password"), "p@ss");
	assert_string_equal(value_of(&url, "dbname"), "parley");
	assert_string_equal(value_of(&url, "sslmode"), "verify-full");
	assert_string_equal(value_of(&url, "client_encoding"), "UTF8");
	assert_string_equal(value_of(&url, "gssencmode"), "disable");
	assert_string_equal(value_of(&url, "keepalives_idle"), "7"); /* said: kept */
	assert_int_equal(url.host_count, 1);
	assert_string_equal(url.hosts[0], "db.example");
	assert_string_equal(url.ports[0], "5433");
	assert_false(url.has_addresses);
	pg_url_fini(&url);
}

static void
what_is_no_address_is_refused(void **state)
{
	static const char *const bad[] = {"", "sqlite:x", "postgres:/x",
	    "postgres://h:1/d?no_such=1", "postgres://%zz@h/d", "postgres://a,b,c/d?port=1,2"};
	struct pg_url url;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(pg_url_parse(bad[i], &url));
	assert_false(pg_url_is_ours("sqlite:postgres://"));
	assert_true(pg_url_is_ours("postgresql://h"));
}

static void
names_are_told_from_addresses(void **state)
{
	assert_true(pg_url_is_name("localhost"));
	assert_true(pg_url_is_name("10.0.0"));
	assert_false(pg_url_is_name("10.0.0.1"));
	assert_false(pg_url_is_name("::1"));
	assert_false(pg_url_is_name("/run/postgresql"));
	assert_false(pg_url_is_name(""));
}

static void
addresses_stand_beside_their_names(void **state)
{
	char a[] = "10.0.0.1,::1", b[] = "10.0.0.2";
	char *addresses[PG_HOSTS_MAX] = {a, NULL, b};
	struct pg_url url;

	assert_true(pg_url_parse("postgres://one:1,gone:2,two:3,10.9.9.9:4/d", &url));
	assert_int_equal(url.host_count, 4);
	assert_true(pg_url_set_addresses(&url, addresses));
	assert_string_equal(value_of(&url, "host"), "one,one,two,10.9.9.9");
	assert_string_equal(value_of(&url, "hostaddr"), "10.0.0.1,::1,10.0.0.2,");
	assert_string_equal(value_of(&url, "port"), "1,1,3,4");
	pg_url_fini(&url);
	assert_true(pg_url_parse("postgres://gone/d", &url));
	assert_false(pg_url_set_addresses(&url, (char *[PG_HOSTS_MAX]){NULL}));
	pg_url_fini(&url);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(an_address_becomes_keywords),
	    cmocka_unit_test(what_is_no_address_is_refused),
	    cmocka_unit_test(names_are_told_from_addresses),
	    cmocka_unit_test(addresses_stand_beside_their_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
