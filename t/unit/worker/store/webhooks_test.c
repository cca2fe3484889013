/*
 * webhooks_test - the outbox: claims, order, results, the breaker, dead ones. PARLEY_TEST_STORE
 * names a PostgreSQL database to run over.
 */
#include "t/unit/worker/store/world.h"

#include <stdlib.h>
#include <string.h>

enum { ROWS_MAX = 64, LEASE_MS = 60000 };

static struct world w;

struct row {
	char id[48], endpoint[32], event[32], state[16], error[32], response[32], order[48];
	uint64_t claim, attempts;
	int64_t position;
	int status;
};

static struct {
	int err;
	size_t count;
	bool has_more;
	struct row rows[ROWS_MAX];
	uint64_t number;
	struct store_webhook_endpoint endpoint; /* the last; its texts are not kept */
	char endpoint_id[32];
	struct store_webhook_counts counts;
} got;

static int
setup(void **state)
{
	memset(&got, 0, sizeof(got));
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
on_done(void *arg, int err)
{
	got.err = err;
	world_came(&w);
}

static void
on_count(void *arg, int err, uint64_t count)
{
	assert_int_equal(err, 0);
	got.number = count;
	world_came(&w);
}

static void
keep(char *to, size_t size, const char *from)
{
	snprintf(to, size, "%s", from != NULL ? from : "-");
}

static void
on_webhooks(void *arg, int err, const struct store_webhook *rows, size_t count, bool has_more)
{
	assert_int_equal(err, 0);
	assert_true(count <= ROWS_MAX);
	got.count = count;
	got.has_more = has_more;
	for (size_t i = 0; i < count; i++) {
		struct row *r = &got.rows[i];

		keep(r->id, sizeof(r->id), rows[i].id);
		keep(r->endpoint, sizeof(r->endpoint), rows[i].endpoint_id);
		keep(r->event, sizeof(r->event), rows[i].event);
		keep(r->state, sizeof(r->state), rows[i].state);
		keep(r->error, sizeof(r->error), rows[i].error);
		keep(r->response, sizeof(r->response), rows[i].response);
		keep(r->order, sizeof(r->order), rows[i].order_key);
		r->claim = rows[i].claim;
		r->attempts = rows[i].attempts;
		r->position = rows[i].position;
		r->status = rows[i].status;
		assert_string_equal(rows[i].body, "{\"a\":1}");
	}
	world_came(&w);
}

static void
on_endpoints(
    void *arg, int err, const struct store_webhook_endpoint *list, size_t count, bool has_more)
{
	assert_int_equal(err, 0);
	got.count = count;
	got.has_more = has_more;
	if (count > 0) {
		got.endpoint = list[count - 1];
		keep(got.endpoint_id, sizeof(got.endpoint_id), list[count - 1].id);
	}
	world_came(&w);
}

static void
on_counts(void *arg, int err, const struct store_webhook_counts *counts)
{
	assert_int_equal(err, 0);
	got.counts = *counts;
	world_came(&w);
}

/* "e1": an endpoint of that name; order NULL: none. Returns the id. */
static const char *
add_at(int64_t at, const char *endpoint, const char *order, const char *event)
{
	static struct id ids[ROWS_MAX];
	static unsigned next;
	struct id *id = &ids[next++ % ROWS_MAX];
	struct store_webhook_endpoint e = {
	    .id = endpoint, .app_id = "demo", .url = "http://x/", .created_at = clock_wall_ms()};

	uint8_t bits[16];
	*id = id_new("wh");
	id_bits(id, bits);
	for (int i = 0; i < 6; i++)
		bits[i] = (uint8_t)((uint64_t)at >> (40 - 8 * i));
	*id = id_of_bits("wh", bits);
	struct store_webhook row = {.id = id->s,
	    .endpoint_id = endpoint,
	    .app_id = "demo",
	    .order_key = order,
	    .event = event,
	    .body = "{\"a\":1}",
	    .created_at = at};
	world_expect(&w);
	store_webhook_add(w.store, &row, 1, &e, 1, on_done, NULL);
	world_wait(&w);
	assert_int_equal(got.err, 0);
	world_expect(&w); /* again: nothing */
	store_webhook_add(w.store, &row, 1, &e, 1, on_done, NULL);
	world_wait(&w);
	return id->s;
}

static const char *
add(const char *endpoint, const char *order, const char *event)
{
	return add_at(clock_wall_ms(), endpoint, order, event);
}

static size_t
claim_rows(const char *owner, const struct store_webhook_want *want, uint64_t lease_ms)
{
	world_expect(&w);
	store_webhook_claim(w.store, owner, want, 1, lease_ms, on_webhooks, NULL);
	world_wait(&w);
	return got.count;
}

static size_t
claim_as(const char *owner, const char *endpoint, uint32_t limit, uint64_t lease_ms)
{
	return claim_rows(owner, &(struct store_webhook_want){endpoint, limit, 1}, lease_ms);
}

static size_t
claim(const char *endpoint, uint32_t limit, uint64_t lease_ms)
{
	return claim_as("a.1.1", endpoint, limit, lease_ms);
}

static size_t
claim_in_a_row(const char *endpoint, uint32_t limit, uint32_t in_a_row, uint64_t lease_ms)
{
	return claim_rows(
	    "a.1.1", &(struct store_webhook_want){endpoint, limit, in_a_row}, lease_ms);
}

static uint64_t
release(const char *owner)
{
	world_expect(&w);
	store_webhook_release(w.store, owner, on_count, NULL);
	world_wait(&w);
	return got.number;
}

static int
by_place(const void *a, const void *b)
{
	const struct row *x = a, *y = b;
	int order = strcmp(x->order, y->order);

	return order != 0 ? order : (x->position > y->position) - (x->position < y->position);
}

/* The events of what was claimed, by order and place in it: "a1 a2 b1". */
static const char *
claimed(uint32_t limit, uint32_t in_a_row)
{
	static char text[256];
	size_t len = 0;

	claim_in_a_row("whe_1", limit, in_a_row, LEASE_MS);
	qsort(got.rows, got.count, sizeof(got.rows[0]), by_place);
	text[0] = '\0';
	for (size_t i = 0; i < got.count; i++)
		len += (size_t)snprintf(
		    text + len, sizeof(text) - len, "%s%s", i > 0 ? " " : "", got.rows[i].event);
	return text;
}

static size_t
look(void)
{
	world_expect(&w);
	store_webhook_look(w.store, NULL, 100, on_endpoints, NULL);
	world_wait(&w);
	return got.count;
}

enum how { WELL, AGAIN, DIED, GIVEN_BACK };

/* Returns how many endpoints were counted for. */
static size_t
settle_as(
    uint64_t number, const struct row *r, enum how how, uint64_t threshold, uint64_t recovery_ms)
{
	struct store_webhook_settler settler = {"a.1.1", number};
	struct store_webhook_result result = {.id = r->id,
	    .claim = r->claim,
	    .state = how == WELL   ? "delivered"
		     : how == DIED ? "dead"
				   : "pending",
	    .was_tried = how != GIVEN_BACK,
	    .status = how == WELL ? 200 : 500,
	    .error = how == WELL ? NULL : "status",
	    .response = "said",
	    .first_ms = 3,
	    .total_ms = 4};
	struct store_webhook_tally tally = {.endpoint_id = r->endpoint,
	    .delivered = how == WELL,
	    .failed = how == AGAIN || how == DIED,
	    .dead = how == DIED,
	    .failures = how == AGAIN || how == DIED,
	    .had_success = how == WELL,
	    .last_status = result.status};
	struct store_webhook_breaker breaker = {threshold, recovery_ms};

	world_expect(&w);
	store_webhook_settle(
	    w.store, &settler, &result, 1, &tally, 1, &breaker, on_endpoints, NULL);
	world_wait(&w);
	return got.count;
}

static void
settle(const struct row *r, enum how how, uint64_t threshold, uint64_t recovery_ms)
{
	static uint64_t number = 1000;

	assert_int_equal(settle_as(++number, r, how, threshold, recovery_ms), 1);
}

static struct row
get(const char *id)
{
	struct store_webhook_filter filter = {.limit = ROWS_MAX};

	world_expect(&w);
	store_webhook_list(w.store, &filter, on_webhooks, NULL);
	world_wait(&w);
	for (size_t i = 0; i < got.count; i++)
		if (strcmp(got.rows[i].id, id) == 0)
			return got.rows[i];
	fail_msg("%s is not there", id);
	return got.rows[0];
}

static void
test_claimed_once_and_delivered(void **state)
{
	const char *id = add("whe_1", NULL, "x.done");
	struct row r;

	assert_int_equal(look(), 1);
	assert_true(got.endpoint.due_in_ms <= 0);
	assert_int_equal(claim("whe_2", 10, LEASE_MS), 0);
	assert_int_equal(claim("whe_1", 10, LEASE_MS), 1);
	r = got.rows[0];
	assert_string_equal(r.id, id);
	assert_string_equal(r.event, "x.done");
	assert_int_equal(claim("whe_1", 10, LEASE_MS), 0);
	assert_int_equal(look(), 1);
	assert_true(got.endpoint.due_in_ms > 10000);
	settle(&r, WELL, 5, 60000);
	assert_int_equal(look(), 0);
	r = get(id);
	assert_string_equal(r.state, "delivered");
	assert_string_equal(r.response, "said");
	assert_int_equal(r.attempts, 1);
	assert_int_equal(r.status, 200);
}

static void
test_a_lease_that_is_over_is_anybodys(void **state)
{
	const char *id = add("whe_1", NULL, "x");
	struct row first, second;

	assert_int_equal(claim("whe_1", 1, 0), 1);
	first = got.rows[0];
	assert_int_equal(claim("whe_1", 1, LEASE_MS), 1);
	second = got.rows[0];
	assert_true(second.claim > first.claim);
	settle(&first, AGAIN, 5, 60000); /* nobody listens to it any more */
	assert_int_equal(get(id).attempts, 0);
	assert_int_equal(claim("whe_1", 1, LEASE_MS), 0);
	settle(&first, WELL, 5, 60000); /* but what is delivered is delivered */
	assert_string_equal(get(id).state, "delivered");
	settle(&second, AGAIN, 5, 60000);
	assert_string_equal(get(id).state, "delivered");
}

static void
list_endpoints(void)
{
	world_expect(&w);
	store_webhook_endpoint_list(w.store, NULL, 10, on_endpoints, NULL);
	world_wait(&w);
}

static void
test_what_is_said_twice_counts_once(void **state)
{
	const char *id = add("whe_1", NULL, "x");
	struct row r;

	assert_int_equal(claim("whe_1", 1, LEASE_MS), 1);
	r = got.rows[0];
	assert_int_equal(settle_as(1, &r, AGAIN, 2, 60000), 1);
	assert_int_equal(settle_as(1, &r, AGAIN, 2, 60000), 0);
	assert_int_equal(get(id).attempts, 1);
	list_endpoints();
	assert_int_equal(got.endpoint.failed, 1);
	assert_int_equal(got.endpoint.failures, 1);
	assert_int_equal(got.endpoint.probe_at, 0); /* two would have opened the breaker */
	assert_int_equal(claim("whe_1", 1, LEASE_MS), 1);
	r = got.rows[0];
	assert_int_equal(settle_as(2, &r, WELL, 2, 60000), 1);
	assert_int_equal(settle_as(2, &r, WELL, 2, 60000), 0);
	list_endpoints();
	assert_int_equal(got.endpoint.delivered, 1);
	assert_int_equal(get(id).attempts, 2);
	assert_string_equal(get(id).state, "delivered");
}

static void
test_what_a_dead_owner_had_is_anybodys(void **state)
{
	const char *id = add("whe_1", "task_a", "x");
	struct row first, second;

	add("whe_1", "task_a", "y");
	add("whe_2", NULL, "x");
	add("whe_3", NULL, "x");
	assert_int_equal(claim_as("a.1.1", "whe_1", 10, LEASE_MS), 1);
	first = got.rows[0];
	assert_int_equal(claim_as("a.1.1", "whe_2", 10, LEASE_MS), 1);
	assert_int_equal(claim_as("a.2.2", "whe_3", 10, LEASE_MS), 1);
	assert_int_equal(release("a.3.3"), 0);
	assert_int_equal(release("a.1.1"), 2);
	assert_int_equal(release("a.1.1"), 0);
	assert_int_equal(claim("whe_3", 10, LEASE_MS), 0);
	assert_int_equal(claim("whe_2", 10, LEASE_MS), 1);
	assert_int_equal(claim_as("a.2.2", "whe_1", 10, LEASE_MS), 1);
	second = got.rows[0];
	assert_string_equal(second.id, id); /* still the first in its order */
	settle(&first, AGAIN, 5, 60000);    /* the dead one's word comes late: */
	assert_int_equal(get(id).attempts, 0);
	settle(&second, AGAIN, 5, 60000);
	assert_int_equal(get(id).attempts, 1);
	assert_int_equal(release("a.2.2"), 1); /* not what waits for its next attempt */
}

static void
test_what_a_former_life_had_is_anybodys(void **state)
{
	add("whe_1", NULL, "x");
	add("whe_2", NULL, "x");
	add("whe_3", NULL, "x");
	assert_int_equal(claim_as("a.1.1", "whe_1", 10, LEASE_MS), 1);
	assert_int_equal(claim_as("b.1.1", "whe_2", 10, LEASE_MS), 1);
	world_expect(&w);
	store_webhook_release_former(w.store, "b.", on_count, NULL);
	world_wait(&w);
	assert_int_equal(got.number, 1);
	assert_int_equal(claim("whe_1", 10, LEASE_MS), 1);
	assert_int_equal(claim("whe_2", 10, LEASE_MS), 0);
	assert_int_equal(claim("whe_3", 10, LEASE_MS), 1);
}

static void
test_in_order(void **state)
{
	const char *ids[] = {add("whe_1", "task_a", "1"), add("whe_1", "task_b", "1"),
	    add("whe_1", "task_a", "2"), add("whe_2", "task_a", "2"), add("whe_1", "task_a", "3")};

	(void)ids;
	for (int step = 1; step <= 3; step++) {
		struct row rows[3];
		size_t n = claim("whe_1", 10, LEASE_MS), mine = 0;

		memcpy(rows, got.rows, sizeof(rows));
		assert_int_equal(n, step == 1 ? 2 : 1);
		for (size_t i = 0; i < n; i++) {
			if (strcmp(rows[i].order, "task_a") != 0)
				continue;
			assert_int_equal(rows[i].event[0], '0' + step);
			/* One that is to be tried again is in the way of those behind it. */
			settle(&rows[i], AGAIN, 0, 0);
			assert_int_equal(claim("whe_1", 10, LEASE_MS), 1);
			assert_string_equal(got.rows[0].id, rows[i].id);
			rows[i] = got.rows[0];
			settle(&rows[i], step == 2 ? DIED : WELL, 0, 0);
			mine++;
		}
		assert_int_equal(mine, 1);
	}
	assert_int_equal(claim("whe_2", 10, LEASE_MS), 1);
}

static void
test_several_in_a_row(void **state)
{
	static const char *const events[] = {"a1", "b1", "a2", "b2", "a3", "c1", "a4", "a5"};
	struct row a[3];

	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
		char order[] = {events[i][0], '\0'};

		add("whe_1", order, events[i]);
	}
	assert_string_equal(claimed(20, 3), "a1 a2 a3 b1 b2 c1");
	memcpy(a, got.rows, sizeof(a));
	settle(&a[0], WELL, 0, 0);
	assert_string_equal(claimed(20, 3), ""); /* nobody gets what is behind somebody's */
	/* The second is to be tried again, and the third goes back: from there on, so many. */
	settle(&a[1], AGAIN, 0, 0);
	settle(&a[2], GIVEN_BACK, 0, 0);
	assert_string_equal(claimed(2, 3), "a2 a3");
	/* Up to one in between that is still somebody's. */
	memcpy(a, got.rows, 2 * sizeof(a[0]));
	settle(&a[0], GIVEN_BACK, 0, 0);
	assert_string_equal(claimed(20, 3), "a2");
	a[0] = got.rows[0];
	settle(&a[0], DIED, 0, 0);
	assert_string_equal(claimed(20, 3), "");
	settle(&a[1], WELL, 0, 0);
	assert_string_equal(claimed(20, 3), "a4 a5");
}

/* However their ids are: those made within a millisecond are in any order. */
static void
test_a_limit_leaves_no_gap(void **state)
{
	static const char *const ids[] = {"wh_3", "wh_1", "wh_4", "wh_2"};
	struct store_webhook_endpoint e = {
	    .id = "whe_1", .app_id = "demo", .url = "http://x/", .created_at = clock_wall_ms()};
	struct store_webhook rows[4];

	for (size_t i = 0; i < 4; i++)
		rows[i] = (struct store_webhook){.id = ids[i],
		    .endpoint_id = "whe_1",
		    .order_key = "a",
		    .event = ids[i],
		    .body = "{\"a\":1}",
		    .created_at = clock_wall_ms()};
	world_expect(&w);
	store_webhook_add(w.store, rows, 4, &e, 1, on_done, NULL);
	world_wait(&w);
	assert_string_equal(claimed(2, 4), "wh_3 wh_1");
	struct row first = got.rows[0], second = got.rows[1];
	settle(&first, WELL, 0, 0);
	settle(&second, WELL, 0, 0);
	assert_string_equal(claimed(1, 4), "wh_4");
}

/* A place behind all that were, though none of them waits any more. */
static void
test_places_only_grow(void **state)
{
	int64_t before = 0;

	for (int i = 0; i < 3; i++) {
		add("whe_1", "a", "x");
		if (i == 1)
			add("whe_1", "a", "y");
		claim_in_a_row("whe_1", 10, 10, LEASE_MS);
		assert_int_equal(got.count, i == 1 ? 2 : 1);
		qsort(got.rows, got.count, sizeof(got.rows[0]), by_place);
		struct row rows[2] = {got.rows[0], got.rows[1]};
		for (int k = 0; k < (i == 1 ? 2 : 1); k++) {
			assert_true(rows[k].position > before);
			before = rows[k].position;
			settle(&rows[k], k == 0 ? WELL : DIED, 0, 0);
		}
		while (clock_wall_ms() <= before)
			world_turn(&w);
	}
}

static void
test_the_breaker(void **state)
{
	struct row r;

	for (int i = 0; i < 6; i++)
		add("whe_1", NULL, "x");
	for (int i = 0; i < 3; i++) {
		assert_int_equal(claim("whe_1", 1, LEASE_MS), 1);
		r = got.rows[0];
		settle(&r, i == 0 ? WELL : AGAIN, 2, i == 2 ? 300 : 60000);
	}
	assert_true(got.endpoint.probe_at > 0);
	assert_int_equal(got.endpoint.failures, 2);
	assert_int_equal(claim("whe_1", 10, LEASE_MS), 0);
	while (claim("whe_1", 10, LEASE_MS) == 0)
		world_turn(&w);
	assert_int_equal(got.count, 1); /* one tries, and nobody else */
	r = got.rows[0];
	assert_int_equal(claim("whe_1", 10, LEASE_MS), 0);
	settle(&r, AGAIN, 2, 1);
	assert_int_equal(got.endpoint.failures, 3);
	while (claim_in_a_row("whe_1", 10, 4, LEASE_MS) == 0)
		world_turn(&w);
	assert_int_equal(got.count, 1);
	r = got.rows[0];
	settle(&r, WELL, 2, 60000);
	assert_int_equal(got.endpoint.probe_at, 0);
	assert_int_equal(claim("whe_1", 10, LEASE_MS), 4);
	settle(&got.rows[0], GIVEN_BACK, 2, 60000);
	assert_int_equal(claim("whe_1", 10, LEASE_MS), 1);
}

static void
test_dead_ones_are_sent_again(void **state)
{
	const char *a = add("whe_1", NULL, "x"), *b = add("whe_1", NULL, "y");

	for (int i = 0; i < 2; i++) {
		assert_int_equal(claim("whe_1", 1, LEASE_MS), 1);
		struct row r = got.rows[0];
		settle(&r, DIED, 0, 0);
	}
	assert_int_equal(look(), 0);
	world_expect(&w);
	store_webhook_resend(w.store, a, NULL, 0, on_count, NULL);
	world_wait(&w);
	assert_int_equal(got.number, 1);
	world_expect(&w);
	store_webhook_resend(w.store, NULL, "whe_1", 10, on_count, NULL);
	world_wait(&w);
	assert_int_equal(got.number, 1);
	assert_int_equal(get(b).attempts, 0);
	assert_int_equal(claim("whe_1", 10, LEASE_MS), 2);
}

static void
sweep_nothing_old(void)
{
	struct store_webhook_sweep sweep = {.limit = 10};

	world_expect(&w);
	store_webhook_sweep(w.store, &sweep, on_count, NULL);
	world_wait(&w);
}

static void
enable(const char *endpoint, bool is_enabled)
{
	world_expect(&w);
	store_webhook_endpoint_enable(w.store, endpoint, is_enabled, on_done, NULL);
	world_wait(&w);
}

static void
test_disabled(void **state)
{
	const char *id = add("whe_1", NULL, "x");

	enable("whe_1", false);
	assert_int_equal(claim("whe_1", 10, LEASE_MS), 0);
	sweep_nothing_old();
	assert_string_equal(get(id).state, "pending"); /* it may be enabled again */
	enable("whe_1", true);
	assert_int_equal(claim("whe_1", 10, 0), 1);
	enable("whe_none", true);
	assert_int_equal(got.err, E_NOT_FOUND);
}

static void
test_one_that_wants_no_more(void **state)
{
	const char *id = add("whe_1", NULL, "x");
	struct store_webhook_tally gone = {
	    .endpoint_id = "whe_1", .failed = 1, .is_gone = true, .last_status = 410};
	struct store_webhook_breaker breaker = {5, 1000};
	struct store_webhook_settler settler = {"a.1.1", 1};

	world_expect(&w);
	store_webhook_settle(w.store, &settler, NULL, 0, &gone, 1, &breaker, on_endpoints, NULL);
	world_wait(&w);
	assert_int_equal(claim("whe_1", 10, LEASE_MS), 0);
	sweep_nothing_old();
	assert_string_equal(get(id).error, "endpoint_disabled");
	assert_string_equal(get(id).state, "dead");
	world_expect(&w);
	store_webhook_count(w.store, on_counts, NULL);
	world_wait(&w);
	assert_int_equal(got.counts.dead, 1);
	assert_int_equal(got.counts.pending, 0);
}

static void
test_swept(void **state)
{
	add("whe_1", NULL, "x");
	int64_t later = clock_wall_ms() + 60000;
	struct store_webhook_sweep sweep = {.delivered_before = later,
	    .dead_before = later,
	    .pending_before = later,
	    .endpoints_before = later,
	    .limit = 10};

	world_expect(&w);
	store_webhook_sweep(w.store, &sweep, on_count, NULL);
	world_wait(&w);
	assert_int_equal(got.number, 1); /* expired: it stays to be seen */
	world_expect(&w);
	store_webhook_sweep(w.store, &sweep, on_count, NULL);
	world_wait(&w);
	assert_int_equal(got.number, 2); /* it, and the endpoint */
	world_expect(&w);
	store_webhook_endpoint_list(w.store, NULL, 10, on_endpoints, NULL);
	world_wait(&w);
	assert_int_equal(got.count, 0);
}

/* As if the sweeper came by now: an hour is old. */
static uint64_t
sweep_an_hour(void)
{
	int64_t before = clock_wall_ms() - 3600000;
	struct store_webhook_sweep sweep = {.delivered_before = before,
	    .dead_before = before,
	    .pending_before = before,
	    .limit = 10};

	world_expect(&w);
	store_webhook_sweep(w.store, &sweep, on_count, NULL);
	world_wait(&w);
	return got.number;
}

static void
resend(const char *id)
{
	world_expect(&w);
	store_webhook_resend(w.store, id, NULL, 0, on_count, NULL);
	world_wait(&w);
	assert_int_equal(got.number, 1);
}

static void
test_what_is_sent_again_is_young(void **state)
{
	int64_t old = clock_wall_ms() - 7200000;
	const char *again = add_at(old, "whe_1", NULL, "x");
	struct row r;

	add_at(old, "whe_1", NULL, "y");
	assert_int_equal(sweep_an_hour(), 2);
	assert_string_equal(get(again).error, "expired");
	resend(again);
	assert_int_equal(sweep_an_hour(), 1); /* the other goes */
	assert_string_equal(get(again).state, "pending");
	assert_int_equal(claim("whe_1", 10, LEASE_MS), 1);
	r = got.rows[0];
	assert_string_equal(r.id, again);
	assert_int_equal(sweep_an_hour(), 0); /* while it is on its way */
	settle(&r, WELL, 0, 0);
	assert_int_equal(sweep_an_hour(), 0);
	assert_string_equal(get(again).state, "delivered");
	assert_int_equal(got.count, 1);
}

static void
test_listed(void **state)
{
	struct store_webhook_filter filter = {.app_id = "demo", .limit = 2};

	for (int i = 0; i < 3; i++)
		add("whe_1", "task_a", "x");
	world_expect(&w);
	store_webhook_list(w.store, &filter, on_webhooks, NULL);
	world_wait(&w);
	assert_int_equal(got.count, 2);
	assert_true(got.has_more);
	filter.after = got.rows[1].id;
	world_expect(&w);
	store_webhook_list(w.store, &filter, on_webhooks, NULL);
	world_wait(&w);
	assert_int_equal(got.count, 1);
	assert_false(got.has_more);
	filter = (struct store_webhook_filter){.state = "dead", .limit = 2};
	world_expect(&w);
	store_webhook_list(w.store, &filter, on_webhooks, NULL);
	world_wait(&w);
	assert_int_equal(got.count, 0);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T(test_claimed_once_and_delivered),
	    T(test_a_lease_that_is_over_is_anybodys),
	    T(test_what_is_said_twice_counts_once),
	    T(test_what_a_dead_owner_had_is_anybodys),
	    T(test_what_a_former_life_had_is_anybodys),
	    T(test_in_order),
	    T(test_several_in_a_row),
	    T(test_a_limit_leaves_no_gap),
	    T(test_places_only_grow),
	    T(test_the_breaker),
	    T(test_dead_ones_are_sent_again),
	    T(test_disabled),
	    T(test_one_that_wants_no_more),
	    T(test_swept),
	    T(test_what_is_sent_again_is_young),
	    T(test_listed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
