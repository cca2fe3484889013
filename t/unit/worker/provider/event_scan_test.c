/* event_scan: events wherever the bytes were split, what is kept byte for byte, what is too large.
 */
#include "t/unit/unit.h"

#include "common/buf.h"
#include "common/check.h"
#include "worker/provider/event_scan.h"

static struct buf passed, seen;

/* drop: as its data says; stop: likewise. */
static enum scan_verdict
on_event(void *arg, const struct scan_event *e)
{
	buf_add_char(&seen, '[');
	if (e->is_unread)
		buf_add_cstr(&seen, "unread");
	buf_add_str(&seen, e->name);
	buf_add_char(&seen, '|');
	buf_add_str(&seen, e->data);
	buf_add_char(&seen, ']');
	if (str_eq(e->data, STR("drop")))
		return SCAN_DROP;
	return str_eq(e->data, STR("stop")) ? SCAN_STOP : SCAN_KEEP;
}

static void
on_pass(void *arg, struct str bytes)
{
	assert_true(bytes.len > 0);
	buf_add_str(&passed, bytes);
}

/* Feeds the text in pieces; what came of it is in `passed` and `seen`. */
static bool
feed(const char *text, size_t step, size_t max)
{
	const struct scan_handlers handlers = {on_event, on_pass};
	struct event_scan s;
	size_t len = strlen(text);
	bool is_cut;

	buf_fini(&passed);
	buf_fini(&seen);
	buf_add_cstr(&passed, "");
	buf_add_cstr(&seen, "");
	event_scan_init(&s, max, &handlers, NULL);
	for (size_t at = 0; at < len; at += step)
		event_scan_feed(&s, str_sub(text + at, len - at < step ? len - at : step));
	is_cut = event_scan_is_cut(&s);
	event_scan_fini(&s);
	return is_cut;
}

static void
assert_all_splits(const char *text, const char *expect_passed, const char *expect_seen, bool is_cut)
{
	for (size_t step = 1; step <= strlen(text); step++) {
		assert_int_equal(feed(text, step, 1000), is_cut);
		assert_string_equal(passed.data, expect_passed);
		assert_string_equal(seen.data, expect_seen);
	}
}

static void
test_plain(void **state)
{
	static const char text[] =
	    "data: a\n\ndata:b\n\nevent: x\nid: 7\ndata: c\ndata\ndata:  d\n\n";

	assert_all_splits(text, text, "[|a][|b][x|c\n\n d]", false);
}

static void
test_line_ends(void **state)
{
	static const char text[] = "data: a\r\n\r\ndata: b\r\rdata: c\n\r\n: hm\r\n\r\ndata: d\n\n";

	assert_all_splits(text, text, "[|a][|b][|c][|][|d]", false);
}

static void
test_bom_and_empty_lines(void **state)
{
	static const char text[] = "\xef\xbb\xbf"
				   "data: a\n\n\n\ndata: b\n\n";

	assert_all_splits(text, text, "[|a][|][|][|b]", false);
}

static void
test_dropped(void **state)
{
	assert_all_splits("data: a\n\ndata: drop\n\ndata: drop\n\ndata: b\n\n",
	    "data: a\n\ndata: b\n\n", "[|a][|drop][|drop][|b]", false);
	assert_all_splits("data: drop\n\n", "", "[|drop]", false);
}

static void
test_stopped(void **state)
{
	assert_all_splits(
	    "data: a\n\ndata: stop\n\ndata: b\n\n", "data: a\n\n", "[|a][|stop]", false);
}

static void
test_cut(void **state)
{
	assert_all_splits("data: a\n\ndata: b\n", "data: a\n\n", "[|a]", true);
	assert_all_splits("data: a\n\nd", "data: a\n\n", "[|a]", true);
}

/* An event of more than the limit passes as it comes; exactly the limit is read. */
static void
test_too_large(void **state)
{
	static const char text[] =
	    "data: a\n\nevent: big\ndata: 0123456789abcdef\n\ndata: 12345678901\n\ndata: z\n\n";

	for (size_t step = 1; step <= strlen(text); step++) {
		assert_false(feed(text, step, 19));
		assert_string_equal(passed.data, text);
		if (step >= 11)
			assert_string_equal(seen.data, "[|a][unreadbig|][|12345678901][|z]");
	}
	assert_true(feed("data: 0123456789", 3, 8));
	assert_string_equal(passed.data, "data: 0123456789");
}

static void
test_part_passed(void **state)
{
	const struct scan_handlers handlers = {on_event, on_pass};
	struct event_scan s;

	event_scan_init(&s, 8, &handlers, NULL);
	event_scan_feed(&s, STR("data: 1"));
	assert_false(event_scan_has_passed_part(&s));
	event_scan_feed(&s, STR("23456789"));
	assert_true(event_scan_has_passed_part(&s));
	event_scan_feed(&s, STR("\n\n"));
	assert_false(event_scan_has_passed_part(&s));
	assert_false(event_scan_is_cut(&s));
	event_scan_fini(&s);
}

static int
teardown(void **state)
{
	buf_fini(&passed);
	buf_fini(&seen);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_plain),
	    cmocka_unit_test(test_line_ends),
	    cmocka_unit_test(test_bom_and_empty_lines),
	    cmocka_unit_test(test_dropped),
	    cmocka_unit_test(test_stopped),
	    cmocka_unit_test(test_cut),
	    cmocka_unit_test(test_too_large),
	    cmocka_unit_test(test_part_passed),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}
