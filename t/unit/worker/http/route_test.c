/*
 * route_test - finding routes, and decoding what they carry.
 */
#include "t/unit/unit.h"

#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "worker/http/route.h"

static void
handler(struct http_req *req, void *arg)
{
}

static const struct http_route routes[] = {
    {"GET", "/", 0, handler},
    {"GET", "/health", 0, handler},
    {"GET", "/v1/sessions", 0, handler},
    {"POST", "/v1/sessions", 0, handler},
    {"GET", "/v1/sessions/{id}", 0, handler},
    {"DELETE", "/v1/sessions/{id}", 0, handler},
    {"GET", "/v1/sessions/special", 0, handler},
    {"POST", "/v1/sessions/{id}/turns", 0, handler},
    {"GET", "/v1/sessions/{id}/turns/{turn}", 0, handler},
    {"GET", "/v1/{what}/{id}/turns/{turn}", 0, handler},
};

static struct route_table *table;

static int
setup(void **state)
{
	table = route_table_new();
	for (size_t i = 0; i < ARRAY_LEN(routes); i++)
		route_table_add(table, &routes[i], NULL, (unsigned)i);
	return 0;
}

static int
teardown(void **state)
{
	route_table_free(&table);
	assert_null(table);
	return 0;
}

static struct route_match
find(const char *method, const char *path)
{
	struct route_match m;

	route_find(table, str_of(method), str_of(path), &m);
	return m;
}

static void
finds(const char *method, const char *path, int index)
{
	struct route_match m = find(method, path);

	assert_non_null(m.entry);
	assert_ptr_equal(m.entry->route, &routes[index]);
	assert_int_equal(m.entry->label, index);
}

static void
test_finds(void **state)
{
	finds("GET", "/", 0);
	finds("GET", "/health", 1);
	finds("HEAD", "/health", 1);
	finds("GET", "/v1/sessions", 2);
	finds("POST", "/v1/sessions", 3);
	finds("GET", "/v1/sessions/abc", 4);
	finds("DELETE", "/v1/sessions/abc", 5);
	finds("GET", "/v1/sessions/special", 6);
	finds("POST", "/v1/sessions/x/turns", 7);
	finds("GET", "/v1/sessions/x/turns/y", 8);
	finds("GET", "/v1/things/x/turns/y", 9);
}

static void
test_finds_nothing(void **state)
{
	static const char *const paths[] = {"", "x", "*", "//", "/health/", "/healthy", "/Health",
	    "/v1", "/v1/sessions/", "/v1/sessions//turns", "/v1/sessions/a/turns/",
	    "/a/b/c/d/e/f/g/h/i/j/k/l/m/n"};

	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		assert_null(find("GET", paths[i]).path);
	assert_non_null(find("PUT", "/health").path);
	assert_null(find("PUT", "/health").entry);
}

static void
test_params(void **state)
{
	struct route_match m = find("GET", "/v1/sessions/a%2Fb/turns/t");

	assert_int_equal(m.param_count, 2);
	assert_true(str_eq(m.params[0].name, STR("id")));
	assert_true(str_eq(m.params[0].value, STR("a%2Fb")));
	assert_true(str_eq(m.params[1].name, STR("turn")));
	assert_true(str_eq(m.params[1].value, STR("t")));
}

static void
test_methods(void **state)
{
	struct buf b = BUF_INIT;

	route_methods(find("PUT", "/v1/sessions/x").path, &b);
	assert_string_equal(b.data, "GET, HEAD, DELETE, OPTIONS");
	buf_clear(&b);
	route_methods(find("PUT", "/v1/sessions/x/turns").path, &b);
	assert_string_equal(b.data, "POST, OPTIONS");
	buf_fini(&b);
}

static void
decodes(const char *text, bool is_query, const char *expected)
{
	size_t len = strlen(text), out_len;
	char *copy = malloc(len), out[64];

	memcpy(copy, text, len);
	if (expected == NULL) {
		assert_false(route_decode(str_sub(copy, len), is_query, out, &out_len));
	} else {
		assert_true(route_decode(str_sub(copy, len), is_query, out, &out_len));
		assert_string_equal(out, expected);
		assert_int_equal(out_len, strlen(expected));
	}
	free(copy);
}

static void
test_decode(void **state)
{
	decodes("abc", false, "abc");
	decodes("a+b", false, "a+b");
	decodes("a+b", true, "a b");
	decodes("%41%62%2f%2F", true, "Ab//");
	decodes("caf%C3%A9", false, "caf\xc3\xa9");
	decodes("%2", false, NULL);
	decodes("%", false, NULL);
	decodes("%zz", false, NULL);
	decodes("a%4", true, NULL);
	decodes("a%00b", true, NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_finds),
	    cmocka_unit_test(test_finds_nothing),
	    cmocka_unit_test(test_params),
	    cmocka_unit_test(test_methods),
	    cmocka_unit_test(test_decode),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
