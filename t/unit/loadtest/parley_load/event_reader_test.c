/* event_reader: names and numbers, split at every byte. */
#include "t/unit/unit.h"

#include <stdio.h>

#include "loadtest/parley_load/event_reader.c"

static const char stream[] =
    ": hello\n\n"
    "id: turn_abc.1\nevent: turn.started\ndata: {}\n\n"
    "event: text.delta\nid: turn_abc.2\ndata: {\"text\":\"a\"}\n\n"
    "id: turn_abc.18446744073709551615\r\nevent: turn.completed\r\ndata: x\r\n\r\n"
    "data: no name\n\n"
    "id: turn_abc.9\n";

static void
take(struct event_reader *r, struct str in, char *ret_seen)
{
	struct seen_event event;

	while (event_reader_next(r, &in, &event))
		sprintf(ret_seen + strlen(ret_seen), "%.*s:%llu ", (int)event.name.len,
		    event.name.p, (unsigned long long)event.seq);
	assert_int_equal(in.len, 0);
}

static void
test_split_anywhere(void **state)
{
	for (size_t cut = 0; cut <= sizeof(stream) - 1; cut++) {
		struct event_reader r = {0};
		char seen[256] = "";

		take(&r, str_sub(stream, cut), seen);
		take(&r, str_sub(stream + cut, sizeof(stream) - 1 - cut), seen);
		assert_string_equal(
		    seen, "turn.started:1 text.delta:2 turn.completed:18446744073709551615 :0 ");
		assert_string_equal(r.turn, "turn_abc");
	}
}

static void
test_byte_by_byte(void **state)
{
	struct event_reader r = {0};
	char seen[256] = "";

	for (size_t i = 0; i < sizeof(stream) - 1; i++)
		take(&r, str_sub(stream + i, 1), seen);
	assert_string_equal(
	    seen, "turn.started:1 text.delta:2 turn.completed:18446744073709551615 :0 ");
}

static void
test_long_lines_and_names_are_cut(void **state)
{
	struct event_reader r = {0};
	char line[1000], seen[256] = "";

	memset(line, 'x', sizeof(line));
	take(&r, STR("event: "), seen);
	take(&r, str_sub(line, sizeof(line)), seen);
	take(&r, STR("\ndata: "), seen);
	take(&r, str_sub(line, sizeof(line)), seen);
	take(&r, STR("\n\n"), seen);
	assert_int_equal(strlen(seen), EVENT_READER_NAME - 1 + strlen(":0 "));
}

static void
test_a_number_that_is_none(void **state)
{
	struct event_reader r = {0};
	char seen[256] = "";

	take(&r, STR("id: turn_abc\nevent: a\n\nid: .\nevent: b\n\nid:\nevent: c\n\n"), seen);
	assert_string_equal(seen, "a:0 b:0 c:0 ");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_split_anywhere),
	    cmocka_unit_test(test_byte_by_byte),
	    cmocka_unit_test(test_long_lines_and_names_are_cut),
	    cmocka_unit_test(test_a_number_that_is_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
