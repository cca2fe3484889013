/*
 * sweeper_test - idle sessions expire, batch after batch; failures back off and end.
 */
#include "t/unit/worker/store/world.h"

#include "common/log.h"
#include "common/metric.h"
#include "common/shm.h"
#include "worker/session/sweeper.h"

enum { SESSIONS = 25, BATCH = 10 };

static struct world w;
static struct shm *shm;
static uint64_t active;
static char log_path[128];

static int
setup(void **state)
{
	struct shm_who who;

	world_init(&w);
	w.conf.sessions.sweep_interval_ms = 20;
	w.conf.sessions.sweep_backoff_max_ms = 100;
	w.conf.sessions.sweep_batch = BATCH;
	w.conf.sessions.idle_expiry_ms = 60 * 1000;
	world_start(&w);
	shm = shm_create(1);
	assert_non_null(shm);
	assert_true(shm_row_claim(shm, 0, (int)getpid(), &who));
	metric_init(shm, who);
	return 0;
}

static int
teardown(void **state)
{
	world_fini(&w);
	shm_free(&shm);
	return 0;
}

static void
on_opened(void *arg, int err, const struct store_session *session, bool is_reused)
{
	assert_int_equal(err, 0);
	world_came(&w);
}

static void
open_sessions(int64_t last_activity_at)
{
	for (int i = 0; i < SESSIONS; i++) {
		struct id id = id_new("sess");
		struct store_session_open open = {
		    .session = {.id = id.s, .app_id = "demo"}, .now = last_activity_at};

		world_expect(&w);
		store_session_open(w.store, &open, on_opened, NULL);
	}
	world_wait(&w);
}

static void
on_count(void *arg, int err, uint64_t count)
{
	assert_int_equal(err, 0);
	active = count;
	world_came(&w);
}

static uint64_t
count_active(void)
{
	world_expect(&w);
	store_session_count_active(w.store, on_count, NULL);
	world_wait(&w);
	return active;
}

static void
wait_for_active(uint64_t wanted)
{
	for (uint64_t end_ms = clock_mono_ms() + 10000; count_active() != wanted;) {
		assert_true(clock_mono_ms() < end_ms);
		world_turn(&w);
	}
}

static void
idle_sessions_expire(void **state)
{
	struct sweeper *sweeper;

	open_sessions(clock_wall_ms() - 61 * 1000);
	open_sessions(clock_wall_ms());
	assert_int_equal(count_active(), 2 * SESSIONS);
	sweeper = sweeper_new(w.loop, &w.conf, w.store, NULL);
	wait_for_active(SESSIONS);
	while (metric_total(shm, METRIC_SESSIONS_ACTIVE, 0, 0) != SESSIONS)
		world_turn(&w);
	/* And again, for those that are idle by then. */
	w.conf.sessions.idle_expiry_ms = 1;
	wait_for_active(0);
	sweeper_free(&sweeper);
}

static void
without_an_expiry_they_stay(void **state)
{
	struct sweeper *sweeper;

	w.conf.sessions.idle_expiry_ms = 0;
	open_sessions(1);
	sweeper = sweeper_new(w.loop, &w.conf, w.store, NULL);
	while (metric_total(shm, METRIC_SESSIONS_ACTIVE, 0, 0) != SESSIONS)
		world_turn(&w);
	assert_int_equal(count_active(), SESSIONS);
	sweeper_free(&sweeper);
}

/* How long it rests after the failures number `from` and the next three, by its log. */
static void
expect_rests(unsigned from, const char *expected)
{
	uint64_t end_ms = clock_mono_ms() + WORLD_PATIENCE_MS;
	char rests[64], line[512];

	for (unsigned count = 0; count < from + 4;) {
		FILE *f = fopen(log_path, "r");
		char *at;

		assert_true(f != NULL && clock_mono_ms() < end_ms);
		count = 0;
		rests[0] = '\0';
		while (fgets(line, sizeof(line), f) != NULL) {
			if ((at = strstr(line, " retry_in_ms=")) == NULL)
				continue;
			if (count >= from && count < from + 4)
				strncat(rests, at + strlen(" retry_in_ms"), 8);
			count++;
		}
		fclose(f);
		world_turn(&w);
	}
	for (char *c = rests; (c = strchr(c, '\n')) != NULL;)
		*c = ' ';
	assert_string_equal(rests, expected);
}

static unsigned
failures(void)
{
	FILE *f = fopen(log_path, "r");
	char line[512];
	unsigned count = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL)
		count += strstr(line, "session sweep failed") != NULL;
	fclose(f);
	return count;
}

static void
failures_are_outlived(void **state)
{
	struct sweeper *sweeper;

	snprintf(log_path, sizeof(log_path), "%s/log", w.folder);
	assert_int_equal(log_open(&(struct log_conf){.level = LOG_INFO, .file = log_path}), 0);
	open_sessions(1);
	open_sessions(clock_wall_ms());
	w.conf.store.max_queue = 0; /* nothing is let through */
	sweeper = sweeper_new(w.loop, &w.conf, w.store, NULL);
	expect_rests(0, "=40 =80 =100 =100 ");
	w.conf.store.max_queue = 1000;
	wait_for_active(SESSIONS);
	while (metric_total(shm, METRIC_SESSIONS_ACTIVE, 0, 0) != SESSIONS) /* it has succeeded */
		world_turn(&w);
	w.conf.store.max_queue = 0;
	expect_rests(failures(), "=40 =80 =100 =100 ");
	sweeper_free(&sweeper);
	log_open(&(struct log_conf){.level = LOG_INFO});
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(idle_sessions_expire),
	    T(without_an_expiry_they_stay),
	    T(failures_are_outlived),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
