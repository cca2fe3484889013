/*
 * loop_test - timers, descriptors and posts on the real loop.
 */
#include "t/unit/unit.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "worker/loop/h2o_loop.h"
#include "worker/loop/loop.h"

static struct loop *loop;
static int fired[64], fired_count;

static int
setup(void **state)
{
	loop = loop_new();
	fired_count = 0;
	return 0;
}

static int
teardown(void **state)
{
	loop_free(&loop);
	assert_null(loop);
	return 0;
}

struct named_timer {
	struct loop_timer timer;
	int name;
	struct named_timer *stops;
	int again;
	bool ends;
};

static void
on_named(struct loop_timer *t)
{
	struct named_timer *n = container_of(t, struct named_timer, timer);

	assert_false(loop_timer_is_set(t));
	fired[fired_count++] = n->name;
	if (n->stops != NULL)
		loop_timer_stop(loop, &n->stops->timer);
	if (n->again-- > 0)
		loop_timer_set(loop, t, 0);
	if (n->ends)
		loop_stop(loop);
}

/* However many others there are. */
static void
test_timer_set_from_itself_waits_for_the_next_round(void **state)
{
	struct named_timer far[40] = {0}, again = {.name = 1, .again = 30, .ends = true};

	again.timer.on_fire = on_named;
	for (int i = 0; i < 40; i++) {
		far[i].timer.on_fire = on_named;
		loop_timer_set(loop, &far[i].timer, 60000);
	}
	loop_timer_set(loop, &again.timer, 0);
	loop_run(loop);
	assert_int_equal(fired_count, 1);
	assert_true(loop_timer_is_set(&again.timer));
	loop_run(loop);
	assert_int_equal(fired_count, 2);
	for (int i = 0; i < 40; i++)
		loop_timer_stop(loop, &far[i].timer);
	loop_timer_stop(loop, &again.timer);
}

static void
test_timers_fire_in_order(void **state)
{
	struct named_timer t[20] = {0};

	for (int i = 0; i < 20; i++) {
		t[i].timer.on_fire = on_named;
		t[i].name = i;
		t[i].ends = i == 19;
		loop_timer_set(loop, &t[i].timer, (uint64_t)((7 * i) % 20) * 2);
	}
	loop_timer_set(loop, &t[19].timer, 60); /* moved to the end */
	loop_timer_stop(loop, &t[3].timer);
	loop_timer_stop(loop, &t[3].timer);
	loop_run(loop);
	assert_int_equal(fired_count, 19);
	for (int i = 1; i < 18; i++)
		assert_true((7 * fired[i - 1]) % 20 < (7 * fired[i]) % 20);
	assert_int_equal(fired[18], 19);
}

static void
test_timer_waits_its_time(void **state)
{
	struct named_timer t = {.timer.on_fire = on_named, .ends = true};
	uint64_t start_us = clock_mono_us();

	loop_timer_set(loop, &t.timer, 20);
	loop_run(loop);
	assert_true(clock_mono_us() - start_us >= 19000);
	assert_int_equal(fired_count, 1);
}

static void
test_timer_that_sets_itself_does_not_hold_the_round(void **state)
{
	struct named_timer again = {.timer.on_fire = on_named, .name = 1, .again = 5};
	struct named_timer end = {.timer.on_fire = on_named, .name = 2, .ends = true};

	loop_timer_set(loop, &again.timer, 0);
	loop_timer_set(loop, &end.timer, 1);
	loop_run(loop);
	assert_int_equal(fired[fired_count - 1], 2);
	loop_timer_stop(loop, &again.timer);
}

static void
test_timer_stopped_by_another_of_its_round(void **state)
{
	struct named_timer a = {.timer.on_fire = on_named, .name = 1};
	struct named_timer b = {.timer.on_fire = on_named, .name = 2};
	struct named_timer end = {.timer.on_fire = on_named, .name = 3, .ends = true};

	a.stops = &b;
	b.stops = &a;
	loop_timer_set(loop, &a.timer, 0);
	loop_timer_set(loop, &b.timer, 0);
	loop_timer_set(loop, &end.timer, 5);
	loop_run(loop);
	assert_int_equal(fired_count, 2); /* one of a and b, and the end */
	assert_int_equal(fired[1], 3);
}

struct pair {
	struct loop_watch a, b;
	int called;
};
static struct pair pair;

static void
on_ready_stops_other(struct loop_watch *w, uint32_t events)
{
	struct loop_watch *other = w == &pair.a ? &pair.b : &pair.a;

	assert_true(events & EPOLLIN);
	pair.called++;
	loop_watch_stop(loop, other);
	loop_watch_stop(loop, w);
	/* Another watch may get the place of the stopped one within the round. */
	other->on_ready = on_ready_stops_other;
	loop_stop(loop);
}

static void
test_stopped_watch_is_silent_in_its_round(void **state)
{
	int fd_a = eventfd(1, EFD_NONBLOCK), fd_b = eventfd(1, EFD_NONBLOCK);

	pair = (struct pair){0};
	pair.a.on_ready = pair.b.on_ready = on_ready_stops_other;
	loop_watch_start(loop, &pair.a, fd_a, EPOLLIN);
	loop_watch_start(loop, &pair.b, fd_b, EPOLLIN);
	loop_run(loop);
	assert_int_equal(pair.called, 1);
	assert_false(pair.a.is_active);
	assert_false(pair.b.is_active);
	loop_watch_stop(loop, &pair.a);
	close(fd_a);
	close(fd_b);
}

static struct loop_watch newcomer;
static int newcomer_called;

static void
on_newcomer(struct loop_watch *w, uint32_t events)
{
	(void)events;
	(void)w;
	newcomer_called++;
	loop_stop(loop);
}

static void
on_ready_replaces_other(struct loop_watch *w, uint32_t events)
{
	struct loop_watch *other = w == &pair.a ? &pair.b : &pair.a;

	(void)events;
	pair.called++;
	loop_watch_stop(loop, w);
	loop_watch_stop(loop, other);
	newcomer.on_ready = on_newcomer;
	loop_watch_start(loop, &newcomer, other->fd, EPOLLOUT); /* takes the place of other */
	loop_watch_change(loop, &newcomer, EPOLLIN);
}

static void
test_stale_event_does_not_reach_the_successor(void **state)
{
	int fd_a = eventfd(1, EFD_NONBLOCK), fd_b = eventfd(1, EFD_NONBLOCK);

	pair = (struct pair){0};
	newcomer_called = 0;
	pair.a.on_ready = pair.b.on_ready = on_ready_replaces_other;
	loop_watch_start(loop, &pair.a, fd_a, EPOLLIN);
	loop_watch_start(loop, &pair.b, fd_b, EPOLLIN);
	loop_run(loop);
	assert_int_equal(pair.called, 1);
	assert_int_equal(newcomer_called, 1); /* by its own event, in a later round */
	loop_watch_stop(loop, &newcomer);
	close(fd_a);
	close(fd_b);
}

static void
on_count(struct loop_watch *w, uint32_t events)
{
	uint64_t v;

	(void)events;
	assert_int_equal(read(w->fd, &v, sizeof(v)), sizeof(v));
	if (++fired_count == 1000)
		loop_stop(loop);
}

static void
test_many_watches(void **state)
{
	struct loop_watch *w = calloc(1000, sizeof(*w));

	for (int i = 0; i < 1000; i++) {
		w[i].on_ready = on_count;
		loop_watch_start(loop, &w[i], eventfd(1, EFD_NONBLOCK), EPOLLIN);
	}
	loop_run(loop);
	assert_int_equal(fired_count, 1000);
	for (int i = 0; i < 1000; i++) {
		loop_watch_stop(loop, &w[i]);
		close(w[i].fd);
	}
	free(w);
}

struct named_post {
	struct loop_post post;
	int name;
	struct named_post *cancels;
	int again;
	bool ends;
};

static void
on_post(struct loop_post *p)
{
	struct named_post *n = container_of(p, struct named_post, post);

	fired[fired_count++] = n->name;
	if (n->cancels != NULL)
		loop_post_cancel(loop, &n->cancels->post);
	if (n->again-- > 0)
		loop_post(loop, p);
	if (n->ends)
		loop_stop(loop);
}

static void
test_posts_run_once_in_order(void **state)
{
	struct named_post p[5] = {0};

	for (int i = 0; i < 5; i++) {
		p[i].post.run = on_post;
		p[i].name = i;
		p[i].ends = i == 4;
		loop_post(loop, &p[i].post);
		loop_post(loop, &p[i].post);
	}
	p[1].cancels = &p[2];
	loop_post_cancel(loop, &p[3].post);
	loop_run(loop);
	assert_int_equal(fired_count, 3);
	assert_int_equal(fired[0], 0);
	assert_int_equal(fired[1], 1);
	assert_int_equal(fired[2], 4);
}

static void
test_post_that_posts_itself_lets_others_run(void **state)
{
	struct named_post again = {.post.run = on_post, .name = 1, .again = 60};
	struct named_timer end = {.timer.on_fire = on_named, .name = 2, .ends = true};

	loop_post(loop, &again.post);
	loop_timer_set(loop, &end.timer, 0);
	loop_run(loop);
	assert_true(fired_count < 60); /* some at once, but not all */
	loop_post_cancel(loop, &again.post);
}

static void *
post_from_thread(void *arg)
{
	struct named_post *p = arg;

	for (int i = 0; i < 32; i++)
		loop_post(loop, &p[i].post);
	return NULL;
}

static void
test_posts_of_another_thread_wake_the_loop(void **state)
{
	struct named_post p[32] = {0};
	pthread_t thread;
	uint64_t start_ms = clock_mono_ms();

	for (int i = 0; i < 32; i++) {
		p[i].post.run = on_post;
		p[i].name = i;
		p[i].ends = i == 31;
	}
	pthread_create(&thread, NULL, post_from_thread, p);
	loop_run(loop);
	pthread_join(thread, NULL);
	assert_int_equal(fired_count, 32);
	for (int i = 0; i < 32; i++)
		assert_int_equal(fired[i], i);
	assert_true(clock_mono_ms() - start_ms < 10000);
}

struct writer {
	struct loop_timer timer;
	h2o_socket_t *sock;
};
static int written;

static void
on_written(h2o_socket_t *sock, const char *err)
{
	assert_null(err);
	h2o_socket_close(sock);
	if (++written == 200)
		loop_stop(loop);
}

static void
on_write(struct loop_timer *t)
{
	struct writer *w = container_of(t, struct writer, timer);
	h2o_iovec_t hello = h2o_iovec_init(H2O_STRLIT("hello"));

	h2o_socket_write(w->sock, &hello, 1, on_written);
}

/* Without draining h2o's pending list after a timer this ends in an assertion of h2o. */
static void
test_burst_of_timers_that_write(void **state)
{
	struct writer *w = calloc(200, sizeof(*w));
	int *peers = calloc(200, sizeof(*peers));

	written = 0;
	for (int i = 0; i < 200; i++) {
		int fds[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
		w[i].sock = h2o_evloop_socket_create(
		    loop_h2o(loop), fds[0], H2O_SOCKET_FLAG_IS_ACCEPTED_CONNECTION);
		peers[i] = fds[1];
		w[i].timer.on_fire = on_write;
		loop_timer_set(loop, &w[i].timer, (uint64_t)(i % 3));
	}
	loop_run(loop);
	assert_int_equal(written, 200);
	for (int i = 0; i < 200; i++)
		close(peers[i]);
	free(peers);
	free(w);
}

static struct loop_watch late;
static struct loop_timer after;
static uint64_t armed_at_us, fired_at_us;

static void
on_after(struct loop_timer *t)
{
	(void)t;
	fired_at_us = clock_mono_us();
	loop_stop(loop);
}

static void
on_late(struct loop_watch *w, uint32_t events)
{
	(void)events;
	armed_at_us = clock_mono_us();
	loop_watch_stop(loop, w);
	loop_timer_set(loop, &after, 30);
}

static void *
write_later(void *arg)
{
	uint64_t one = 1;
	struct timespec ts = {0, 40 * 1000 * 1000};

	nanosleep(&ts, NULL); /* the loop's wait is what is tested */
	assert_int_equal(write(*(int *)arg, &one, sizeof(one)), sizeof(one));
	return NULL;
}

/* The clock of the round is read after the wait, so a delay is not cut by the time waited. */
static void
test_delay_counts_from_the_event(void **state)
{
	int fd = eventfd(0, EFD_NONBLOCK);
	pthread_t thread;

	late = (struct loop_watch){.on_ready = on_late};
	after = (struct loop_timer){.on_fire = on_after};
	loop_watch_start(loop, &late, fd, EPOLLIN);
	pthread_create(&thread, NULL, write_later, &fd);
	loop_run(loop);
	pthread_join(thread, NULL);
	assert_true(fired_at_us - armed_at_us >= 28000);
	close(fd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_timers_fire_in_order, setup, teardown),
	    cmocka_unit_test_setup_teardown(
		test_timer_set_from_itself_waits_for_the_next_round, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_timer_waits_its_time, setup, teardown),
	    cmocka_unit_test_setup_teardown(
		test_timer_that_sets_itself_does_not_hold_the_round, setup, teardown),
	    cmocka_unit_test_setup_teardown(
		test_timer_stopped_by_another_of_its_round, setup, teardown),
	    cmocka_unit_test_setup_teardown(
		test_stopped_watch_is_silent_in_its_round, setup, teardown),
	    cmocka_unit_test_setup_teardown(
		test_stale_event_does_not_reach_the_successor, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_many_watches, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_posts_run_once_in_order, setup, teardown),
	    cmocka_unit_test_setup_teardown(
		test_post_that_posts_itself_lets_others_run, setup, teardown),
	    cmocka_unit_test_setup_teardown(
		test_posts_of_another_thread_wake_the_loop, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_burst_of_timers_that_write, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_delay_counts_from_the_event, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
