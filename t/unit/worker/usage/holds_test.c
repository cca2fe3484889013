/* Holds of a busy key: what the record is asked for, and what it holds at the end. */
#include "t/unit/worker/store/world.h"

#include "worker/usage/holds.h"

enum { LIMIT = 64000, COST = 10, BUSY = 8 };

static struct world w;
static struct holds *holds;
static struct {
	unsigned answers, refusals;
	int64_t spent, held, advanced;
} got;

static int
setup(void **state)
{
	world_init(&w);
	w.conf.budgets.lease_ms = 60000;
	world_start(&w);
	holds = holds_new(w.loop, &w.conf, w.store);
	memset(&got, 0, sizeof(got));
	return 0;
}

static int
teardown(void **state)
{
	holds_free(&holds);
	world_fini(&w);
	return 0;
}

static void
on_answer(void *arg, int err, const struct hold_refusal *refusal)
{
	if (err == 0)
		got.answers++;
	else
		got.refusals++;
}

static uint64_t
ask(int64_t cost)
{
	struct id id = id_new("use");
	struct hold_question q = {.key = {LIMIT, BUDGET_TOTAL},
	    .usage = {.id = id.s,
		.app_id = "demo",
		.key_id = "key_1",
		.model = "m",
		.cost_micros = cost,
		.created_at = clock_wall_ms()}};

	return hold_ask(holds, &q, on_answer, NULL);
}

static void
until_answers(unsigned count)
{
	for (int i = 0; i < 2000 && got.answers < count; i++)
		world_turn(&w);
	assert_int_equal(got.answers, count);
}

static void
on_refused(void *arg, int err, const struct store_budget_state *s)
{
	assert_int_equal(err, E_BUDGET_EXCEEDED);
	got.spent = s->spent_micros;
	got.held = s->held_micros;
	got.advanced = s->advanced_micros;
	world_came(&w);
}

/* What the record says, by asking for more than there can be. */
static void
look(void)
{
	struct store_budget_hold h = {.usage = {.id = "look",
					  .app_id = "demo",
					  .key_id = "key_1",
					  .model = "m",
					  .cost_micros = LIMIT + 1,
					  .created_at = clock_wall_ms()},
	    .key_limit_micros = LIMIT};

	world_expect(&w);
	store_budget_hold(w.store, &h, on_refused, NULL);
	world_wait(&w);
}

static void
until_held(int64_t micros)
{
	for (int i = 0; i < 2000; i++) {
		look();
		if (got.held == micros)
			return;
		world_turn(&w);
	}
	fail_msg("%lld are held", (long long)got.held);
}

/* Asks until the record holds money ahead; returns how many asked. */
static unsigned
become_busy(uint64_t *handles, unsigned max)
{
	for (unsigned n = 0; n < max; n++) {
		handles[n] = ask(COST);
		until_answers(n + 1);
		look();
		if (got.advanced > 0)
			return n + 1;
	}
	fail_msg("no advance");
	return 0;
}

static void
a_quiet_key_asks_for_each_call(void **state)
{
	uint64_t one = ask(COST), other = ask(COST);

	until_answers(2);
	look();
	assert_int_equal(got.held, 2 * COST);
	assert_int_equal(got.advanced, 0);
	hold_release(holds, one);
	hold_release(holds, other);
	until_held(0);
	assert_true(holds_are_drained(holds));
}

static void
a_busy_key_is_paid_ahead(void **state)
{
	uint64_t handles[64], drawn;
	unsigned n = become_busy(handles, 64);

	assert_true(n >= BUSY);
	assert_true(got.advanced <= LIMIT / STORE_ADVANCE_SHARE);
	drawn = ask(COST);
	assert_int_equal(got.answers, n); /* never from inside */
	until_answers(n + 1);
	/* It lasts: a hold of its own, and less ahead. */
	for (int i = 0; i < 2000 && got.held - got.advanced < (n + 1) * COST; i++) {
		world_turn(&w);
		look();
	}
	assert_int_equal(got.held - got.advanced, (n + 1) * COST);
	/* Nobody draws any more: what is ahead goes back, what calls hold stays. */
	until_held((n + 1) * COST);
	assert_int_equal(got.advanced, 0);
	hold_release(holds, drawn);
	for (unsigned i = 0; i < n; i++)
		hold_release(holds, handles[i]);
	until_held(0);
}

static void
what_is_returned_at_once_was_never_held(void **state)
{
	uint64_t handles[64];
	unsigned n = become_busy(handles, 64);

	for (unsigned i = 0; i < 50; i++)
		hold_release(holds, ask(COST)); /* before its answer */
	world_turn(&w);
	assert_int_equal(got.answers, n);
	assert_int_equal(got.refusals, 0);
	until_held(n * COST);
	assert_int_equal(got.spent, 0);
}

static void
nothing_is_ahead_after_a_drain(void **state)
{
	uint64_t handles[64];
	unsigned n = become_busy(handles, 64);

	assert_false(holds_are_drained(holds));
	holds_drain(holds);
	for (int i = 0; i < 2000 && !holds_are_drained(holds); i++)
		world_turn(&w);
	assert_true(holds_are_drained(holds));
	until_held(n * COST);
	/* Calls go on, each asked for. */
	for (unsigned i = 0; i < 2 * BUSY; i++)
		ask(COST);
	until_answers(n + 2 * BUSY);
	look();
	assert_int_equal(got.advanced, 0);
	assert_int_equal(got.held, (n + 2 * BUSY) * COST);
}

/* Whoever would fit but for the money ahead gets it. */
static void
the_last_money_is_spent_too(void **state)
{
	uint64_t handles[64];
	unsigned n = become_busy(handles, 64);

	ask(LIMIT - (int64_t)n * COST);
	until_answers(n + 1);
	until_held(LIMIT);
	assert_int_equal(got.advanced, 0);
	ask(COST);
	for (int i = 0; i < 2000 && got.refusals == 0; i++)
		world_turn(&w);
	assert_int_equal(got.refusals, 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    T(a_quiet_key_asks_for_each_call),
	    T(a_busy_key_is_paid_ahead),
	    T(what_is_returned_at_once_was_never_held),
	    T(nothing_is_ahead_after_a_drain),
	    T(the_last_money_is_spent_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
