/* proto - a message there, none, one too many, a stranger's, and the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/proto.h"

static void
test_all(void **state)
{
	struct proto_message out = {PROTO_LOAD, 3, {7, 99}, -5}, in;
	int fd[2], n = 0, err;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd), 0);
	assert_int_equal(proto_recv(fd[1], &in), -EAGAIN);
	assert_int_equal(proto_send(fd[0], &out), 0);
	assert_int_equal(proto_recv(fd[1], &in), 1);
	assert_int_equal(in.type, PROTO_LOAD);
	assert_int_equal(in.slot, 3);
	assert_int_equal(in.who.row, 7);
	assert_int_equal(in.who.number, 99);
	assert_int_equal(in.value, -5);

	assert_int_equal(send(fd[0], "short", 5, 0), 5);
	assert_int_equal(proto_recv(fd[1], &in), -EBADMSG);
	char longer[sizeof(out) + 1] = {0};
	assert_int_equal(send(fd[0], longer, sizeof(longer), 0), (int)sizeof(longer));
	assert_int_equal(proto_recv(fd[1], &in), -EBADMSG);

	while ((err = proto_send(fd[0], &out)) == 0)
		n++;
	assert_int_equal(err, -EAGAIN);
	assert_true(n > 10);
	close(fd[0]);
	while (n-- > 0)
		assert_int_equal(proto_recv(fd[1], &in), 1);
	assert_int_equal(proto_recv(fd[1], &in), 0);
	assert_int_equal(proto_send(fd[1], &out), -EPIPE);
	close(fd[1]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_all)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
