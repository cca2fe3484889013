/*
 * wheel_test - coarse timeouts on the real loop, with ticks of a few milliseconds.
 */
#include "t/unit/unit.h"

#include "common/check.h"
#include "common/clock.h"
#include "worker/loop/wheel.h"

struct item {
	struct wheel_entry entry;
	uint64_t due_ms, fired_ms;
	struct item *stops;
	int again;
};

static struct loop *loop;
static struct wheel *wheel;
static int left;

static void
on_fire(struct wheel_entry *e)
{
	struct item *it = container_of(e, struct item, entry);

	assert_false(wheel_is_set(e));
	it->fired_ms = loop_now_ms(loop);
	if (it->stops != NULL)
		wheel_stop(wheel, &it->stops->entry);
	if (it->again-- > 0) {
		wheel_set(wheel, e, 0);
		return;
	}
	if (--left == 0)
		loop_stop(loop);
}

static void
item_set(struct item *it, uint64_t delay_ms)
{
	it->entry.on_fire = on_fire;
	it->due_ms = loop_now_ms(loop) + delay_ms;
	wheel_set(wheel, &it->entry, delay_ms);
}

static int
setup(void **state)
{
	loop = loop_new();
	wheel = wheel_new(loop, 5, 8); /* a turn is 40 ms */
	return 0;
}

static int
teardown(void **state)
{
	wheel_free(&wheel);
	loop_free(&loop);
	return 0;
}

static void
test_never_early_also_over_several_turns(void **state)
{
	struct item items[60] = {0};

	left = 60;
	for (int i = 0; i < 60; i++)
		item_set(&items[i], (uint64_t)i * 2);
	loop_run(loop);
	for (int i = 0; i < 60; i++) {
		assert_true(items[i].fired_ms >= items[i].due_ms);
		assert_false(wheel_is_set(&items[i].entry));
	}
	for (int i = 1; i < 60; i++)
		assert_true(items[i - 1].fired_ms <= items[i].fired_ms);
}

static void
test_moved_and_stopped(void **state)
{
	struct item a = {0}, b = {0}, c = {0};

	left = 2;
	item_set(&a, 5);
	item_set(&b, 5);
	item_set(&c, 50);
	item_set(&a, 20);
	wheel_stop(wheel, &b.entry);
	wheel_stop(wheel, &b.entry);
	loop_run(loop);
	assert_true(a.fired_ms >= a.due_ms);
	assert_int_equal(b.fired_ms, 0);
	assert_true(c.fired_ms >= c.due_ms);
}

static void
test_stopped_by_one_of_the_same_tick(void **state)
{
	struct item a = {0}, b = {0}, end = {0};

	left = 2;
	a.stops = &b;
	b.stops = &a;
	item_set(&a, 5);
	item_set(&b, 5);
	item_set(&end, 40);
	loop_run(loop);
	assert_true((a.fired_ms == 0) != (b.fired_ms == 0));
}

static void
test_sets_itself_again(void **state)
{
	struct item a = {.again = 3};

	left = 1;
	item_set(&a, 0);
	loop_run(loop);
	assert_int_equal(a.again, -1);
	assert_true(a.fired_ms >= a.due_ms + 15);
}

/* An empty wheel does not tick; it goes on from the present when used again. */
static void
test_used_again_after_a_pause(void **state)
{
	struct item a = {0}, b = {0};
	uint64_t pause_end_ms;

	left = 1;
	item_set(&a, 1);
	loop_run(loop);
	pause_end_ms = clock_mono_ms() + 100;
	while (clock_mono_ms() < pause_end_ms)
		;
	left = 1;
	item_set(&b, 10);
	loop_run(loop);
	assert_true(b.fired_ms >= b.due_ms);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(
		test_never_early_also_over_several_turns, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_moved_and_stopped, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_stopped_by_one_of_the_same_tick, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_sets_itself_again, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_used_again_after_a_pause, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
