/* fake_loop - the clock, the order of timers, posts, descriptors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/check.h"
#include "t/replay/fake_loop.h"

static char trace[32];
static unsigned traced;
static struct loop *loop;

struct mark {
	struct loop_timer timer;
	struct loop_post post;
	struct loop_watch watch;
	char name;
	uint64_t at_ms;
	struct mark *sets; /* its timer, 5 ms later */
};

static void
on_fire(struct loop_timer *t)
{
	struct mark *m = container_of(t, struct mark, timer);

	trace[traced++] = m->name;
	m->at_ms = loop_now_ms(loop);
	if (m->sets != NULL)
		loop_timer_set(loop, &m->sets->timer, 5);
}

static void
on_post(struct loop_post *p)
{
	trace[traced++] = container_of(p, struct mark, post)->name;
}

static void
on_ready(struct loop_watch *w, uint32_t events)
{
	struct mark *m = container_of(w, struct mark, watch);
	char c;

	assert_true(events & EPOLLIN);
	assert_int_equal(read(w->fd, &c, 1), 1);
	trace[traced++] = m->name;
	if (c == '.')
		loop_watch_stop(loop, w);
}

static int
setup(void **state)
{
	(void)state;
	loop = loop_new();
	traced = 0;
	memset(trace, 0, sizeof(trace));
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	assert_int_equal(fake_loop_timers(), 0);
	assert_int_equal(fake_loop_watches(), 0);
	loop_free(&loop);
	return 0;
}

static void
test_timers(void **state)
{
	struct mark c = {.timer.on_fire = on_fire, .name = 'c'};
	struct mark a = {.timer.on_fire = on_fire, .name = 'a', .sets = &c};
	struct mark b = {.timer.on_fire = on_fire, .name = 'b'};
	uint64_t start_ms = loop_now_ms(loop);

	(void)state;
	loop_timer_set(loop, &b.timer, 20);
	loop_timer_set(loop, &a.timer, 10);
	fake_loop_advance(9);
	assert_int_equal(traced, 0);
	fake_loop_advance(100);
	assert_string_equal(trace, "acb");
	assert_int_equal(a.at_ms - start_ms, 10);
	assert_int_equal(c.at_ms - start_ms, 15);
	assert_int_equal(loop_now_ms(loop) - start_ms, 109);
	loop_timer_set(loop, &a.timer, 10);
	loop_timer_set(loop, &b.timer, 10);
	assert_true(loop_timer_is_set(&a.timer));
	loop_timer_stop(loop, &a.timer);
	loop_timer_stop(loop, &a.timer);
	assert_false(loop_timer_is_set(&a.timer));
	fake_loop_advance(10);
	assert_string_equal(trace, "acbb");
}

static void
test_posts(void **state)
{
	struct mark a = {.post.run = on_post, .name = 'a'}, b = {.post.run = on_post, .name = 'b'};

	(void)state;
	loop_post(loop, &a.post);
	loop_post(loop, &b.post);
	loop_post(loop, &a.post);
	assert_int_equal(traced, 0);
	fake_loop_settle();
	assert_string_equal(trace, "ab");
	loop_post(loop, &a.post);
	loop_post_cancel(loop, &a.post);
	loop_post_cancel(loop, &a.post);
	fake_loop_settle();
	assert_string_equal(trace, "ab");
}

static void *
post_from_thread(void *arg)
{
	loop_post(loop, arg);
	return NULL;
}

static bool
is_traced(void *arg)
{
	return traced >= *(unsigned *)arg;
}

static void
test_watches_and_threads(void **state)
{
	struct mark a = {.watch.on_ready = on_ready, .name = 'a'},
		    b = {.post.run = on_post, .name = 'b'};
	pthread_t thread;
	int fd[2];
	unsigned n = 3;

	(void)state;
	assert_int_equal(pipe(fd), 0);
	loop_watch_start(loop, &a.watch, fd[0], EPOLLIN);
	assert_int_equal(write(fd[1], "x.y", 3), 3);
	fake_loop_settle();
	assert_string_equal(trace, "aa");
	assert_false(a.watch.is_active);
	assert_int_equal(pthread_create(&thread, NULL, post_from_thread, &b.post), 0);
	assert_true(fake_loop_run_until(is_traced, &n));
	assert_string_equal(trace, "aab");
	pthread_join(thread, NULL);
	close(fd[0]);
	close(fd[1]);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_timers), TEST(test_posts), TEST(test_watches_and_threads)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
