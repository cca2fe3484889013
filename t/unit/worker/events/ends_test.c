/*
 * ends_test - which topics the record is asked for: each has its turn, however many there are.
 */
#include "t/unit/unit.h"

#include <stdio.h>
#include <string.h>

#include "worker/events/events_impl.h"

enum { TOPICS = 130, AT_ONCE = 50, AGAIN_MS = 1000 };

static struct events ev;
static struct events_topic topics[TOPICS];
static unsigned asked[TOPICS];

static int
setup(void **state)
{
	(void)state;
	ev = (struct events){.loop = loop_new(), .topics = strmap_new()};
	memset(asked, 0, sizeof(asked));
	for (int i = 0; i < TOPICS; i++) {
		char name[32];

		snprintf(name, sizeof(name), "demo\ntask:%d", i);
		topics[i] = (struct events_topic){.is_ended = false};
		strmap_set(ev.topics, str_of(name), &topics[i]);
	}
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	strmap_free(&ev.topics);
	loop_free(&ev.loop);
	return 0;
}

static size_t
ask(void)
{
	struct events_asked out[AT_ONCE];
	size_t count = events_topics_to_ask(&ev, STR("task:"), AGAIN_MS, out, AT_ONCE);

	for (size_t i = 0; i < count; i++) {
		int n;

		assert_true(str_eq(out[i].app, STR("demo")));
		assert_int_equal(sscanf(out[i].topic.p, "task:%d", &n), 1);
		asked[n]++;
	}
	return count;
}

/* So that all may be asked for again. */
static void
let_time_pass(void)
{
	for (int i = 0; i < TOPICS; i++)
		topics[i].asked_ms -= topics[i].asked_ms > AGAIN_MS ? AGAIN_MS : 0;
}

static void
each_has_its_turn(void **state)
{
	(void)state;
	for (int round = 0; round < 13; round++) {
		assert_int_equal(ask(), AT_ONCE);
		let_time_pass();
	}
	for (int i = 0; i < TOPICS; i++)
		assert_int_equal(asked[i], 13 * AT_ONCE / TOPICS);
}

static void
none_is_asked_for_too_soon(void **state)
{
	(void)state;
	assert_int_equal(ask(), AT_ONCE);
	assert_int_equal(ask(), AT_ONCE);
	assert_int_equal(ask(), TOPICS - 2 * AT_ONCE);
	assert_int_equal(ask(), 0);
	topics[7].asked_ms -= AGAIN_MS;
	assert_int_equal(ask(), 1);
	assert_int_equal(asked[7], 2);
	topics[7].asked_ms -= AGAIN_MS;
	topics[7].is_ended = true;
	assert_int_equal(ask(), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(each_has_its_turn, setup, teardown),
	    cmocka_unit_test_setup_teardown(none_is_asked_for_too_soon, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
