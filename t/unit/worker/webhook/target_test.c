/*
 * target_test - how much of an endpoint is claimed at once: few until it is known what they weigh;
 * and what becomes of those that wait for others.
 */
#include "t/unit/unit.h"

#include <stdlib.h>
#include <string.h>

#include "worker/webhook/webhook_impl.h"

enum { LEASE_MS = 60000, LARGE = 5 << 20 };

static const struct conf_webhooks conf = {.batch = 100, .timeout_ms = 1000};
static struct webhooks w;
static struct host host;
static struct target t;

static int
setup(void **state)
{
	(void)state;
	w = (struct webhooks){.loop = loop_new(), .conf = &conf};
	host = (struct host){.connections = 10, .targets = 1};
	t = (struct target){
	    .webhooks = &w, .host = &host, .endpoint = {.batch = 1}, .is_usable = true};
	list_init(&t.waiting);
	list_init(&w.results);
	list_init(&w.settling);
	return 0;
}

static int
teardown(void **state)
{
	struct message *m;

	(void)state;
	while ((m = list_first(&t.waiting, struct message, node)) != NULL) {
		list_del(&m->node);
		message_free(m);
	}
	settle_stop(&w);
	loop_free(&w.loop);
	return 0;
}

static void
take(size_t bytes)
{
	char *body = xcalloc(1, bytes + 1);

	memset(body, 'x', bytes);
	target_take(&t,
	    &(struct store_webhook){.id = "wh_1", .event = "webhook.test", .body = body}, LEASE_MS,
	    NULL);
	free(body);
}

static void
small_ones(void **state)
{
	(void)state;
	assert_int_equal(target_room(&t), FIRST_MAX);
	take(2000);
	assert_true(w.must_look_again); /* for the rest */
	w.must_look_again = false;
	assert_int_equal(target_room(&t), conf.batch - 1);
	take(2000);
	assert_false(w.must_look_again);
	assert_int_equal(t.mean_bytes, 2000);
}

static void
large_ones(void **state)
{
	(void)state;
	take(LARGE);
	assert_int_equal(t.mean_bytes, LARGE);
	assert_int_equal(target_room(&t), 0);
	assert_int_equal(w.held_bytes, LARGE);
}

static void
what_so_many_may_weigh(void **state)
{
	(void)state;
	assert_int_equal(target_weight(&t, 3), 3 * FIRST_BYTES);
	take(2000);
	assert_int_equal(target_weight(&t, 3), 3 * 2000);
}

/* Its secret is sealed with another key now, while a result of it is on its way to the record. */
static void
those_behind_go_back_where_nobody_can_send_them(void **state)
{
	struct store_webhook row = {.id = "wh_1", .event = "webhook.test", .body = "{}"};
	struct message *first, *next;

	(void)state;
	first = target_take(&t, &row, LEASE_MS, NULL);
	row.id = "wh_2";
	target_take(&t, &row, LEASE_MS, first);
	list_del(&first->node);
	t.waiting_count--;
	first->state = "delivered";
	t.is_usable = false;
	t.host = NULL;
	target_go_on(first);
	message_free(first);
	assert_int_equal(t.waiting_count + t.behind_count, 0);
	next = list_first(&w.results, struct message, node);
	assert_non_null(next);
	assert_string_equal(next->id, "wh_2");
	assert_string_equal(next->state, "pending");
	assert_false(next->was_tried);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(small_ones, setup, teardown),
	    cmocka_unit_test_setup_teardown(large_ones, setup, teardown),
	    cmocka_unit_test_setup_teardown(what_so_many_may_weigh, setup, teardown),
	    cmocka_unit_test_setup_teardown(
		those_behind_go_back_where_nobody_can_send_them, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
