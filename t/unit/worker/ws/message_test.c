/* message: limits, our own closing, and what is held while nothing is whole. The RFC's cases are in
 * autobahn_test.c. */
#include "t/unit/unit.h"

#include <malloc.h>

#include "t/unit/worker/ws/peer.h"

static const struct ws_limits limits = {.frame_bytes_max = 100, .message_bytes_max = 150};

struct talk {
	struct ws_message m;
	struct buf wire, said;
};

static void
say(struct talk *t, uint8_t first, struct str payload)
{
	buf_clear(&t->wire);
	peer_frame(&t->wire, first, payload);
	peer_say(&t->m, &limits, buf_str(&t->wire), &t->said);
}

static void
say_stars(struct talk *t, uint8_t first, size_t len)
{
	char stars[200];

	memset(stars, '*', sizeof(stars));
	say(t, first, str_sub(stars, len));
}

static void
expect(struct talk *t, const char *heard)
{
	assert_string_equal(t->said.data != NULL ? t->said.data : "", heard);
	buf_clear(&t->said);
}

static void
end(struct talk *t)
{
	ws_message_fini(&t->m);
	buf_fini(&t->wire);
	buf_fini(&t->said);
	*t = (struct talk){0};
}

static void
test_size_of_state(void **state)
{
	/* What each idle connection pays; a change is a decision. */
	assert_int_equal(sizeof(struct ws_frame), 24);
	assert_int_equal(sizeof(struct ws_message), 40);
}

static void
test_limits(void **state)
{
	struct talk t = {0};

	say_stars(&t, 0x82, 100);
	assert_true(t.said.len > 0);
	buf_clear(&t.said);
	say_stars(&t, 0x82, 101);
	expect(&t, "fail(1009)>close(1009)");
	end(&t);

	/* Fragments: 150 in all is the most. */
	say_stars(&t, 0x02, 100);
	say_stars(&t, 0x00, 50);
	expect(&t, "");
	say_stars(&t, 0x80, 0);
	assert_true(t.said.len > 0 && t.said.data[0] == 'b');
	buf_clear(&t.said);
	say_stars(&t, 0x02, 100);
	say_stars(&t, 0x00, 50);
	say_stars(&t, 0x80, 1);
	expect(&t, "fail(1009)>close(1009)");
	assert_int_equal(ws_message_state(&t.m), WS_CLOSED);
	assert_null(t.m.hold);
	end(&t);
}

/* The head alone is enough; nothing is reserved for what a head promises. */
static void
test_too_big_is_told_at_the_head(void **state)
{
	struct talk t = {0};

	peer_say(&t.m, &limits,
	    STR("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff"
		"keys"),
	    &t.said);
	expect(&t, "fail(1009)>close(1009)");
	end(&t);
	peer_say(&t.m, &limits,
	    STR("\x82\xe5"
		"keys"),
	    &t.said);
	expect(&t, "fail(1009)>close(1009)");
	end(&t);
	peer_say(&t.m, &limits,
	    STR("\x82\xe4"
		"keys"),
	    &t.said);
	expect(&t, "");
	assert_null(t.m.hold);
	end(&t);
}

/* A long message is held in what came of it and at most as much again. */
static void
test_what_is_held(void **state)
{
	static const struct ws_limits large = {1 << 20, 1 << 20};
	struct ws_message m = {0};
	struct buf said = BUF_INIT;
	char zeros[1000] = {0};
	size_t given = 0;

	peer_say(&m, &large,
	    STR("\x82\xff\x00\x00\x00\x00\x00\x08\x00\x00"
		"keys"),
	    &said);
	assert_null(m.hold);
	for (; given < 520000; given += sizeof(zeros)) {
		peer_say(&m, &large, str_sub(zeros, sizeof(zeros)), &said);
		assert_in_range(malloc_usable_size(m.hold), given, 2 * given + 4096);
	}
	/* 512 KiB were announced: the last doubling stops there. */
	assert_in_range(malloc_usable_size(m.hold), 512 << 10, (512 << 10) + 8192);
	assert_int_equal(said.len, 0);
	assert_false(ws_message_is_idle(&m));
	ws_message_fini(&m);
	assert_null(m.hold);
}

static void
test_nothing_is_held_when_idle(void **state)
{
	struct talk t = {0};

	assert_true(ws_message_is_idle(&t.m));
	say(&t, 0x81, STR("whole"));
	assert_true(ws_message_is_idle(&t.m));
	say(&t, 0x01, STR("a"));
	assert_non_null(t.m.hold);
	say(&t, 0x89, STR("p"));
	assert_non_null(t.m.hold);
	assert_false(ws_message_is_idle(&t.m));
	say(&t, 0x80, STR("b"));
	assert_true(ws_message_is_idle(&t.m));
	expect(&t, "text(whole) ping(p)>pong(p) text(ab)");
	/* Half a head, half a ping. */
	peer_say(&t.m, &limits, STR("\x89"), &t.said);
	assert_false(ws_message_is_idle(&t.m));
	assert_null(t.m.hold);
	peer_say(&t.m, &limits, STR("\x82\0\0\0\0x"), &t.said);
	assert_non_null(t.m.hold);
	peer_say(&t.m, &limits, STR("y"), &t.said);
	assert_true(ws_message_is_idle(&t.m));
	expect(&t, "ping(xy)>pong(xy)");
	/* An empty first fragment needs no memory; a ping that is cut within it does. */
	say(&t, 0x01, STR(""));
	assert_null(t.m.hold);
	peer_say(&t.m, &limits, STR("\x89\x82\0\0\0\0x"), &t.said);
	peer_say(&t.m, &limits, STR("y"), &t.said);
	say(&t, 0x00, STR("1"));
	peer_say(&t.m, &limits, STR("\x8a\x82\0\0\0\0x"), &t.said);
	peer_say(&t.m, &limits, STR("y"), &t.said);
	say(&t, 0x80, STR("2"));
	expect(&t, "ping(xy)>pong(xy) pong(xy) text(12)");
	assert_true(ws_message_is_idle(&t.m));
	end(&t);
}

static void
test_whole_message_is_not_copied(void **state)
{
	uint8_t wire[] = "\x81\x82\0\0\0\0hi\x82\x81\0\0\0\0!";
	struct ws_bytes in = {wire, sizeof(wire) - 1};
	struct ws_message m = {0};
	struct ws_event ev;

	assert_int_equal(ws_message_next(&m, &limits, &in, &ev), WS_TEXT);
	assert_ptr_equal(ev.data.p, wire + 6);
	assert_int_equal(ws_message_next(&m, &limits, &in, &ev), WS_BINARY);
	assert_ptr_equal(ev.data.p, wire + 14);
	assert_int_equal(ws_message_next(&m, &limits, &in, &ev), WS_MORE);
	assert_int_equal(in.len, 0);
}

static void
expect_our_close(struct talk *t, uint16_t code, struct str reason, struct str want)
{
	uint8_t frame[WS_CONTROL_FRAME_MAX];
	size_t len = ws_message_close(&t->m, code, reason, frame);

	assert_int_equal(len, want.len);
	assert_memory_equal(frame, want.p, want.len);
	assert_int_equal(ws_message_close(&t->m, code, reason, frame), 0);
}

static void
test_our_close(void **state)
{
	struct talk t = {0};

	expect_our_close(&t, WS_CLOSE_TRY_LATER, STR("Server at maximum capacity"),
	    STR("\x88\x1c\x03\xf5Server at maximum capacity"));
	assert_int_equal(ws_message_state(&t.m), WS_CLOSING);
	/* The peer has not heard it yet: messages are skipped, of any size and content. */
	say(&t, 0x81, STR("late"));
	say(&t, 0x81, STR("\xff"));
	say_stars(&t, 0x02, 120);
	say_stars(&t, 0x00, 120);
	assert_null(t.m.hold);
	say(&t, 0x89, STR("p"));
	say_stars(&t, 0x80, 120);
	say(&t, 0x88, STR("\x03\xf5"));
	say(&t, 0x81, STR("too late"));
	expect(&t, "ping(p) close(1013)");
	assert_int_equal(ws_message_state(&t.m), WS_CLOSED);
	end(&t);

	/* A fault then has no second close. */
	expect_our_close(&t, WS_CLOSE_GOING_AWAY, STR_NONE, STR("\x88\x02\x03\xe9"));
	say(&t, 0x80, STR("continuation of nothing"));
	say(&t, 0x88, STR("\x03\xe9"));
	expect(&t, "fail(1002)");
	end(&t);

	/* Nor a close after the peer's. */
	say(&t, 0x88, STR(""));
	uint8_t frame[WS_CONTROL_FRAME_MAX];
	assert_int_equal(ws_message_close(&t.m, WS_CLOSE_NORMAL, STR_NONE, frame), 0);
	assert_int_equal(ws_message_state(&t.m), WS_CLOSED);
	expect(&t, "close(1005)>close(1005)");
	end(&t);
}

/* What was held of a message goes with the next bytes; what an event points at does not before. */
static void
test_close_between_event_and_its_use(void **state)
{
	struct ws_message m = {0};
	struct buf wire = BUF_INIT, said = BUF_INIT;
	uint8_t frame[WS_CONTROL_FRAME_MAX];
	struct ws_event ev;

	peer_frame(&wire, 0x01, STR("one"));
	peer_say(&m, &limits, buf_str(&wire), &said);
	buf_clear(&wire);
	peer_frame(&wire, 0x80, STR("two"));
	struct ws_bytes in = {(uint8_t *)wire.data, wire.len};
	assert_int_equal(ws_message_next(&m, &limits, &in, &ev), WS_TEXT);
	assert_true(ws_message_close(&m, WS_CLOSE_NORMAL, STR_NONE, frame) > 0);
	assert_true(str_eq(ev.data, STR("onetwo")));
	assert_int_equal(ws_message_next(&m, &limits, &in, &ev), WS_MORE);
	assert_null(m.hold);
	ws_message_fini(&m);

	m = (struct ws_message){0};
	buf_clear(&wire);
	peer_frame(&wire, 0x01, STR("part"));
	peer_say(&m, &limits, buf_str(&wire), &said);
	assert_non_null(m.hold);
	assert_true(ws_message_close(&m, WS_CLOSE_NORMAL, STR_NONE, frame) > 0);
	in.len = 0;
	assert_int_equal(ws_message_next(&m, &limits, &in, &ev), WS_MORE);
	assert_null(m.hold);
	ws_message_fini(&m);
	buf_fini(&wire);
	buf_fini(&said);
}

static void
test_reason_is_cut_between_characters(void **state)
{
	char reason[140];
	struct ws_message m = {0};
	uint8_t frame[WS_CONTROL_FRAME_MAX];

	for (size_t shift = 0; shift < 4; shift++) {
		memset(reason, 'x', sizeof(reason));
		for (size_t i = shift; i + 4 <= sizeof(reason); i += 4)
			memcpy(reason + i, "\xf0\x9f\x98\x80", 4);
		m = (struct ws_message){0};
		size_t len =
		    ws_message_close(&m, WS_CLOSE_POLICY, str_sub(reason, sizeof(reason)), frame);
		assert_in_range(len, 4 + WS_REASON_MAX - 3, 4 + WS_REASON_MAX);
		assert_int_equal(frame[1], len - 2);
		assert_true(str_is_utf8(str_sub((const char *)frame + 4, len - 4)));
	}
}

static void
test_close_codes(void **state)
{
	static const struct {
		uint32_t first, last;
	} valid[] = {{1000, 1003}, {1007, 1014}, {3000, 4999}};

	for (uint32_t code = 0; code <= UINT16_MAX; code++) {
		bool want = false;

		for (size_t i = 0; i < ARRAY_LEN(valid); i++)
			want = want || (code >= valid[i].first && code <= valid[i].last);
		assert_int_equal(ws_close_code_is_valid((uint16_t)code), want);
	}
}

static void
test_reason_that_ends_within_a_character(void **state)
{
	struct talk t = {0};

	say(&t, 0x88,
	    STR("\x03\xe8"
		"caf\xc3\xa9"));
	expect(&t, "close(1000,caf\\xc3\\xa9)>close(1000)");
	end(&t);
	say(&t, 0x88,
	    STR("\x03\xe8"
		"caf\xc3"));
	expect(&t, "fail(1007)>close(1007)");
	end(&t);
}

static void
test_control_frame(void **state)
{
	uint8_t frame[WS_CONTROL_FRAME_MAX];

	assert_int_equal(ws_control_frame(WS_OP_PING, STR_NONE, frame), 2);
	assert_memory_equal(frame, "\x89\x00", 2);
	assert_int_equal(ws_control_frame(WS_OP_PING, STR("42"), frame), 4);
	assert_memory_equal(frame,
	    "\x89\x02"
	    "42",
	    4);
}

/* One octet a fragment: the memory is doubled, not moved for each. */
static void
test_many_small_fragments(void **state)
{
	static const struct ws_limits large = {1 << 20, 1 << 20};
	struct ws_message m = {0};
	struct buf wire = BUF_INIT, said = BUF_INIT;
	struct ws_hold *at = NULL;
	size_t sizes = 0, size = 0;

	for (size_t i = 0; i < 20000; i++) {
		buf_clear(&wire);
		peer_frame(&wire, i == 0 ? 0x01 : 0x00, STR("x"));
		peer_say(&m, &large, buf_str(&wire), &said);
		at = m.hold;
		sizes += malloc_usable_size(at) != size;
		size = malloc_usable_size(at);
	}
	assert_in_range(sizes, 1, 12);
	assert_int_equal(said.len, 0);
	ws_message_fini(&m);
	buf_fini(&wire);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_size_of_state),
	    cmocka_unit_test(test_limits),
	    cmocka_unit_test(test_too_big_is_told_at_the_head),
	    cmocka_unit_test(test_what_is_held),
	    cmocka_unit_test(test_nothing_is_held_when_idle),
	    cmocka_unit_test(test_whole_message_is_not_copied),
	    cmocka_unit_test(test_our_close),
	    cmocka_unit_test(test_close_between_event_and_its_use),
	    cmocka_unit_test(test_reason_is_cut_between_characters),
	    cmocka_unit_test(test_close_codes),
	    cmocka_unit_test(test_reason_that_ends_within_a_character),
	    cmocka_unit_test(test_control_frame),
	    cmocka_unit_test(test_many_small_fragments),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
