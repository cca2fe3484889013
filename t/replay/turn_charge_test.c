/* turn_charge - money of turns: held before each call, one row after it, given back when none was
 * made. */
#include "t/unit/unit.h"

#include <stdio.h>

#include "common/err.h"
#include "t/replay/fake_holds.h"
#include "t/replay/turn_world.h"

static struct id
begin_under_budget(void)
{
	struct request r;

	request_init(&r, "Hello");
	r.start.budget = (struct budget_rule){1000, BUDGET_DAY};
	request_send(&r, 0);
	world_run(0);
	assert_int_equal(r.err, 0);
	return r.started.turn_id;
}

static void
test_no_call_before_the_money_is_held(void **state)
{
	struct id turn = begin_under_budget();
	char id[64];

	assert_int_equal(fake_holds_waiting(), 1);
	assert_int_equal(fake_provider_calls(world.model), 0);
	assert_true(fake_holds.asked_micros > 0);
	fake_holds_answer(0, NULL);
	world_run(0);
	assert_int_equal(fake_provider_calls(world.model), 1);
	fake_provider_say(world.model, "Hi");
	fake_provider_end(world.model);
	world_run(0);
	/* The row has the hold's id: writing it settles. */
	snprintf(id, sizeof(id), "%s.0", turn.s);
	assert_string_equal(fake_holds.asked_id, id);
	assert_string_equal(fake_store_usage(world.store, 0)->id, id);
	assert_string_equal(fake_store_turn(world.store, turn.s)->state, "completed");
	assert_int_equal(fake_holds.forgotten, 1);
	assert_int_equal(fake_holds.released, 0);
	assert_int_equal(fake_holds.counted_tokens, 15);
}

static void
test_a_turn_without_budget_asks_nobody(void **state)
{
	world_begin(0, "Hello");
	assert_int_equal(fake_holds.asked, 0);
	assert_int_equal(fake_provider_calls(world.model), 1);
	fake_provider_end(world.model);
	world_run(0);
	assert_int_equal(fake_holds.counted_tokens, 15);
}

static void
test_no_money_no_call(void **state)
{
	const struct hold_refusal refusal = {.message = "It is used up."};
	struct id turn = begin_under_budget();

	fake_holds_answer(E_BUDGET_EXCEEDED, &refusal);
	world_run(0);
	assert_int_equal(fake_provider_calls(world.model), 0);
	assert_string_equal(fake_store_turn(world.store, turn.s)->error_code, "budget_exceeded");
	assert_string_equal(fake_store_turn(world.store, turn.s)->error_message, "It is used up.");
	assert_null(fake_store_usage(world.store, 0));
	assert_int_equal(fake_holds.forgotten + fake_holds.released, 0);
}

static void
test_cancelled_while_it_waits_for_money(void **state)
{
	struct id turn = begin_under_budget();
	struct answer_seen a;

	world_cancel(&a, 0, &turn);
	world_run(0);
	assert_string_equal(fake_store_turn(world.store, turn.s)->state, "cancelled");
	assert_int_equal(fake_holds.released, 1);
	assert_int_equal(fake_holds_waiting() + fake_holds_held(), 0);
	assert_null(fake_store_usage(world.store, 0));
}

static void
test_cancelled_in_the_middle_costs_what_was_seen(void **state)
{
	struct id turn = begin_under_budget();
	struct answer_seen a;
	const struct store_usage *u;

	fake_holds_answer(0, NULL);
	world_run(0);
	fake_provider_say(world.model, "eight by");
	world_run(0);
	world_cancel(&a, 0, &turn);
	world_run(0);
	u = fake_store_usage(world.store, 0);
	assert_non_null(u);
	assert_string_equal(u->outcome, "cancelled");
	assert_true(u->is_estimated);
	assert_int_equal(u->output_tokens, 2);
	assert_true(u->input_tokens > 0);
	assert_int_equal(fake_holds.forgotten, 1);
	assert_int_equal(fake_holds.counted_tokens, u->input_tokens + u->output_tokens);
}

static void
test_a_refused_call_costs_nothing_and_has_its_row(void **state)
{
	struct id turn = begin_under_budget();

	fake_holds_answer(0, NULL);
	world_run(0);
	fake_provider_fail(world.model, E_PROVIDER, "no");
	world_run(0);
	assert_string_equal(fake_store_turn(world.store, turn.s)->state, "failed");
	assert_string_equal(fake_store_usage(world.store, 0)->outcome, "provider_error");
	assert_int_equal(fake_store_usage(world.store, 0)->cost_micros, 0);
	assert_int_equal(fake_holds.forgotten, 1);
	assert_int_equal(fake_holds.counted_tokens, 0);
}

/* Until the record has the row the lease goes on. */
static void
test_held_until_the_end_is_recorded(void **state)
{
	begin_under_budget();
	fake_holds_answer(0, NULL);
	world_run(0);
	fake_store_fail(world.store, FAKE_END, E_STORE_UNAVAILABLE, 1);
	fake_provider_end(world.model);
	world_run(0);
	assert_int_equal(fake_holds.forgotten, 0);
	assert_int_equal(fake_holds_held(), 1);
	world_run(1000);
	assert_int_equal(fake_holds.forgotten, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_no_call_before_the_money_is_held),
	    TEST(test_a_turn_without_budget_asks_nobody),
	    TEST(test_no_money_no_call),
	    TEST(test_cancelled_while_it_waits_for_money),
	    TEST(test_cancelled_in_the_middle_costs_what_was_seen),
	    TEST(test_a_refused_call_costs_nothing_and_has_its_row),
	    TEST(test_held_until_the_end_is_recorded),
	};

	return cmocka_run_group_tests_name("turn_charge", tests, NULL, NULL);
}
