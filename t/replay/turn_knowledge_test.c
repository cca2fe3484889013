/* turn_knowledge - passages before a turn: told to the model and to listeners; without them it goes
 * on. */
#include "t/unit/unit.h"

#include "t/replay/turn_world.h"

static const struct conf_app app = {.id = "demo",
    .org = "demo",
    .name = "",
    .system_prompt = "Be kind.",
    .budget = {.period = "month"},
    .knowledge = {.url = "http://kb/", .top_k = 3}};

static struct id
begin(struct client *c, const char *text)
{
	struct request r;

	request_init(&r, text);
	r.start.app = &app;
	request_send(&r, 0);
	world_run(0);
	assert_int_equal(r.err, 0);
	client_attach(c, 0, &r.started.turn_id, 0);
	world_run(0);
	return r.started.turn_id;
}

static const char *
first_message(void)
{
	return json_string_value(
	    json_object_get(json_array_get(fake_provider_messages(world.model), 0), "content"));
}

static void
test_passages_reach_the_model_and_the_listeners(void **state)
{
	json_t *sources = json_pack("[{s:i,s:s}]", "number", 1, "source", "a.md");
	struct client c;

	begin(&c, "Why?");
	assert_int_equal(fake_knowledge.asked, 1);
	assert_string_equal(fake_knowledge.query, "Why?");
	assert_int_equal(fake_provider_calls(world.model), 0);
	fake_knowledge_answer(
	    &(struct knowledge_answer){.sources = sources, .prompt = STR("[1] a.md\nBecause.")});
	world_run(0);
	assert_string_equal(first_message(), "Be kind.\n\n[1] a.md\nBecause.");
	fake_provider_say(world.model, "So.");
	fake_provider_end(world.model);
	world_run(0);
	client_expect(&c, "turn.started knowledge text.delta usage turn.completed");
	assert_true(
	    json_equal(json_object_get(client_last(&c, TURN_KNOWLEDGE), "sources"), sources));
	assert_true(
	    json_equal(json_object_get(client_last(&c, TURN_COMPLETED), "sources"), sources));
	/* The passages are of this turn: the history does not keep them. */
	assert_int_equal(fake_store_message_count(world.store), 2);
	client_forget(&c);
	json_decref(sources);
}

static void
test_without_an_answer_the_turn_goes_on(void **state)
{
	struct client c;

	begin(&c, "Why?");
	fake_knowledge_answer(
	    &(struct knowledge_answer){.error_code = "knowledge_timeout", .error_message = "late"});
	world_run(0);
	assert_string_equal(first_message(), "Be kind.");
	fake_provider_end(world.model);
	world_run(0);
	client_expect(&c, "turn.started knowledge usage turn.completed");
	assert_string_equal(json_string_value(json_object_get(
				json_object_get(client_last(&c, TURN_KNOWLEDGE), "error"), "code")),
	    "knowledge_timeout");
	assert_int_equal(
	    json_array_size(json_object_get(client_last(&c, TURN_COMPLETED), "sources")), 0);
	client_forget(&c);
}

static void
test_a_cancel_ends_the_question(void **state)
{
	struct client c;
	struct answer_seen a;
	struct id turn = begin(&c, "Why?");

	world_cancel(&a, 0, &turn);
	world_run(0);
	assert_int_equal(fake_knowledge.cancelled, 1);
	client_expect(&c, "turn.started turn.cancelled");
	client_forget(&c);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_passages_reach_the_model_and_the_listeners),
	    TEST(test_without_an_answer_the_turn_goes_on),
	    TEST(test_a_cancel_ends_the_question),
	};

	return cmocka_run_group_tests_name("turn_knowledge", tests, NULL, NULL);
}
