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
	assert_int_equal(fake_holds.on_the_way, 1);
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

/* ---- what the record does not take ---- */

static void
test_the_usage_of_a_fenced_turn_is_not_lost(void **state)
{
	struct id turn = begin_under_budget();
	char id[64];

	snprintf(id, sizeof(id), "%s.0", turn.s);
	fake_holds_answer(0, NULL);
	world_run(0);
	fake_provider_say(world.model, "eight by");
	world_run(0);
	fake_store_fence(world.store, turn.s);
	world_run(1000); /* the next progress finds out */
	assert_null(fake_store_usage(world.store, 0));
	assert_int_equal(fake_holds.late, 1);
	assert_string_equal(fake_holds.late_id, id);
}

static void
test_a_fence_found_at_the_end_loses_no_usage(void **state)
{
	struct id turn = world_begin(0, "Hello");

	fake_store_fence(world.store, turn.s);
	fake_provider_end(world.model);
	world_run(0);
	assert_null(fake_store_usage(world.store, 0));
	assert_int_equal(fake_holds.late, 1);
}

/* Its own write is repeated without them. */
static void
test_rows_do_not_wait_for_an_end_that_is_late(void **state)
{
	world_begin(0, "Hello");
	fake_store_fail(world.store, FAKE_END, E_STORE_UNAVAILABLE, 1);
	fake_provider_end(world.model);
	world_run(0);
	assert_int_equal(fake_holds.late, 1);
	world_run(1000);
	assert_int_equal(fake_store_calls(world.store, FAKE_END), 2);
	assert_null(fake_store_usage(world.store, 0));
	assert_int_equal(fake_holds.late, 1);
}

/* ---- tokens per minute ---- */

static struct id
begin_with_tokens(struct request *r)
{
	request_init(r, "Hello");
	r->start.tokens.limit = 60;
	request_send(r, 0);
	world_run(0);
	assert_int_equal(r->err, 0);
	return r->started.turn_id;
}

static void
test_tokens_are_reserved_and_settled(void **state)
{
	struct request r;

	begin_with_tokens(&r);
	assert_int_equal(fake_provider_calls(world.model), 1);
	assert_true(fake_holds.asked_tokens > 0);
	assert_int_equal(fake_holds.settled, 0);
	fake_provider_end(world.model);
	world_run(0);
	assert_int_equal(fake_holds.settled, 1);
	assert_int_equal(fake_holds.settled_reserved, fake_holds.asked_tokens);
	assert_int_equal(fake_holds.settled_used, 15);
}

static void
test_without_tokens_no_call(void **state)
{
	struct request r;
	struct answer_seen a;

	fake_holds.tokens_verdict =
	    (struct limiter_verdict){.limit = 60, .remaining = 3, .retry_after_ms = 7001};
	struct id turn = begin_with_tokens(&r);
	assert_int_equal(fake_provider_calls(world.model), 0);
	assert_string_equal(fake_store_turn(world.store, turn.s)->error_code, "rate_limited");
	assert_non_null(strstr(fake_store_turn(world.store, turn.s)->error_message,
	    "60 tokens per minute; try again in 8 s"));
	world_ask(&a, 0, &turn, 0);
	const json_t *limit = json_object_get(a.state, "limit");
	assert_int_equal(json_integer_value(json_object_get(limit, "amount")), 60);
	assert_int_equal(json_integer_value(json_object_get(limit, "remaining")), 3);
	assert_int_equal(
	    json_integer_value(json_object_get(json_object_get(a.state, "error"), "retry_after")),
	    8);
	assert_int_equal(fake_holds.settled, 0);
	assert_null(fake_store_usage(world.store, 0));
	json_decref(a.state);
}

static void
test_tokens_of_all_hosts(void **state)
{
	struct request r;

	fake_holds.is_far = true;
	begin_with_tokens(&r);
	assert_int_equal(fake_provider_calls(world.model), 0);
	assert_true(fake_tokens_are_asked());
	fake_tokens_answer();
	world_run(0);
	assert_int_equal(fake_provider_calls(world.model), 1);
	fake_provider_end(world.model);
	world_run(0);
	assert_int_equal(fake_holds.settled, 1);
}

static void
test_cancelled_while_it_waits_for_tokens(void **state)
{
	struct request r;
	struct answer_seen a;

	fake_holds.is_far = true;
	struct id turn = begin_with_tokens(&r);
	world_cancel(&a, 0, &turn);
	world_run(0);
	assert_false(fake_tokens_are_asked());
	assert_string_equal(fake_store_turn(world.store, turn.s)->state, "cancelled");
	assert_int_equal(fake_provider_calls(world.model), 0);
}

static void
test_tokens_go_back_when_there_is_no_money(void **state)
{
	const struct hold_refusal refusal = {.message = "It is used up."};
	struct request r;
	struct answer_seen a;

	request_init(&r, "Hello");
	r.start.tokens.limit = 60;
	r.start.budget = (struct budget_rule){1000, BUDGET_DAY};
	request_send(&r, 0);
	world_run(0);
	fake_holds_answer(E_BUDGET_EXCEEDED, &refusal);
	world_run(0);
	assert_int_equal(fake_holds.settled, 1);
	assert_int_equal(fake_holds.settled_used, 0);
	world_ask(&a, 0, &r.started.turn_id, 0);
	assert_string_equal(
	    json_string_value(json_object_get(json_object_get(a.state, "budget"), "of")), "key");
	json_decref(a.state);
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
	    TEST(test_the_usage_of_a_fenced_turn_is_not_lost),
	    TEST(test_a_fence_found_at_the_end_loses_no_usage),
	    TEST(test_rows_do_not_wait_for_an_end_that_is_late),
	    TEST(test_tokens_are_reserved_and_settled),
	    TEST(test_without_tokens_no_call),
	    TEST(test_tokens_of_all_hosts),
	    TEST(test_cancelled_while_it_waits_for_tokens),
	    TEST(test_tokens_go_back_when_there_is_no_money),
	};

	return cmocka_run_group_tests_name("turn_charge", tests, NULL, NULL);
}
