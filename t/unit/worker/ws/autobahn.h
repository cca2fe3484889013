/*
 * autobahn - the cases of the Autobahn test suite, 1 to 7, 9 and 10, as tables.
 * A case's name begins with its numbers.
 *
 * Written from RFC 6455 and the suite's published list. Where the suite has the
 * same frames in other chops, that is the same row here: who runs it feeds it in
 * more than one way. autobahn_test.c runs them against message.c,
 * autobahn_live_test.c against a server that echoes.
 */
#ifndef T_UNIT_WORKER_WS_AUTOBAHN_H
#define T_UNIT_WORKER_WS_AUTOBAHN_H

#include "t/unit/unit.h"

#include "t/unit/worker/ws/peer.h"

enum { FRAMES_MAX = 12, SPLIT_BYTES_MAX = 1000 };

#define S(literal) STR(literal)
#define TEXT(s)                                                                                    \
	{                                                                                          \
		0x81, S(s)                                                                         \
	}
#define TEXT_PART(s)                                                                               \
	{                                                                                          \
		0x01, S(s)                                                                         \
	}
#define BINARY(s)                                                                                  \
	{                                                                                          \
		0x82, S(s)                                                                         \
	}
#define CONT(s)                                                                                    \
	{                                                                                          \
		0x80, S(s)                                                                         \
	}
#define CONT_PART(s)                                                                               \
	{                                                                                          \
		0x00, S(s)                                                                         \
	}
#define CLOSE(s)                                                                                   \
	{                                                                                          \
		0x88, S(s)                                                                         \
	}
#define PING(s)                                                                                    \
	{                                                                                          \
		0x89, S(s)                                                                         \
	}
#define PONG(s)                                                                                    \
	{                                                                                          \
		0x8a, S(s)                                                                         \
	}
#define OTHER(b, s)                                                                                \
	{                                                                                          \
		(b), S(s)                                                                          \
	}

#define STARS_5    "*****"
#define STARS_25   STARS_5 STARS_5 STARS_5 STARS_5 STARS_5
#define STARS_120  STARS_25 STARS_25 STARS_25 STARS_25 STARS_5 STARS_5 STARS_5 STARS_5
#define FE_5       "\xfe\xfe\xfe\xfe\xfe"
#define FE_25      FE_5 FE_5 FE_5 FE_5 FE_5
#define FE_125     FE_25 FE_25 FE_25 FE_25 FE_25
#define FE_SHOWN5  "\\xfe\\xfe\\xfe\\xfe\\xfe"
#define FE_SHOWN25 FE_SHOWN5 FE_SHOWN5 FE_SHOWN5 FE_SHOWN5 FE_SHOWN5
#define FE_SHOWN   FE_SHOWN25 FE_SHOWN25 FE_SHOWN25 FE_SHOWN25 FE_SHOWN25

/* "kosme" in Greek, and what the suite puts after it to make it invalid. */
#define KOSME     "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"
#define SURROGATE "\xed\xa0\x80"

/* What the cases need: 16 MiB. */
static const struct ws_limits limits = {.frame_bytes_max = 16 << 20, .message_bytes_max = 16 << 20};

struct frame {
	uint8_t first;
	struct str payload;
};

struct row {
	const char *name;
	const char *heard;
	struct frame frames[FRAMES_MAX]; /* until first == 0 with no payload pointer */
};

static const struct row rows[] = {
    {"1.1.1 text, no payload", "text()", {TEXT("")}},
    {"1.1.2 text of 125", "text(" STARS_120 STARS_5 ")", {TEXT(STARS_120 STARS_5)}},
    {"1.1.3 text of 126", "text(" STARS_120 STARS_5 "*)", {TEXT(STARS_120 STARS_5 "*")}},
    {"1.1.4 text of 127", "text(" STARS_120 STARS_5 "**)", {TEXT(STARS_120 STARS_5 "**")}},
    {"1.1.5 text of 128", "text(" STARS_120 STARS_5 "***)", {TEXT(STARS_120 STARS_5 "***")}},
    {"1.2.1 binary, no payload", "binary()", {BINARY("")}},
    {"1.2.2 binary of 125", "binary(" FE_SHOWN ")", {BINARY(FE_125)}},
    {"1.2.3 binary of 126", "binary(" FE_SHOWN "\\xfe)", {BINARY(FE_125 "\xfe")}},
    {"1.2.4 binary of 127", "binary(" FE_SHOWN "\\xfe\\xfe)", {BINARY(FE_125 "\xfe\xfe")}},
    {"1.2.5 binary of 128", "binary(" FE_SHOWN "\\xfe\\xfe\\xfe)", {BINARY(FE_125 "\xfe\xfe\xfe")}},

    {"2.1 ping without payload", "ping()>pong()", {PING("")}},
    {"2.2 ping", "ping(Hello, world!)>pong(Hello, world!)", {PING("Hello, world!")}},
    {"2.3 ping with bytes that are not text",
	"ping(\\x00\\xff\\xfe\\xfd\\xfc\\xfb\\x00\\xff)>pong("
	"\\x00\\xff\\xfe\\xfd\\xfc\\xfb\\x00\\xff)",
	{PING("\x00\xff\xfe\xfd\xfc\xfb\x00\xff")}},
    {"2.4, 2.6 ping of 125", "ping(" FE_SHOWN ")>pong(" FE_SHOWN ")", {PING(FE_125)}},
    {"2.5 ping of 126", "fail(1002)>close(1002)", {PING(FE_125 "\xfe")}},
    {"2.7 unsolicited pong without payload", "pong()", {PONG("")}},
    {"2.8 unsolicited pong", "pong(unsolicited)", {PONG("unsolicited")}},
    {"2.9 unsolicited pong, then ping", "pong(unsolicited) ping(ours)>pong(ours)",
	{PONG("unsolicited"), PING("ours")}},
    {"2.10, 2.11 ten pings",
	"ping(0)>pong(0) ping(1)>pong(1) ping(2)>pong(2) ping(3)>pong(3) ping(4)>pong(4) "
	"ping(5)>pong(5) ping(6)>pong(6) ping(7)>pong(7) ping(8)>pong(8) ping(9)>pong(9)",
	{PING("0"), PING("1"), PING("2"), PING("3"), PING("4"), PING("5"), PING("6"), PING("7"),
	    PING("8"), PING("9")}},

    {"3.1 RSV 1", "fail(1002)>close(1002)", {OTHER(0x91, "Hello")}},
    {"3.2 text, RSV 2, ping", "text(Hello) fail(1002)>close(1002)",
	{TEXT("Hello"), OTHER(0xa1, "Hello"), PING("")}},
    {"3.3 text, RSV 3, ping", "text(Hello) fail(1002)>close(1002)",
	{TEXT("Hello"), OTHER(0xb1, "Hello"), PING("")}},
    {"3.4 text, RSV 4, ping", "text(Hello) fail(1002)>close(1002)",
	{TEXT("Hello"), OTHER(0xc1, "Hello"), PING("")}},
    {"3.5 RSV 5, binary", "fail(1002)>close(1002)", {OTHER(0xd2, "\x00\xff")}},
    {"3.6 RSV 6, ping", "fail(1002)>close(1002)", {OTHER(0xe9, "Hello")}},
    {"3.7 RSV 7, close", "fail(1002)>close(1002)", {OTHER(0xf8, "\x03\xe8")}},

    {"4.1.1 opcode 3", "fail(1002)>close(1002)", {OTHER(0x83, "")}},
    {"4.1.2 opcode 4 with payload", "fail(1002)>close(1002)", {OTHER(0x84, "reserved")}},
    {"4.1.3 text, opcode 5, ping", "text(Hello) fail(1002)>close(1002)",
	{TEXT("Hello"), OTHER(0x85, ""), PING("")}},
    {"4.1.4 text, opcode 6 with payload, ping", "text(Hello) fail(1002)>close(1002)",
	{TEXT("Hello"), OTHER(0x86, "reserved"), PING("")}},
    {"4.1.5 text, opcode 7 with payload, ping", "text(Hello) fail(1002)>close(1002)",
	{TEXT("Hello"), OTHER(0x87, "reserved"), PING("")}},
    {"4.2.1 opcode 11", "fail(1002)>close(1002)", {OTHER(0x8b, "")}},
    {"4.2.2 opcode 12 with payload", "fail(1002)>close(1002)", {OTHER(0x8c, "reserved")}},
    {"4.2.3 text, opcode 13, ping", "text(Hello) fail(1002)>close(1002)",
	{TEXT("Hello"), OTHER(0x8d, ""), PING("")}},
    {"4.2.4 text, opcode 14 with payload, ping", "text(Hello) fail(1002)>close(1002)",
	{TEXT("Hello"), OTHER(0x8e, "reserved"), PING("")}},
    {"4.2.5 text, opcode 15 with payload, ping", "text(Hello) fail(1002)>close(1002)",
	{TEXT("Hello"), OTHER(0x8f, "reserved"), PING("")}},

    {"5.1 ping in two fragments", "fail(1002)>close(1002)",
	{OTHER(0x09, "fragment1"), CONT("fragment2")}},
    {"5.2 pong in two fragments", "fail(1002)>close(1002)",
	{OTHER(0x0a, "fragment1"), CONT("fragment2")}},
    {"5.3, 5.4, 5.5 text in two fragments", "text(fragment1fragment2)",
	{TEXT_PART("fragment1"), CONT("fragment2")}},
    {"5.6, 5.7, 5.8 text in two fragments, a ping between",
	"ping(between)>pong(between) text(fragment1fragment2)",
	{TEXT_PART("fragment1"), PING("between"), CONT("fragment2")}},
    {"5.9, 5.10, 5.11 last continuation of nothing", "fail(1002)>close(1002)",
	{CONT("of nothing"), TEXT("Hello")}},
    {"5.12, 5.13, 5.14 continuation of nothing", "fail(1002)>close(1002)",
	{CONT_PART("of nothing"), TEXT("Hello")}},
    {"5.15 text in two fragments, continuation of nothing, text",
	"text(fragment1fragment2) fail(1002)>close(1002)",
	{TEXT_PART("fragment1"), CONT("fragment2"), CONT_PART("fragment3"), TEXT("fragment4")}},
    {"5.16 twice: continuation of nothing, text in two fragments", "fail(1002)>close(1002)",
	{CONT_PART("1"), TEXT_PART("2"), CONT("3"), CONT_PART("1"), TEXT_PART("2"), CONT("3")}},
    {"5.17 twice: last continuation of nothing, text in two fragments", "fail(1002)>close(1002)",
	{CONT("1"), TEXT_PART("2"), CONT("3"), CONT("1"), TEXT_PART("2"), CONT("3")}},
    {"5.18 both fragments are text", "fail(1002)>close(1002)",
	{TEXT_PART("fragment1"), TEXT("fragment2")}},
    {"5.19, 5.20 text in five fragments, two pings between",
	"ping(a)>pong(a) ping(b)>pong(b) text(fragment1fragment2fragment3fragment4fragment5)",
	{TEXT_PART("fragment1"), CONT_PART("fragment2"), PING("a"), CONT_PART("fragment3"),
	    CONT_PART("fragment4"), PING("b"), CONT("fragment5")}},

    {"6.1.1 text without payload", "text()", {TEXT("")}},
    {"6.1.2 three empty fragments", "text()", {TEXT_PART(""), CONT_PART(""), CONT("")}},
    {"6.1.3 empty, not empty, empty", "text(middle)",
	{TEXT_PART(""), CONT_PART("middle"), CONT("")}},
    {"6.2.1 valid text", "text(Hello-\\xc2\\xb5@\\xc3\\x9f\\xc3\\xb6-UTF-8!!)",
	{TEXT("Hello-\xc2\xb5@\xc3\x9f\xc3\xb6-UTF-8!!")}},
    {"6.2.2 valid text, cut between characters",
	"text(Hello-\\xc2\\xb5@\\xc3\\x9f\\xc3\\xb6-UTF-8!!)",
	{TEXT_PART("Hello-\xc2\xb5@\xc3\x9f"), CONT("\xc3\xb6-UTF-8!!")}},
    {"6.2.3 valid text, a fragment for each octet", "text(-\\xc2\\xb5@\\xc3\\x9f\\xc3\\xb6)",
	{TEXT_PART("-"), CONT_PART("\xc2"), CONT_PART("\xb5"), CONT_PART("@"), CONT_PART("\xc3"),
	    CONT_PART("\x9f"), CONT_PART("\xc3"), CONT("\xb6")}},
    {"6.2.4 valid text, a fragment for each octet",
	"text(\\xce\\xba\\xe1\\xbd\\xb9\\xcf\\x83\\xce\\xbc\\xce\\xb5)",
	{TEXT_PART("\xce"), CONT_PART("\xba"), CONT_PART("\xe1"), CONT_PART("\xbd"),
	    CONT_PART("\xb9"), CONT_PART("\xcf"), CONT_PART("\x83"), CONT_PART("\xce"),
	    CONT_PART("\xbc"), CONT_PART("\xce"), CONT("\xb5")}},
    {"6.3.1 invalid text", "fail(1007)>close(1007)", {TEXT(KOSME SURROGATE "edited")}},
    {"6.3.2 invalid text, a fragment for each octet", "fail(1007)>close(1007)",
	{TEXT_PART("\xce"), CONT_PART("\xb5"), CONT_PART("\xed"), CONT_PART("\xa0"),
	    CONT_PART("\x80"), CONT_PART("e"), CONT("d")}},

    {"7.1.1 text, then close", "text(Hello World!) close(1000)>close(1000)",
	{TEXT("Hello World!"), CLOSE("\x03\xe8")}},
    {"7.1.2 two closes", "close(1000)>close(1000)", {CLOSE("\x03\xe8"), CLOSE("\x03\xe8")}},
    {"7.1.3 ping after close", "close(1000)>close(1000)", {CLOSE("\x03\xe8"), PING("")}},
    {"7.1.4 text after close", "close(1000)>close(1000)", {CLOSE("\x03\xe8"), TEXT("Hello")}},
    {"7.1.5 close between two fragments", "close(1000)>close(1000)",
	{TEXT_PART("fragment1"), CLOSE("\x03\xe8"), CONT("fragment2")}},
    {"7.3.1 close without payload", "close(1005)>close(1005)", {CLOSE("")}},
    {"7.3.2 close with half a code", "fail(1002)>close(1002)", {CLOSE("a")}},
    {"7.3.3 close with a code", "close(1000)>close(1000)", {CLOSE("\x03\xe8")}},
    {"7.3.4 close with a reason", "close(1000,Hello World!)>close(1000)",
	{CLOSE("\x03\xe8Hello World!")}},
    {"7.3.5 close with the longest reason", "close(1000," STARS_120 "***)>close(1000)",
	{CLOSE("\x03\xe8" STARS_120 "***")}},
    {"7.3.6 close with too long a reason", "fail(1002)>close(1002)",
	{CLOSE("\x03\xe8" STARS_120 "****")}},
    {"7.5.1 close with a reason that is not UTF-8", "fail(1007)>close(1007)",
	{CLOSE("\x03\xe8" KOSME SURROGATE "edited")}},
    {"7.7.1 close 1000", "close(1000)>close(1000)", {CLOSE("\x03\xe8")}},
    {"7.7.2 close 1001", "close(1001)>close(1001)", {CLOSE("\x03\xe9")}},
    {"7.7.3 close 1002", "close(1002)>close(1002)", {CLOSE("\x03\xea")}},
    {"7.7.4 close 1003", "close(1003)>close(1003)", {CLOSE("\x03\xeb")}},
    {"7.7.5 close 1007", "close(1007)>close(1007)", {CLOSE("\x03\xef")}},
    {"7.7.6 close 1008", "close(1008)>close(1008)", {CLOSE("\x03\xf0")}},
    {"7.7.7 close 1009", "close(1009)>close(1009)", {CLOSE("\x03\xf1")}},
    {"7.7.8 close 1010", "close(1010)>close(1010)", {CLOSE("\x03\xf2")}},
    {"7.7.9 close 1011", "close(1011)>close(1011)", {CLOSE("\x03\xf3")}},
    {"7.7.10 close 3000", "close(3000)>close(3000)", {CLOSE("\x0b\xb8")}},
    {"7.7.11 close 3999", "close(3999)>close(3999)", {CLOSE("\x0f\x9f")}},
    {"7.7.12 close 4000", "close(4000)>close(4000)", {CLOSE("\x0f\xa0")}},
    {"7.7.13 close 4999", "close(4999)>close(4999)", {CLOSE("\x13\x87")}},
    {"7.9.1 close 0", "fail(1002)>close(1002)", {CLOSE("\x00\x00")}},
    {"7.9.2 close 999", "fail(1002)>close(1002)", {CLOSE("\x03\xe7")}},
    {"7.9.3 close 1004", "fail(1002)>close(1002)", {CLOSE("\x03\xec")}},
    {"7.9.4 close 1005", "fail(1002)>close(1002)", {CLOSE("\x03\xed")}},
    {"7.9.5 close 1006", "fail(1002)>close(1002)", {CLOSE("\x03\xee")}},
    {"7.9.6 close 1016", "fail(1002)>close(1002)", {CLOSE("\x03\xf8")}},
    {"7.9.7 close 1100", "fail(1002)>close(1002)", {CLOSE("\x04\x4c")}},
    {"7.9.8 close 2000", "fail(1002)>close(1002)", {CLOSE("\x07\xd0")}},
    {"7.9.9 close 2999", "fail(1002)>close(1002)", {CLOSE("\x0b\xb7")}},
    {"7.13.1 close 5000", "fail(1002)>close(1002)", {CLOSE("\x13\x88")}},
    {"7.13.2 close 65535", "fail(1002)>close(1002)", {CLOSE("\xff\xff")}},
};

/* The row's bytes, and where its frames end; returns how many frames. */
static inline size_t
row_wire(const struct row *row, struct buf *wire, size_t ret_ends[FRAMES_MAX])
{
	size_t count = 0;

	for (; count < FRAMES_MAX && row->frames[count].payload.p != NULL; count++) {
		peer_frame(wire, row->frames[count].first, row->frames[count].payload);
		ret_ends[count] = wire->len;
	}
	check(count > 0 && wire->len <= SPLIT_BYTES_MAX);
	return count;
}

/* 6.4: invalid text is refused with the piece that makes it so, not when it is whole. */
struct early {
	const char *name;
	struct str parts[3];
	bool is_one_frame;
};

static const struct early earlies[] = {
    {"6.4.1 fails with the second of three fragments",
	{S(KOSME), S("\xf4\x90\x80\x80"), S("edited")}, false},
    {"6.4.2 fails with one octet as the second fragment",
	{S(KOSME "\xf4"), S("\x90"),
	    S("\x80\x80"
	      "edited")},
	false},
    {"6.4.3 fails with the second of three chops", {S(KOSME), S("\xf4\x90\x80\x80"), S("edited")},
	true},
    {"6.4.4 fails with one octet as the second chop",
	{S(KOSME "\xf4"), S("\x90"),
	    S("\x80\x80"
	      "edited")},
	true},
};

/* The bytes, and where each of the three parts ends. */
static inline void
early_wire(const struct early *c, struct buf *wire, size_t ret_ends[3])
{
	struct buf text = BUF_INIT;

	for (size_t i = 0; i < 3; i++)
		buf_add_str(&text, c->parts[i]);
	if (c->is_one_frame)
		peer_frame(wire, 0x81, buf_str(&text));
	for (size_t i = 0; i < 3; i++) {
		if (!c->is_one_frame)
			peer_frame(wire, i == 0 ? 0x01 : i == 1 ? 0x00 : 0x80, c->parts[i]);
		ret_ends[i] = !c->is_one_frame
				  ? wire->len
				  : (i > 0 ? ret_ends[i - 1] : 2 + 4) + c->parts[i].len;
	}
	buf_fini(&text);
}

/* 6.5 to 6.23: one text frame each, from Markus Kuhn's list of sequences. */
struct sequence {
	const char *name;
	bool is_valid;
	struct str text;
};

#define YES true
#define NO  false

static const struct sequence sequences[] = {
    {"6.5.1 U+0024", YES, S("hello\x24world")},
    {"6.5.2 U+00A2", YES, S("hello\xc2\xa2world")},
    {"6.5.3 U+20AC", YES, S("hello\xe2\x82\xacworld")},
    {"6.5.4 U+24B62", YES, S("hello\xf0\xa4\xad\xa2world")},
    {"6.5.5 Greek", YES, S(KOSME)},
    {"6.6.1 prefix of 1", NO, S("\xce")},
    {"6.6.2 prefix of 2", YES, S("\xce\xba")},
    {"6.6.3 prefix of 3", NO, S("\xce\xba\xe1")},
    {"6.6.4 prefix of 4", NO, S("\xce\xba\xe1\xbd")},
    {"6.6.5 prefix of 5", YES, S("\xce\xba\xe1\xbd\xb9")},
    {"6.6.6 prefix of 6", NO, S("\xce\xba\xe1\xbd\xb9\xcf")},
    {"6.6.7 prefix of 7", YES, S("\xce\xba\xe1\xbd\xb9\xcf\x83")},
    {"6.6.8 prefix of 8", NO, S("\xce\xba\xe1\xbd\xb9\xcf\x83\xce")},
    {"6.6.9 prefix of 9", YES, S("\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc")},
    {"6.6.10 prefix of 10", NO, S("\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce")},
    {"6.6.11 all of it", YES, S(KOSME)},
    {"6.7.1 first of length 1", YES, S("\x00")},
    {"6.7.2 first of length 2", YES, S("\xc2\x80")},
    {"6.7.3 first of length 3", YES, S("\xe0\xa0\x80")},
    {"6.7.4 first of length 4", YES, S("\xf0\x90\x80\x80")},
    {"6.8.1 first of length 5", NO, S("\xf8\x88\x80\x80\x80")},
    {"6.8.2 first of length 6", NO, S("\xfc\x84\x80\x80\x80\x80")},
    {"6.9.1 last of length 1", YES, S("\x7f")},
    {"6.9.2 last of length 2", YES, S("\xdf\xbf")},
    {"6.9.3 last of length 3", YES, S("\xef\xbf\xbf")},
    {"6.9.4 last of length 4", YES, S("\xf4\x8f\xbf\xbf")},
    {"6.10.1 above the last of length 4", NO, S("\xf7\xbf\xbf\xbf")},
    {"6.10.2 last of length 5", NO, S("\xfb\xbf\xbf\xbf\xbf")},
    {"6.10.3 last of length 6", NO, S("\xfd\xbf\xbf\xbf\xbf\xbf")},
    {"6.11.1 before the surrogates", YES, S("\xed\x9f\xbf")},
    {"6.11.2 after the surrogates", YES, S("\xee\x80\x80")},
    {"6.11.3 U+FFFD", YES, S("\xef\xbf\xbd")},
    {"6.11.4 U+10FFFF", YES, S("\xf4\x8f\xbf\xbf")},
    {"6.11.5 U+110000", NO, S("\xf4\x90\x80\x80")},
    {"6.12.1 lone continuation", NO, S("\x80")},
    {"6.12.2 lone continuation", NO, S("\xbf")},
    {"6.12.3 two continuations", NO, S("\x80\xbf")},
    {"6.12.4 three continuations", NO, S("\x80\xbf\x80")},
    {"6.12.5 four continuations", NO, S("\x80\xbf\x80\xbf")},
    {"6.12.6 five continuations", NO, S("\x80\xbf\x80\xbf\x80")},
    {"6.12.7 six continuations", NO, S("\x80\xbf\x80\xbf\x80\xbf")},
    {"6.12.8 all continuations", NO,
	S("\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f"
	  "\x90\x91\x92\x93\x94\x95\x96\x97\x98\x99\x9a\x9b\x9c\x9d\x9e\x9f"
	  "\xa0\xa1\xa2\xa3\xa4\xa5\xa6\xa7\xa8\xa9\xaa\xab\xac\xad\xae\xaf"
	  "\xb0\xb1\xb2\xb3\xb4\xb5\xb6\xb7\xb8\xb9\xba\xbb\xbc\xbd\xbe")},
    {"6.13.1 lone starts of length 2", NO,
	S("\xc0 \xc1 \xc2 \xc3 \xc4 \xc5 \xc6 \xc7 \xc8 \xc9 \xca \xcb \xcc \xcd \xce \xcf "
	  "\xd0 \xd1 \xd2 \xd3 \xd4 \xd5 \xd6 \xd7 \xd8 \xd9 \xda \xdb \xdc \xdd \xde ")},
    {"6.13.2 lone starts of length 3", NO,
	S("\xe0 \xe1 \xe2 \xe3 \xe4 \xe5 \xe6 \xe7 \xe8 \xe9 \xea \xeb \xec \xed \xee ")},
    {"6.13.3 lone starts of length 4", NO, S("\xf0 \xf1 \xf2 \xf3 \xf4 \xf5 \xf6 ")},
    {"6.13.4 lone starts of length 5", NO, S("\xf8 \xf9 \xfa ")},
    {"6.13.5 lone start of length 6", NO, S("\xfc ")},
    {"6.14.1 last byte missing of 2", NO, S("\xc0")},
    {"6.14.2 last byte missing of 3", NO, S("\xe0\x80")},
    {"6.14.3 last byte missing of 4", NO, S("\xf0\x80\x80")},
    {"6.14.4 last byte missing of 5", NO, S("\xf8\x80\x80\x80")},
    {"6.14.5 last byte missing of 6", NO, S("\xfc\x80\x80\x80\x80")},
    {"6.14.6 last byte missing of 2", NO, S("\xdf")},
    {"6.14.7 last byte missing of 3", NO, S("\xef\xbf")},
    {"6.14.8 last byte missing of 4", NO, S("\xf7\xbf\xbf")},
    {"6.14.9 last byte missing of 5", NO, S("\xfb\xbf\xbf\xbf")},
    {"6.14.10 last byte missing of 6", NO, S("\xfd\xbf\xbf\xbf\xbf")},
    {"6.15.1 incomplete ones in a row", NO,
	S("\xc0\xe0\x80\xf0\x80\x80\xf8\x80\x80\x80\xfc\x80\x80\x80\x80"
	  "\xdf\xef\xbf\xf7\xbf\xbf\xfb\xbf\xbf\xbf\xfd\xbf\xbf\xbf\xbf")},
    {"6.16.1 impossible fe", NO, S("\xfe")},
    {"6.16.2 impossible ff", NO, S("\xff")},
    {"6.16.3 impossible fe fe ff ff", NO, S("\xfe\xfe\xff\xff")},
    {"6.17.1 overlong slash of 2", NO, S("\xc0\xaf")},
    {"6.17.2 overlong slash of 3", NO, S("\xe0\x80\xaf")},
    {"6.17.3 overlong slash of 4", NO, S("\xf0\x80\x80\xaf")},
    {"6.17.4 overlong slash of 5", NO, S("\xf8\x80\x80\x80\xaf")},
    {"6.17.5 overlong slash of 6", NO, S("\xfc\x80\x80\x80\x80\xaf")},
    {"6.18.1 longest overlong of 2", NO, S("\xc1\xbf")},
    {"6.18.2 longest overlong of 3", NO, S("\xe0\x9f\xbf")},
    {"6.18.3 longest overlong of 4", NO, S("\xf0\x8f\xbf\xbf")},
    {"6.18.4 longest overlong of 5", NO, S("\xf8\x87\xbf\xbf\xbf")},
    {"6.18.5 longest overlong of 6", NO, S("\xfc\x83\xbf\xbf\xbf\xbf")},
    {"6.19.1 overlong NUL of 2", NO, S("\xc0\x80")},
    {"6.19.2 overlong NUL of 3", NO, S("\xe0\x80\x80")},
    {"6.19.3 overlong NUL of 4", NO, S("\xf0\x80\x80\x80")},
    {"6.19.4 overlong NUL of 5", NO, S("\xf8\x80\x80\x80\x80")},
    {"6.19.5 overlong NUL of 6", NO, S("\xfc\x80\x80\x80\x80\x80")},
    {"6.20.1 surrogate D800", NO, S("\xed\xa0\x80")},
    {"6.20.2 surrogate DB7F", NO, S("\xed\xad\xbf")},
    {"6.20.3 surrogate DB80", NO, S("\xed\xae\x80")},
    {"6.20.4 surrogate DBFF", NO, S("\xed\xaf\xbf")},
    {"6.20.5 surrogate DC00", NO, S("\xed\xb0\x80")},
    {"6.20.6 surrogate DF80", NO, S("\xed\xbe\x80")},
    {"6.20.7 surrogate DFFF", NO, S("\xed\xbf\xbf")},
    {"6.21.1 pair D800 DC00", NO, S("\xed\xa0\x80\xed\xb0\x80")},
    {"6.21.2 pair D800 DFFF", NO, S("\xed\xa0\x80\xed\xbf\xbf")},
    {"6.21.3 pair DB7F DC00", NO, S("\xed\xad\xbf\xed\xb0\x80")},
    {"6.21.4 pair DB7F DFFF", NO, S("\xed\xad\xbf\xed\xbf\xbf")},
    {"6.21.5 pair DB80 DC00", NO, S("\xed\xae\x80\xed\xb0\x80")},
    {"6.21.6 pair DB80 DFFF", NO, S("\xed\xae\x80\xed\xbf\xbf")},
    {"6.21.7 pair DBFF DC00", NO, S("\xed\xaf\xbf\xed\xb0\x80")},
    {"6.21.8 pair DBFF DFFF", NO, S("\xed\xaf\xbf\xed\xbf\xbf")},
    {"6.22.1 U+FFFE", YES, S("\xef\xbf\xbe")},
    {"6.22.2 U+FFFF", YES, S("\xef\xbf\xbf")},
    {"6.22.3 U+1FFFE", YES, S("\xf0\x9f\xbf\xbe")},
    {"6.22.4 U+1FFFF", YES, S("\xf0\x9f\xbf\xbf")},
    {"6.22.5 U+2FFFE", YES, S("\xf0\xaf\xbf\xbe")},
    {"6.22.6 U+2FFFF", YES, S("\xf0\xaf\xbf\xbf")},
    {"6.22.7 U+3FFFE", YES, S("\xf0\xbf\xbf\xbe")},
    {"6.22.8 U+3FFFF", YES, S("\xf0\xbf\xbf\xbf")},
    {"6.22.9 U+4FFFE", YES, S("\xf1\x8f\xbf\xbe")},
    {"6.22.10 U+4FFFF", YES, S("\xf1\x8f\xbf\xbf")},
    {"6.22.11 U+5FFFE", YES, S("\xf1\x9f\xbf\xbe")},
    {"6.22.12 U+5FFFF", YES, S("\xf1\x9f\xbf\xbf")},
    {"6.22.13 U+6FFFE", YES, S("\xf1\xaf\xbf\xbe")},
    {"6.22.14 U+6FFFF", YES, S("\xf1\xaf\xbf\xbf")},
    {"6.22.15 U+7FFFE", YES, S("\xf1\xbf\xbf\xbe")},
    {"6.22.16 U+7FFFF", YES, S("\xf1\xbf\xbf\xbf")},
    {"6.22.17 U+8FFFE", YES, S("\xf2\x8f\xbf\xbe")},
    {"6.22.18 U+8FFFF", YES, S("\xf2\x8f\xbf\xbf")},
    {"6.22.19 U+9FFFE", YES, S("\xf2\x9f\xbf\xbe")},
    {"6.22.20 U+9FFFF", YES, S("\xf2\x9f\xbf\xbf")},
    {"6.22.21 U+AFFFE", YES, S("\xf2\xaf\xbf\xbe")},
    {"6.22.22 U+AFFFF", YES, S("\xf2\xaf\xbf\xbf")},
    {"6.22.23 U+BFFFE", YES, S("\xf2\xbf\xbf\xbe")},
    {"6.22.24 U+BFFFF", YES, S("\xf2\xbf\xbf\xbf")},
    {"6.22.25 U+CFFFE", YES, S("\xf3\x8f\xbf\xbe")},
    {"6.22.26 U+CFFFF", YES, S("\xf3\x8f\xbf\xbf")},
    {"6.22.27 U+DFFFE", YES, S("\xf3\x9f\xbf\xbe")},
    {"6.22.28 U+DFFFF", YES, S("\xf3\x9f\xbf\xbf")},
    {"6.22.29 U+EFFFE", YES, S("\xf3\xaf\xbf\xbe")},
    {"6.22.30 U+EFFFF", YES, S("\xf3\xaf\xbf\xbf")},
    {"6.22.31 U+FFFFE", YES, S("\xf3\xbf\xbf\xbe")},
    {"6.22.32 U+FFFFF", YES, S("\xf3\xbf\xbf\xbf")},
    {"6.22.33 U+10FFFE", YES, S("\xf4\x8f\xbf\xbe")},
    {"6.22.34 U+10FFFF", YES, S("\xf4\x8f\xbf\xbf")},
    {"6.23.1 U+FFF9", YES, S("\xef\xbf\xb9")},
    {"6.23.2 U+FFFA", YES, S("\xef\xbf\xba")},
    {"6.23.3 U+FFFB", YES, S("\xef\xbf\xbb")},
    {"6.23.4 U+FFFC", YES, S("\xef\xbf\xbc")},
    {"6.23.5 U+FFFD", YES, S("\xef\xbf\xbd")},
    {"6.23.6 U+FFFE", YES, S("\xef\xbf\xbe")},
    {"6.23.7 U+FFFF", YES, S("\xef\xbf\xbf")},
};

static inline void
sequence_heard(const struct sequence *q, struct buf *heard)
{
	if (!q->is_valid) {
		buf_add_cstr(heard, "fail(1007)>close(1007)");
		return;
	}
	buf_add_cstr(heard, "text(");
	peer_show(heard, q->text);
	buf_add_char(heard, ')');
}

/* Long ones: `count` messages of `bytes` each in frames of `fragment`, fed in pieces of `chop`. */
struct bulk {
	const char *name;
	enum ws_opcode opcode;
	size_t count, bytes, fragment, chop; /* 0: all at once */
};

enum { K = 1024, M = 1024 * 1024 };

#define BULK_9(n, kind, op)                                                                        \
	{"9." #n ".1 " kind " of 64K", op, 1, 64 * K, 0, 0},                                       \
	    {"9." #n ".2 " kind " of 256K", op, 1, 256 * K, 0, 0},                                 \
	    {"9." #n ".3 " kind " of 1M", op, 1, M, 0, 0},                                         \
	    {"9." #n ".4 " kind " of 4M", op, 1, 4 * M, 0, 0},                                     \
	    {"9." #n ".5 " kind " of 8M", op, 1, 8 * M, 0, 0},                                     \
	{                                                                                          \
		"9." #n ".6 " kind " of 16M", op, 1, 16 * M, 0, 0                                  \
	}
#define FRAGMENTS_9(n, kind, op)                                                                   \
	{"9." #n ".1 " kind " of 4M in fragments of 64", op, 1, 4 * M, 64, 0},                     \
	    {"9." #n ".2 " kind " of 4M in fragments of 256", op, 1, 4 * M, 256, 0},               \
	    {"9." #n ".3 " kind " of 4M in fragments of 1K", op, 1, 4 * M, K, 0},                  \
	    {"9." #n ".4 " kind " of 4M in fragments of 4K", op, 1, 4 * M, 4 * K, 0},              \
	    {"9." #n ".5 " kind " of 4M in fragments of 16K", op, 1, 4 * M, 16 * K, 0},            \
	    {"9." #n ".6 " kind " of 4M in fragments of 64K", op, 1, 4 * M, 64 * K, 0},            \
	    {"9." #n ".7 " kind " of 4M in fragments of 256K", op, 1, 4 * M, 256 * K, 0},          \
	    {"9." #n ".8 " kind " of 4M in fragments of 1M", op, 1, 4 * M, M, 0},                  \
	{                                                                                          \
		"9." #n ".9 " kind " of 4M in one", op, 1, 4 * M, 4 * M, 0                         \
	}
#define CHOPS_9(n, kind, op)                                                                       \
	{"9." #n ".1 " kind " of 1M in chops of 64", op, 1, M, 0, 64},                             \
	    {"9." #n ".2 " kind " of 1M in chops of 128", op, 1, M, 0, 128},                       \
	    {"9." #n ".3 " kind " of 1M in chops of 256", op, 1, M, 0, 256},                       \
	    {"9." #n ".4 " kind " of 1M in chops of 512", op, 1, M, 0, 512},                       \
	    {"9." #n ".5 " kind " of 1M in chops of 1024", op, 1, M, 0, 1024},                     \
	{                                                                                          \
		"9." #n ".6 " kind " of 1M in chops of 2048", op, 1, M, 0, 2048                    \
	}
#define MANY_9(n, kind, op)                                                                        \
	{"9." #n ".1 1000 " kind " messages of 0", op, 1000, 0, 0, 0},                             \
	    {"9." #n ".2 1000 " kind " messages of 16", op, 1000, 16, 0, 0},                       \
	    {"9." #n ".3 1000 " kind " messages of 64", op, 1000, 64, 0, 0},                       \
	    {"9." #n ".4 1000 " kind " messages of 256", op, 1000, 256, 0, 0},                     \
	    {"9." #n ".5 1000 " kind " messages of 1024", op, 1000, K, 0, 0},                      \
	{                                                                                          \
		"9." #n ".6 1000 " kind " messages of 4096", op, 1000, 4 * K, 0, 0                 \
	}

static const struct bulk bulks[] = {
    {"1.1.6 text of 65535", WS_OP_TEXT, 1, 65535, 0, 0},
    {"1.1.7 text of 65536", WS_OP_TEXT, 1, 65536, 0, 0},
    {"1.1.8 text of 65536 in chops of 997", WS_OP_TEXT, 1, 65536, 0, 997},
    {"1.2.6 binary of 65535", WS_OP_BINARY, 1, 65535, 0, 0},
    {"1.2.7 binary of 65536", WS_OP_BINARY, 1, 65536, 0, 0},
    {"1.2.8 binary of 65536 in chops of 997", WS_OP_BINARY, 1, 65536, 0, 997},
    BULK_9(1, "text", WS_OP_TEXT),
    BULK_9(2, "binary", WS_OP_BINARY),
    FRAGMENTS_9(3, "text", WS_OP_TEXT),
    FRAGMENTS_9(4, "binary", WS_OP_BINARY),
    CHOPS_9(5, "text", WS_OP_TEXT),
    CHOPS_9(6, "binary", WS_OP_BINARY),
    MANY_9(7, "text", WS_OP_TEXT),
    MANY_9(8, "binary", WS_OP_BINARY),
    {"10.1.1 text of 65536 in fragments of 1300", WS_OP_TEXT, 1, 65536, 1300, 0},
};

static inline void
bulk_message(const struct bulk *b, struct str payload, struct buf *wire)
{
	uint8_t first = (uint8_t)b->opcode;
	struct str rest = payload;

	while (b->fragment > 0 && rest.len > b->fragment) {
		peer_frame(wire, first, str_sub(rest.p, b->fragment));
		first = WS_OP_CONTINUATION;
		rest = str_sub(rest.p + b->fragment, rest.len - b->fragment);
	}
	peer_frame(wire, PEER_FIN | first, rest);
}

/* One message of it. */
static inline void
bulk_payload(const struct bulk *b, struct buf *payload)
{
	while (payload->len < b->bytes)
		buf_add_cstr(payload, "BAsd7&jh23");
	payload->len = b->bytes;
}

/* 7.1.6: what came before the close is heard before it, what came after is not. */
static inline void
close_behind_wire(struct buf *wire, struct buf *heard)
{
	struct buf long_text = BUF_INIT;

	while (long_text.len < 256 * K)
		buf_add_cstr(&long_text, "BAsd7&jh");
	peer_frame(wire, 0x81, buf_str(&long_text));
	peer_frame(wire, 0x81, S("Hello World!"));
	peer_frame(wire, 0x88, S("\x03\xe8"));
	peer_frame(wire, 0x89, S(""));
	buf_add_cstr(heard, "text(");
	peer_show(heard, buf_str(&long_text));
	buf_add_cstr(heard, ") text(Hello World!) close(1000)>close(1000)");
	buf_fini(&long_text);
}

#define AUTOBAHN_COUNT                                                                             \
	(ARRAY_LEN(rows) + ARRAY_LEN(earlies) + ARRAY_LEN(sequences) + ARRAY_LEN(bulks) + 1)

#define ADD_CASES(table, function)                                                                 \
	for (size_t i = 0; i < ARRAY_LEN(table); i++)                                              \
		tests[count++] = (struct CMUnitTest)                                               \
		{                                                                                  \
			(table)[i].name, (function), NULL, NULL, (void *)(uintptr_t) & (table)[i]  \
		}

/* All of them; a test's state is its row. */
static inline void
list_cases(struct CMUnitTest tests[AUTOBAHN_COUNT], CMUnitTestFunction row,
    CMUnitTestFunction early, CMUnitTestFunction sequence, CMUnitTestFunction bulk,
    CMUnitTestFunction close_behind)
{
	size_t count = 0;

	ADD_CASES(rows, row);
	ADD_CASES(earlies, early);
	ADD_CASES(sequences, sequence);
	ADD_CASES(bulks, bulk);
	tests[count++] = (struct CMUnitTest){
	    "7.1.6 close behind a message of 256K", close_behind, NULL, NULL, NULL};
	check(count == AUTOBAHN_COUNT);
}

#endif
