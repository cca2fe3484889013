/* pg_plan_test - what of an operation goes together, and what PostgreSQL's errors mean. */
#include "t/unit/unit.h"

#include "common/err.h"
#include "worker/store/pg_error.h"
#include "worker/store/pg_plan.h"

/* The statements of each batch, with a bar between batches and C where COMMIT goes along. */
static const char *
batches_of(const struct op *op)
{
	static char out[64];
	struct pg_plan plan;
	unsigned first;
	size_t n = 0;

	pg_plan_init(&plan, op);
	first = pg_plan_next(&plan, 0);
	for (unsigned i = first; i < OP_STATEMENTS_MAX; i = pg_plan_next(&plan, i + 1)) {
		out[n++] = (char)('a' + i);
		if (!plan.statements[i].is_batch_end)
			continue;
		if (plan.mode != PG_PLAIN && pg_plan_commits_with(&plan, op, first))
			out[n++] = 'C';
		first = pg_plan_next(&plan, i + 1);
		if (first < OP_STATEMENTS_MAX)
			out[n++] = '|';
	}
	out[n] = '\0';
	pg_plan_fini(&plan);
	return out;
}

static enum pg_mode
mode_of(const struct op *op)
{
	struct pg_plan plan;
	enum pg_mode mode;

	pg_plan_init(&plan, op);
	mode = plan.mode;
	pg_plan_fini(&plan);
	return mode;
}

static void
one_statement_is_plain(void **state)
{
	assert_int_equal(mode_of(&op_session_get), PG_PLAIN);
	assert_int_equal(
	    mode_of(&op_session_close), PG_PLAIN); /* nothing changed: nothing to undo */
	assert_int_equal(mode_of(&op_probe), PG_PLAIN);
	assert_string_equal(batches_of(&op_session_get), "a");
}

static void
reads_of_several_see_one_state(void **state)
{
	assert_int_equal(mode_of(&op_message_list), PG_SNAPSHOT);
	assert_string_equal(batches_of(&op_message_list), "abC");
}

static void
all_of_a_transaction_goes_at_once(void **state)
{
	assert_int_equal(mode_of(&op_turn_begin), PG_TRANSACTION);
	assert_string_equal(batches_of(&op_turn_begin), "abcdefghijk");
	assert_int_equal(mode_of(&op_key_revoke), PG_TRANSACTION);
	assert_string_equal(batches_of(&op_key_revoke), "ab");
}

/* A session that is reused was written: what makes a new one waits for the answer. */
static void
a_write_that_may_end_well_ends_the_batch(void **state)
{
	assert_int_equal(mode_of(&op_session_open), PG_TRANSACTION);
	assert_string_equal(batches_of(&op_session_open), "abc|dC");
}

static void
writes_without_a_verdict_are_plain_together(void **state)
{
	static const struct op op = {.name = "x",
	    .params = "",
	    .is_write = true,
	    .statements = {{.sql = "DELETE FROM a"}, {.sql = ""}, {.sql = "DELETE FROM b"}}};

	assert_int_equal(mode_of(&op), PG_PLAIN);
	assert_string_equal(batches_of(&op), "ac");
}

static void
slow_reads_and_transactions_are_alone(void **state)
{
	struct pg_plan plan;
	const struct op *alone[] = {&op_session_count, &op_turn_begin, &op_message_list};

	for (int i = 0; i < 3; i++) {
		pg_plan_init(&plan, alone[i]);
		assert_true(pg_plan_is_alone(&plan, alone[i]));
		pg_plan_fini(&plan);
	}
	pg_plan_init(&plan, &op_turn_get);
	assert_false(pg_plan_is_alone(&plan, &op_turn_get));
	pg_plan_fini(&plan);
}

static void
expect_error(const char *sqlstate, const char *constraint, bool is_repeated,
    enum pg_verdict verdict, int wanted)
{
	int err = 1;

	assert_int_equal(
	    pg_error_judge(&op_turn_begin, sqlstate, constraint, is_repeated, &err), verdict);
	assert_int_equal(err, wanted);
}

static void
errors_are_told_apart(void **state)
{
	const int away = E_STORE_UNAVAILABLE;

	expect_error(NULL, NULL, false, PG_REPEAT_ELSEWHERE, away);
	expect_error("57P01", NULL, false, PG_REPEAT_ELSEWHERE, away);
	expect_error("25006", NULL, false, PG_REPEAT_ELSEWHERE, away);
	expect_error("57014", NULL, false, PG_FAILING, away); /* the longer code wins */
	expect_error("53100", NULL, false, PG_FAILING, away);
	expect_error("40P01", NULL, false, PG_REPEAT, away);
	expect_error("26000", NULL, false, PG_REPEAT, away);
	expect_error("42P05", NULL, false, PG_REPEAT, away);
	expect_error("42P01", NULL, false, PG_OWN, E_INTERNAL);
	expect_error("54000", NULL, false, PG_OWN, E_PAYLOAD_TOO_LARGE);
	expect_error("23505", "turns_live", false, PG_OWN, E_TURN_IN_PROGRESS);
	expect_error("23505", "turns_request", true, PG_OWN, E_DUPLICATE);
	expect_error("23505", "turns_pkey", false, PG_OWN, E_INTERNAL);
	/* Its own first try, which was committed behind its back. */
	expect_error("23505", "turns_pkey", true, PG_REPEAT, away);
	expect_error("23503", "turns_live", false, PG_OWN, E_INTERNAL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(one_statement_is_plain),
	    cmocka_unit_test(reads_of_several_see_one_state),
	    cmocka_unit_test(all_of_a_transaction_goes_at_once),
	    cmocka_unit_test(a_write_that_may_end_well_ends_the_batch),
	    cmocka_unit_test(writes_without_a_verdict_are_plain_together),
	    cmocka_unit_test(slow_reads_and_transactions_are_alone),
	    cmocka_unit_test(errors_are_told_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
