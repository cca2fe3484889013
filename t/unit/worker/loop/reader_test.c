/*
 * reader_test - descriptors in h2o's own epoll, on the real loop.
 */
#include "t/unit/unit.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/list.h"
#include "worker/loop/reader.h"

struct end {
	struct loop_reader reader;
	int fd, peer;
	struct end *stops;
	int calls;
	ssize_t last; /* what read() said */
};

static struct loop *loop;

static void
on_readable(struct loop_reader *r)
{
	struct end *e = container_of(r, struct end, reader);
	char c;

	e->calls++;
	e->last = read(e->fd, &c, 1);
	if (e->stops != NULL) {
		loop_reader_stop(&e->stops->reader);
		loop_reader_stop(&e->reader);
	}
	loop_stop(loop);
}

static void
end_open(struct end *e)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	*e = (struct end){.reader.on_readable = on_readable, .fd = fds[0], .peer = fds[1]};
	loop_reader_start(loop, &e->reader, e->fd);
}

static void
end_close(struct end *e)
{
	loop_reader_stop(&e->reader);
	assert_false(loop_reader_is_active(&e->reader));
	close(e->fd); /* it is still the caller's */
	if (e->peer >= 0)
		close(e->peer);
}

static void
say(const struct end *e, const char *what)
{
	assert_int_equal(write(e->peer, what, strlen(what)), (ssize_t)strlen(what));
}

static int
setup(void **state)
{
	loop = loop_new();
	return 0;
}

static int
teardown(void **state)
{
	loop_free(&loop);
	return 0;
}

static void
test_called_while_there_is_something(void **state)
{
	struct end e;

	end_open(&e);
	say(&e, "ab");
	loop_run(loop);
	assert_int_equal(e.calls, 1);
	loop_run(loop); /* level-triggered */
	assert_int_equal(e.calls, 2);
	close(e.peer);
	e.peer = -1;
	loop_run(loop);
	assert_int_equal(e.last, 0); /* the end is readable */
	end_close(&e);
}

static void
test_stopped_one_is_silent_in_its_round(void **state)
{
	struct end a, b;

	end_open(&a);
	end_open(&b);
	a.stops = &b;
	b.stops = &a;
	say(&a, "x");
	say(&b, "x");
	loop_run(loop);
	assert_int_equal(a.calls + b.calls, 1);
	end_close(&a);
	end_close(&b);
}

static void
test_started_again_on_the_same_descriptor(void **state)
{
	struct end e;

	end_open(&e);
	loop_reader_stop(&e.reader); /* before the loop has seen it */
	loop_reader_stop(&e.reader);
	loop_reader_start(loop, &e.reader, e.fd);
	say(&e, "xy");
	loop_run(loop);
	loop_reader_stop(&e.reader);
	loop_reader_start(loop, &e.reader, e.fd);
	loop_run(loop);
	assert_int_equal(e.calls, 2);
	end_close(&e);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_called_while_there_is_something, setup, teardown),
	    cmocka_unit_test_setup_teardown(
		test_stopped_one_is_silent_in_its_round, setup, teardown),
	    cmocka_unit_test_setup_teardown(
		test_started_again_on_the_same_descriptor, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
