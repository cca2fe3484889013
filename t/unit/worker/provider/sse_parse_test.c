/*
 * sse_parse_test - events come out the same wherever the bytes were split.
 */
#include "t/unit/unit.h"

#include "common/check.h"
#include "common/err.h"
#include "worker/provider/sse_parse.h"

/* Events as "name|data;" */
static int
note(void *arg, const struct sse_event *e)
{
	struct buf *out = arg;

	buf_add_str(out, e->name);
	buf_add_char(out, '|');
	buf_add_str(out, e->data);
	buf_add_char(out, ';');
	return 0;
}

static void
expect(const char *stream, size_t len, const char *events)
{
	for (size_t first = 0; first <= len; first++) {
		struct buf out = BUF_INIT;
		struct sse_parse p;

		buf_add_cstr(&out, "");
		sse_parse_init(&p, 1000, note, &out);
		assert_int_equal(sse_parse_feed(&p, str_sub(stream, first)), 0);
		assert_int_equal(sse_parse_feed(&p, str_sub(stream + first, len - first)), 0);
		assert_string_equal(out.data, events);
		sse_parse_fini(&p);
		buf_fini(&out);
	}
	struct buf out = BUF_INIT;
	struct sse_parse p;
	buf_add_cstr(&out, "");
	sse_parse_init(&p, 1000, note, &out);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(sse_parse_feed(&p, str_sub(stream + i, 1)), 0);
	assert_string_equal(out.data, events);
	sse_parse_fini(&p);
	buf_fini(&out);
}
#define EXPECT(stream, events) expect(stream, sizeof(stream) - 1, events)

static void
test_events(void **state)
{
	EXPECT("data: a\n\ndata: b\n\n", "|a;|b;");
	EXPECT("event: x\ndata: a\n\ndata: b\n\n", "x|a;|b;");
	EXPECT("data: a\ndata: b\ndata\ndata:\n\n", "|a\nb\n\n;");
	EXPECT("data:a\n\ndata:  a\n\n", "|a;| a;");
	EXPECT("data: a:b: c\n\n", "|a:b: c;");
	EXPECT("data: {\"x\":\"\xc3\xb6\"}\n\n", "|{\"x\":\"\xc3\xb6\"};");
}

static void
test_line_ends(void **state)
{
	EXPECT("data: a\r\n\r\ndata: b\r\n\r\n", "|a;|b;");
	EXPECT("data: a\r\rdata: b\r\r", "|a;|b;");
	EXPECT("data: a\r\n\ndata: b\n\r\n", "|a;|b;");
	EXPECT("data: a\n\r\n\r\n\n", "|a;");
	EXPECT("data: a\rdata: b\ndata: c\r\n\r\n", "|a\nb\nc;");
}

static void
test_what_is_skipped(void **state)
{
	EXPECT(": comment\n\n:\n\ndata: a\n\n", "|a;");
	EXPECT("id: 1\nretry: 10\nother: x\ndata: a\n: c\n\n", "|a;");
	EXPECT("event: x\n\ndata: a\n\n", "|a;"); /* a name without data is no event */
	EXPECT(" data: a\n\ndata : b\n\n", "");
	EXPECT("\xef\xbb\xbf"
	       "data: a\n\n",
	    "|a;");
	EXPECT("data: a\n\n\xef\xbb\xbf"
	       "data: b\n\n",
	    "|a;");
}

static void
test_cut_end(void **state)
{
	EXPECT("data: a\n\ndata: b", "|a;");
	EXPECT("data: a\n\ndata: b\n", "|a;");
	EXPECT("", "");
}

static int
feed_whole(const char *s, size_t len, size_t max, sse_on_event *on_event, void *arg)
{
	struct sse_parse p;

	sse_parse_init(&p, max, on_event, arg);
	int rc = sse_parse_feed(&p, str_sub(s, len));
	sse_parse_fini(&p);
	return rc;
}

/* For who reconnects. */
static void
test_ids(void **state)
{
	struct buf out = BUF_INIT;
	struct sse_parse p;

	sse_parse_init(&p, 1000, note, &out);
	assert_int_equal(
	    sse_parse_feed(&p, STR("id: a 1\nretry: 250\ndata: x\n\nretry: no\ndata: cu")), 0);
	assert_true(str_eq(buf_str(&p.id), STR("a 1")));
	assert_true(p.has_retry && p.retry_ms == 250);
	sse_parse_restart(&p);
	assert_int_equal(sse_parse_feed(&p, STR("data: y\n\n")), 0);
	assert_string_equal(out.data, "|x;|y;");
	assert_true(str_eq(buf_str(&p.id), STR("a 1")));
	sse_parse_fini(&p);
	buf_fini(&out);
}

static void
test_limits(void **state)
{
	struct buf out = BUF_INIT;
	char line[64];

	memset(line, 'x', sizeof(line));
	/* a line without an end, a line, many lines */
	assert_int_equal(feed_whole(line, 33, 32, note, &out), E_PAYLOAD_TOO_LARGE);
	line[40] = '\n';
	assert_int_equal(feed_whole(line, 41, 32, note, &out), E_PAYLOAD_TOO_LARGE);
	assert_int_equal(
	    feed_whole("data: 123456789\ndata: 123456789\ndata: 123456789\ndata: 123456789\n", 64,
		32, note, &out),
	    E_PAYLOAD_TOO_LARGE);
	assert_int_equal(
	    feed_whole("data: 123456789\n\ndata: 123456789\n\n", 34, 32, note, &out), 0);
	assert_string_equal(out.data, "|123456789;|123456789;");
	buf_fini(&out);
}

static int
refuse_second(void *arg, const struct sse_event *e)
{
	return ++*(int *)arg == 2 ? E_PROVIDER : 0;
}

static void
test_callback_ends_the_feed(void **state)
{
	int seen = 0;

	assert_int_equal(
	    feed_whole("data: a\n\ndata: b\n\ndata: c\n\n", 27, 100, refuse_second, &seen),
	    E_PROVIDER);
	assert_int_equal(seen, 2);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_events),
	    cmocka_unit_test(test_line_ends),
	    cmocka_unit_test(test_what_is_skipped),
	    cmocka_unit_test(test_cut_end),
	    cmocka_unit_test(test_ids),
	    cmocka_unit_test(test_limits),
	    cmocka_unit_test(test_callback_ends_the_feed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
