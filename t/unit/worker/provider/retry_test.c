/* retry_test - what follows a failure; the budget; Retry-After. */
#include "t/unit/unit.h"

#include <stdio.h>
#include <time.h>

#include "worker/provider/retry.h"

static struct retry_case
a_case(enum failure failure)
{
	return (struct retry_case){.failure = failure,
	    .tries = 1,
	    .retries_max = 3,
	    .backoff_factor_s = 0.5,
	    .backoff_max_ms = 30000,
	    .left_ms = UINT64_MAX,
	    .dice = 0.5};
}

static void
expect(struct retry_case c, enum retry_step step, uint32_t wait_ms)
{
	uint32_t got = 0;

	assert_int_equal(retry_decide(&c, &got), step);
	assert_int_equal(got, wait_ms);
}

static void
test_backoff(void **state)
{
	struct retry_case c = a_case(FAILURE_SERVER);

	expect(c, RETRY_SAME, 250);
	c.tries = 2;
	expect(c, RETRY_SAME, 500);
	c.tries = 3;
	expect(c, RETRY_SAME, 1000);
	c.dice = 0; /* full jitter: from nothing .. */
	expect(c, RETRY_SAME, 0);
	c.dice = 0.9999; /* .. to all of it */
	expect(c, RETRY_SAME, 1999);
	c.tries = 4; /* three retries were made */
	expect(c, RETRY_NOT, 0);
	c.has_next = true;
	expect(c, RETRY_NEXT, 0);
	c.retries_max = 20;
	c.tries = 15;
	expect(c, RETRY_SAME, 29997); /* backoff_max */
	c.tries = 4;
	c.left_ms = 3000; /* the wait would be longer */
	expect(c, RETRY_NEXT, 0);
}

static void
test_what_is_not_asked_again(void **state)
{
	static const enum failure once[] = {FAILURE_SILENT, FAILURE_STALLED, FAILURE_MALFORMED,
	    FAILURE_KEY, FAILURE_NO_MODEL, FAILURE_CONTEXT, FAILURE_NO_PLACE, FAILURE_OWN_LIMIT,
	    FAILURE_BREAKER};
	static const enum failure never[] = {FAILURE_REFUSED, FAILURE_TIME_UP, FAILURE_TOO_LARGE};
	static const enum failure again[] = {FAILURE_CONNECT, FAILURE_CONNECT_TIMEOUT, FAILURE_CUT,
	    FAILURE_SERVER, FAILURE_CONFLICT, FAILURE_RATE_LIMITED};

	for (size_t i = 0; i < sizeof(once) / sizeof(once[0]); i++) {
		struct retry_case c = a_case(once[i]);

		expect(c, RETRY_NOT, 0);
		c.has_next = true;
		expect(c, RETRY_NEXT, 0);
	}
	for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++) {
		struct retry_case c = a_case(never[i]);

		c.has_next = true;
		expect(c, RETRY_NOT, 0);
	}
	for (size_t i = 0; i < sizeof(again) / sizeof(again[0]); i++) {
		struct retry_case c = a_case(again[i]);

		c.has_next = true;
		expect(c, RETRY_SAME, 250);
		c.has_begun = true; /* not the same target, after the first token */
		expect(c, RETRY_NEXT, 0);
	}
}

static void
test_retry_after(void **state)
{
	struct retry_case c = a_case(FAILURE_RATE_LIMITED);

	c.retry_after_ms = 5000;
	expect(c, RETRY_SAME, 5000);
	c.has_next = true; /* longer than the wait would have been: the next target */
	expect(c, RETRY_NEXT, 0);
	c.retry_after_ms = 400;
	expect(c, RETRY_SAME, 400);
	c.has_next = false;
	c.retry_after_ms = 31000; /* beyond backoff_max */
	expect(c, RETRY_NOT, 0);
	c.retry_after_ms = 5000;
	c.left_ms = 5000; /* beyond the caller's time */
	expect(c, RETRY_NOT, 0);
	c.left_ms = 5001;
	expect(c, RETRY_SAME, 5000);
}

static void
test_budget(void **state)
{
	struct tally t = {0};

	for (int i = 0; i < 10; i++)
		assert_true(retry_take(&t, 1000));
	assert_false(retry_take(&t, 1000));
	for (int i = 0; i < 50; i++)
		retry_note_call(&t, 1000);
	assert_false(retry_take(&t, 1000)); /* 10 of 50 are the fifth */
	for (int i = 0; i < 5; i++)
		retry_note_call(&t, 1000);
	assert_true(retry_take(&t, 1000));
	assert_false(retry_take(&t, 1000));
	assert_true(retry_take(&t, 12000)); /* ten seconds later */
}

static void
test_retry_after_parse(void **state)
{
	int64_t now_ms = 784111777000; /* Sun, 06 Nov 1994 08:49:37 GMT */

	assert_int_equal(retry_after_parse(STR("7"), now_ms), 7000);
	assert_int_equal(retry_after_parse(STR("0"), now_ms), 0);
	assert_int_equal(retry_after_parse(STR(""), now_ms), 0);
	assert_int_equal(retry_after_parse(STR("-3"), now_ms), 0);
	assert_int_equal(retry_after_parse(STR("soon"), now_ms), 0);
	assert_int_equal(retry_after_parse(STR("99999999999"), now_ms), 86400000);
	assert_int_equal(retry_after_parse(STR("Sun, 06 Nov 1994 08:50:37 GMT"), now_ms), 60000);
	assert_int_equal(retry_after_parse(STR("Sunday, 06-Nov-94 08:50:37 GMT"), now_ms), 60000);
	assert_int_equal(retry_after_parse(STR("Sun Nov  6 08:50:37 1994"), now_ms), 60000);
	assert_int_equal(retry_after_parse(STR("Sun, 06 Nov 1994 08:49:36 GMT"), now_ms), 0);
	assert_int_equal(retry_after_parse(STR("Sun, 06 Nov 2094 08:49:36 GMT"), now_ms), 86400000);
	assert_int_equal(retry_after_parse(STR("Sun, 06 Nov 1994 08:50:37 GMTx"), now_ms), 0);
}

static void
test_statuses(void **state)
{
	static const struct {
		int status;
		const char *body;
		enum failure failure;
	} cases[] = {
	    {400, "{\"error\":{\"message\":\"no\"}}", FAILURE_REFUSED},
	    {400, "{\"error\":{\"code\":\"context_length_exceeded\"}}", FAILURE_CONTEXT},
	    {400, "{\"error\":{\"message\":\"This model's maximum context length is 8\"}}",
		FAILURE_CONTEXT},
	    {413, "", FAILURE_REFUSED},
	    {422, "", FAILURE_REFUSED},
	    {401, "", FAILURE_KEY},
	    {402, "", FAILURE_KEY},
	    {403, "", FAILURE_KEY},
	    {404, "", FAILURE_NO_MODEL},
	    {408, "", FAILURE_CONFLICT},
	    {409, "", FAILURE_CONFLICT},
	    {429, "", FAILURE_RATE_LIMITED},
	    {429, "{\"error\":{\"code\":\"insufficient_quota\"}}", FAILURE_KEY},
	    {500, "", FAILURE_SERVER},
	    {529, "", FAILURE_SERVER},
	    {302, "", FAILURE_MALFORMED},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		enum failure f = failure_of_status(cases[i].status, str_of(cases[i].body));

		if (f != cases[i].failure)
			fail_msg(
			    "%d %s: %s", cases[i].status, cases[i].body, failure_info(f)->name);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_backoff),
	    cmocka_unit_test(test_what_is_not_asked_again),
	    cmocka_unit_test(test_retry_after),
	    cmocka_unit_test(test_budget),
	    cmocka_unit_test(test_retry_after_parse),
	    cmocka_unit_test(test_statuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
