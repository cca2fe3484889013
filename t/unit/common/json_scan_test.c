/* json_scan: what is JSON and what is not, as jansson sees it; walks, spans, escapes. */
#include "t/unit/unit.h"

#include <jansson.h>

#include "common/check.h"
#include "common/json_scan.h"

static const char *const good[] = {"{}", "[]", " [ ] ", "0", "-0", "1.5e+10", "-12E-3", "\"\"",
    "\"a\\u00e4\\n\\/\\\\\\\"\"", "true", "null", "[1,[2,[3]],{}]",
    "{\"a\":{\"b\":[{}]},\"c\":\"d\"}", "{ \"a\" : [ true , false ] , \"b\":\t-1 }\r\n",
    "\"0123456789abcdef0123456789\\\"\"", "[\"\xc3\xa4\"]"};

static const char *const bad[] = {"", " ", "{", "[", "{]", "[}", "[1,]", "[,1]", "{,}", "{\"a\"}",
    "{\"a\":}", "{\"a\":1,}", "{a:1}", "{1:2}", "[1 2]", "01", "-", "+1", "1.", ".5", "1e", "1e+",
    "tru", "nulll", "\"", "\"\\", "\"\\x\"", "\"\\u12g4\"", "\"\\u12", "\"a\nb\"", "\"\x01\"",
    "[]]", "{}{}", "\"abcdefgh\x1f\"", "NaN", "'a'"};

static bool
is_json(const char *text, size_t len)
{
	struct json_scan s;

	json_scan_init(&s, str_sub(text, len));
	return json_scan_skip(&s, NULL) && json_scan_end(&s);
}

static void
test_good(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		json_t *j = json_loads(good[i], JSON_DECODE_ANY, NULL);

		assert_non_null(j);
		json_decref(j);
		assert_true(is_json(good[i], strlen(good[i])));
	}
}

static void
test_bad(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(is_json(bad[i], strlen(bad[i])));
}

/* No part of an object is one. */
static void
test_every_prefix(void **state)
{
	static const char text[] =
	    "{\"a\":[1,-2.5e3,\"x\\u0041y\",{\"b\":null}],\"long key 0123456789\":true}";

	for (size_t n = 0; n < sizeof(text) - 1; n++)
		assert_false(is_json(text, n));
	assert_true(is_json(text, sizeof(text) - 1));
}

static void
test_depth(void **state)
{
	char text[2 * JSON_SCAN_DEPTH_MAX + 2];
	struct json_scan s;

	memset(text, '[', JSON_SCAN_DEPTH_MAX);
	memset(text + JSON_SCAN_DEPTH_MAX, ']', JSON_SCAN_DEPTH_MAX);
	assert_true(is_json(text, 2 * JSON_SCAN_DEPTH_MAX));
	memset(text, '[', JSON_SCAN_DEPTH_MAX + 1);
	memset(text + JSON_SCAN_DEPTH_MAX + 1, ']', JSON_SCAN_DEPTH_MAX + 1);
	json_scan_init(&s, str_sub(text, sizeof(text)));
	assert_false(json_scan_skip(&s, NULL));
	assert_true(s.is_deep);
}

static void
test_walk(void **state)
{
	struct json_scan s;
	struct str key, value;

	json_scan_init(&s, STR(" {\"a\":1,\"\\u0062\" : [ \"x\" ,{}],\"c\":{}} "));
	assert_true(json_scan_object(&s));
	assert_int_equal(json_scan_member(&s, &key), 1);
	assert_true(str_eq(key, STR("a")) && !s.has_escape);
	assert_true(json_scan_skip(&s, &value) && str_eq(value, STR("1")));
	assert_int_equal(json_scan_member(&s, &key), 1);
	assert_true(str_eq(key, STR("\\u0062")) && s.has_escape);
	assert_true(json_scan_array(&s));
	assert_int_equal(json_scan_element(&s), 1);
	assert_true(json_scan_skip(&s, &value) && str_eq(value, STR("\"x\"")));
	assert_int_equal(json_scan_element(&s), 1);
	assert_int_equal(json_scan_peek(&s), '{');
	assert_true(json_scan_skip(&s, &value) && str_eq(value, STR("{}")));
	assert_int_equal(json_scan_element(&s), 0);
	assert_int_equal(json_scan_member(&s, &key), 1);
	assert_true(json_scan_object(&s));
	assert_int_equal(json_scan_member(&s, &key), 0);
	assert_false(json_scan_end(&s));
	assert_int_equal(json_scan_member(&s, &key), 0);
	assert_true(json_scan_end(&s));
	assert_false(s.has_high);
}

static void
test_decode(void **state)
{
	static const char *const texts[] = {"\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
	    "\"\\u00e4\\u20ac\\ud83d\\ude00 x\"", "\"\"", "\"plain\""};
	struct buf out = BUF_INIT;

	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		json_t *j = json_loads(texts[i], JSON_DECODE_ANY, NULL);

		buf_clear(&out);
		assert_true(json_scan_decode(str_of(texts[i]), &out));
		assert_true(
		    str_eq(buf_str(&out), str_sub(json_string_value(j), json_string_length(j))));
		json_decref(j);
	}
	buf_clear(&out);
	assert_true(json_scan_decode(STR("\"\\ud83dx\\ude00\""), &out));
	assert_string_equal(out.data, "\xef\xbf\xbdx\xef\xbf\xbd");
	assert_false(json_scan_decode(STR("1"), &out));
	assert_false(json_scan_decode(STR("\"a"), &out));
	buf_fini(&out);
}

static struct str
only_key(const char *text)
{
	struct json_scan s;
	struct str key;

	json_scan_init(&s, str_of(text));
	assert_true(json_scan_object(&s));
	assert_int_equal(json_scan_member(&s, &key), 1);
	return key;
}

static void
test_keys(void **state)
{
	static const struct {
		const char *text;
		bool is, resembles;
	} keys[] = {
	    {"{\"task\":1}", true, true},
	    {"{\"t\\u0061sk\":1}", true, true},
	    {"{\"TaSk\":1}", false, true},
	    {"{\"t\\u0041sk\":1}", false, true},
	    {"{\"ta\xc5\xbf\xe2\x84\xaa\":1}", false, true},
	    {"{\"ta\\u017F\\u212a\":1}", false, true},
	    {"{\"tas\":1}", false, false},
	    {"{\"tasks\":1}", false, false},
	    {"{\"task\\u0000\":1}", false, false},
	    {"{\"ta\xc5\xbe\xe2\x84\xab\":1}", false, false},
	    {"{\"\":1}", false, false},
	};
	struct buf text = BUF_INIT;

	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		struct str key = only_key(keys[i].text);

		if (json_scan_key_is(key, STR("task")) != keys[i].is ||
		    json_scan_key_resembles(key, STR("task")) != keys[i].resembles)
			fail_msg("%s", keys[i].text);
	}
	json_scan_key_text(only_key("{\"\\u212A\\\"\xc3\xa9\xc5\":1}"), &text);
	assert_string_equal(text.data, "k\"\xc3\xa9\xc5");
	buf_fini(&text);
}

/* A byte that ends a string, or breaks it, at every place of every word, among bytes of all kinds.
 */
static void
test_every_byte_at_every_place(void **state)
{
	static const char others[] = {'a', ' ', '!', '#', '[', ']', 0x7f, (char)0x80, (char)0xff};

	for (size_t len = 0; len < 20; len++)
		for (size_t at = 0; at <= len; at++)
			for (int c = 0; c < 256; c++)
				for (size_t o = 0; o < sizeof(others); o++) {
					char text[32];
					struct json_scan scan;
					struct str value;
					bool is_bad =
					    at < len && (c == '"' || c == '\\' || c < 0x20);
					bool is_high = len > 0 && ((others[o] & 0x80) != 0 ||
								      (at < len && c >= 0x80));

					memset(text, others[o], sizeof(text));
					text[0] = '"';
					text[1 + at] = (char)c;
					text[1 + len] = '"';
					if (len == 1 && at == 0)
						is_high = c >= 0x80;
					json_scan_init(&scan, str_sub(text, len + 2));
					assert_int_equal(
					    json_scan_skip(&scan, &value) && json_scan_end(&scan),
					    !is_bad);
					if (!is_bad)
						assert_int_equal(scan.has_high, is_high);
				}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_good),
	    cmocka_unit_test(test_bad),
	    cmocka_unit_test(test_every_prefix),
	    cmocka_unit_test(test_depth),
	    cmocka_unit_test(test_walk),
	    cmocka_unit_test(test_decode),
	    cmocka_unit_test(test_keys),
	    cmocka_unit_test(test_every_byte_at_every_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
