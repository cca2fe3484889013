/*
 * hosts_ops_test - leases of hosts in the record, by its clock, and the turns of those whose
 * lease is over. PARLEY_TEST_STORE names a PostgreSQL database to run over.
 */
#include "t/unit/worker/store/world.h"

#define HOST_A "aaaaaaaaaaaaaaaa"
#define HOST_B "bbbbbbbbbbbbbbbb"
enum { LONG_MS = 60000 };

static struct world w;
static int64_t now = 1767225600000;

static struct {
	int err;
	uint64_t count;
	size_t hosts;
	char ids[4][32], state[32], code[32], text[32];
	bool is_over[4];
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
on_hosts(void *arg, int err, const struct store_host *hosts, size_t count)
{
	got.err = err;
	got.hosts = count;
	for (size_t i = 0; i < count && i < 4; i++) {
		snprintf(got.ids[i], sizeof(got.ids[i]), "%s", hosts[i].id);
		got.is_over[i] = hosts[i].is_over;
	}
	world_came(&w);
}

static void
on_count(void *arg, int err, uint64_t count)
{
	assert_int_equal(err, 0);
	got.count = count;
	world_came(&w);
}

static void
on_done(void *arg, int err)
{
	got.err = err;
	world_came(&w);
}

static void
on_begun(void *arg, int err, const struct store_turn *existing)
{
	assert_int_equal(err, 0);
	world_came(&w);
}

static void
on_opened(void *arg, int err, const struct store_session *session, bool is_reused)
{
	assert_int_equal(err, 0);
	world_came(&w);
}

static void
on_turn(void *arg, int err, const struct store_turn *t)
{
	assert_int_equal(err, 0);
	snprintf(got.state, sizeof(got.state), "%s", t->state);
	snprintf(got.code, sizeof(got.code), "%s", t->error_code != NULL ? t->error_code : "-");
	snprintf(got.text, sizeof(got.text), "%s", t->text != NULL ? t->text : "-");
	world_came(&w);
}

static void
begin(const char *turn, const char *owner)
{
	struct id session = id_new("sess"), message = id_new("msg");
	struct store_session_open open = {
	    .session = {.id = session.s, .app_id = "demo"}, .now = now};
	struct store_turn_begin b = {
	    .turn = {.id = turn,
		.session_id = session.s,
		.app_id = "demo",
		.owner = owner,
		.input_hash = "h",
		.fence = 1,
		.model = "m"},
	    .message = {.id = message.s,
		.session_id = session.s,
		.turn_id = turn,
		.role = "user",
		.body_json = "{}"},
	    .now = now,
	};

	expect();
	store_session_open(w.store, &open, on_opened, NULL);
	world_wait(&w);
	expect();
	store_turn_begin(w.store, &b, on_begun, NULL);
	world_wait(&w);
}

static void
get_turn(const char *id)
{
	expect();
	store_turn_get(w.store, id, on_turn, NULL);
	world_wait(&w);
}

static void
renew(const char *host, uint64_t lease_ms)
{
	expect();
	store_host_renew(w.store, host, lease_ms, on_hosts, NULL);
	world_wait(&w);
	assert_int_equal(got.err, 0);
}

static void
list(void)
{
	expect();
	store_host_list(w.store, on_hosts, NULL);
	world_wait(&w);
	assert_int_equal(got.err, 0);
}

static uint64_t
lose(uint64_t grace_ms)
{
	expect();
	store_hosts_lose(w.store, grace_ms, now, on_count, NULL);
	world_wait(&w);
	return got.count;
}

static void
wait_until_over(size_t index)
{
	uint64_t end_ms = clock_mono_ms() + 10000;

	for (list(); !got.is_over[index]; list())
		assert_true(clock_mono_ms() < end_ms);
}

static void
a_lease_is_renewed_or_over(void **state)
{
	renew(HOST_A, LONG_MS);
	renew(HOST_B, 1);
	assert_int_equal(got.hosts, 2);
	assert_string_equal(got.ids[0], HOST_A); /* the oldest first */
	assert_string_equal(got.ids[1], HOST_B);
	assert_false(got.is_over[0]);
	wait_until_over(1);
	renew(HOST_B, LONG_MS);
	assert_false(got.is_over[1]);
	/* Whose lease was over is the youngest again. */
	renew(HOST_A, 1);
	wait_until_over(0);
	renew(HOST_A, LONG_MS);
	assert_string_equal(got.ids[0], HOST_B);
	assert_string_equal(got.ids[1], HOST_A);
	assert_false(got.is_over[1]);
}

static void
turns_of_a_living_host_stay(void **state)
{
	begin("turn_1", HOST_A ".1.1");
	begin("turn_2", HOST_B ".0.7");
	renew(HOST_A, LONG_MS);
	renew(HOST_B, 1);
	expect();
	store_turn_progress(w.store, "turn_2", 1, "so far", 3, on_done, NULL);
	world_wait(&w);
	wait_until_over(1);
	assert_int_equal(lose(LONG_MS), 1);
	assert_int_equal(lose(LONG_MS), 0);
	get_turn("turn_1");
	assert_string_equal(got.state, "live");
	get_turn("turn_2");
	assert_string_equal(got.state, "failed");
	assert_string_equal(got.code, "worker_lost");
	assert_string_equal(got.text, "so far");
	/* Its late write finds the fence raised. */
	expect();
	store_turn_progress(w.store, "turn_2", 1, "more", 4, on_done, NULL);
	world_wait(&w);
	assert_int_equal(got.err, E_FENCED);
}

static void
an_unknown_host_has_its_grace(void **state)
{
	begin("turn_1", HOST_B ".0.1");
	assert_int_equal(lose(LONG_MS), 0);
	renew(HOST_A, LONG_MS);
	assert_int_equal(got.hosts, 2);
	assert_string_equal(got.ids[0], HOST_A); /* who is not known is never the oldest */
	assert_false(got.is_over[1]);
	renew(HOST_B, 1);
	wait_until_over(1);
	assert_int_equal(lose(LONG_MS), 1);
}

static void
who_is_long_over_is_forgotten(void **state)
{
	renew(HOST_A, 1);
	wait_until_over(0);
	begin("turn_1", HOST_A ".0.1"); /* its last words came late */
	assert_int_equal(lose(1), 1);
	uint64_t end_ms = clock_mono_ms() + 10000;
	for (list(); got.hosts > 0; list()) {
		assert_true(clock_mono_ms() < end_ms);
		lose(1);
	}
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(a_lease_is_renewed_or_over),
	    T(turns_of_a_living_host_stay),
	    T(an_unknown_host_has_its_grace),
	    T(who_is_long_over_is_forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
