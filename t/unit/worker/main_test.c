/*
 * main_test - a worker process as the master sees it: ready, load, drain, bye; and
 * its end when the master is gone; and all of it while it still waits for a tool server
 * that says nothing. The worker is real, forked, on a socket of its own.
 */
#include "t/unit/unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/handoff.h"
#include "common/log.h"
#include "common/proto.h"
#include "worker/store/store.h"

static struct {
	char dir[32];
	struct conf *conf;
	struct shm *shm;
	struct shm_who who;
	struct handoff_listener listener;
	struct sockaddr_in addr;
	int tools_fd; /* a tool server that never answers; -1: there is none */
	int master_fd;
	pid_t pid;
} host;

static int
listen_somewhere(struct sockaddr_in *ret)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(*ret);

	*ret = (struct sockaddr_in){.sin_family = AF_INET};
	ret->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)ret, len), 0);
	assert_int_equal(listen(fd, 64), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)ret, &len), 0);
	return fd;
}

/* The demo setup, with a database of its own. */
static struct conf *
load_conf(const char *text)
{
	char url[64];
	struct conf_override own = {"store.url", url, "the test"};
	struct conf_source source = {.text = str_of(text), .overrides = &own, .override_count = 1};
	struct buf errors = BUF_INIT;
	struct conf *conf;

	strcpy(host.dir, "/tmp/parley-XXXXXX");
	assert_non_null(mkdtemp(host.dir));
	snprintf(url, sizeof(url), "sqlite:%s/parley.db", host.dir);
	conf = conf_load(&source, &errors);
	assert_non_null(conf);
	buf_fini(&errors);
	assert_int_equal(store_migrate(conf), 0);
	return conf;
}

static void
remove_dir(void)
{
	static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
	char path[64];

	for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
		snprintf(path, sizeof(path), "%s/parley.db%s", host.dir, suffixes[i]);
		unlink(path);
	}
	rmdir(host.dir);
}

static void
begin(const char *text)
{
	int fds[2];

	host.conf = load_conf(text);
	host.shm = shm_create(1);
	assert_non_null(host.shm);
	host.listener = (struct handoff_listener){.is_loopback = true};
	host.listener.fd = listen_somewhere(&host.addr);
	assert_int_equal(
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
	assert_true(shm_row_claim(host.shm, 0, 0, &host.who));
	host.master_fd = fds[0];
	host.pid = fork();
	if (host.pid == 0) {
		struct log_conf log = {.level = LOG_ERROR};
		struct handoff h = {
		    .conf = host.conf,
		    .shm = host.shm,
		    .who = host.who,
		    .listeners = &host.listener,
		    .listener_count = 1,
		    .master_fd = fds[1],
		    .master_pid = (int)getppid(),
		};

		close(fds[0]);
		log_open(&log);
		exit(worker_main(&h));
	}
	close(fds[1]);
}

static int
setup(void **state)
{
	host.tools_fd = -1;
	begin("");
	return 0;
}

/* With a tool server that connects and says nothing. */
static void
begin_waiting(const char *start_wait)
{
	struct sockaddr_in addr;
	char text[256];

	host.tools_fd = listen_somewhere(&addr);
	snprintf(text, sizeof(text),
	    "watchdog: {start_timeout: 10m}\nmcp: {start_wait: %s, servers: [{name: mute, url: "
	    "\"http://127.0.0.1:%u/mcp\"}]}\n",
	    start_wait, ntohs(addr.sin_port));
	begin(text);
}

static int
setup_waiting(void **state)
{
	begin_waiting("1m");
	return 0;
}

static int
setup_waiting_briefly(void **state)
{
	begin_waiting("300ms");
	return 0;
}

static int
teardown(void **state)
{
	if (host.pid > 0) {
		kill(host.pid, SIGKILL);
		waitpid(host.pid, NULL, 0);
	}
	if (host.tools_fd >= 0)
		close(host.tools_fd);
	close(host.listener.fd);
	if (host.master_fd >= 0)
		close(host.master_fd);
	shm_free(&host.shm);
	conf_free(&host.conf);
	remove_dir();
	return 0;
}

static struct proto_message
hear(enum proto_type wanted)
{
	uint64_t until_ms = clock_mono_ms() + 10000;
	struct proto_message m = {0};

	while (clock_mono_ms() < until_ms) {
		struct pollfd p = {.fd = host.master_fd, .events = POLLIN};
		int r;

		poll(&p, 1, 100);
		while ((r = proto_recv(host.master_fd, &m)) == 1) {
			if (m.type == wanted)
				return m;
		}
		assert_int_not_equal(r, 0);
	}
	fail_msg("the worker did not say %d", wanted);
	return m;
}

static void
say(enum proto_type type, int64_t value)
{
	struct proto_message m = {type, 0, host.who, value};

	assert_int_equal(proto_send(host.master_fd, &m), 0);
}

/* Sends, then reads until the worker closes (or `until` came). */
static char *
ask(const char *request, const char *until)
{
	static char answer[64 << 10];
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct timeval limit = {.tv_sec = 10};
	size_t len = 0;
	ssize_t n;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	assert_int_equal(connect(fd, (struct sockaddr *)&host.addr, sizeof(host.addr)), 0);
	assert_int_equal(write(fd, request, strlen(request)), strlen(request));
	answer[0] = '\0';
	while ((n = read(fd, answer + len, sizeof(answer) - 1 - len)) > 0) {
		len += (size_t)n;
		answer[len] = '\0';
		if (until != NULL && strstr(answer, until) != NULL)
			break;
	}
	close(fd);
	return answer;
}

static int
exit_status(void)
{
	uint64_t until_ms = clock_mono_ms() + 10000;
	int status;

	while (clock_mono_ms() < until_ms) {
		if (waitpid(host.pid, &status, WNOHANG) == host.pid) {
			host.pid = 0;
			return status;
		}
		poll(NULL, 0, 5);
	}
	fail_msg("the worker does not end");
	return -1;
}

static void
expect_asks_tools(void)
{
	struct pollfd p = {.fd = host.tools_fd, .events = POLLIN};

	assert_int_equal(poll(&p, 1, 30000), 1);
}

/* For a minute, of which little has passed. */
static void
expect_waiting(void)
{
	struct pollfd p = {.fd = host.master_fd, .events = POLLIN};

	expect_asks_tools();
	assert_int_equal(poll(&p, 1, 0), 0); /* it has not said that it is ready */
}

#define GET(path) "GET " path " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

static void
test_ready_then_serves(void **state)
{
	struct proto_message m = hear(PROTO_READY);
	char *answer;

	assert_int_equal(m.who.number, host.who.number);
	assert_int_equal(m.slot, 0);
	answer = ask(GET("/health"), NULL);
	assert_non_null(strstr(answer, "HTTP/1.1 200 OK\r\n"));
	assert_non_null(strstr(answer, "\"status\":\"ok\""));
	assert_non_null(strstr(answer, "\"ready\":1"));
	assert_non_null(strstr(ask(GET("/health/ready"), NULL), " 200 "));
	assert_non_null(strstr(ask(GET("/metrics"), NULL), "parley_build_info"));
	hear(PROTO_LOAD);
}

/* That a head is refused in our shape proves that libh2o runs our parser. */
static void
test_the_library_calls_our_parser(void **state)
{
	char *answer;

	hear(PROTO_READY);
	answer = ask("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", NULL);
	assert_non_null(strstr(answer, "HTTP/1.1 400 "));
	assert_non_null(strstr(answer, "\"message\":\"There is more than one Host header.\""));
	assert_non_null(strstr(answer, "\"request_id\":\"req_"));
}

static void
test_drains_and_ends(void **state)
{
	hear(PROTO_READY);
	atomic_store(shm_word(host.shm, SHM_WORD_IS_DRAINING), 1);
	assert_non_null(strstr(ask(GET("/health/ready"), NULL), "\"reason\":\"draining\""));
	assert_non_null(strstr(ask(GET("/health/live"), NULL), " 200 "));
	say(PROTO_DRAIN, 5000);
	hear(PROTO_BYE);
	assert_int_equal(exit_status(), 0);
}

static void
test_drain_of_no_time_ends_at_once(void **state)
{
	hear(PROTO_READY);
	say(PROTO_DRAIN, 0);
	assert_int_equal(exit_status(), 0);
}

static void
test_ends_when_the_master_is_gone(void **state)
{
	uint64_t start_ms;

	hear(PROTO_READY);
	start_ms = clock_mono_ms();
	close(host.master_fd);
	host.master_fd = -1;
	assert_true(WIFEXITED(exit_status()));
	assert_true(clock_mono_ms() - start_ms < 1000);
}

static void
test_waits_no_longer_than_it_may(void **state)
{
	expect_asks_tools();
	/* Who has come meanwhile is answered then. */
	assert_non_null(strstr(ask(GET("/health/live"), NULL), " 200 "));
	hear(PROTO_READY);
	hear(PROTO_LOAD);
}

static void
test_drains_while_it_waits(void **state)
{
	static const char request[] = GET("/health/live");
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char answer[64] = "";

	expect_waiting();
	assert_int_equal(connect(fd, (struct sockaddr *)&host.addr, sizeof(host.addr)), 0);
	assert_int_equal(write(fd, request, strlen(request)), strlen(request));
	atomic_store(shm_word(host.shm, SHM_WORD_IS_DRAINING), 1);
	say(PROTO_DRAIN, 5000);
	hear(PROTO_BYE);
	assert_int_equal(exit_status(), 0);
	/* Who was in its queue has been answered. */
	assert_true(read(fd, answer, sizeof(answer) - 1) > 0);
	assert_non_null(strstr(answer, " 200 "));
	close(fd);
}

static void
test_drain_of_no_time_ends_the_wait(void **state)
{
	expect_waiting();
	say(PROTO_DRAIN, 0);
	assert_int_equal(exit_status(), 0);
}

static void
test_ends_when_the_master_is_gone_while_it_waits(void **state)
{
	expect_waiting();
	close(host.master_fd);
	host.master_fd = -1;
	assert_true(WIFEXITED(exit_status()));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_ready_then_serves, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_the_library_calls_our_parser, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_drains_and_ends, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_drain_of_no_time_ends_at_once, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_ends_when_the_master_is_gone, setup, teardown),
	    cmocka_unit_test_setup_teardown(
		test_waits_no_longer_than_it_may, setup_waiting_briefly, teardown),
	    cmocka_unit_test_setup_teardown(test_drains_while_it_waits, setup_waiting, teardown),
	    cmocka_unit_test_setup_teardown(
		test_drain_of_no_time_ends_the_wait, setup_waiting, teardown),
	    cmocka_unit_test_setup_teardown(
		test_ends_when_the_master_is_gone_while_it_waits, setup_waiting, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
