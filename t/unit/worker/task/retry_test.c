/* retry_test - which failures of a task are tried again, and when. */
#include "t/unit/unit.h"

#include "common/err.h"
#include "worker/task/retry.h"

static const struct task_retry usual = {.again = TASK_AGAIN,
    .attempts = 1,
    .attempts_max = 4,
    .backoff_ms = 2000,
    .backoff_max_ms = 120000,
    .left_ms = 3600000,
    .dice = 0.5};

static void
waits_double_with_jitter(void **state)
{
	struct task_retry r = usual;
	uint64_t ms, least, most;

	for (r.attempts = 1; r.attempts < 4; r.attempts++) {
		r.dice = 0;
		assert_true(task_retry_in(&r, &least));
		r.dice = 0.999;
		assert_true(task_retry_in(&r, &most));
		r.dice = 0.5;
		assert_true(task_retry_in(&r, &ms));
		assert_int_equal(ms, UINT64_C(1000) << r.attempts);
		assert_int_equal(least, ms / 2);
		assert_true(most > ms && most < ms * 3 / 2);
	}
	assert_false(task_retry_in(&r, &ms)); /* the last one */
	r.attempts = 90;
	r.attempts_max = 100;
	assert_true(task_retry_in(&r, &ms));
	assert_int_equal(ms, 120000);
}

static void
what_was_asked_for_is_kept(void **state)
{
	struct task_retry r = usual;
	uint64_t ms;

	r.retry_after_ms = 30000;
	assert_true(task_retry_in(&r, &ms));
	assert_true(ms >= 30000 && ms < 31000);
	r.left_ms = 20000; /* its time would be up */
	assert_false(task_retry_in(&r, &ms));
	r = usual;
	r.again = TASK_NEVER;
	assert_false(task_retry_in(&r, &ms));
	r.again = TASK_LATER; /* no attempt is used up */
	r.attempts = 1000;
	assert_true(task_retry_in(&r, &ms));
	assert_int_equal(ms, 1000);
}

static void
errors_are_told_apart(void **state)
{
	assert_int_equal(task_again_of(E_PROVIDER), TASK_AGAIN);
	assert_int_equal(task_again_of(E_PROVIDER_TIMEOUT), TASK_AGAIN);
	assert_int_equal(task_again_of(E_RATE_LIMITED), TASK_LATER);
	assert_int_equal(task_again_of(E_UNAVAILABLE), TASK_LATER);
	assert_int_equal(task_again_of(E_PROVIDER_REFUSED), TASK_NEVER);
	assert_int_equal(task_again_of(E_BUDGET_EXCEEDED), TASK_NEVER);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(waits_double_with_jitter),
	    cmocka_unit_test(what_was_asked_for_is_kept),
	    cmocka_unit_test(errors_are_told_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
