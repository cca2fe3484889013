/* feed - numbers without gaps, bounded bytes, deltas that come together. */
#include "t/unit/unit.h"

#include <jansson.h>
#include <stdio.h>

#include "worker/turn/feed.h"

static void
expect_event(const struct feed *f, uint64_t seq, enum turn_event_type type, const char *data)
{
	struct turn_event e;

	assert_true(feed_get(f, seq, &e));
	assert_int_equal(e.seq, seq);
	assert_int_equal(e.type, type);
	assert_int_equal(e.data.len, strlen(data));
	assert_memory_equal(e.data.p, data, e.data.len);
}

static void
test_numbers_begin_with_one(void **state)
{
	struct feed f;
	struct turn_event e;

	feed_init(&f, 0);
	assert_int_equal(f.head, 0);
	assert_int_equal(feed_first(&f), 1);
	assert_false(feed_get(&f, 0, &e));
	assert_false(feed_get(&f, 1, &e));
	for (uint64_t i = 1; i <= 100; i++)
		assert_int_equal(feed_add(&f, TURN_USAGE, STR("{}")), i);
	assert_int_equal(feed_first(&f), 1);
	for (uint64_t i = 1; i <= 100; i++)
		expect_event(&f, i, TURN_USAGE, "{}");
	assert_false(feed_get(&f, 101, &e));
	assert_false(feed_get(&f, UINT64_MAX, &e));
	feed_fini(&f);
}

static void
test_deltas_that_come_together(void **state)
{
	struct feed f;

	feed_init(&f, 0);
	assert_true(feed_is_settled(&f));
	feed_text(&f, STR("Hello "));
	feed_text(&f, STR("\"you\"\n"));
	assert_false(feed_is_settled(&f));
	assert_int_equal(f.head, 0);
	feed_settle(&f);
	feed_settle(&f);
	expect_event(
	    &f, 1, TURN_TEXT_DELTA, "{\"text\":\"Hello \\\"you\\\"\\n\",\"offset\":0,\"hop\":0}");
	assert_int_equal(f.head, 1);
	feed_text(&f, STR("x"));
	feed_add(&f, TURN_USAGE, STR("{}")); /* what was said before stands before */
	expect_event(&f, 2, TURN_TEXT_DELTA, "{\"text\":\"x\",\"offset\":12,\"hop\":0}");
	expect_event(&f, 3, TURN_USAGE, "{}");
	feed_fini(&f);
}

static void
test_text_and_reasoning_keep_their_order(void **state)
{
	struct feed f;

	feed_init(&f, 0);
	feed_reasoning(&f, STR("a"));
	feed_reasoning(&f, STR("b"));
	feed_text(&f, STR("c"));
	feed_reasoning(&f, STR("d"));
	feed_settle(&f);
	expect_event(&f, 1, TURN_REASONING_DELTA, "{\"text\":\"ab\",\"hop\":0}");
	expect_event(&f, 2, TURN_TEXT_DELTA, "{\"text\":\"c\",\"offset\":0,\"hop\":0}");
	expect_event(&f, 3, TURN_REASONING_DELTA, "{\"text\":\"d\",\"hop\":0}");
	assert_int_equal(f.head, 3);
	feed_fini(&f);
}

static void
test_a_delta_is_of_one_hop(void **state)
{
	struct feed f;

	feed_init(&f, 0);
	feed_text(&f, STR("one"));
	feed_set_hop(&f, 1);
	feed_text(&f, STR("two"));
	feed_settle(&f);
	expect_event(&f, 1, TURN_TEXT_DELTA, "{\"text\":\"one\",\"offset\":0,\"hop\":0}");
	expect_event(&f, 2, TURN_TEXT_DELTA, "{\"text\":\"two\",\"offset\":3,\"hop\":1}");
	assert_int_equal(feed_told_text(&f).len, 6);
	feed_fini(&f);
}

static void
test_offsets_count_as_javascript_does(void **state)
{
	assert_int_equal(feed_utf16_length(STR("")), 0);
	assert_int_equal(feed_utf16_length(STR("abc")), 3);
	assert_int_equal(feed_utf16_length(STR("\xc3\xa4")), 1);         /* U+00E4 */
	assert_int_equal(feed_utf16_length(STR("\xe2\x82\xac")), 1);     /* U+20AC */
	assert_int_equal(feed_utf16_length(STR("\xf0\x9f\x98\x80")), 2); /* U+1F600 */
	assert_int_equal(feed_utf16_length(STR("a\xf0\x9f\x98\x80\xc3\xa4")), 4);
}

static void
test_the_oldest_go_first(void **state)
{
	struct feed f;
	struct turn_event e;
	char data[64];

	feed_init(&f, 500);
	for (unsigned i = 1; i <= 200; i++) {
		snprintf(data, sizeof(data), "{\"i\":%u}", i);
		assert_int_equal(feed_add(&f, TURN_USAGE, str_of(data)), i);
		assert_true(f.bytes <= 500);
	}
	assert_int_equal(f.head, 200);
	assert_true(feed_first(&f) > 1);
	assert_false(feed_get(&f, feed_first(&f) - 1, &e));
	for (uint64_t seq = feed_first(&f); seq <= 200; seq++) {
		snprintf(data, sizeof(data), "{\"i\":%u}", (unsigned)seq);
		expect_event(&f, seq, TURN_USAGE, data);
	}
	feed_fini(&f);
}

static void
test_one_that_is_too_big_stays_while_it_is_the_last(void **state)
{
	static char big[1000];
	struct feed f;
	struct turn_event e;

	memset(big, 'x', sizeof(big));
	feed_init(&f, 100);
	feed_add(&f, TURN_STARTED, STR("{}"));
	feed_add(&f, TURN_TOOL_RESULT, str_sub(big, sizeof(big)));
	assert_int_equal(feed_first(&f), 2);
	assert_true(feed_get(&f, 2, &e));
	assert_int_equal(e.data.len, sizeof(big));
	feed_add(&f, TURN_USAGE, STR("{}"));
	assert_int_equal(feed_first(&f), 3);
	feed_fini(&f);
}

static void
test_a_snapshot_is_json(void **state)
{
	struct buf out = BUF_INIT;

	feed_format_snapshot(&out, 17, STR("a\"b\\\n\x01"), STR("[{\"x\":1}]"));
	json_t *v = json_loadb(out.data, out.len, 0, NULL);
	assert_non_null(v);
	assert_int_equal(json_integer_value(json_object_get(v, "seq")), 17);
	assert_string_equal(json_string_value(json_object_get(v, "text")), "a\"b\\\n\x01");
	assert_int_equal(json_array_size(json_object_get(v, "tool_calls")), 1);
	json_decref(v);
	buf_fini(&out);
}

/* What the hop began with stands, and is told again. */
static void
test_a_restart(void **state)
{
	struct feed f;

	feed_init(&f, 0);
	feed_restart(&f, 0);
	expect_event(&f, 1, TURN_RESTARTED, "{}");
	feed_text(&f, STR("a\xc3\xb6"));
	feed_set_hop(&f, 1);
	feed_text(&f, STR("bad"));
	feed_restart(&f, 3);
	expect_event(&f, 3, TURN_TEXT_DELTA, "{\"text\":\"bad\",\"offset\":2,\"hop\":1}");
	expect_event(&f, 4, TURN_RESTARTED, "{}");
	expect_event(&f, 5, TURN_TEXT_DELTA, "{\"text\":\"a\xc3\xb6\",\"offset\":0,\"hop\":1}");
	feed_text(&f, STR("good"));
	feed_settle(&f);
	expect_event(&f, 6, TURN_TEXT_DELTA, "{\"text\":\"good\",\"offset\":2,\"hop\":1}");
	assert_true(str_eq(feed_told_text(&f), STR("a\xc3\xb6good")));
	feed_fini(&f);
}

static void
test_an_empty_feed(void **state)
{
	struct feed f;

	feed_init(&f, 100);
	feed_settle(&f);
	feed_text(&f, STR(""));
	feed_settle(&f);
	assert_int_equal(f.head, 0);
	assert_int_equal(feed_told_text(&f).len, 0);
	feed_fini(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_numbers_begin_with_one),
	    cmocka_unit_test(test_deltas_that_come_together),
	    cmocka_unit_test(test_text_and_reasoning_keep_their_order),
	    cmocka_unit_test(test_a_delta_is_of_one_hop),
	    cmocka_unit_test(test_offsets_count_as_javascript_does),
	    cmocka_unit_test(test_the_oldest_go_first),
	    cmocka_unit_test(test_one_that_is_too_big_stays_while_it_is_the_last),
	    cmocka_unit_test(test_a_snapshot_is_json),
	    cmocka_unit_test(test_a_restart),
	    cmocka_unit_test(test_an_empty_feed),
	};

	return cmocka_run_group_tests_name("worker/turn/feed", tests, NULL, NULL);
}
