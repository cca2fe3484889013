/* str: borrowed text, good and bad. */
#include "t/unit/unit.h"

#include "common/check.h"
#include "common/str.h"

static void
expect(struct str s, const char *want)
{
	assert_int_equal(s.len, strlen(want));
	assert_true(str_eq(s, str_of(want)));
}

static void
test_comparison(void **state)
{
	assert_true(str_eq(STR_NONE, STR("")));
	assert_false(str_eq(STR("a"), STR("A")));
	assert_true(str_ieq(STR("Content-TYPE"), STR("content-type")));
	assert_false(str_ieq(STR("a"), STR("ab")));
	/* Only letters fold: '[' and '{', '@' and '`' differ by the same bit. */
	assert_false(str_ieq(STR("["), STR("{")));
	assert_false(str_ieq(STR("@"), STR("`")));
	assert_true(str_starts(STR("abc"), STR("ab")));
	assert_true(str_starts(STR("abc"), STR_NONE));
	assert_false(str_starts(STR("ab"), STR("abc")));
	assert_int_equal(str_of(NULL).len, 0);
}

static void
test_trim_and_split(void **state)
{
	expect(str_trim(STR(" \t a b\t ")), "a b");
	expect(str_trim(STR(" \t")), "");
	expect(str_trim(STR_NONE), "");
	expect(str_trim(STR("\na")), "\na");

	struct str rest = STR("a,,b,");
	expect(str_split(&rest, ','), "a");
	expect(str_split(&rest, ','), "");
	expect(str_split(&rest, ','), "b");
	expect(rest, "");
	expect(str_split(&rest, ','), "");
	assert_null(rest.p);
	expect(str_split(&rest, ','), "");
}

static void
test_numbers(void **state)
{
	static const char *const bad[] = {"", " 1", "1 ", "+1", "-1", "0x1", "1.0",
	    "18446744073709551616", "99999999999999999999", "184467440737095516150"};
	uint64_t n = 7;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		assert_false(str_to_u64(str_of(bad[i]), &n));
		assert_int_equal(n, 7);
	}
	assert_true(str_to_u64(STR("18446744073709551615"), &n));
	assert_true(n == UINT64_MAX);
	assert_true(str_to_u64(STR("007"), &n));
	assert_int_equal(n, 7);
	assert_false(str_to_u64(str_sub("12", 0), &n));
}

/* The definition, code point by code point, instead of the state of the implementation. */
static bool
is_utf8_naive(const unsigned char *p, size_t len)
{
	for (size_t i = 0; i < len;) {
		unsigned c = p[i];
		size_t n = c < 0x80         ? 1
			   : (c >> 5) == 6  ? 2
			   : (c >> 4) == 14 ? 3
			   : (c >> 3) == 30 ? 4
					    : 0;
		uint32_t point = n == 1 ? c : c & (0xffu >> (n + 1));

		if (n == 0 || i + n > len)
			return false;
		for (size_t k = 1; k < n; k++) {
			if ((p[i + k] & 0xc0) != 0x80)
				return false;
			point = point << 6 | (p[i + k] & 0x3f);
		}
		static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
		if (point < least[n] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
			return false;
		i += n;
	}
	return true;
}

static void
test_utf8(void **state)
{
	/* Every sequence of up to three bytes, and of four over the bytes that matter. */
	static const unsigned char some[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0,
	    0xc1, 0xc2, 0xdf, 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xf5, 0xff};
	unsigned char b[4];

	for (uint32_t v = 0; v < 1u << 24; v++) {
		b[0] = (unsigned char)(v >> 16);
		b[1] = (unsigned char)(v >> 8);
		b[2] = (unsigned char)v;
		if (str_is_utf8(str_sub((char *)b, 3)) != is_utf8_naive(b, 3))
			fail_msg("%02x %02x %02x", b[0], b[1], b[2]);
	}
	for (size_t i = 0; i < 19 * 19 * 19 * 19; i++) {
		for (size_t k = 0, x = i; k < 4; k++, x /= 19)
			b[k] = some[x % 19];
		for (size_t len = 0; len <= 4; len++) {
			if (str_is_utf8(str_sub((char *)b, len)) != is_utf8_naive(b, len))
				fail_msg("%02x %02x %02x %02x", b[0], b[1], b[2], b[3]);
		}
	}
	assert_true(str_is_utf8(STR_NONE));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_comparison),
	    cmocka_unit_test(test_trim_and_split),
	    cmocka_unit_test(test_numbers),
	    cmocka_unit_test(test_utf8),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
