/* inbox: round trips, every shorter piece refused, nonsense refused; channel names. */
#include "t/unit/unit.h"

#include "common/check.h"
#include "worker/backplane/inbox.h"

static const struct backplane_addr from = {0x0123456789abcdefULL, {300, 70000}};

static void
test_round_trip(void **state)
{
	struct inbox_message m = {from, BACKPLANE_TOOL_RESULT, STR("payload")}, back;
	struct buf out = BUF_INIT;

	inbox_format(&m, &out);
	assert_true(inbox_parse(buf_str(&out), &back));
	assert_true(back.from.host == from.host);
	assert_int_equal(back.from.who.row, 300);
	assert_int_equal(back.from.who.number, 70000);
	assert_int_equal(back.method, BACKPLANE_TOOL_RESULT);
	assert_true(str_eq(back.payload, STR("payload")));
	/* Any shorter head is refused; the payload is its reader's. */
	for (size_t len = 0; len < out.len - m.payload.len; len++)
		assert_false(inbox_parse(str_sub(out.data, len), &back));
	buf_fini(&out);
}

static void
refused(struct inbox_message m)
{
	struct inbox_message back;
	struct buf out = BUF_INIT;

	inbox_format(&m, &out);
	assert_false(inbox_parse(buf_str(&out), &back));
	buf_fini(&out);
}

static void
test_nonsense(void **state)
{
	struct inbox_message m = {from, BACKPLANE_TURN_STATE, STR_NONE}, back;
	struct buf out = BUF_INIT;

	inbox_format(&m, &out);
	assert_true(inbox_parse(buf_str(&out), &back));
	out.data[0] = 2;
	assert_false(inbox_parse(buf_str(&out), &back));
	m.method = BACKPLANE_METHOD_COUNT;
	refused(m);
	m.method = BACKPLANE_TURN_STATE;
	m.from.who.number = 0;
	refused(m);
	/* A row of 33 bits. */
	buf_clear(&out);
	buf_add(&out,
	    "\1"
	    "hosthost"
	    "\x80\x80\x80\x80\x10"
	    "\1\1",
	    16);
	assert_false(inbox_parse(buf_str(&out), &back));
	buf_fini(&out);
}

static void
test_channels(void **state)
{
	struct buf out = BUF_INIT;

	inbox_channel("p:", from, &out);
	assert_string_equal(out.data, "p:in:0123456789abcdef.12c.11170");
	inbox_channel_of_all("p:", &out);
	assert_string_equal(out.data, "p:all");
	buf_fini(&out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_round_trip),
	    cmocka_unit_test(test_nonsense),
	    cmocka_unit_test(test_channels),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
