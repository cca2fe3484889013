/*
 * autobahn_test - the cases of autobahn.h against message.c: each is fed whole,
 * frame by frame, octet by octet, and split at each of its bytes. A message counts
 * as heard; that it is echoed is autobahn_live_test's business.
 */
#include "t/unit/unit.h"

#include <stdio.h>

#include "t/unit/worker/ws/autobahn.h"

/* Feeds the wire in pieces that end at each of the `cuts`. */
static void
expect_heard(struct str wire, const size_t *cuts, size_t cut_count, const char *heard)
{
	struct ws_message m = {0};
	struct buf said = BUF_INIT;
	size_t from = 0;

	for (size_t i = 0; i <= cut_count; i++) {
		size_t until = i < cut_count ? cuts[i] : wire.len;

		peer_say(&m, &limits, str_sub(wire.p + from, until - from), &said);
		from = until;
	}
	assert_string_equal(said.data != NULL ? said.data : "", heard);
	ws_message_fini(&m);
	buf_fini(&said);
}

static void
test_row(void **state)
{
	const struct row *row = *state;
	struct buf wire = BUF_INIT;
	size_t ends[FRAMES_MAX], each[SPLIT_BYTES_MAX];
	size_t count = row_wire(row, &wire, ends);

	expect_heard(buf_str(&wire), NULL, 0, row->heard);
	expect_heard(buf_str(&wire), ends, count, row->heard);
	for (size_t at = 0; at < wire.len; at++) {
		each[at] = at + 1;
		expect_heard(buf_str(&wire), &at, 1, row->heard);
	}
	expect_heard(buf_str(&wire), each, wire.len, row->heard);
	buf_fini(&wire);
}

static void
test_early(void **state)
{
	const struct early *c = *state;
	struct buf wire = BUF_INIT, said = BUF_INIT;
	struct ws_message m = {0};
	size_t ends[3];

	early_wire(c, &wire, ends);
	peer_say(&m, &limits, str_sub(wire.data, ends[0]), &said);
	assert_int_equal(said.len, 0);
	peer_say(&m, &limits, str_sub(wire.data + ends[0], ends[1] - ends[0]), &said);
	assert_string_equal(said.data, "fail(1007)>close(1007)");
	peer_say(&m, &limits, str_sub(wire.data + ends[1], wire.len - ends[1]), &said);
	assert_string_equal(said.data, "fail(1007)>close(1007)");
	ws_message_fini(&m);
	buf_fini(&wire);
	buf_fini(&said);
}

static void
test_sequence(void **state)
{
	const struct sequence *q = *state;
	struct buf wire = BUF_INIT, heard = BUF_INIT;

	peer_frame(&wire, 0x81, q->text);
	sequence_heard(q, &heard);
	for (size_t at = 0; at <= wire.len; at++)
		expect_heard(buf_str(&wire), &at, 1, heard.data);
	buf_fini(&wire);
	buf_fini(&heard);
}

/* Feeds one piece and counts the messages in it, each of which must be `payload`. */
static size_t
count_heard(struct ws_message *m, const struct bulk *b, struct ws_bytes in, struct str payload)
{
	struct ws_event ev;
	enum ws_event_kind kind;
	size_t heard = 0;

	while ((kind = ws_message_next(m, &limits, &in, &ev)) != WS_MORE) {
		assert_int_equal(kind, b->opcode == WS_OP_TEXT ? WS_TEXT : WS_BINARY);
		assert_true(str_eq(ev.data, payload));
		heard++;
	}
	return heard;
}

static void
test_bulk(void **state)
{
	const struct bulk *b = *state;
	struct buf payload = BUF_INIT, wire = BUF_INIT;
	struct ws_message m = {0};
	size_t heard = 0;

	bulk_payload(b, &payload);
	for (size_t i = 0; i < b->count; i++)
		bulk_message(b, buf_str(&payload), &wire);
	size_t chop = b->chop > 0 ? b->chop : wire.len;
	for (size_t at = 0; at < wire.len; at += chop) {
		size_t len = wire.len - at < chop ? wire.len - at : chop;
		struct ws_bytes in = {(uint8_t *)wire.data + at, len};

		heard += count_heard(&m, b, in, buf_str(&payload));
	}
	assert_int_equal(heard, b->count);
	assert_true(ws_message_is_idle(&m));
	buf_fini(&payload);
	buf_fini(&wire);
}

/* 7.1.6 */
static void
test_close_behind_long_message(void **state)
{
	struct buf wire = BUF_INIT, said = BUF_INIT, heard = BUF_INIT;
	struct ws_message m = {0};

	close_behind_wire(&wire, &heard);
	peer_say(&m, &limits, buf_str(&wire), &said);
	assert_string_equal(said.data, heard.data);
	buf_fini(&wire);
	buf_fini(&said);
	buf_fini(&heard);
}

int
main(void)
{
	static struct CMUnitTest tests[AUTOBAHN_COUNT];

	list_cases(
	    tests, test_row, test_early, test_sequence, test_bulk, test_close_behind_long_message);
	return cmocka_run_group_tests_name("autobahn", tests, NULL, NULL);
}
