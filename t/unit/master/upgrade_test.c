/*
 * upgrade: a new master that is slow to listen is given a socket for each slot all the same, also
 * of the most slots that there can be.
 */
#include "t/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/proto.h"
#include "master/upgrade.h"

enum { SLOTS = 512, PATIENCE_MS = 30000 };

/* ---- the new master: this program again ---- */

/* One message; the end of the test is its end. */
static void
await(int fd, struct proto_message *m, int *passed)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int got;

	while ((got = proto_recv_fd(fd, m, passed)) == -EAGAIN)
		if (poll(&p, 1, PATIENCE_MS) <= 0)
			_exit(EXIT_FAILURE);
	if (got <= 0)
		_exit(EXIT_SUCCESS);
}

/* Listens when it is told to, and writes the slot into each socket that it is given. */
static _Noreturn void
succeed(void)
{
	struct proto_message m = {.type = PROTO_READY};
	struct bequest b;
	sigset_t listen;
	int number, passed;

	sigemptyset(&listen);
	sigaddset(&listen, SIGUSR1);
	sigprocmask(SIG_BLOCK, &listen, NULL);
	if (!bequest_take(&b) || proto_send(b.fds[BEQUEST_TALK], &m) != 0)
		_exit(EXIT_FAILURE);
	sigwait(&listen, &number);
	for (;;) {
		await(b.fds[BEQUEST_TALK], &m, &passed);
		if (m.type != PROTO_HANDOFF || passed < 0)
			continue;
		if (write(passed, &m.slot, sizeof(m.slot)) != sizeof(m.slot))
			_exit(EXIT_FAILURE);
		close(passed);
	}
}

/* ---- the old one ---- */

static struct event_base *base;
static struct upgrade *upgrade;
static pid_t successor;
static char binary[PATH_MAX];

static void
on_ready(void *arg, pid_t pid)
{
	successor = pid;
}

static void
on_failed(void *arg, const char *reason)
{
	fail_msg("%s", reason);
}

static const struct upgrade_handlers handlers = {on_ready, on_failed};

static void
start(void)
{
	static char name[] = "upgrade_test", verb[] = "succeed";
	static char *argv[] = {name, verb, NULL};
	const struct upgrade_order order = {
	    .binary = binary, .argv = argv, .timeout_ms = PATIENCE_MS, .end_ms = 1000};
	struct buf error = BUF_INIT;
	struct bequest b;

	bequest_init(&b);
	for (int i = BEQUEST_TALK + 1; i < BEQUEST_FDS; i++)
		b.fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	b.run_dir = strdup("/nowhere");
	upgrade = upgrade_new(base, &order, &b, &handlers, NULL, &error);
	if (upgrade == NULL)
		fail_msg("%s", error.data);
	for (int i = BEQUEST_TALK + 1; i < BEQUEST_FDS; i++)
		close(b.fds[i]);
	bequest_fini(&b);
	while (successor == 0)
		assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 0);
}

static void
who_listens_late_is_given_all(void **state)
{
	uint64_t end_ms = clock_mono_ms() + PATIENCE_MS;
	uint32_t slot, count = 0;
	int ends[2];

	base = event_base_new();
	start();
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
	upgrade_hand_over(upgrade);
	for (uint32_t i = 0; i < SLOTS; i++)
		upgrade_pass(upgrade, i, ends[1]);
	close(ends[1]);
	kill(successor, SIGUSR1);
	while (count < SLOTS) {
		ssize_t n = recv(ends[0], &slot, sizeof(slot), MSG_DONTWAIT);

		if (n < 0 && errno == EAGAIN) {
			struct pollfd p = {.fd = ends[0], .events = POLLIN};

			assert_true(clock_mono_ms() < end_ms);
			event_base_loop(base, EVLOOP_NONBLOCK);
			poll(&p, 1, 5);
			continue;
		}
		assert_int_equal(n, sizeof(slot)); /* 0: nobody has the other end any more */
		assert_int_equal(slot, count);     /* in their order */
		count++;
	}
	upgrade_free(&upgrade);
	close(ends[0]);
	event_base_free(base);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(who_listens_late_is_given_all)};

	if (argc > 1 && strcmp(argv[1], "succeed") == 0)
		succeed();
	check(realpath(argv[0], binary) != NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
