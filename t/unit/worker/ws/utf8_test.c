/* utf8: as valid as str_is_utf8() says, wherever it is cut, and refused as early as can be. */
#include "t/unit/unit.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/str.h"
#include "worker/ws/utf8.h"

static struct str
text_of(const uint8_t *p, size_t len)
{
	return str_sub((const char *)p, len);
}

/* Some end makes it valid. The first byte of the end is at a border of what may follow. */
static bool
can_become_valid(const uint8_t *p, size_t len)
{
	static const uint8_t borders[] = {0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf};
	uint8_t text[8] = {0};

	memcpy(text, p, len);
	if (str_is_utf8(text_of(text, len)))
		return true;
	for (size_t i = 0; i < sizeof(borders); i++) {
		text[len] = borders[i];
		text[len + 1] = text[len + 2] = 0x80;
		for (size_t more = 1; more <= 3; more++) {
			if (str_is_utf8(text_of(text, len + more)))
				return true;
		}
	}
	return false;
}

static void
expect_same(const uint8_t *p, size_t len)
{
	uint32_t state = WS_UTF8_START;
	bool is_possible = ws_utf8_feed(&state, p, len);

	if (is_possible != can_become_valid(p, len))
		fail_msg("%02x %02x %02x of %zu: %d", p[0], p[1], p[2], len, is_possible);
	assert_int_equal(ws_utf8_is_whole(state), str_is_utf8(text_of(p, len)));
}

static void
test_all_short_ones(void **state)
{
	uint8_t text[4] = {0};

	for (unsigned a = 0; a < 256; a++) {
		text[0] = (uint8_t)a;
		expect_same(text, 1);
		for (unsigned b = 0; b < 256; b++) {
			text[1] = (uint8_t)b;
			expect_same(text, 2);
			for (unsigned c = 0x70; a >= 0xe0 && c < 0xd0; c++) {
				text[2] = (uint8_t)c;
				expect_same(text, 3);
			}
		}
	}
}

/* Every character, encoded here. */
static size_t
encode(uint32_t c, uint8_t *out)
{
	size_t len = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

	for (size_t i = len - 1; i > 0; i--, c >>= 6)
		out[i] = (uint8_t)(0x80 | (c & 0x3f));
	out[0] = (uint8_t)(len == 1 ? c : (0xf00u >> len & 0xff) | c);
	return len;
}

static void
test_all_characters(void **state)
{
	for (uint32_t c = 0; c < 0x120000; c++) {
		bool is_character = c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);
		uint32_t s = WS_UTF8_START;
		uint8_t text[4];
		size_t len = encode(c, text);
		bool is_possible = ws_utf8_feed(&s, text, len);

		if (is_possible != is_character || ws_utf8_is_whole(s) != is_character)
			fail_msg("U+%04X: %d", c, is_possible);
	}
}

/* A bad or cut sequence at every place of a long text, in pieces of every length up to 70. */
static void
test_long_text(void **state)
{
	static const struct {
		const char *text;
		size_t len;
		bool is_possible, is_whole;
	} ends[] = {{"\xf0\x9f\x98\x80", 4, true, true}, {"\xf0\x9f\x98", 3, true, false},
	    {"\xed\xa0", 2, false, false}, {"\xff", 1, false, false}, {"", 0, true, true}};
	uint8_t text[80];

	for (size_t e = 0; e < ARRAY_LEN(ends); e++) {
		for (size_t at = 0; at < 70; at++) {
			memset(text, 'x', sizeof(text));
			if (at >= 2)
				memcpy(text, "\xc3\xa9", 2);
			memcpy(text + at, ends[e].text, ends[e].len);
			size_t len = at + ends[e].len;
			for (size_t chop = 1; chop <= 70; chop++) {
				uint32_t s = WS_UTF8_START;
				bool is_possible = true;

				for (size_t i = 0; i < len; i += chop)
					is_possible = ws_utf8_feed(
					    &s, text + i, len - i < chop ? len - i : chop);
				assert_int_equal(is_possible, ends[e].is_possible);
				assert_int_equal(ws_utf8_is_whole(s), ends[e].is_whole);
			}
		}
	}
}

static void
test_bad_stays_bad(void **state)
{
	uint32_t s = WS_UTF8_START;
	uint8_t good[64];

	memset(good, 'x', sizeof(good));
	assert_false(ws_utf8_feed(&s, (const uint8_t *)"\xc0", 1));
	assert_false(ws_utf8_feed(&s, good, sizeof(good)));
	assert_false(ws_utf8_feed(&s, NULL, 0));
	assert_false(ws_utf8_is_whole(s));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_all_short_ones),
	    cmocka_unit_test(test_all_characters),
	    cmocka_unit_test(test_long_text),
	    cmocka_unit_test(test_bad_stays_bad),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
