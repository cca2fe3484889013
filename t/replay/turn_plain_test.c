/* turn_plain - one answer from its request to its record, and everything that can fail on the way.
 */
#include "t/unit/unit.h"

#include "common/err.h"
#include "t/replay/turn_world.h"

static void
test_a_plain_turn(void **state)
{
	struct id turn = world_begin(0, "Hello");
	struct client c;

	client_attach(&c, 0, &turn, 0);
	client_expect(&c, "turn.started");
	fake_provider_say(world.model, "Good ");
	fake_provider_say(world.model, "morn");
	world_run(0);
	fake_provider_say(world.model, "ing");
	world_run(0);
	fake_provider_end(world.model);
	world_run(0);
	/* What came together is one event. */
	client_expect(&c, "turn.started text.delta text.delta usage turn.completed");
	client_expect_text(&c, "Good morning");
	client_expect_seqs(&c, 1);
	assert_int_equal(c.ends, 1);
	assert_int_equal(c.end_err, 0);
	const json_t *done = client_last(&c, TURN_COMPLETED);
	assert_string_equal(json_string_value(json_object_get(done, "finish_reason")), "stop");
	assert_string_equal(
	    json_string_value(json_object_get(json_object_get(done, "message"), "content")),
	    "Good morning");
	const struct store_turn *r = fake_store_turn(world.store, turn.s);
	assert_string_equal(r->state, "completed");
	assert_string_equal(r->text, "Good morning");
	assert_int_equal(r->last_seq, 5);
	assert_int_equal(fake_store_message_count(world.store), 2);
	assert_int_equal(fake_store_usage(world.store, 0)->cost_micros, 20);
	assert_int_equal(turns_live(world.workers[0].turns), 0);
	client_forget(&c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_a_plain_turn, world_setup, world_teardown),
	};

	return cmocka_run_group_tests_name("turn_plain", tests, NULL, NULL);
}
