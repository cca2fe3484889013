/*
 * signalr_test - records of the hub protocol: cut wherever they are split, read, refused, written.
 */
#include "t/unit/unit.h"

#include <string.h>

#include "common/check.h"
#include "worker/events/signalr.h"

#define END "\x1e"

static void
cut_at_every_byte(void **state)
{
	static const char text[] = "{\"a\":\"\xc3\xa4\"}" END END "{}" END "rest";

	(void)state;
	for (size_t at = 0; at < sizeof(text); at++) {
		struct str rest = str_sub(text, at), record;
		size_t count = 0, taken = 0;

		while (signalr_next(&rest, &record)) {
			taken += record.len + 1;
			count++;
		}
		assert_int_equal(count, at > 14 ? 3 : at > 11 ? 2 : at > 10 ? 1 : 0);
		assert_int_equal(rest.len, at - taken);
		assert_ptr_equal(rest.p, text + taken);
	}
}

static void
handshakes(void **state)
{
	static const char *const wrong[] = {"", "{", "[]", "{}", "null",
	    "{\"protocol\":\"messagepack\",\"version\":1}", "{\"protocol\":\"json\"}",
	    "{\"protocol\":\"json\",\"version\":2}", "{\"protocol\":\"json\",\"version\":\"1\"}",
	    "{\"protocol\":1,\"version\":1}", "{\"protocol\":\"json\",\"version\":1}x"};

	(void)state;
	assert_true(signalr_is_handshake(STR("{\"protocol\":\"json\",\"version\":1}")));
	assert_true(signalr_is_handshake(STR("{\"version\":1,\"more\":[],\"protocol\":\"json\"}")));
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		assert_false(signalr_is_handshake(str_of(wrong[i])));
}

static void
messages(void **state)
{
	static const char *const wrong[] = {"", "{}", "[]", "{\"type\":\"1\"}", "{\"type\":0}",
	    "{\"type\":8}", "{\"type\":99}", "{\"type\":1}", "{\"type\":1,\"target\":\"A\"}",
	    "{\"type\":1,\"arguments\":[]}", "{\"type\":1,\"target\":1,\"arguments\":[]}",
	    "{\"type\":1,\"target\":\"A\",\"arguments\":{}}",
	    "{\"type\":4,\"target\":\"A\",\"arguments\":[]}", "{\"type\":2}", "{\"type\":3}",
	    "{\"type\":5}", "{\"type\":5,\"invocationId\":1}"};
	struct signalr_message m;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		assert_false(signalr_parse(str_of(wrong[i]), &m));
	assert_true(signalr_parse(
	    STR("{\"type\":1,\"target\":\"A\",\"arguments\":[1,\"b\"],\"invocationId\":\"7\"}"),
	    &m));
	assert_int_equal(m.type, SIGNALR_INVOCATION);
	assert_string_equal(m.target, "A");
	assert_string_equal(m.invocation_id, "7");
	assert_int_equal(json_array_size(m.arguments), 2);
	signalr_fini(&m);
	assert_true(signalr_parse(STR("{\"type\":1,\"target\":\"A\",\"arguments\":[]}"), &m));
	assert_null(m.invocation_id);
	signalr_fini(&m);
	static const struct {
		const char *text;
		enum signalr_type type;
	} other[] = {{"{\"type\":2,\"invocationId\":\"7\",\"item\":1}", SIGNALR_ITEM},
	    {"{\"type\":3,\"invocationId\":\"7\"}", SIGNALR_COMPLETION},
	    {"{\"type\":4,\"invocationId\":\"7\",\"target\":\"A\",\"arguments\":[]}",
		SIGNALR_STREAM},
	    {"{\"type\":5,\"invocationId\":\"7\"}", SIGNALR_CANCEL}, {"{\"type\":6}", SIGNALR_PING},
	    {"{\"type\":7,\"error\":\"e\"}", SIGNALR_CLOSE}};
	for (size_t i = 0; i < ARRAY_LEN(other); i++) {
		assert_true(signalr_parse(str_of(other[i].text), &m));
		assert_int_equal(m.type, other[i].type);
		signalr_fini(&m);
	}
}

static void
is_written(struct buf *b, const char *wanted)
{
	buf_add_char(b, '\0');
	assert_string_equal(b->data, wanted);
	buf_clear(b);
}

static void
written(void **state)
{
	struct buf b = BUF_INIT;

	(void)state;
	signalr_add_handshake(&b, NULL);
	is_written(&b, "{}" END);
	signalr_add_handshake(&b, "a \"b\"");
	is_written(&b, "{\"error\":\"a \\\"b\\\"\"}" END);
	signalr_add_invocation(&b, "A", STR("1,[2]"));
	is_written(&b, "{\"type\":1,\"target\":\"A\",\"arguments\":[1,[2]]}" END);
	signalr_add_item(&b, "7", STR("{}"));
	is_written(&b, "{\"type\":2,\"invocationId\":\"7\",\"item\":{}}" END);
	signalr_add_completion(&b, "7", NULL, STR_NONE);
	is_written(&b, "{\"type\":3,\"invocationId\":\"7\"}" END);
	signalr_add_completion(&b, "7\n", "no", STR("1"));
	is_written(&b, "{\"type\":3,\"invocationId\":\"7\\n\",\"error\":\"no\"}" END);
	signalr_add_completion(&b, "7", NULL, STR("1"));
	is_written(&b, "{\"type\":3,\"invocationId\":\"7\",\"result\":1}" END);
	signalr_add_ping(&b);
	is_written(&b, "{\"type\":6}" END);
	signalr_add_close(&b, NULL, false);
	is_written(&b, "{\"type\":7}" END);
	signalr_add_close(&b, "e", true);
	is_written(&b, "{\"type\":7,\"error\":\"e\",\"allowReconnect\":true}" END);
	buf_fini(&b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(cut_at_every_byte),
	    cmocka_unit_test(handshakes),
	    cmocka_unit_test(messages),
	    cmocka_unit_test(written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
