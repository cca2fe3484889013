/* Money held in the record: what fits, what does not, what becomes of a hold; everything twice. */
#include "t/unit/worker/store/world.h"

#include <stdio.h>

#include "common/err.h"

#define DAY_MS INT64_C(86400000)

static struct world w;
static const int64_t now = 20000 * DAY_MS + 5000;

static struct {
	int err;
	bool is_app;
	int64_t spent, held, advanced, amount;
	uint64_t count;
	struct store_usage_day days[8];
	char models[8][32];
} got;

static int
setup(void **state)
{
	world_init(&w);
	world_start(&w);
	return 0;
}

static int
teardown(void **state)
{
	world_fini(&w);
	return 0;
}

static void
expect(void)
{
	memset(&got, 0, sizeof(got));
	world_expect(&w);
}

static void
on_held(void *arg, int err, const struct store_budget_state *s)
{
	got.err = err;
	got.is_app = s->is_app;
	got.spent = s->spent_micros;
	got.held = s->held_micros;
	got.advanced = s->advanced_micros;
	world_came(&w);
}

static void
on_advanced(void *arg, int err, int64_t amount)
{
	got.err = err;
	got.amount = amount;
	world_came(&w);
}

static void
on_done(void *arg, int err)
{
	got.err = err;
	world_came(&w);
}

static void
on_count(void *arg, int err, uint64_t count)
{
	got.err = err;
	got.count = count;
	world_came(&w);
}

static void
on_days(void *arg, int err, const struct store_usage_day *days, size_t count)
{
	got.err = err;
	got.count = count;
	for (size_t i = 0; i < count && i < 8; i++) {
		got.days[i] = days[i];
		snprintf(got.models[i], sizeof(got.models[i]), "%s", days[i].sum.model);
	}
	world_came(&w);
}

static struct store_usage
usage(const char *id, int64_t cost, int64_t at)
{
	return (struct store_usage){.id = id,
	    .app_id = "demo",
	    .key_id = "key_1",
	    .model = "m",
	    .input_tokens = 10,
	    .output_tokens = 5,
	    .cost_micros = cost,
	    .outcome = "ok",
	    .created_at = at};
}

static int
hold_in(const char *id, int64_t cost, int64_t key_limit, int64_t app_limit, int64_t at)
{
	struct store_budget_hold h = {.usage = usage(id, cost, at),
	    .key_limit_micros = key_limit,
	    .app_limit_micros = app_limit,
	    .key_day = at / DAY_MS,
	    .app_day = 0,
	    .lapses_at = at + 1000};

	expect();
	store_budget_hold(w.store, &h, on_held, NULL);
	world_wait(&w);
	return got.err;
}

static int
hold(const char *id, int64_t cost, int64_t key_limit, int64_t app_limit)
{
	return hold_in(id, cost, key_limit, app_limit, now);
}

static int
use(const char *id, int64_t cost, int64_t at)
{
	struct store_usage u = usage(id, cost, at);
	const struct store_usage *rows[] = {&u};

	expect();
	store_usage_add(w.store, rows, 1, on_done, NULL);
	world_wait(&w);
	return got.err;
}

static void
days(int64_t from, int64_t to)
{
	expect();
	store_usage_days(w.store,
	    &(struct store_usage_filter){.from_day = from, .to_day = to, .limit = 8}, on_days,
	    NULL);
	world_wait(&w);
	assert_int_equal(got.err, 0);
}

static void
what_fits_is_held_and_what_does_not_is_not(void **state)
{
	assert_int_equal(hold("a", 60, 100, 0), 0);
	assert_int_equal(hold("a", 60, 100, 0), 0); /* its repetition holds nothing more */
	assert_int_equal(hold("b", 41, 100, 0), E_BUDGET_EXCEEDED);
	assert_false(got.is_app);
	assert_int_equal(got.spent, 0);
	assert_int_equal(got.held, 60);
	assert_int_equal(hold("b", 40, 100, 0), 0);
	assert_int_equal(hold("c", 1, 0, 100), E_BUDGET_EXCEEDED); /* the app's counts both */
	assert_true(got.is_app);
	assert_int_equal(got.held, 100);
	assert_int_equal(hold("c", INT64_MAX, INT64_MAX, 0), E_BUDGET_EXCEEDED);
	assert_int_equal(hold("c", 1, 0, 0), 0); /* no budget */
}

static void
usage_takes_the_place_of_its_hold(void **state)
{
	assert_int_equal(hold("a", 60, 100, 0), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(use("a", 10, now), 0);
	assert_int_equal(hold("b", 91, 100, 0), E_BUDGET_EXCEEDED);
	assert_int_equal(got.spent, 10);
	assert_int_equal(got.held, 0);
	days(20000, 20000);
	assert_int_equal(got.count, 1);
	assert_int_equal(got.days[0].sum.calls, 1);
	assert_int_equal(got.days[0].sum.cost_micros, 10);
	assert_int_equal(got.days[0].sum.input_tokens, 10);
	assert_int_equal(got.days[0].failed_calls, 0);
	/* It may cost more than was held: then the budget is over, and nothing is held any more. */
	assert_int_equal(hold("b", 90, 100, 0), 0);
	assert_int_equal(use("b", 500, now), 0);
	assert_int_equal(hold("c", 0, 100, 0), E_BUDGET_EXCEEDED);
	assert_int_equal(got.spent, 510);
}

static void
what_is_released_is_there_again(void **state)
{
	assert_int_equal(hold("a", 100, 100, 0), 0);
	for (int i = 0; i < 2; i++) {
		expect();
		store_budget_release(w.store, "a", on_done, NULL);
		world_wait(&w);
		assert_int_equal(got.err, 0);
	}
	assert_int_equal(hold("b", 100, 100, 0), 0);
	days(0, 30000);
	assert_int_equal(got.count, 0);
}

static void
each_period_begins_anew(void **state)
{
	assert_int_equal(use("a", 100, now), 0);
	assert_int_equal(hold("b", 1, 100, 0), E_BUDGET_EXCEEDED);
	assert_int_equal(hold_in("c", 100, 100, 0, now + DAY_MS), 0);
	/* What began yesterday is yesterday's, whenever it ends. */
	assert_int_equal(hold("d", 50, 250, 0), 0);
	assert_int_equal(use("d", 50, now), 0);
	assert_int_equal(hold_in("e", 1, 100, 0, now + DAY_MS), E_BUDGET_EXCEEDED);
	assert_int_equal(got.spent, 0);
	assert_int_equal(got.held, 100);
	days(20000, 20001);
	assert_int_equal(got.count, 1);
	assert_int_equal(got.days[0].sum.cost_micros, 150);
}

static void
lose(int64_t at, uint64_t count)
{
	expect();
	store_budget_lose(w.store, at, on_count, NULL);
	world_wait(&w);
	assert_int_equal(got.err, 0);
	assert_int_equal(got.count, count);
}

static void
what_nobody_renews_is_spent_at_its_estimate(void **state)
{
	const char *ids[] = {"b", "gone"};

	assert_int_equal(hold("a", 30, 100, 0), 0);
	assert_int_equal(hold("b", 20, 100, 0), 0);
	lose(now + 1000, 0); /* not yet */
	expect();
	store_budget_renew(w.store, ids, 2, now + 9000, on_done, NULL);
	world_wait(&w);
	assert_int_equal(got.err, 0);
	lose(now + 1001, 1);
	lose(now + 1001, 0);
	assert_int_equal(hold("c", 51, 100, 0), E_BUDGET_EXCEEDED);
	assert_int_equal(got.spent, 30);
	assert_int_equal(got.held, 20);
	days(20000, 20000);
	assert_int_equal(got.days[0].sum.calls, 1);
	assert_int_equal(got.days[0].failed_calls, 1);
	/* Whoever was taken for dead and is not comes too late: it counts once. */
	assert_int_equal(use("a", 99, now), 0);
	assert_int_equal(hold("c", 51, 100, 0), E_BUDGET_EXCEEDED);
	assert_int_equal(got.spent, 30);
	lose(now + 10000, 1);
	days(20000, 20000);
	assert_int_equal(got.days[0].sum.cost_micros, 50);
}

/* Of a budget of 6400 for all time. */
static int64_t
advance(int64_t keep, int64_t free_, int64_t want, const struct store_usage *call)
{
	struct store_budget_advance a = {.id = "adv_1",
	    .app_id = "demo",
	    .org_id = "org",
	    .key_id = "key_1",
	    .model = "m",
	    .key_limit_micros = 6400,
	    .created_at = now,
	    .lapses_at = now + 1000,
	    .keep_micros = keep,
	    .free_micros = free_,
	    .want_micros = want,
	    .least_micros = 50,
	    .calls = &call,
	    .count = call != NULL};

	expect();
	store_budget_advance(w.store, &a, on_advanced, NULL);
	world_wait(&w);
	assert_int_equal(got.err, 0);
	return got.amount;
}

static void
an_advance_is_a_share_of_what_is_left(void **state)
{
	struct store_usage call = usage("paid", 30, now);

	assert_int_equal(advance(0, 0, 60, NULL), 60);
	assert_int_equal(advance(60, 60, 1000, NULL), 99); /* (6400 - 60) / 64 */
	assert_int_equal(advance(99, 99, 10, NULL), 99);   /* what is kept does not shrink */
	assert_int_equal(advance(99, 99, 0, NULL), 99);
	/* A call of its own takes its part along, and is a hold like any other. */
	assert_int_equal(advance(69, 69, 0, &call), 69);
	assert_int_equal(advance(69, 69, 0, &call), 69);
	assert_int_equal(hold("b", 6302, 6400, 0), E_BUDGET_EXCEEDED);
	assert_int_equal(got.held, 99);
	assert_int_equal(got.advanced, 69);
	assert_int_equal(use("paid", 30, now), 0);
	assert_int_equal(hold("b", 6301, 6400, 0), 0);
	/* Near the end there is none. */
	assert_int_equal(advance(10, 10, 60, NULL), 10);
	expect();
	store_budget_release(w.store, "adv_1", on_done, NULL);
	world_wait(&w);
	assert_int_equal(hold("c", 69, 6400, 0), 0);
	assert_int_equal(hold("d", 1, 6400, 0), E_BUDGET_EXCEEDED);
	assert_int_equal(got.advanced, 0);
}

static void
an_advance_that_nobody_renews_is_nobodys(void **state)
{
	struct store_usage call = usage("paid", 30, now);

	assert_int_equal(advance(60, 60, 60, &call), 60);
	lose(now + 1001, 1); /* the call */
	assert_int_equal(hold("b", 6370, 6400, 0), 0);
	assert_int_equal(hold("c", 1, 6400, 0), E_BUDGET_EXCEEDED);
	assert_int_equal(got.spent, 30);
	days(20000, 20000);
	assert_int_equal(got.days[0].sum.calls, 1);
}

static void
on_done_there(void *arg, int err)
{
	*(int *)arg = err;
	world_came(&w);
}

/* Three writes in one transaction, of which one fails when its first row is written: nothing of it
 * is left, the others are there, once. */
static void
what_fails_in_its_midst_is_undone_alone(void **state)
{
	struct store_usage rows[4] = {
	    usage("a", 1, now), usage("b", 10, now), usage("c", 100, now), usage("d", 1000, now)};
	const struct store_usage *groups[3][2] = {{&rows[0]}, {&rows[1], &rows[2]}, {&rows[3]}};
	const size_t counts[3] = {1, 2, 1};
	int errs[3] = {-1000, -1000, -1000};

	rows[2].model = NULL;
	memset(&got, 0, sizeof(got));
	for (int i = 0; i < 3; i++) {
		world_expect(&w);
		store_usage_add(w.store, groups[i], counts[i], on_done_there, &errs[i]);
	}
	world_wait(&w);
	assert_int_equal(errs[0], 0);
	assert_int_equal(errs[1], E_INTERNAL);
	assert_int_equal(errs[2], 0);
	days(20000, 20000);
	assert_int_equal(got.count, 1);
	assert_int_equal(got.days[0].sum.calls, 2);
	assert_int_equal(got.days[0].sum.cost_micros, 1001);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    T(what_fits_is_held_and_what_does_not_is_not),
	    T(usage_takes_the_place_of_its_hold),
	    T(what_is_released_is_there_again),
	    T(each_period_begins_anew),
	    T(what_nobody_renews_is_spent_at_its_estimate),
	    T(an_advance_is_a_share_of_what_is_left),
	    T(an_advance_that_nobody_renews_is_nobodys),
	    T(what_fails_in_its_midst_is_undone_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
