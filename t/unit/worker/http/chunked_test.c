/*
 * chunked_test - chunked bodies, good and bad, whole and split at every byte.
 */
#include "t/unit/unit.h"

#include <stdlib.h>
#include <string.h>

#include "worker/http/chunked.h"

/* Feeds it in two pieces, as h2o does: what was decoded stays before what comes. */
static long
decode_split(const char *text, size_t len, size_t at, char *out, size_t *out_len)
{
	struct phr_chunked_decoder d = {.consume_trailer = 1};
	size_t n = at;
	long left;

	memcpy(out, text, at);
	left = chunked_decode(&d, out, &n);
	*out_len = n;
	if (left == CHUNKED_BAD)
		return left;
	if (left >= 0) {
		memcpy(out + n + left, text + at, len - at);
		return left + (long)(len - at);
	}
	memcpy(out + n, text + at, len - at);
	n = len - at;
	left = chunked_decode(&d, out + *out_len, &n);
	*out_len += n;
	return left;
}

static void
decodes(const char *text, const char *body, const char *rest)
{
	size_t len = strlen(text), out_len;
	char *out = malloc(len + 1);

	for (size_t at = 0; at <= len; at++) {
		assert_int_equal(decode_split(text, len, at, out, &out_len), strlen(rest));
		assert_int_equal(out_len, strlen(body));
		assert_memory_equal(out, body, out_len);
		assert_memory_equal(out + out_len, rest, strlen(rest));
	}
	free(out);
}

static void
ends_with(const char *text, long expected)
{
	size_t len = strlen(text), out_len;
	char *out = malloc(len + 1);

	for (size_t at = 0; at <= len; at++)
		assert_int_equal(decode_split(text, len, at, out, &out_len), expected);
	free(out);
}

static void
test_good(void **state)
{
	decodes("0\r\n\r\n", "", "");
	decodes("5\r\nhello\r\n0\r\n\r\n", "hello", "");
	decodes(
	    "5\r\nhello\r\n6;a=b;c=\"d\"\r\n world\r\n000\r\n\r\nGET /", "hello world", "GET /");
	decodes("A\r\n0123456789\r\n0\r\nX: y\r\nZ: \t\r\n\r\nrest", "0123456789", "rest");
	decodes("1 \r\nx\r\n0\r\n\r\n", "x", "");
	decodes("2\r\n\r\n\r\n0\r\n\r\n", "\r\n", "");
}

static void
test_incomplete(void **state)
{
	ends_with("", CHUNKED_MORE);
	ends_with("5", CHUNKED_MORE);
	ends_with("5\r\nhell", CHUNKED_MORE);
	ends_with("5\r\nhello\r\n", CHUNKED_MORE);
	ends_with("0\r\n", CHUNKED_MORE);
	ends_with("0\r\nX: y\r\n\r", CHUNKED_MORE);
}

static void
test_bad(void **state)
{
	ends_with("\r\n", CHUNKED_BAD);
	ends_with("x\r\n", CHUNKED_BAD);
	ends_with("-1\r\n", CHUNKED_BAD);
	ends_with("0x5\r\nhello\r\n0\r\n\r\n", CHUNKED_BAD);
	ends_with("5\nhello\r\n0\r\n\r\n", CHUNKED_BAD);
	ends_with("5\r\nhello\n0\r\n\r\n", CHUNKED_BAD);
	ends_with("5\r\nhelloX\r\n0\r\n\r\n", CHUNKED_BAD);
	ends_with("5;a\nb\r\nhello\r\n0\r\n\r\n", CHUNKED_BAD);
	ends_with("5;a\x01\r\nhello\r\n0\r\n\r\n", CHUNKED_BAD);
	ends_with("5\r\rhello\r\n0\r\n\r\n", CHUNKED_BAD);
	ends_with("0\r\nX: y\n\r\n", CHUNKED_BAD);
	ends_with("0\r\n folded\r\n\r\n", CHUNKED_BAD);
	ends_with("0\r\n\n", CHUNKED_BAD);
	ends_with("ffffffffffffffff\r\n", CHUNKED_BAD);
	ends_with("0000000000000001\r\nx\r\n0\r\n\r\n", CHUNKED_BAD);
}

static void
test_overhead_is_limited(void **state)
{
	struct phr_chunked_decoder d = {0};
	char text[1024];
	long r = CHUNKED_MORE;
	size_t given = 0;

	memcpy(text, "1;", 2);
	memset(text + 2, 'e', sizeof(text) - 2);
	while (r == CHUNKED_MORE && given < 100 * sizeof(text)) {
		size_t len = sizeof(text);

		r = chunked_decode(&d, text, &len);
		given += sizeof(text);
		memset(text, 'e', sizeof(text));
	}
	assert_int_equal(r, CHUNKED_BAD);
	assert_true(given <= CHUNKED_OVERHEAD_MAX + 2 * sizeof(text));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_good),
	    cmocka_unit_test(test_incomplete),
	    cmocka_unit_test(test_bad),
	    cmocka_unit_test(test_overhead_is_limited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
