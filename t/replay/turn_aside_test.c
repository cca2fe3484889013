/* turn_aside - what a tool asks the turn's model while it runs: answered, refused, cancelled with
 * it, and paid for. */
#include "t/unit/unit.h"

#include <stdio.h>
#include <string.h>

#include "common/err.h"
#include "t/replay/turn_world.h"
#include "worker/tool/runner.h"

/* A server with one tool, `think`, whose only call waits for what the test does. */
static struct {
	struct tool_caller caller;
	tool_on_outcome *on_outcome;
	void *arg;
	unsigned calls, cancelled;
} tool;

static struct {
	uint64_t handle;
	unsigned answers;
	int err;
	char text[64], why[64];
	bool is_cut;
} aside;

static struct tool_menu *
open_menu(void *self, const struct conf_app *app, size_t max, json_t *tools)
{
	(void)app, (void)max;
	json_array_append_new(tools, json_pack("{s:s,s:{s:s,s:{}}}", "type", "function", "function",
					 "name", "think", "parameters"));
	return self;
}

static const char *
server_of(const struct tool_menu *m, const char *name)
{
	(void)m;
	return strcmp(name, "think") == 0 ? "thinker" : NULL;
}

static uint64_t
call_tool(struct tool_menu *m, const char *name, const json_t *arguments,
    const struct tool_caller *caller, tool_on_outcome *on_outcome, void *arg)
{
	(void)m, (void)name, (void)arguments;
	tool.caller = *caller;
	tool.on_outcome = on_outcome;
	tool.arg = arg;
	return ++tool.calls;
}

static void
cancel_call(void *self, uint64_t handle)
{
	(void)self, (void)handle;
	tool.cancelled++;
	if (aside.answers == 0)
		tool.caller.cancel(tool.caller.self, aside.handle);
}

static void
close_menu(struct tool_menu *m)
{
	(void)m;
}

static const struct tool_runner runner = {
    &tool, open_menu, server_of, call_tool, cancel_call, close_menu};

static void
on_aside(void *arg, const struct tool_aside *a)
{
	assert_ptr_equal(arg, &aside);
	aside.answers++;
	aside.err = a->err;
	aside.is_cut = a->is_cut;
	snprintf(aside.text, sizeof(aside.text), "%.*s", (int)a->text.len, a->text.p);
	snprintf(aside.why, sizeof(aside.why), "%s", a->why != NULL ? a->why : "");
}

static void
ask(void)
{
	json_t *messages = json_pack("[{s:s,s:s}]", "role", "user", "content", "what is it?");

	memset(&aside, 0, sizeof(aside));
	aside.handle = tool.caller.ask(tool.caller.self, messages, 100, on_aside, &aside);
	json_decref(messages);
	assert_int_equal(aside.answers, 0);
}

static int
setup(void **state)
{
	memset(&tool, 0, sizeof(tool));
	world_setup(state);
	turns_use_runner(world.workers[0].turns, &runner);
	return 0;
}

/* A turn whose tool runs. */
static struct id
begin(bool has_budget)
{
	struct request r;

	request_init(&r, "Think!");
	if (has_budget) {
		r.start.budget = (struct budget_rule){1000, BUDGET_DAY};
		r.start.tokens.limit = 1000;
	}
	request_send(&r, 0);
	world_run(0);
	if (has_budget) {
		fake_holds_answer(0, NULL);
		world_run(0);
	}
	fake_provider_ask_one(world.model, "abc", "think", "{}");
	world_run(0);
	assert_int_equal(tool.calls, 1);
	return r.started.turn_id;
}

/* The tool answers, and the model has its last word. */
static void
finish(const struct id *turn, bool has_budget)
{
	tool.on_outcome(tool.arg, &(struct tool_outcome){.error = "enough"});
	world_run(0);
	if (has_budget) {
		fake_holds_answer(0, NULL);
		world_run(0);
	}
	fake_provider_end(world.model);
	world_run(0);
	assert_string_equal(fake_store_turn(world.store, turn->s)->state, "completed");
	assert_int_equal(fake_holds_waiting() + fake_holds_held(), 0);
}

static void
test_it_is_answered_and_paid_for(void **state)
{
	struct id turn = begin(true);
	char id[64];

	ask();
	world_run(0);
	assert_int_equal(fake_holds_waiting(), 1);
	assert_int_equal(fake_provider_calls(world.model), 1);
	fake_holds_answer(0, NULL);
	world_run(0);
	assert_int_equal(fake_provider_calls(world.model), 2);
	assert_null(fake_provider_tools(world.model));
	assert_int_equal(json_array_size(fake_provider_messages(world.model)), 1);
	fake_provider_say(world.model, "void");
	fake_provider_restart(world.model);
	fake_provider_say(world.model, "a ");
	fake_provider_say(world.model, "cat");
	fake_provider_finish(world.model, PROVIDER_FINISH_LENGTH);
	world_run(0);
	assert_int_equal(aside.answers, 1);
	assert_int_equal(aside.err, 0);
	assert_string_equal(aside.text, "a cat");
	assert_true(aside.is_cut);
	snprintf(id, sizeof(id), "%s.a1", turn.s);
	assert_string_equal(fake_holds.added_id, id);
	assert_int_equal(fake_holds.counted_tokens, 30);
	finish(&turn, true);
	assert_int_equal(fake_holds.counted_tokens, 45);
}

static void
test_what_was_said_beside_is_no_part_of_the_turn(void **state)
{
	struct id turn = begin(false);
	struct client c;

	client_attach(&c, 0, &turn, 0);
	ask();
	world_run(0);
	fake_provider_say(world.model, "a cat");
	fake_provider_end(world.model);
	world_run(0);
	assert_int_equal(aside.answers, 1);
	finish(&turn, false);
	client_expect_text(&c, "");
	client_forget(&c);
}

static void
test_without_money_or_tokens_it_is_refused_and_the_turn_goes_on(void **state)
{
	const struct hold_refusal refusal = {.message = "It is used up."};
	struct id turn = begin(true);

	ask();
	fake_holds_answer(E_BUDGET_EXCEEDED, &refusal);
	world_run(0);
	assert_int_equal(aside.answers, 1);
	assert_int_equal(aside.err, E_BUDGET_EXCEEDED);
	assert_string_equal(aside.why, "It is used up.");
	fake_holds.tokens_verdict.is_allowed = false;
	ask();
	world_run(0);
	assert_int_equal(aside.answers, 1);
	assert_int_equal(aside.err, E_RATE_LIMITED);
	fake_holds.tokens_verdict.is_allowed = true;
	assert_int_equal(fake_provider_calls(world.model), 1);
	assert_int_equal(fake_holds.added, 0);
	finish(&turn, true);
}

static void
test_a_model_that_fails_is_told(void **state)
{
	struct id turn = begin(false);

	ask();
	world_run(0);
	fake_provider_fail(world.model, E_PROVIDER, "not today");
	world_run(0);
	assert_int_equal(aside.err, E_PROVIDER);
	assert_string_equal(aside.why, "not today");
	finish(&turn, false);
}

static void
test_it_ends_with_the_turn(void **state)
{
	struct id turn = begin(true);
	struct answer_seen a;

	ask();
	fake_holds_answer(0, NULL);
	world_run(0);
	fake_provider_say(world.model, "eight by");
	world_run(0);
	world_cancel(&a, 0, &turn);
	world_run(0);
	assert_int_equal(tool.cancelled, 1);
	assert_int_equal(aside.answers, 0);
	assert_int_equal(fake_provider_open(world.model), 0);
	assert_int_equal(fake_provider_cancelled(world.model), 1);
	assert_int_equal(fake_holds.added, 1);
	assert_int_equal(fake_holds_waiting() + fake_holds_held(), 0);
	assert_string_equal(fake_store_turn(world.store, turn.s)->state, "cancelled");
}

static void
test_it_ends_while_it_waits_for_money(void **state)
{
	struct id turn = begin(true);
	struct answer_seen a;

	ask();
	world_run(0);
	world_cancel(&a, 0, &turn);
	world_run(0);
	assert_int_equal(fake_holds.released, 1);
	assert_int_equal(fake_holds.added, 0);
	assert_int_equal(fake_provider_calls(world.model), 1);
	assert_int_equal(fake_holds_waiting() + fake_holds_held(), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, world_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    T(test_it_is_answered_and_paid_for),
	    T(test_what_was_said_beside_is_no_part_of_the_turn),
	    T(test_without_money_or_tokens_it_is_refused_and_the_turn_goes_on),
	    T(test_a_model_that_fails_is_told),
	    T(test_it_ends_with_the_turn),
	    T(test_it_ends_while_it_waits_for_money),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
