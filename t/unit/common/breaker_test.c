/* breaker_test - the states of one breaker, with the clock in hand. */
#include "t/unit/unit.h"

#include "common/breaker.h"

static const struct breaker_rule rule = {
    .failures = 5, .failure_rate = 0.2, .calls_min = 20, .window_ms = 60000, .recovery_ms = 1000};
static const struct breaker_rule only_row = {
    .failures = 3, .window_ms = 60000, .recovery_ms = 1000};
static const struct shm_who me = {1, 7};
static struct breaker b;
static struct breaker_pass pass;

static bool
enter(const struct breaker_rule *r, uint64_t now_ms)
{
	bool allows = breaker_allows(&b, r, NULL, now_ms);

	assert_int_equal(breaker_enter(&b, r, NULL, me, now_ms, &pass), allows);
	return allows;
}

static bool
call(const struct breaker_rule *r, enum breaker_outcome outcome, uint64_t now_ms)
{
	assert_true(enter(r, now_ms));
	return breaker_record(&b, r, pass, outcome, now_ms);
}

static int
setup(void **state)
{
	(void)state;
	b = (struct breaker){0};
	return 0;
}

static void
test_failures_in_a_row(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++)
		assert_false(call(&rule, BREAKER_FAILURE, 10));
	assert_false(call(&rule, BREAKER_SUCCESS, 10)); /* the row begins anew */
	for (int i = 0; i < 4; i++)
		assert_false(call(&rule, BREAKER_FAILURE, 10));
	assert_int_equal(breaker_state(&b), BREAKER_CLOSED);
	assert_true(call(&rule, BREAKER_FAILURE, 11));
	assert_int_equal(breaker_state(&b), BREAKER_OPEN);
	assert_false(enter(&rule, 12));
	assert_int_equal(breaker_wait_ms(&b, &rule, 12), 999);
	assert_false(enter(&rule, 1010));
}

static void
test_failure_rate(void **state)
{
	static const struct breaker_rule r = {
	    .failure_rate = 0.2, .calls_min = 20, .window_ms = 60000, .recovery_ms = 1000};
	(void)state;

	for (int i = 0; i < 4; i++)
		assert_false(call(&r, BREAKER_FAILURE, 10)); /* 100 %, but of too few */
	for (int i = 0; i < 16; i++)
		assert_false(call(&r, BREAKER_SUCCESS, 20));
	/* 4 of 20 were failures; the next failure finds 5 of 21 */
	assert_true(call(&r, BREAKER_FAILURE, 30));
	assert_int_equal(breaker_state(&b), BREAKER_OPEN);
}

static void
test_old_calls_do_not_count(void **state)
{
	(void)state;
	for (int i = 0; i < 20; i++)
		call(&rule, i % 5 == 0 ? BREAKER_SUCCESS : BREAKER_FAILURE, 10);
	assert_int_equal(breaker_state(&b), BREAKER_OPEN);
	assert_true(enter(&rule, 1010));
	assert_true(breaker_is_probe(&pass));
	assert_true(breaker_record(&b, &rule, pass, BREAKER_SUCCESS, 1020));
	/* after it was closed the window is empty */
	assert_false(call(&rule, BREAKER_FAILURE, 1030));
	assert_int_equal(breaker_state(&b), BREAKER_CLOSED);
}

static void
test_probe(void **state)
{
	struct breaker_pass other;

	(void)state;
	for (int i = 0; i < 3; i++)
		call(&only_row, BREAKER_FAILURE, 10);
	assert_true(enter(&only_row, 1010));
	assert_true(breaker_is_probe(&pass));
	assert_int_equal(breaker_state(&b), BREAKER_HALF_OPEN);
	assert_false(breaker_enter(&b, &only_row, NULL, me, 5000, &other)); /* one only */
	assert_true(breaker_record(&b, &only_row, pass, BREAKER_FAILURE, 2000));
	assert_int_equal(breaker_state(&b), BREAKER_OPEN);
	assert_false(enter(&only_row, 2999));
	assert_true(enter(&only_row, 3000));
	/* said twice, the second time of a probe that is over */
	other = pass;
	assert_true(breaker_record(&b, &only_row, pass, BREAKER_SUCCESS, 3100));
	assert_false(breaker_record(&b, &only_row, other, BREAKER_FAILURE, 3100));
	assert_int_equal(breaker_state(&b), BREAKER_CLOSED);
}

static void
test_probe_returned(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++)
		call(&only_row, BREAKER_FAILURE, 10);
	assert_true(enter(&only_row, 1010));
	breaker_return(&b, &only_row, pass, 1500);
	assert_int_equal(breaker_state(&b), BREAKER_OPEN);
	assert_true(enter(&only_row, 1500)); /* the next one at once */
	assert_true(breaker_is_probe(&pass));
	/* nothing to return of a call that was no probe */
	assert_true(breaker_record(&b, &only_row, pass, BREAKER_SUCCESS, 1600));
	assert_true(enter(&only_row, 1700));
	breaker_return(&b, &only_row, pass, 1700);
	assert_int_equal(breaker_state(&b), BREAKER_CLOSED);
}

/* Calls from before the state changed say nothing about the time after. */
static void
test_late_news(void **state)
{
	struct breaker_pass late;

	(void)state;
	assert_true(breaker_enter(&b, &only_row, NULL, me, 5, &late));
	for (int i = 0; i < 3; i++)
		call(&only_row, BREAKER_FAILURE, 10);
	assert_false(breaker_record(&b, &only_row, late, BREAKER_SUCCESS, 20));
	assert_int_equal(breaker_state(&b), BREAKER_OPEN);
	assert_true(enter(&only_row, 1010));
	assert_false(breaker_record(&b, &only_row, late, BREAKER_SUCCESS, 1011));
	assert_int_equal(breaker_state(&b), BREAKER_HALF_OPEN);
	assert_true(breaker_record(&b, &only_row, pass, BREAKER_SUCCESS, 1012));
	for (int i = 0; i < 5; i++)
		assert_false(breaker_record(&b, &only_row, late, BREAKER_FAILURE, 1013));
	assert_int_equal(breaker_state(&b), BREAKER_CLOSED);
}

static void
test_dead_prober(void **state)
{
	struct shm *shm = shm_create(2);
	struct shm_who first, second;

	(void)state;
	assert_true(shm_row_claim(shm, 0, 1, &first));
	assert_true(shm_row_claim(shm, 1, 2, &second));
	for (int i = 0; i < 3; i++)
		call(&only_row, BREAKER_FAILURE, 10);
	assert_true(breaker_enter(&b, &only_row, shm, first, 1010, &pass));
	assert_false(breaker_enter(&b, &only_row, shm, second, 1020, &pass));
	shm_row_reap(shm, first);
	assert_true(breaker_allows(&b, &only_row, shm, 1020));
	assert_true(breaker_enter(&b, &only_row, shm, second, 1020, &pass));
	assert_false(breaker_allows(&b, &only_row, shm, 1020));
	assert_true(breaker_record(&b, &only_row, pass, BREAKER_SUCCESS, 1030));
	assert_int_equal(breaker_state(&b), BREAKER_CLOSED);
	shm_free(&shm);
}

static void
test_never(void **state)
{
	static const struct breaker_rule off = {.window_ms = 60000, .recovery_ms = 1000};

	(void)state;
	for (int i = 0; i < 100000; i++)
		assert_false(call(&off, BREAKER_FAILURE, 10));
	assert_int_equal(breaker_state(&b), BREAKER_CLOSED);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(test_failures_in_a_row, setup),
	    cmocka_unit_test_setup(test_failure_rate, setup),
	    cmocka_unit_test_setup(test_old_calls_do_not_count, setup),
	    cmocka_unit_test_setup(test_probe, setup),
	    cmocka_unit_test_setup(test_probe_returned, setup),
	    cmocka_unit_test_setup(test_late_news, setup),
	    cmocka_unit_test_setup(test_dead_prober, setup),
	    cmocka_unit_test_setup(test_never, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
