/* bus - order, size, oneself, full queues, the dead, strangers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/bus.h"
#include "common/clock.h"
#include "common/err.h"

/* One end: what it heard. */
struct end {
	struct shm_who who;
	struct bus *bus;
	unsigned messages, gone;
	struct shm_who last_from, last_gone;
	uint16_t last_type;
	uint32_t next; /* the number that the next message must bear */
	bool is_ordered, answers;
	struct buf last;
};

static struct shm *shm;
static struct end a, b;

static void
on_message(void *arg, struct shm_who from, uint16_t type, struct str payload)
{
	struct end *e = arg;

	e->messages++;
	e->last_from = from;
	e->last_type = type;
	buf_clear(&e->last);
	buf_add_str(&e->last, payload);
	if (e->is_ordered) {
		uint32_t n;

		assert_true(payload.len >= 4);
		memcpy(&n, payload.p, 4);
		assert_int_equal(n, e->next++);
	}
	if (e->answers)
		bus_send(e->bus, from, type, payload);
}

static void
on_peer_gone(void *arg, struct shm_who peer)
{
	struct end *e = arg;

	e->gone++;
	e->last_gone = peer;
}

static void
end_open(struct end *e, uint32_t slot)
{
	const struct bus_handlers handlers = {on_message, on_peer_gone};

	memset(e, 0, sizeof(*e));
	assert_true(shm_row_claim(shm, slot, (int)getpid(), &e->who));
	e->bus = bus_new(shm, e->who, &handlers, e);
	assert_non_null(e->bus);
	shm_row_set_state(shm, e->who, SHM_READY);
}

static void
end_close(struct end *e)
{
	bus_free(&e->bus);
	buf_fini(&e->last);
}

static int
setup(void **state)
{
	(void)state;
	shm = shm_create(4);
	end_open(&a, 0);
	end_open(&b, 1);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	end_close(&a);
	end_close(&b);
	shm_free(&shm);
	return 0;
}

/* Steps both ends until the count is reached; fails after ten seconds. */
static void
run_until(const unsigned *count, unsigned n)
{
	uint64_t until_ms = clock_mono_ms() + 10000;

	while (*count < n) {
		struct pollfd fds[2] = {{.fd = bus_fd(a.bus), .events = POLLIN},
		    {.fd = b.bus != NULL ? bus_fd(b.bus) : -1, .events = POLLIN}};

		assert_true(clock_mono_ms() < until_ms);
		poll(fds, 2, 100);
		bus_step(a.bus);
		if (b.bus != NULL)
			bus_step(b.bus);
	}
}

static void
test_there_and_back(void **state)
{
	(void)state;
	b.answers = true;
	assert_int_equal(bus_send(a.bus, b.who, 7, STR("hello")), 0);
	run_until(&a.messages, 1);
	assert_int_equal(b.messages, 1);
	assert_int_equal(b.last_from.number, a.who.number);
	assert_int_equal(a.last_from.number, b.who.number);
	assert_int_equal(a.last_type, 7);
	assert_string_equal(a.last.data, "hello");
	assert_int_equal(bus_send(a.bus, b.who, 8, STR_NONE), 0);
	run_until(&a.messages, 2);
	assert_int_equal(a.last_type, 8);
	assert_int_equal(a.last.len, 0);
}

static void
test_oneself(void **state)
{
	(void)state;
	assert_int_equal(bus_send(a.bus, a.who, 1, STR("me")), 0);
	assert_int_equal(a.messages, 0);
	run_until(&a.messages, 1);
	assert_int_equal(a.last_from.number, a.who.number);
	a.answers = true;
	assert_int_equal(bus_send(a.bus, a.who, 1, STR("again")), 0);
	bus_step(a.bus);
	assert_int_equal(a.messages, 2);
	a.answers = false;
	bus_step(a.bus);
	assert_int_equal(a.messages, 3);
}

static void
test_every_size(void **state)
{
	static const size_t sizes[] = {
	    1, 4095, 32767, 32768, 32769, 65536, 65537, 1 << 20, 5 << 20};
	char *bytes = malloc(5 << 20);

	(void)state;
	for (size_t i = 0; i < 5 << 20; i++)
		bytes[i] = (char)(i * 7 + i / 4096);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		assert_int_equal(bus_send(a.bus, b.who, 1, str_sub(bytes, sizes[i])), 0);
		run_until(&b.messages, i + 1);
		assert_int_equal(b.last.len, sizes[i]);
		assert_memory_equal(b.last.data, bytes, sizes[i]);
	}
	assert_int_equal(bus_send(a.bus, b.who, 1, str_sub(bytes, (size_t)BUS_MESSAGE_MAX + 1)),
	    E_PAYLOAD_TOO_LARGE);
	free(bytes);
}

/* More than the socket holds, small among large: in order, none twice. */
static void
test_order(void **state)
{
	enum { N = 3000 };
	char *bytes = calloc(1, 100000);

	(void)state;
	b.is_ordered = true;
	for (uint32_t i = 0; i < N; i++) {
		memcpy(bytes, &i, 4);
		assert_int_equal(
		    bus_send(a.bus, b.who, 1, str_sub(bytes, i % 50 == 0 ? 100000 : 4 + i % 300)),
		    0);
	}
	run_until(&b.messages, N);
	assert_int_equal(b.next, N);
	free(bytes);
}

static void
test_full_queue(void **state)
{
	char *bytes = calloc(1, 1 << 20);
	unsigned n = 0;

	(void)state;
	while (bus_send(a.bus, b.who, 1, str_sub(bytes, 1 << 20)) == 0)
		n++;
	assert_int_equal(bus_send(a.bus, b.who, 1, str_sub(bytes, 1 << 20)), E_BUSY);
	assert_true(n >= 60 && n <= 65);
	run_until(&b.messages, n);
	assert_int_equal(bus_send(a.bus, b.who, 1, str_sub(bytes, 1 << 20)), 0);
	while (bus_send(a.bus, a.who, 1, str_sub(bytes, 1 << 20)) == 0)
		;
	assert_int_equal(bus_send(a.bus, a.who, 1, str_sub(bytes, 1 << 20)), E_BUSY);
	free(bytes);
}

static void
test_broadcast(void **state)
{
	struct shm_who silent;

	(void)state;
	assert_true(shm_row_claim(shm, 2, 1, &silent));
	assert_int_equal(bus_broadcast(a.bus, 5, STR("all"), NULL, NULL), 1);
	run_until(&b.messages, 1);
	assert_int_equal(a.messages, 0);
	shm_row_set_state(shm, b.who, SHM_DRAINING);
	assert_int_equal(bus_broadcast(a.bus, 5, STR("all"), NULL, NULL), 1);
	run_until(&b.messages, 2);
}

static void
test_nobody(void **state)
{
	struct shm_who nobody = {3, 99}, far = {9999, 1}, none = {0, 0};

	(void)state;
	assert_int_equal(bus_send(a.bus, nobody, 1, STR("x")), E_GONE);
	assert_int_equal(bus_send(a.bus, far, 1, STR("x")), E_GONE);
	assert_int_equal(bus_send(a.bus, none, 1, STR("x")), E_GONE);
	bus_step(a.bus);
	assert_int_equal(a.gone, 0);
}

/* One that does not listen yet is not there yet; it is not given up. */
static void
test_starting(void **state)
{
	const struct bus_handlers handlers = {on_message, on_peer_gone};
	struct shm_who early;

	(void)state;
	end_close(&b);
	shm_row_reap(shm, b.who);
	assert_true(shm_row_claim(shm, 1, (int)getpid(), &early));
	assert_int_equal(bus_send(a.bus, early, 1, STR("x")), E_GONE);
	memset(&b, 0, sizeof(b));
	b.who = early;
	b.bus = bus_new(shm, early, &handlers, &b);
	assert_int_equal(bus_send(a.bus, early, 1, STR("x")), 0);
	run_until(&b.messages, 1);
	assert_int_equal(a.gone, 0);
}

/* Alive in the table, but nobody listens any more: refused, and told once. */
static void
test_refused(void **state)
{
	struct shm_row_info info;

	(void)state;
	assert_true(shm_row_get(shm, b.who.row, &info));
	end_close(&b);
	shm_row_set_bus_name(shm, b.who, info.bus_name, info.bus_name_len);
	assert_int_equal(bus_send(a.bus, b.who, 1, STR("x")), E_GONE);
	assert_int_equal(bus_send(a.bus, b.who, 1, STR("x")), E_GONE);
	assert_int_equal(a.gone, 0);
	run_until(&a.gone, 1);
	bus_step(a.bus);
	assert_int_equal(a.gone, 1);
	assert_int_equal(a.last_gone.number, b.who.number);
}

static void
test_successor(void **state)
{
	struct shm_who old = b.who;

	(void)state;
	assert_int_equal(bus_send(a.bus, b.who, 1, STR("x")), 0);
	run_until(&b.messages, 1);
	end_close(&b);
	shm_row_reap(shm, old);
	end_open(&b, 1);
	assert_int_equal(b.who.row, old.row);
	assert_int_equal(bus_send(a.bus, old, 1, STR("x")), E_GONE);
	assert_int_equal(bus_send(a.bus, b.who, 1, STR("new")), 0);
	run_until(&b.messages, 1);
	run_until(&a.gone, 1);
	assert_int_equal(a.last_gone.number, old.number);
	b.answers = true;
	assert_int_equal(bus_send(a.bus, b.who, 1, STR("new")), 0);
	run_until(&a.messages, 1);
	assert_int_equal(a.gone, 1);
}

/* A killed peer's last words arrive before the news of its end. */
static void
test_last_words(void **state)
{
	int status, ready[2];

	(void)state;
	end_close(&b);
	shm_row_reap(shm, b.who);
	assert_true(shm_row_claim(shm, 1, 0, &b.who));
	assert_int_equal(pipe(ready), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		const struct bus_handlers handlers = {on_message, on_peer_gone};
		struct bus *bus = bus_new(shm, b.who, &handlers, &b);

		for (uint32_t i = 0; i < 50; i++)
			bus_send(bus, a.who, 1, str_sub((char *)&i, 4));
		if (write(ready[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	char c;
	assert_int_equal(read(ready[0], &c, 1), 1);
	shm_row_set_state(shm, b.who, SHM_READY);
	a.is_ordered = true;
	/* Two-way: that the end is seen on either connection must make no difference. */
	assert_int_equal(bus_send(a.bus, b.who, 1, STR("x")), 0);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	run_until(&a.gone, 1);
	assert_int_equal(a.messages, 50);
	assert_int_equal(a.last_gone.number, b.who.number);
	assert_int_equal(bus_send(a.bus, b.who, 1, STR("x")), E_GONE);
	close(ready[0]);
	close(ready[1]);
}

/* Who both say a word and die before we look: the end of one leads to the greeting of the other. */
static void
test_two_last_words(void **state)
{
	enum { ENDS = 3 };
	static struct end ends[ENDS];
	unsigned started = 0;

	(void)state;
	for (uint32_t i = 0; i < ENDS; i++) {
		end_open(&ends[i], i % 2 + 2);
		assert_int_equal(bus_send(a.bus, ends[i].who, 1, STR("x")), 0);
		while (ends[i].messages == 0)
			bus_step(ends[i].bus);
		started += ends[i].messages;
	}
	assert_int_equal(started, ENDS);
	for (uint32_t i = 0; i < ENDS; i++) {
		assert_int_equal(bus_send(ends[i].bus, a.who, 1, STR("bye")), 0);
		bus_step(ends[i].bus);
	}
	for (uint32_t i = 0; i < ENDS; i++)
		end_close(&ends[i]);
	run_until(&a.gone, ENDS);
	assert_int_equal(a.messages, ENDS);
}

static int
connect_to(const struct end *e)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct shm_row_info info;

	assert_true(shm_row_get(shm, e->who.row, &info));
	memcpy(at.sun_path + 1, info.bus_name, info.bus_name_len);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	assert_int_equal(
	    connect(fd, (struct sockaddr *)&at,
		(socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + info.bus_name_len)),
	    0);
	return fd;
}

/* Neither a process of no row, nor a wrong hello, nor nonsense after a right one gets anywhere. */
static void
test_strangers(void **state)
{
	struct {
		uint32_t magic;
		struct shm_who who;
	} hello = {0x50425553u, b.who};
	int status;
	char c;

	(void)state;
	pid_t pid = fork();
	if (pid == 0) {
		int fd = connect_to(&a);

		send(fd, &hello, sizeof(hello), MSG_NOSIGNAL);
		send(fd, "0123456789abcdef", 16, MSG_NOSIGNAL);
		_exit(recv(fd, &c, 1, 0) <= 0 ? 0 : 1);
	}
	while (waitpid(pid, &status, WNOHANG) == 0) {
		struct pollfd p = {.fd = bus_fd(a.bus), .events = POLLIN};

		poll(&p, 1, 20);
		bus_step(a.bus);
	}
	assert_int_equal(status, 0);

	int fd = connect_to(&a);
	assert_int_equal(send(fd, "no hello", 8, 0), 8);
	bus_step(a.bus);
	bus_step(a.bus);
	assert_true(recv(fd, &c, 1, MSG_DONTWAIT) == 0);
	close(fd);
	assert_int_equal(a.messages, 0);
	assert_int_equal(a.gone, 0);

	fd = connect_to(&a);
	assert_int_equal(send(fd, &hello, sizeof(hello), 0), sizeof(hello));
	uint32_t piece[4] = {100, 50, 1, 0};
	assert_int_equal(send(fd, piece, sizeof(piece), 0), sizeof(piece));
	run_until(&a.gone, 1);
	assert_int_equal(a.messages, 0);
	close(fd);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_there_and_back),
	    TEST(test_oneself),
	    TEST(test_every_size),
	    TEST(test_order),
	    TEST(test_full_queue),
	    TEST(test_broadcast),
	    TEST(test_nobody),
	    TEST(test_starting),
	    TEST(test_refused),
	    TEST(test_successor),
	    TEST(test_last_words),
	    TEST(test_two_last_words),
	    TEST(test_strangers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
