/* command_queue and reconnect: order, limits, ages; waits that grow, scatter and begin anew. */
#include "t/unit/unit.h"

#include "worker/backplane/command_queue.h"
#include "worker/backplane/reconnect.h"

static void
ignore(void *arg, const struct redisReply *reply)
{
}

static void
test_order_and_limit(void **state)
{
	struct command_queue q = {.max = 100};
	struct command c;
	static char args[1000];
	size_t in = 0, out = 0;

	/* The ring wraps many times while it grows. */
	for (int round = 0; round < 300; round++) {
		for (int i = 0; i < 3; i++)
			in +=
			    command_queue_push(&q, (struct command){ignore, &args[in % 1000], in});
		for (int i = 0; i < 2 && command_queue_pop(&q, &c); i++) {
			assert_ptr_equal(c.arg, &args[out % 1000]);
			assert_int_equal(c.sent_ms, out++);
		}
		assert_true(q.count <= 100);
	}
	assert_int_equal(in - out, q.count);
	while (command_queue_push(&q, (struct command){ignore, NULL, 1}))
		;
	assert_int_equal(q.count, 100);
	while (command_queue_pop(&q, &c))
		;
	assert_int_equal(q.count, 0);
	command_queue_fini(&q);
}

static void
test_age_and_forgetting(void **state)
{
	struct command_queue q = {.max = 10};
	struct command c;
	int a, b;

	assert_int_equal(command_queue_age_ms(&q, 1000), 0);
	assert_true(command_queue_push(&q, (struct command){ignore, &a, 900}));
	assert_true(command_queue_push(&q, (struct command){ignore, &b, 950}));
	assert_int_equal(command_queue_age_ms(&q, 1000), 100);
	command_queue_forget(&q, &a);
	assert_true(command_queue_pop(&q, &c));
	assert_null(c.on_reply);
	assert_true(command_queue_pop(&q, &c));
	assert_non_null(c.on_reply);
	command_queue_fini(&q);
}

static void
test_waits_grow_to_a_limit(void **state)
{
	struct reconnect r = {.failures = 0};
	uint32_t top = RECONNECT_FIRST_MS;

	for (int i = 0; i < 20; i++) {
		struct reconnect low = r, high = r;

		assert_int_equal(reconnect_delay_ms(&low, 1, 0), RECONNECT_MIN_MS);
		assert_int_equal(reconnect_delay_ms(&high, 1, top - RECONNECT_MIN_MS), top);
		reconnect_delay_ms(&r, 1, UINT64_MAX);
		top = top * 2 < RECONNECT_MAX_MS ? top * 2 : RECONNECT_MAX_MS;
	}
}

static void
test_waits_begin_anew_after_a_stable_time(void **state)
{
	struct reconnect r = {.failures = 0};
	const uint64_t last = RECONNECT_FIRST_MS - RECONNECT_MIN_MS;

	for (int i = 0; i < 5; i++)
		reconnect_delay_ms(&r, 1, 0);
	reconnect_up(&r, 1000);
	assert_true(reconnect_delay_ms(&r, 1500, UINT64_MAX) > 0);
	assert_int_equal(r.failures, 6); /* up, but not for long */
	reconnect_up(&r, 2000);
	assert_int_equal(
	    reconnect_delay_ms(&r, 2000 + RECONNECT_STABLE_MS, last), RECONNECT_FIRST_MS);
	assert_int_equal(r.failures, 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_order_and_limit),
	    cmocka_unit_test(test_age_and_forgetting),
	    cmocka_unit_test(test_waits_grow_to_a_limit),
	    cmocka_unit_test(test_waits_begin_anew_after_a_stable_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
