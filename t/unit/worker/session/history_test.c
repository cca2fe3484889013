/* history - what the model is given, and what is never torn apart. */
#include "t/unit/unit.h"

#include <stdio.h>
#include <string.h>

#include "common/check.h"
#include "worker/session/history.h"

enum { MAX = 32 };

static struct history_message messages[MAX];
static size_t count;

static void
add(size_t bytes, const char *json)
{
	json_t *body = json_loads(json, 0, NULL);

	assert_non_null(body);
	assert_true(count < MAX);
	messages[count++] = (struct history_message){body, bytes, false};
}

static int
forget(void **state)
{
	for (size_t i = 0; i < count; i++)
		json_decref((json_t *)messages[i].body);
	count = 0;
	return 0;
}

static void
user(size_t bytes)
{
	add(bytes, "{\"role\":\"user\",\"content\":\"x\"}");
}

static void
assistant(size_t bytes)
{
	add(bytes, "{\"role\":\"assistant\",\"content\":\"x\"}");
}

static void
calls(size_t bytes, const char *a, const char *b)
{
	char json[256];

	snprintf(json, sizeof(json),
	    "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"%s\"}%s%s%s]}", a,
	    b != NULL ? ",{\"id\":\"" : "", b != NULL ? b : "", b != NULL ? "\"}" : "");
	add(bytes, json);
}

static void
result(size_t bytes, const char *id)
{
	char json[128];

	snprintf(json, sizeof(json),
	    "{\"role\":\"tool\",\"tool_call_id\":\"%s\",\"content\":\"x\"}", id);
	add(bytes, json);
}

static void
expect(uint64_t budget, size_t system_bytes, const char *kept)
{
	char is[MAX + 1] = "";

	history_cut(messages, count, budget, system_bytes);
	for (size_t i = 0; i < count; i++)
		is[i] = messages[i].is_kept ? '1' : '0';
	assert_string_equal(is, kept);
}

static void
test_nothing(void **state)
{
	expect(100, 0, "");
}

static void
test_everything_fits(void **state)
{
	user(40);
	assistant(40);
	user(40);
	expect(30, 0, "111");
	expect(0, 1000000, "111");
}

static void
test_the_newest_stay(void **state)
{
	user(40);
	assistant(40);
	user(40);
	assistant(40);
	user(40);
	expect(49, 0, "01111");
	expect(30, 0, "00111");
	expect(29, 0, "00011");
	expect(10, 0, "00001");
	expect(1, 0, "00001"); /* without it there is nothing to answer */
}

static void
test_the_system_prompt_is_paid_for_first(void **state)
{
	user(40);
	assistant(40);
	user(40);
	expect(30, 1, "011");
	expect(30, 40, "011");
	expect(30, 41, "001");
	expect(30, 4000, "001");
}

static void
test_no_hole_is_left_for_a_small_one(void **state)
{
	user(4);
	assistant(400);
	user(40);
	expect(50, 0, "001");
}

static void
test_calls_and_results_stay_together(void **state)
{
	user(40);
	calls(40, "a", "b");
	result(40, "a");
	result(40, "b");
	assistant(40);
	user(40);
	expect(60, 0, "111111");
	expect(59, 0, "011111");
	expect(50, 0, "011111");
	for (uint64_t budget = 20; budget < 50; budget++)
		expect(budget, 0, "000011");
}

static void
test_results_may_come_in_any_order(void **state)
{
	calls(4, "a", "b");
	result(4, "b");
	result(4, "a");
	user(4);
	expect(100, 0, "1111");
}

static void
test_a_call_without_all_its_results_is_left_out(void **state)
{
	user(4);
	calls(4, "a", "b");
	result(4, "a");
	user(4);
	expect(100, 0, "1001");
}

static void
test_a_call_at_the_very_end_is_left_out(void **state)
{
	user(4);
	calls(4, "a", NULL);
	expect(100, 0, "10");
}

static void
test_results_without_their_call_are_left_out(void **state)
{
	result(4, "a");
	result(4, "b");
	assistant(4);
	result(4, "c");
	user(4);
	expect(100, 0, "00101");
}

static void
test_two_hops_in_a_row(void **state)
{
	user(4);
	calls(4, "a", NULL);
	result(4, "a");
	calls(4, "a", NULL); /* ids need not be unique */
	result(4, "a");
	assistant(4);
	user(4);
	expect(7, 0, "1111111");
	expect(6, 0, "0111111");
	expect(5, 0, "0001111");
	expect(4, 0, "0001111");
	expect(3, 0, "0000011");
}

static void
test_messages_of_no_known_kind(void **state)
{
	add(4, "{}");
	add(4, "{\"role\":7,\"tool_calls\":{}}");
	add(4, "{\"role\":\"assistant\",\"tool_calls\":[7,{}]}");
	user(4);
	expect(100, 0, "1101");
}

static void
test_tokens_are_rounded_up(void **state)
{
	assert_int_equal(history_tokens(0), 0);
	assert_int_equal(history_tokens(1), 1);
	assert_int_equal(history_tokens(4), 1);
	assert_int_equal(history_tokens(5), 2);
	assert_true(history_tokens(SIZE_MAX - 3) > 0);
}

static void
test_plain_messages(void **state)
{
	static const char *const plain[] = {
	    "{\"role\":\"user\",\"content\":\"Hello\"}",
	    "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]}",
	    "{\"role\":\"assistant\",\"content\":\"\\\"tool_calls\\\":[]\"}",
	    "{\"role\":\"assistant\",\"content\":\"tool_calls\"}",
	};
	static const char *const others[] = {
	    "",
	    "{}",
	    "{\"content\":\"a\",\"role\":\"user\"}",
	    "{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"x\"}",
	    "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"1\"}]}",
	    "{\"role\":\"users\",\"content\":\"a\"}",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(plain); i++)
		assert_true(history_is_plain(str_of(plain[i])));
	for (size_t i = 0; i < ARRAY_LEN(others); i++)
		assert_false(history_is_plain(str_of(others[i])));
}

/* What is known to be plain needs no body to be cut as any other. */
static void
test_plain_messages_without_a_body(void **state)
{
	struct history_message m[] = {{NULL, 400, false}, {NULL, 400, false}, {NULL, 400, false}};

	(void)state;
	history_cut(m, ARRAY_LEN(m), 200, 0);
	assert_false(m[0].is_kept);
	assert_true(m[1].is_kept);
	assert_true(m[2].is_kept);
}

#define TEST(name) cmocka_unit_test_teardown(name, forget)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_nothing),
	    TEST(test_everything_fits),
	    TEST(test_the_newest_stay),
	    TEST(test_the_system_prompt_is_paid_for_first),
	    TEST(test_no_hole_is_left_for_a_small_one),
	    TEST(test_calls_and_results_stay_together),
	    TEST(test_results_may_come_in_any_order),
	    TEST(test_a_call_without_all_its_results_is_left_out),
	    TEST(test_a_call_at_the_very_end_is_left_out),
	    TEST(test_results_without_their_call_are_left_out),
	    TEST(test_two_hops_in_a_row),
	    TEST(test_messages_of_no_known_kind),
	    TEST(test_plain_messages),
	    TEST(test_plain_messages_without_a_body),
	    TEST(test_tokens_are_rounded_up),
	};

	return cmocka_run_group_tests_name("worker/session/history", tests, NULL, NULL);
}
