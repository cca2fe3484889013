/* turn_tools - the model asks for tools, clients answer from any worker, or too late, or twice. */
#include "t/unit/unit.h"

#include <stdio.h>
#include <string.h>

#include "common/err.h"
#include "t/replay/turn_world.h"

static const char *
call_id(const struct client *c)
{
	return client_last_text(c, TURN_TOOL_CALL, "tool_call_id");
}

static const char *
message_member(size_t index, const char *member)
{
	const json_t *m = json_array_get(fake_provider_messages(world.model), index);
	const char *s = json_string_value(json_object_get(m, member));

	return s != NULL ? s : "(none)";
}

static const json_t *
wire_call(size_t message, size_t index)
{
	const json_t *m = json_array_get(fake_provider_messages(world.model), message);

	return json_array_get(json_object_get(m, "tool_calls"), index);
}

static void
expect_give(unsigned worker, const char *id, const char *output, int err)
{
	struct answer_seen a;

	world_give_result(&a, worker, id, output, NULL);
	assert_int_equal(a.answers, 1);
	assert_int_equal(a.err, err);
}

/* A turn on worker 0 that waits for one call of `weather`. */
static struct id
ask_weather(struct client *c)
{
	struct id turn = world_begin_with_tools(0, "Is it raining?");

	client_attach(c, 0, &turn, 0);
	fake_provider_say(world.model, "Let me see. ");
	fake_provider_ask_one(world.model, "abc", "weather", "{\"city\":\"Paris\"}");
	world_run(0);
	return turn;
}

static void
finish(const char *text)
{
	fake_provider_say(world.model, text);
	fake_provider_end(world.model);
	world_run(0);
}

static void
test_a_tool_answered_on_every_worker(void **state)
{
	for (unsigned worker = 0; worker < WORLD_WORKERS; worker++) {
		struct client c;
		struct id turn = ask_weather(&c), parsed;
		const json_t *call = client_last(&c, TURN_TOOL_CALL);

		client_expect(&c, "turn.started text.delta tool.call");
		assert_true(id_parse(str_of(call_id(&c)), "call", &parsed));
		assert_string_equal(client_last_text(&c, TURN_TOOL_CALL, "name"), "weather");
		assert_string_equal(client_last_text(&c, TURN_TOOL_CALL, "run_by"), "client");
		assert_string_equal(
		    json_string_value(json_object_get(json_object_get(call, "arguments"), "city")),
		    "Paris");
		expect_give(worker, call_id(&c), "{\"rain\":true}", 0);
		client_expect(&c, "turn.started text.delta tool.call tool.result");
		size_t n = json_array_size(fake_provider_messages(world.model));
		/* The provider is given its own id back. */
		assert_string_equal(message_member(n - 2, "content"), "Let me see. ");
		assert_string_equal(
		    json_string_value(json_object_get(wire_call(n - 2, 0), "id")), "abc");
		assert_string_equal(message_member(n - 1, "role"), "tool");
		assert_string_equal(message_member(n - 1, "tool_call_id"), "abc");
		assert_string_equal(message_member(n - 1, "content"), "{\"rain\":true}");
		finish("It rains.");
		client_expect(&c, "turn.started text.delta tool.call tool.result text.delta usage "
				  "turn.completed");
		client_expect_text(&c, "Let me see. It rains.");
		client_expect_seqs(&c, 1);
		const json_t *done = client_last(&c, TURN_COMPLETED);
		assert_string_equal(
		    json_string_value(json_object_get(json_object_get(done, "message"), "content")),
		    "It rains.");
		assert_int_equal(json_integer_value(json_object_get(
				     json_object_get(done, "usage"), "input_tokens")),
		    20);
		assert_int_equal(json_array_size(json_object_get(done, "tool_calls")), 1);
		assert_string_equal(
		    fake_store_turn(world.store, turn.s)->text, "Let me see. It rains.");
		client_forget(&c);
	}
}

static void
test_what_the_record_keeps_of_a_hop(void **state)
{
	struct client c;
	struct id turn = ask_weather(&c);
	char ours[ID_MAX];

	snprintf(ours, sizeof(ours), "%s", call_id(&c));
	assert_int_equal(fake_store_message_count(world.store), 1);
	assert_non_null(fake_store_usage(world.store, 0)); /* already paid for */
	expect_give(0, ours, "\"yes\"", 0);
	assert_int_equal(fake_store_message_count(world.store), 3);
	assert_non_null(strstr(fake_store_message(world.store, 1)->body_json, ours));
	assert_non_null(strstr(fake_store_message(world.store, 2)->body_json, ours));
	assert_non_null(strstr(fake_store_message(world.store, 2)->body_json, "\"yes\""));
	assert_null(strstr(fake_store_message(world.store, 1)->body_json, "abc"));
	finish("Yes.");
	assert_int_equal(fake_store_message_count(world.store), 4);
	assert_string_not_equal(
	    fake_store_usage(world.store, 0)->id, fake_store_usage(world.store, 1)->id);
	assert_null(fake_store_usage(world.store, 2));
	assert_string_equal(fake_store_turn(world.store, turn.s)->finish_reason, "stop");
	client_forget(&c);
}

static void
test_an_answer_counts_once(void **state)
{
	struct answer_seen a;
	struct client c;

	ask_weather(&c);
	struct id turn = {""};
	snprintf(turn.s, sizeof(turn.s), "%s", call_id(&c));
	expect_give(1, turn.s, "{\"a\":1,\"b\":2}", 0);
	for (unsigned worker = 0; worker < WORLD_WORKERS; worker++) {
		world_give_result(&a, worker, turn.s, "{\"b\":2,\"a\":1}", NULL);
		assert_int_equal(a.err, E_ALREADY_ANSWERED);
		assert_true(a.is_same);
		world_give_result(&a, worker, turn.s, "{\"a\":1}", NULL);
		assert_int_equal(a.err, E_ALREADY_ANSWERED);
		assert_false(a.is_same);
		world_give_result(&a, worker, turn.s, NULL, "no");
		assert_int_equal(a.err, E_ALREADY_ANSWERED);
		assert_false(a.is_same);
	}
	assert_int_equal(fake_provider_calls(world.model), 2);
	finish("Done.");
	for (unsigned worker = 0; worker < WORLD_WORKERS; worker++)
		expect_give(worker, turn.s, "{\"a\":1,\"b\":2}", E_UNKNOWN_TOOL_CALL);
	client_forget(&c);
}

static void
test_results_for_nobody(void **state)
{
	struct client c;
	struct id other = id_new("sess"), mine = world.session;

	ask_weather(&c);
	for (unsigned worker = 0; worker < WORLD_WORKERS; worker++) {
		struct id unknown = id_new("call");

		expect_give(worker, unknown.s, "1", E_UNKNOWN_TOOL_CALL);
		expect_give(worker, "call_", "1", E_UNKNOWN_TOOL_CALL);
		expect_give(worker, "abc", "1", E_UNKNOWN_TOOL_CALL);
		world.session = other;
		expect_give(worker, call_id(&c), "1", E_UNKNOWN_TOOL_CALL);
		world.session = mine;
	}
	expect_give(2, call_id(&c), "null", 0);
	finish("Done.");
	client_forget(&c);
}

static void
test_a_failing_tool_is_told_to_the_model(void **state)
{
	struct answer_seen a;
	struct client c;

	ask_weather(&c);
	world_give_result(&a, 1, call_id(&c), NULL, "no such city");
	assert_int_equal(a.err, 0);
	assert_string_equal(client_last_text(&c, TURN_TOOL_RESULT, "error"), "no such city");
	assert_string_equal(message_member(2, "content"), "{\"error\":\"no such city\"}");
	finish("Sorry.");
	client_forget(&c);
}

static void
test_what_the_client_never_hears_of(void **state)
{
	static const struct provider_tool_call calls[] = {
	    {"a", "weather", "{\"city\":"},
	    {"b", "weather", "[1]"},
	    {"c", "unknown", "{}"},
	};
	struct id turn = world_begin_with_tools(0, "Go");
	struct client c;

	client_attach(&c, 0, &turn, 0);
	fake_provider_ask(world.model, calls, 3);
	world_run(0);
	client_expect(&c, "turn.started");
	assert_int_equal(fake_provider_calls(world.model), 2);
	assert_int_equal(json_array_size(fake_provider_messages(world.model)), 5);
	assert_non_null(strstr(message_member(2, "content"), "not a JSON object"));
	assert_non_null(strstr(message_member(4, "content"), "no tool of this name"));
	/* What is no JSON is not sent to a provider again. */
	assert_string_equal(json_string_value(json_object_get(
				json_object_get(wire_call(1, 0), "function"), "arguments")),
	    "{}");
	finish("I see.");
	client_expect(&c, "turn.started text.delta usage turn.completed");
	client_forget(&c);
}

static void
test_several_calls_in_any_order(void **state)
{
	static const struct provider_tool_call calls[] = {
	    {"", "weather", ""}, {"x", "clock", "{}"}, {"x", "weather", "{\"n\":3}"}};
	struct id turn = world_begin_with_tools(0, "Go");
	struct client c;
	char ids[3][ID_MAX];

	client_attach(&c, 2, &turn, 0);
	fake_provider_ask(world.model, calls, 3);
	world_run(0);
	client_expect(&c, "turn.started tool.call tool.call tool.call");
	for (unsigned i = 0; i < 3; i++)
		snprintf(ids[i], sizeof(ids[i]), "%s",
		    json_string_value(json_object_get(c.heard[i + 1].data, "tool_call_id")));
	expect_give(2, ids[2], "\"third\"", 0);
	expect_give(1, ids[0], "\"first\"", 0);
	assert_int_equal(fake_provider_calls(world.model), 1);
	expect_give(0, ids[1], "\"second\"", 0);
	assert_int_equal(fake_provider_calls(world.model), 2);
	/* Results stand in the order of the calls; ids that were empty or used twice are ours. */
	assert_string_equal(message_member(2, "content"), "first");
	assert_string_equal(message_member(2, "tool_call_id"), ids[0]);
	assert_string_equal(message_member(3, "content"), "second");
	assert_string_equal(message_member(3, "tool_call_id"), "x");
	assert_string_equal(message_member(4, "content"), "third");
	assert_string_equal(message_member(4, "tool_call_id"), ids[2]);
	finish("All.");
	client_forget(&c);
}

static void
test_too_many_calls_at_once(void **state)
{
	static const struct provider_tool_call calls[] = {
	    {"1", "weather", "{}"}, {"2", "weather", "{}"}, {"3", "weather", "{}"}};
	struct id turn;
	struct client c;

	world.conf.tools.max_calls = 1;
	turn = world_begin_with_tools(0, "Go");
	client_attach(&c, 0, &turn, 0);
	fake_provider_ask(world.model, calls, 3);
	world_run(0);
	client_expect(&c, "turn.started tool.call");
	expect_give(0, call_id(&c), "1", 0);
	assert_non_null(strstr(message_member(4, "content"), "Too many"));
	finish("All.");
	client_forget(&c);
}

static void
test_a_client_that_never_answers(void **state)
{
	struct client c;

	ask_weather(&c);
	world_run(59999);
	client_expect(&c, "turn.started text.delta tool.call");
	world_run(1);
	client_expect(&c, "turn.started text.delta tool.call tool.result");
	assert_non_null(strstr(message_member(2, "content"), "did not answer in time"));
	expect_give(0, call_id(&c), "1", E_ALREADY_ANSWERED);
	finish("Without.");
	assert_int_equal(c.ends, 1);
	client_forget(&c);
}

static void
test_the_hops_have_an_end(void **state)
{
	struct id turn;
	struct client c;

	world.conf.turns.max_tool_hops = 3;
	turn = world_begin_with_tools(0, "Go");
	client_attach(&c, 0, &turn, 0);
	for (unsigned i = 0; i < 3; i++) {
		fake_provider_ask_one(world.model, "call_0", "weather", "{}");
		world_run(0);
		expect_give(i, call_id(&c), "1", 0);
		assert_int_equal(fake_provider_calls(world.model), i + 2);
	}
	fake_provider_say(world.model, "Once more");
	fake_provider_ask_one(world.model, "call_0", "weather", "{}");
	world_run(0);
	assert_int_equal(c.ends, 1);
	assert_string_equal(
	    client_last_text(&c, TURN_COMPLETED, "finish_reason"), "tool_limit_reached");
	assert_int_equal(fake_provider_open(world.model), 0);
	/* No call without its result may stay in the history. */
	assert_null(strstr(
	    fake_store_message(world.store, fake_store_message_count(world.store) - 1)->body_json,
	    "tool_calls"));
	client_forget(&c);
}

static void
test_a_hop_that_could_not_be_saved_is_saved_later(void **state)
{
	struct client c;
	struct id turn = world_begin_with_tools(0, "Go");

	client_attach(&c, 0, &turn, 0);
	fake_store_fail(world.store, FAKE_ADD, E_STORE_UNAVAILABLE, 2);
	fake_provider_ask_one(world.model, "abc", "weather", "{}");
	world_run(0);
	expect_give(0, call_id(&c), "1", 0);
	assert_int_equal(fake_store_message_count(world.store), 1);
	finish("Done.");
	assert_string_equal(fake_store_turn(world.store, turn.s)->state, "completed");
	assert_int_equal(fake_store_message_count(world.store), 4);
	assert_string_equal(fake_store_message(world.store, 1)->role, "assistant");
	assert_string_equal(fake_store_message(world.store, 2)->role, "tool");
	assert_string_equal(fake_store_message(world.store, 3)->role, "assistant");
	assert_non_null(fake_store_usage(world.store, 1));
	client_forget(&c);
}

static void
test_the_end_waits_for_the_hop(void **state)
{
	struct client c;
	struct id turn = world_begin_with_tools(0, "Go");

	client_attach(&c, 0, &turn, 0);
	fake_store_delay(world.store, FAKE_ADD, 3000);
	fake_provider_ask_one(world.model, "abc", "weather", "{}");
	world_run(0);
	expect_give(0, call_id(&c), "1", 0);
	finish("Done.");
	assert_int_equal(c.ends, 0);
	assert_int_equal(fake_store_calls(world.store, FAKE_END), 0);
	world_run(3000);
	assert_int_equal(c.ends, 1);
	assert_string_equal(fake_store_turn(world.store, turn.s)->state, "completed");
	assert_int_equal(fake_store_message_count(world.store), 4);
	client_forget(&c);
}

static void
test_a_fence_found_between_the_hops(void **state)
{
	struct client c;
	struct id turn = world_begin_with_tools(0, "Go");

	client_attach(&c, 0, &turn, 0);
	fake_store_fence(world.store, turn.s);
	fake_provider_ask_one(world.model, "abc", "weather", "{}");
	world_run(0);
	assert_non_null(client_last(&c, TURN_FAILED));
	expect_give(0, call_id(&c), "1", E_UNKNOWN_TOOL_CALL);
	client_forget(&c);
}

static void
test_the_owner_does_not_answer(void **state)
{
	struct answer_seen a;
	struct client c;

	ask_weather(&c);
	fake_backplane_lose(BACKPLANE_TOOL_RESULT, 1);
	world_give_result(&a, 1, call_id(&c), "1", NULL);
	assert_int_equal(a.answers, 0);
	world_run(1000);
	assert_int_equal(a.err, E_OWNER_UNAVAILABLE);
	fake_backplane_refuse(BACKPLANE_TOOL_RESULT, 1);
	world_give_result(&a, 1, call_id(&c), "1", NULL);
	assert_int_equal(a.err, E_OWNER_UNAVAILABLE);
	/* Its answer was lost, its work was done: told again, it is the same. */
	fake_backplane_lose(BACKPLANE_REPLY, 1);
	world_give_result(&a, 1, call_id(&c), "1", NULL);
	world_run(1000);
	assert_int_equal(a.err, E_OWNER_UNAVAILABLE);
	world_give_result(&a, 1, call_id(&c), "1", NULL);
	assert_int_equal(a.err, E_ALREADY_ANSWERED);
	assert_true(a.is_same);
	finish("Done.");
	client_forget(&c);
}

static void
test_the_owner_table_was_full(void **state)
{
	struct client c;

	ask_weather(&c);
	fake_backplane_forget_owners();
	expect_give(1, call_id(&c), "1", 0); /* the record knows who */
	finish("Done.");
	client_forget(&c);
}

static void
test_the_owner_is_dead(void **state)
{
	struct client c;

	ask_weather(&c);
	world_kill(0, true);
	expect_give(1, call_id(&c), "1", E_UNKNOWN_TOOL_CALL);
	client_forget(&c);
}

static void
test_the_record_is_away_when_asked_for_the_owner(void **state)
{
	struct client c;

	ask_weather(&c);
	fake_backplane_forget_owners();
	fake_store_fail(world.store, FAKE_LIVE, E_STORE_UNAVAILABLE, 1);
	expect_give(1, call_id(&c), "1", E_STORE_UNAVAILABLE);
	expect_give(1, call_id(&c), "1", 0);
	finish("Done.");
	client_forget(&c);
}

static void
test_a_result_has_a_limit(void **state)
{
	struct client c;

	world.conf.tools.max_output_bytes = 8;
	ask_weather(&c);
	for (unsigned worker = 0; worker < 2; worker++)
		expect_give(worker, call_id(&c), "\"1234567\"", E_PAYLOAD_TOO_LARGE);
	expect_give(1, call_id(&c), "\"123456\"", 0);
	finish("Done.");
	client_forget(&c);
}

static void
test_who_has_claimed_the_call(void **state)
{
	struct request r;
	struct client origin, other;

	for (unsigned is_gone = 0; is_gone < 2; is_gone++) {
		request_init(&r, "Go");
		r.tools = json_loads("[{\"function\":{\"name\":\"weather\"}}]", 0, NULL);
		r.start.tools = r.tools;
		r.start.originator = 0xABC;
		request_send(&r, 0);
		world_run(0);
		client_attach_as(&origin, 1, &r.started.turn_id, 0, 0xABC);
		client_attach(&other, 2, &r.started.turn_id, 0);
		if (is_gone) {
			client_leave(&origin, true);
			world_run(0);
		}
		fake_provider_ask_one(world.model, "abc", "weather", "{}");
		world_run(0);
		const json_t *by =
		    json_object_get(client_last(&other, TURN_TOOL_CALL), "claimed_by");
		if (is_gone)
			assert_true(json_is_null(by));
		else
			assert_string_equal(json_string_value(by), "0000000000000abc");
		expect_give(0, call_id(&other), "1", 0);
		finish("Done.");
		client_forget(&origin);
		client_forget(&other);
	}
}

static void
test_the_state_while_it_waits_for_tools(void **state)
{
	for (unsigned worker = 0; worker < WORLD_WORKERS; worker++) {
		struct id turn = world_begin_with_tools(0, "Go");
		struct answer_seen now, later;

		world_ask(&now, worker, &turn, 0);
		assert_string_equal(answer_text(&now, "state"), "live");
		world_ask(&later, worker, &turn, 30000);
		assert_int_equal(later.answers, 0);
		fake_provider_ask_one(world.model, "abc", "weather", "{}");
		world_run(0);
		assert_int_equal(later.answers, 1);
		assert_string_equal(answer_text(&later, "state"), "waiting_tools");
		const json_t *pending = json_object_get(later.state, "pending_tool_calls");
		assert_int_equal(json_array_size(pending), 1);
		expect_give(worker,
		    json_string_value(json_object_get(json_array_get(pending, 0), "tool_call_id")),
		    "1", 0);
		json_decref(later.state);
		world_ask(&later, worker, &turn, 5000);
		assert_int_equal(later.answers, 0);
		world_run(5000);
		assert_string_equal(answer_text(&later, "state"), "live");
		json_decref(later.state);
		world_ask(&later, worker, &turn, 5000);
		finish("Done.");
		assert_string_equal(answer_text(&later, "state"), "completed");
		assert_string_equal(answer_text(&later, "text"), "Done.");
		assert_string_equal(answer_text(&later, "finish_reason"), "stop");
		json_decref(later.state);
		json_decref(now.state);
	}
}

/* An answer that broke and begins anew: what the hop before said stands, and is told again. */
static void
test_a_restart_keeps_the_hops_before(void **state)
{
	struct client c, late;
	struct id turn = ask_weather(&c);

	expect_give(0, call_id(&c), "1", 0);
	fake_provider_say(world.model, "It might");
	world_run(0);
	fake_provider_restart(world.model);
	fake_provider_say(world.model, "It rains.");
	fake_provider_end(world.model);
	world_run(0);
	client_expect(&c, "turn.started text.delta tool.call tool.result text.delta turn.restarted "
			  "text.delta text.delta usage turn.completed");
	client_expect_seqs(&c, 1);
	assert_string_equal(client_last_text(&c, TURN_TEXT_DELTA, "text"), "It rains.");
	assert_int_equal(
	    json_integer_value(json_object_get(client_last(&c, TURN_TEXT_DELTA), "offset")),
	    strlen("Let me see. "));
	const json_t *message = json_object_get(client_last(&c, TURN_COMPLETED), "message");
	assert_string_equal(json_string_value(json_object_get(message, "content")), "It rains.");
	/* On another worker, from the middle. */
	client_attach(&late, 1, &turn, 5);
	world_run(0);
	client_expect(&late, "turn.restarted text.delta text.delta usage turn.completed");
	client_expect_text(&late, "Let me see. It rains.");
	client_forget(&c);
	client_forget(&late);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_a_restart_keeps_the_hops_before),
	    TEST(test_a_tool_answered_on_every_worker),
	    TEST(test_what_the_record_keeps_of_a_hop),
	    TEST(test_an_answer_counts_once),
	    TEST(test_results_for_nobody),
	    TEST(test_a_failing_tool_is_told_to_the_model),
	    TEST(test_what_the_client_never_hears_of),
	    TEST(test_several_calls_in_any_order),
	    TEST(test_too_many_calls_at_once),
	    TEST(test_a_client_that_never_answers),
	    TEST(test_the_hops_have_an_end),
	    TEST(test_a_hop_that_could_not_be_saved_is_saved_later),
	    TEST(test_the_end_waits_for_the_hop),
	    TEST(test_a_fence_found_between_the_hops),
	    TEST(test_the_owner_does_not_answer),
	    TEST(test_the_owner_table_was_full),
	    TEST(test_the_owner_is_dead),
	    TEST(test_the_record_is_away_when_asked_for_the_owner),
	    TEST(test_a_result_has_a_limit),
	    TEST(test_who_has_claimed_the_call),
	    TEST(test_the_state_while_it_waits_for_tools),
	};

	return cmocka_run_group_tests_name("turn_tools", tests, NULL, NULL);
}
