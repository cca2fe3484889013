/* ws_reader: frames of every size of length, cut at every byte, and what is refused. */
#include "t/unit/unit.h"

#include <stdlib.h>

#include "loadtest/parley_load/ws_reader.c"

struct bytes {
	uint8_t *p;
	size_t len;
};

static void
add(struct bytes *b, enum ws_opcode opcode, size_t payload_len, uint8_t fill)
{
	uint8_t head[WS_HEAD_OUT_MAX];
	size_t head_len = ws_frame_format_head(opcode, payload_len, head);

	b->p = xrealloc(b->p, b->len + head_len + payload_len);
	memcpy(b->p + b->len, head, head_len);
	memset(b->p + b->len + head_len, fill, payload_len);
	b->len += head_len + payload_len;
}

static void
expect_frame(struct ws_reader *r, struct ws_bytes *in, enum ws_opcode opcode, size_t len, char fill)
{
	struct ws_got got;

	assert_int_equal(ws_reader_next(r, in, &got), WS_READER_FRAME);
	assert_int_equal(got.opcode, opcode);
	assert_true(got.is_final);
	assert_int_equal(got.data.len, len);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(got.data.p[i], fill);
}

static const size_t sizes[] = {0, 1, 125, 126, 127, 65535, 65536, 70000};

static void
test_several_in_one_piece(void **state)
{
	struct bytes b = {0};
	struct ws_reader r = {0};
	struct ws_got got;

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		add(&b, WS_OP_TEXT, sizes[i], 'a');
	struct ws_bytes in = {b.p, b.len};
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		expect_frame(&r, &in, WS_OP_TEXT, sizes[i], 'a');
	assert_int_equal(ws_reader_next(&r, &in, &got), WS_READER_MORE);
	assert_null(r.kept);
	free(b.p);
}

/* Two pieces: each in a block of its own size, so that a sanitizer sees what is read beyond. */
static void
cut_at(const struct bytes *b, size_t at, size_t first_len)
{
	struct ws_reader r = {0};
	struct ws_got got;
	uint8_t *head = malloc(at + 1), *tail = malloc(b->len - at + 1);

	memcpy(head, b->p, at);
	memcpy(tail, b->p + at, b->len - at);
	struct ws_bytes in = {head, at};
	size_t first_bytes = b->len - 2 - 3;
	if (at >= first_bytes)
		expect_frame(&r, &in, WS_OP_BINARY, first_len, 'x');
	if (at == b->len)
		expect_frame(&r, &in, WS_OP_PING, 3, 'y');
	assert_int_equal(ws_reader_next(&r, &in, &got), WS_READER_MORE);
	assert_int_equal(in.len, 0);
	in = (struct ws_bytes){tail, b->len - at};
	if (at < first_bytes)
		expect_frame(&r, &in, WS_OP_BINARY, first_len, 'x');
	if (at < b->len)
		expect_frame(&r, &in, WS_OP_PING, 3, 'y');
	assert_int_equal(ws_reader_next(&r, &in, &got), WS_READER_MORE);
	assert_null(r.kept);
	free(head);
	free(tail);
}

static void
test_cut_at_every_byte(void **state)
{
	static const size_t lens[] = {0, 1, 125, 126, 300, 65536};

	for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
		struct bytes b = {0};

		add(&b, WS_OP_BINARY, lens[i], 'x');
		add(&b, WS_OP_PING, 3, 'y');
		for (size_t at = 0; at <= b.len; at += b.len > 1000 && at > 20 ? 4999 : 1)
			cut_at(&b, at, lens[i]);
		free(b.p);
	}
}

static void
test_byte_by_byte(void **state)
{
	struct bytes b = {0};
	struct ws_reader r = {0};
	size_t frames = 0;

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		add(&b, WS_OP_TEXT, sizes[i], 'z');
	for (size_t i = 0; i < b.len; i++) {
		struct ws_bytes in = {b.p + i, 1};
		struct ws_got got;
		enum ws_reader_said said;

		while ((said = ws_reader_next(&r, &in, &got)) == WS_READER_FRAME)
			assert_int_equal(got.data.len, sizes[frames++]);
		assert_int_equal(said, WS_READER_MORE);
	}
	assert_int_equal(frames, ARRAY_LEN(sizes));
	assert_null(r.kept);
	free(b.p);
}

static void
test_fragments_are_told_as_they_are(void **state)
{
	uint8_t wire[] = {0x01, 1, 'a', 0x80, 1, 'b'};
	struct ws_bytes in = {wire, sizeof(wire)};
	struct ws_reader r = {0};
	struct ws_got got;

	assert_int_equal(ws_reader_next(&r, &in, &got), WS_READER_FRAME);
	assert_false(got.is_final);
	assert_int_equal(ws_reader_next(&r, &in, &got), WS_READER_FRAME);
	assert_true(got.is_final);
	assert_int_equal(got.opcode, WS_OP_CONTINUATION);
}

static void
test_what_no_server_may_send(void **state)
{
	static const uint8_t bad[][10] = {
	    {0x81, 0x81},                                /* masked */
	    {0xc1, 0x00},                                /* compressed, which nobody offered */
	    {0x82, 127, 0, 0, 0, 0, 0x01, 0, 0, 0x01},   /* beyond the limit */
	    {0x82, 127, 0xff, 0, 0, 0, 0x01, 0, 0, 0x01} /* and far beyond */
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		for (size_t cut = 1; cut <= sizeof(bad[i]); cut++) {
			uint8_t wire[sizeof(bad[i])];
			struct ws_reader r = {0};
			struct ws_got got;

			memcpy(wire, bad[i], sizeof(wire));
			struct ws_bytes in = {wire, cut};
			enum ws_reader_said said = ws_reader_next(&r, &in, &got);
			in = (struct ws_bytes){wire + cut, sizeof(wire) - cut};
			if (said == WS_READER_MORE)
				said = ws_reader_next(&r, &in, &got);
			assert_int_equal(said, WS_READER_FAULT);
			ws_reader_fini(&r);
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_several_in_one_piece),
	    cmocka_unit_test(test_cut_at_every_byte),
	    cmocka_unit_test(test_byte_by_byte),
	    cmocka_unit_test(test_fragments_are_told_as_they_are),
	    cmocka_unit_test(test_what_no_server_may_send),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
