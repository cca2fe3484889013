/* buf: compared with a plain array, and always followed by a NUL. */
#include "t/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/buf.h"

static void
expect(const struct buf *b, const char *want, size_t len)
{
	assert_int_equal(b->len, len);
	assert_memory_equal(b->data, want, len);
	assert_int_equal(b->data[b->len], '\0');
	assert_true(b->cap > b->len);
}

static void
test_against_an_array(void **state)
{
	static char model[1 << 20];
	size_t len = 0;
	struct buf b = BUF_INIT;

	srand(2);
	for (int round = 0; round < 5000; round++) {
		char piece[300];
		size_t n = (size_t)rand() % sizeof(piece);

		memset(piece, 'a' + rand() % 26, n);
		if (rand() % 3 == 0) {
			n = len > 0 ? (size_t)rand() % (len + 1) : 0;
			buf_consume(&b, n);
			memmove(model, model + n, len - n);
			len -= n;
		} else if (len + n < sizeof(model)) {
			buf_add(&b, piece, n);
			memcpy(model + len, piece, n);
			len += n;
		}
		if (b.data != NULL)
			expect(&b, model, len);
	}
	buf_fini(&b);
	assert_null(b.data);
}

static void
test_printf_at_every_length(void **state)
{
	/* Around the size that is tried first, the text is formatted twice. */
	for (int n = 0; n < 300; n++) {
		struct buf b = BUF_INIT;
		char want[400];

		buf_add_cstr(&b, "<");
		buf_printf(&b, "%0*d>", n + 1, 7);
		int len = snprintf(want, sizeof(want), "<%0*d>", n + 1, 7);
		expect(&b, want, (size_t)len);
		buf_fini(&b);
	}
}

static void
test_take_and_clear(void **state)
{
	struct buf b = BUF_INIT;
	size_t len = 99;
	char *taken = buf_take(&b, &len);

	assert_string_equal(taken, "");
	assert_int_equal(len, 0);
	free(taken);
	buf_clear(&b);
	buf_add_str(&b, STR("abc"));
	buf_add_str(&b, STR_NONE);
	buf_add_char(&b, '\0');
	expect(&b, "abc\0", 4);
	buf_clear(&b);
	expect(&b, "", 0);
	buf_add_cstr(&b, "xyz");
	taken = buf_take(&b, NULL);
	assert_string_equal(taken, "xyz");
	assert_null(b.data);
	assert_int_equal(b.len + b.cap, 0);
	free(taken);
	buf_consume(&b, 0);
}

static void
test_reserve_gives_room(void **state)
{
	struct buf b = BUF_INIT;

	for (size_t room = 0; room < 5000; room += 7) {
		memset(buf_reserve(&b, room), 'x', room);
		assert_true(b.cap - b.len > room);
	}
	assert_int_equal(b.len, 0);
	buf_fini(&b);
}

static void
test_json_escapes(void **state)
{
	struct buf b = BUF_INIT;

	buf_add_json_escaped(&b, STR("a\"b\\c/\b\t\n\f\r\x01\x0b\x0e\x1f\x7f\xc3\xa9\0z"));
	assert_string_equal(
	    b.data, "a\\\"b\\\\c/\\b\\t\\n\\f\\r\\u0001\\u000b\\u000e\\u001f\x7f\xc3\xa9\\u0000z");
	buf_clear(&b);
	buf_add_json_escaped(&b, STR_NONE);
	expect(&b, "", 0);
	buf_fini(&b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_against_an_array),
	    cmocka_unit_test(test_printf_at_every_length),
	    cmocka_unit_test(test_take_and_clear),
	    cmocka_unit_test(test_reserve_gives_room),
	    cmocka_unit_test(test_json_escapes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
