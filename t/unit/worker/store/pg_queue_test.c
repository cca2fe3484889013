/* pg_queue_test - who is next of those who wait for a connection. */
#include "t/unit/unit.h"

#include "worker/store/ops.h"
#include "worker/store/pg_queue.h"

enum { JOBS = 64 };

static struct pg_queue q;
static struct job jobs[JOBS];
static unsigned used;

static int
setup(void **state)
{
	used = 0;
	pg_queue_init(&q, 4);
	return 0;
}

static struct job *
add(const struct op *op)
{
	struct job *job = &jobs[used];

	assert_true(used < JOBS);
	*job = (struct job){.op = op, .seq = used, .deadline_ms = 1000 + used};
	used++;
	pg_queue_add(&q, job);
	return job;
}

static struct job *
start_next(void)
{
	struct job *job = pg_queue_next(&q);

	if (job != NULL)
		pg_queue_start(&q, job);
	return job;
}

static void
what_ends_a_turn_goes_before_what_came_earlier(void **state)
{
	struct job *read = add(&op_turn_get), *slow = add(&op_usage_by_model);
	struct job *begin = add(&op_turn_begin), *end = add(&op_turn_end);
	struct job *lease = add(&op_host_renew);

	assert_ptr_equal(start_next(), end);
	assert_ptr_equal(start_next(), lease);
	assert_ptr_equal(start_next(), read);
	assert_ptr_equal(start_next(), slow);
	assert_ptr_equal(start_next(), begin);
	assert_null(start_next());
	assert_int_equal(q.count, 0);
}

static void
but_not_for_ever(void **state)
{
	unsigned since = 0, reads = 0;

	for (int i = 0; i < 3; i++)
		add(&op_turn_get);
	for (int i = 0; i < 40; i++)
		add(&op_turn_end);
	while (q.count > 0) {
		const struct job *job = start_next();

		assert_non_null(job);
		since = job->op == &op_turn_get ? 0 : since + 1;
		reads += job->op == &op_turn_get;
		assert_true(reads == 3 || since <= PG_AHEAD_MAX);
		if (reads == 3)
			break;
	}
	assert_int_equal(q.count, 40 - 3 * PG_AHEAD_MAX);
	/* Those who come when nobody else waits owe nothing. */
	while (start_next() != NULL)
		;
	struct job *read = add(&op_turn_get), *end = add(&op_turn_end);
	assert_ptr_equal(start_next(), end);
	assert_ptr_equal(start_next(), read);
}

static void
slow_reads_leave_a_connection_to_the_others(void **state)
{
	for (int i = 0; i < 5; i++)
		add(&op_usage_by_model);
	for (int i = 0; i < 3; i++)
		assert_ptr_equal(start_next()->op, &op_usage_by_model);
	assert_null(start_next());
	assert_int_equal(q.count, 2);
	struct job *read = add(&op_turn_get);
	assert_ptr_equal(start_next(), read);
	pg_queue_ended(&q, &op_turn_get);
	assert_null(start_next());
	pg_queue_ended(&q, &op_usage_by_model);
	assert_ptr_equal(start_next(), &jobs[3]);
	assert_null(start_next());
}

static void
of_one_connection_nothing_can_be_left(void **state)
{
	pg_queue_init(&q, 1);
	struct job *slow = add(&op_usage_by_model), *end = add(&op_turn_end);
	assert_ptr_equal(start_next(), end);
	assert_ptr_equal(start_next(), slow);
}

static void
one_that_is_repeated_stands_where_it_stood(void **state)
{
	struct job *a = add(&op_turn_end), *b = add(&op_turn_end), *c = add(&op_turn_end);

	assert_ptr_equal(start_next(), a);
	assert_ptr_equal(start_next(), b);
	pg_queue_add(&q, b);
	pg_queue_add(&q, a);
	assert_ptr_equal(start_next(), a);
	assert_ptr_equal(start_next(), b);
	assert_ptr_equal(start_next(), c);
}

static void
the_time_of_each_lane_runs(void **state)
{
	assert_int_equal(pg_queue_deadline_ms(&q), UINT64_MAX);
	struct job *slow = add(&op_usage_by_model), *read = add(&op_turn_get),
		   *end = add(&op_turn_end);

	assert_int_equal(pg_queue_deadline_ms(&q), slow->deadline_ms);
	assert_null(pg_queue_take_late(&q, slow->deadline_ms - 1));
	assert_ptr_equal(pg_queue_take_late(&q, slow->deadline_ms), slow);
	assert_null(pg_queue_take_late(&q, slow->deadline_ms));
	assert_int_equal(pg_queue_deadline_ms(&q), read->deadline_ms);
	assert_ptr_equal(pg_queue_take_any(&q), end);
	assert_ptr_equal(pg_queue_take_any(&q), read);
	assert_null(pg_queue_take_any(&q));
	assert_int_equal(q.count, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(what_ends_a_turn_goes_before_what_came_earlier, setup),
	    cmocka_unit_test_setup(but_not_for_ever, setup),
	    cmocka_unit_test_setup(slow_reads_leave_a_connection_to_the_others, setup),
	    cmocka_unit_test_setup(of_one_connection_nothing_can_be_left, setup),
	    cmocka_unit_test_setup(one_that_is_repeated_stands_where_it_stood, setup),
	    cmocka_unit_test_setup(the_time_of_each_lane_runs, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
