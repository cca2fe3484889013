/* http_link, http_headers: where an endpoint leads, and what stands in headers. */
#include "t/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "worker/mcp/http_headers.h"
#include "worker/mcp/http_link.h"

static void
test_endpoints(void **state)
{
	static const struct {
		const char *url, *endpoint, *expected;
	} trials[] = {
	    {"http://h:1/sse", "/messages?s=1", "http://h:1/messages?s=1"},
	    {"http://h:1/a/sse?x=/y", "messages?s=1", "http://h:1/a/messages?s=1"},
	    {"http://h", "m", "http://h/m"},
	    {"http://h/sse", "http://h/m", "http://h/m"},
	    {"http://h/sse", "http://h.evil/m", NULL},
	    {"http://h/sse", "https://h/m", NULL},
	    {"http://h/sse", "//evil/m", NULL},
	    {"http://h/sse", "/a b", NULL},
	    {"http://h/sse", "", NULL},
	    {"http://h/sse", "/m?next=http://x", "http://h/m?next=http://x"},
	};

	for (size_t i = 0; i < ARRAY_LEN(trials); i++) {
		char *got = http_link_resolve(trials[i].url, str_of(trials[i].endpoint));

		if (trials[i].expected == NULL)
			assert_null(got);
		else
			assert_string_equal(got, trials[i].expected);
		free(got);
	}
}

static const char *
value_of(const struct http_headers *h, const char *name)
{
	for (size_t i = 0; i < h->n; i++) {
		if (strcmp(h->v[i].name, name) == 0)
			return h->v[i].value;
	}
	return NULL;
}

static void
test_headers(void **state)
{
	struct http_headers h;

	http_headers_init(&h);
	http_headers_add_encoded(&h, "A", STR("plain name"));
	http_headers_add_encoded(&h, "B", STR("gr\xc3\xbc\xc3\x9f"));
	http_headers_add_encoded(&h, "C", STR("a\r\nX: y"));
	http_headers_add_encoded(&h, "D", STR("=?base64?eA==?="));
	assert_string_equal(value_of(&h, "A"), "plain name");
	assert_string_equal(value_of(&h, "B"), "=?base64?Z3LDvMOf?=");
	assert_string_equal(value_of(&h, "C"), "=?base64?YQ0KWDogeQ==?=");
	assert_string_equal(value_of(&h, "D"), "=?base64?PT9iYXNlNjQ/ZUE9PT89?=");
	http_headers_add_params(&h,
	    STR("{\"inputSchema\":{\"properties\":{\"r\":{\"x-mcp-header\":\"Region\"},"
		"\"n\":{\"x-mcp-header\":\"N\"},\"b\":{\"x-mcp-header\":\"B\"},"
		"\"o\":{\"x-mcp-header\":\"O\"},\"z\":{\"x-mcp-header\":\"a b\"},\"p\":{}}}}"),
	    STR("{\"r\":\"eu\",\"n\":5,\"b\":true,\"o\":{},\"z\":\"1\",\"p\":\"2\"}"));
	assert_string_equal(value_of(&h, "Mcp-Param-Region"), "eu");
	assert_string_equal(value_of(&h, "Mcp-Param-N"), "5");
	assert_string_equal(value_of(&h, "Mcp-Param-B"), "true");
	assert_null(value_of(&h, "Mcp-Param-O"));
	assert_int_equal(h.n, 7);
	http_headers_fini(&h);
}

static void
test_wrong_headers(void **state)
{
	static const char *const good[] = {"{}", "\"a\":{\"type\":\"string\"}",
	    "\"a\":{\"type\":\"string\",\"x-mcp-header\":\"A\"},"
	    "\"b\":{\"type\":\"integer\",\"x-mcp-header\":\"AB\"}"};
	static const char *const bad[] = {"\"a\":{\"type\":\"string\",\"x-mcp-header\":\"\"}",
	    "\"a\":{\"type\":\"string\",\"x-mcp-header\":7}",
	    "\"a\":{\"type\":\"string\",\"x-mcp-header\":\"a b\"}",
	    "\"a\":{\"type\":\"string\",\"x-mcp-header\":\"a:b\"}",
	    "\"a\":{\"type\":\"string\",\"x-mcp-header\":\"R\xc3\xa9gion\"}",
	    "\"a\":{\"type\":\"string\",\"x-mcp-header\":\"a\\u0000b\"}",
	    "\"a\":{\"type\":\"number\",\"x-mcp-header\":\"A\"}",
	    "\"a\":{\"type\":[\"string\",\"null\"],\"x-mcp-header\":\"A\"}",
	    "\"a\":{\"x-mcp-header\":\"A\"}",
	    "\"a\":{\"type\":\"string\",\"x-mcp-header\":\"Ab\"},"
	    "\"b\":{\"type\":\"string\",\"x-mcp-header\":\"aB\"}"};
	char text[512];

	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		snprintf(text, sizeof(text), "{\"inputSchema\":{\"properties\":{%s}}}",
		    i > 0 ? good[i] : "");
		assert_false(http_headers_are_wrong(str_of(text)));
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		snprintf(text, sizeof(text), "{\"inputSchema\":{\"properties\":{%s}}}", bad[i]);
		if (!http_headers_are_wrong(str_of(text)))
			fail_msg("%s", text);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_endpoints),
	    cmocka_unit_test(test_headers),
	    cmocka_unit_test(test_wrong_headers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
