/*
 * Rows of usage on their way into the record: one that it refuses for itself, be it the first or in
 * the middle, keeps no other from it; while it refuses all of them none is given up.
 */
#include "t/unit/worker/store/world.h"

#include <sqlite3.h>

#include "common/metric.h"
#include "common/shm.h"
#include "worker/usage/usage.h"

enum { DAY_MS = 86400000 };

static struct world w;
static struct shm *shm;
static struct shm_who who;
static struct holds *holds;
static struct usages *usages;
static int64_t created_at;

static int
setup(void **state)
{
	world_init(&w);
	w.conf.budgets.lease_ms = 60000;
	w.conf.usage.batch = 8;
	w.conf.usage.interval_ms = 1;
	w.conf.usage.max_queue = 1000;
	world_start(&w);
	shm = shm_create(1);
	assert_true(shm != NULL && shm_row_claim(shm, 0, getpid(), &who));
	metric_init(shm, who);
	holds = holds_new(w.loop, &w.conf, w.store);
	usages = usages_new(w.loop, &w.conf, w.store, holds);
	created_at = clock_wall_ms();
	return 0;
}

static int
teardown(void **state)
{
	usages_free(&usages);
	holds_free(&holds);
	world_fini(&w);
	shm_free(&shm);
	return 0;
}

/* ---- what the record has against rows: somebody's constraint ---- */

static void
run_sqlite(const char *sql)
{
	sqlite3 *db;
	char *error = NULL;

	assert_int_equal(sqlite3_open(w.path, &db), SQLITE_OK);
	sqlite3_busy_timeout(db, WORLD_PATIENCE_MS);
	if (sqlite3_exec(db, sql, NULL, NULL, &error) != SQLITE_OK)
		fail_msg("%s: %s", sql, error);
	sqlite3_close(db);
}

/* condition: of a column `model`. */
static void
refuse(const char *condition)
{
	char *sql;

	if (world_postgres() != NULL) {
		PGconn *pq = world_connect();

		sql = xasprintf(
		    "ALTER TABLE usage ADD CONSTRAINT one CHECK (NOT model %s)", condition);
		world_sql(pq, sql);
		PQfinish(pq);
	} else {
		sql = xasprintf("CREATE TRIGGER one BEFORE INSERT ON usage WHEN new.model %s"
				" BEGIN SELECT RAISE(ABORT, 'refused'); END",
		    condition);
		run_sqlite(sql);
	}
	free(sql);
}

static void
take_all_again(void)
{
	if (world_postgres() != NULL) {
		PGconn *pq = world_connect();

		world_sql(pq, "ALTER TABLE usage DROP CONSTRAINT one");
		PQfinish(pq);
	} else {
		run_sqlite("DROP TRIGGER one");
	}
}

/* ---- rows ---- */

static void
add(const char *model)
{
	struct id id = id_new("use");

	usage_add(usages,
	    &(struct store_usage){.id = id.s,
		.app_id = "demo",
		.key_id = "key_1",
		.model = model,
		.input_tokens = 10,
		.output_tokens = 1,
		.cost_micros = 5,
		.outcome = "ok",
		.created_at = created_at},
	    0);
}

static void
until_written(void)
{
	uint64_t end_ms = clock_mono_ms() + WORLD_PATIENCE_MS;

	while (!usages_are_idle(usages)) {
		assert_true(clock_mono_ms() < end_ms);
		world_turn(&w);
	}
}

struct sum {
	const char *model;
	uint64_t calls;
};

static void
on_sums(void *arg, int err, const struct store_usage_sum *sums, size_t count)
{
	struct sum *sum = arg;

	assert_int_equal(err, 0);
	sum->calls = 0;
	for (size_t i = 0; i < count; i++)
		if (strcmp(sums[i].model, sum->model) == 0)
			sum->calls = sums[i].calls;
	world_came(&w);
}

static void
on_days(void *arg, int err, const struct store_usage_day *days, size_t count)
{
	struct sum *sum = arg;

	assert_int_equal(err, 0);
	sum->calls = 0;
	for (size_t i = 0; i < count; i++)
		sum->calls += days[i].sum.calls;
	world_came(&w);
}

/* Rows, and what their day's sum says. */
static void
expect_calls(const char *model, uint64_t calls)
{
	struct sum rows = {model, 0}, days = rows;
	const struct store_usage_filter filter = {.from_day = created_at / DAY_MS,
	    .to_day = created_at / DAY_MS,
	    .model = model,
	    .limit = 10};

	world_expect(&w);
	world_expect(&w);
	store_usage_by_model(
	    w.store, "demo", created_at - DAY_MS, created_at + DAY_MS, on_sums, &rows);
	store_usage_days(w.store, &filter, on_days, &days);
	world_wait(&w);
	assert_int_equal(rows.calls, calls);
	assert_int_equal(days.calls, calls);
}

static uint64_t
refused(void)
{
	return (uint64_t)metric_of_row(shm, who.row, METRIC_USAGE_REFUSED, 0, 0);
}

/* ---- the tests ---- */

static void
one_that_is_refused_keeps_no_other(void **state)
{
	refuse("LIKE 'odd%'");
	for (int i = 0; i < 20; i++)
		add(i == 0 || i == 10 || i == 19 ? "odd" : "good");
	until_written();
	expect_calls("good", 17);
	expect_calls("odd", 0);
	assert_int_equal(refused(), 3);
	/* What is left of them holds up nothing. */
	add("good");
	until_written();
	expect_calls("good", 18);
	assert_int_equal(refused(), 3);
}

/* It is told from a table that takes nothing by others that are taken. */
static void
one_alone_waits_for_others(void **state)
{
	refuse("= 'odd'");
	add("odd");
	for (int i = 0; i < 20; i++)
		world_turn(&w);
	assert_false(usages_are_idle(usages));
	assert_int_equal(refused(), 0);
	add("good");
	until_written();
	expect_calls("good", 1);
	assert_int_equal(refused(), 1);
}

static void
while_all_are_refused_none_is_lost(void **state)
{
	refuse("<> 'nothing'");
	for (int i = 0; i < 20; i++)
		add("good");
	for (int i = 0; i < 100; i++)
		world_turn(&w);
	assert_false(usages_are_idle(usages));
	assert_int_equal(refused(), 0);
	take_all_again();
	until_written();
	expect_calls("good", 20);
	assert_int_equal(refused(), 0);
}

static void
a_worker_that_ends_does_not_wait_for_it(void **state)
{
	refuse("= 'odd'");
	add("odd");
	usages_drain(usages);
	until_written();
	expect_calls("odd", 0);
	assert_int_equal(refused(), 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(one_that_is_refused_keeps_no_other),
	    TEST(one_alone_waits_for_others),
	    TEST(while_all_are_refused_none_is_lost),
	    TEST(a_worker_that_ends_does_not_wait_for_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
