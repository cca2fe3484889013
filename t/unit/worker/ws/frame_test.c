/* frame: heads of every form, cut anywhere; unmasking against the definition. */
#include "t/unit/unit.h"

#include <string.h>

#include "common/check.h"
#include "worker/ws/frame.h"

struct head {
	const char *bytes;
	size_t len;
	const char *fault; /* NULL: good */
	size_t fault_at;   /* the byte that shows it, counted from 1 */
	uint64_t left;
};

#define HEAD(s) (s), sizeof(s) - 1

static const struct head heads[] = {
    {HEAD("\x81\x80"
	  "keys"),
	NULL, 0, 0},
    {HEAD("\x01\xfd"
	  "keys"),
	NULL, 0, 125},
    {HEAD("\x82\xfe\x00\x7e"
	  "keys"),
	NULL, 0, 126},
    {HEAD("\x82\xfe\xff\xff"
	  "keys"),
	NULL, 0, 65535},
    {HEAD("\x80\xff\x00\x00\x00\x00\x00\x01\x00\x00"
	  "keys"),
	NULL, 0, 65536},
    {HEAD("\x80\xff\x7f\xff\xff\xff\xff\xff\xff\xff"
	  "keys"),
	NULL, 0, INT64_MAX},
    {HEAD("\x88\xfd"
	  "keys"),
	NULL, 0, 125},
    {HEAD("\x89\x80"
	  "keys"),
	NULL, 0, 0},
    {HEAD("\x8a\x81"
	  "keys"),
	NULL, 0, 1},
    {HEAD("\xc1\x80"
	  "keys"),
	"reserved bits are set", 1, 0},
    {HEAD("\xa1\x80"
	  "keys"),
	"reserved bits are set", 1, 0},
    {HEAD("\x91\x80"
	  "keys"),
	"reserved bits are set", 1, 0},
    {HEAD("\x83\x80"
	  "keys"),
	"reserved opcode", 1, 0},
    {HEAD("\x07\x80"
	  "keys"),
	"reserved opcode", 1, 0},
    {HEAD("\x8b\x80"
	  "keys"),
	"reserved opcode", 1, 0},
    {HEAD("\x8f\x80"
	  "keys"),
	"reserved opcode", 1, 0},
    {HEAD("\x08\x80"
	  "keys"),
	"fragmented control frame", 1, 0},
    {HEAD("\x0a\x80"
	  "keys"),
	"fragmented control frame", 1, 0},
    {HEAD("\x81\x05"
	  "Hello"),
	"frame is not masked", 2, 0},
    {HEAD("\x89\xfe\x00\x7e"
	  "keys"),
	"control frame is too long", 2, 0},
    {HEAD("\x88\xff\x00\x00\x00\x00\x00\x00\x00\x01"
	  "keys"),
	"control frame is too long", 2, 0},
    {HEAD("\x81\xfe\x00\x7d"
	  "keys"),
	"length is not in its shortest form", 4, 0},
    {HEAD("\x81\xfe\x00\x00"
	  "keys"),
	"length is not in its shortest form", 4, 0},
    {HEAD("\x81\xff\x00\x00\x00\x00\x00\x00\xff\xff"
	  "keys"),
	"length is not in its shortest form", 10, 0},
    {HEAD("\x81\xff\x00\x00\x00\x00\x00\x00\x00\x00"
	  "keys"),
	"length is not in its shortest form", 10, 0},
    {HEAD("\x81\xff\x80\x00\x00\x00\x00\x00\x00\x00"
	  "keys"),
	"length has its highest bit set", 10, 0},
};

/* Gives bytes from..until of the head; the fault, if any. */
static const char *
give(struct ws_frame *f, const struct head *h, size_t from, size_t until, size_t *ret_unused)
{
	uint8_t copy[16];
	struct ws_bytes in = {copy, until - from};

	memcpy(copy, h->bytes + from, until - from);
	const char *fault = ws_frame_take_head(f, &in);
	*ret_unused = in.len;
	return fault;
}

static void
test_heads_cut_anywhere(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
		const struct head *h = &heads[i];

		for (size_t cut = 0; cut <= h->len; cut++) {
			struct ws_frame f = {0};
			size_t unused;
			const char *fault = give(&f, h, 0, cut, &unused);

			if (h->fault != NULL && cut >= h->fault_at) {
				assert_string_equal(fault, h->fault);
				assert_int_equal(cut - unused, h->fault_at);
				continue;
			}
			assert_null(fault);
			assert_int_equal(f.is_open, cut == h->len);
			if (!f.is_open)
				fault = give(&f, h, cut, h->len, &unused);
			if (h->fault != NULL) {
				assert_string_equal(fault, h->fault);
				continue;
			}
			assert_null(fault);
			assert_true(f.is_open && unused == 0);
			assert_true(f.left == h->left);
			assert_int_equal(ws_frame_opcode(&f), h->bytes[0] & 15);
			assert_int_equal(ws_frame_is_final(&f), (h->bytes[0] & 0x80) != 0);
			assert_int_equal(ws_frame_is_control(&f), (h->bytes[0] & 8) != 0);
		}
	}
}

/* The example of RFC 6455 section 5.7, one byte at a time, and then a second frame. */
static void
test_payload(void **state)
{
	uint8_t wire[] = "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58\x81\x80keys!";
	struct ws_bytes in = {wire, 6};
	struct ws_frame f = {0};
	char heard[6] = "";

	assert_null(ws_frame_take_head(&f, &in));
	for (size_t i = 0; i < 5; i++) {
		assert_int_equal(f.left, 5 - i);
		in.len = 1;
		struct ws_bytes part = ws_frame_take_payload(&f, &in);
		assert_int_equal(part.len, 1);
		heard[i] = (char)part.p[0];
	}
	assert_string_equal(heard, "Hello");
	assert_int_equal(f.left, 0);
	ws_frame_end(&f);
	in.len = 7;
	assert_null(ws_frame_take_head(&f, &in));
	assert_true(f.is_open);
	assert_int_equal(in.len, 1);
	assert_int_equal(ws_frame_take_payload(&f, &in).len, 0);
	assert_int_equal(in.len, 1); /* the next frame's */
	ws_frame_end(&f);
}

static void
test_unmask(void **state)
{
	static const uint8_t key[4] = {0x12, 0xf3, 0x00, 0xa5};
	uint8_t plain[96], text[104];

	for (size_t i = 0; i < sizeof(plain); i++)
		plain[i] = (uint8_t)(i * 37);
	for (size_t at = 0; at < 8; at++) {
		for (size_t len = 0; len <= sizeof(plain); len++) {
			for (size_t cut = 0; cut <= len; cut++) {
				uint8_t turned[4];

				memcpy(turned, key, sizeof(key));
				for (size_t i = 0; i < len; i++)
					text[at + i] = plain[i] ^ key[i % 4];
				ws_unmask(text + at, cut, turned);
				ws_unmask(text + at + cut, len - cut, turned);
				assert_memory_equal(text + at, plain, len);
			}
		}
	}
}

static void
test_heads_out(void **state)
{
	static const struct {
		uint64_t len;
		size_t head_len;
		const char *head;
	} rows[] = {
	    {0, 2, "\x81\x00"},
	    {125, 2, "\x81\x7d"},
	    {126, 4, "\x81\x7e\x00\x7e"},
	    {65535, 4, "\x81\x7e\xff\xff"},
	    {65536, 10, "\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"},
	    {0x0102030405060708, 10, "\x81\x7f\x01\x02\x03\x04\x05\x06\x07\x08"},
	};
	uint8_t head[WS_HEAD_OUT_MAX];

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		assert_int_equal(
		    ws_frame_format_head(WS_OP_TEXT, rows[i].len, head), rows[i].head_len);
		assert_memory_equal(head, rows[i].head, rows[i].head_len);
	}
	assert_int_equal(ws_frame_format_head(WS_OP_PONG, 125, head), 2);
	assert_memory_equal(head, "\x8a\x7d", 2);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_heads_cut_anywhere),
	    cmocka_unit_test(test_payload),
	    cmocka_unit_test(test_unmask),
	    cmocka_unit_test(test_heads_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
