/* listen: a socket per slot, shared ports and paths, and sockets that are inherited. */
#include "t/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/netaddr.h"
#include "master/inherit.h"
#include "master/listen.h"
#include "master/listen_unix.h"

enum { SLOTS = 3, ROOM = 32 };

static char dir[64];

static struct conf *
load(const char *text)
{
	struct conf_source source = {.text = str_of(text)};
	struct buf errors = BUF_INIT;
	struct conf *conf = conf_load(&source, &errors);

	if (conf == NULL)
		fail_msg("%s", errors.data);
	buf_fini(&errors);
	return conf;
}

static struct listeners *
open_text(const char *text)
{
	struct conf *conf = load(text);
	struct inherit *none = inherit_new(NULL);
	struct listeners *l = listeners_open(conf, SLOTS, none);

	inherit_free(&none);
	conf_free(&conf);
	return l;
}

static struct netaddr
bound_to(int fd)
{
	struct netaddr a = {.len = sizeof(a.storage)};

	assert_int_equal(getsockname(fd, &a.sa, &a.len), 0);
	return a;
}

static int
int_option(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	assert_int_equal(getsockopt(fd, level, name, &value, &len), 0);
	return value;
}

static void
test_every_slot_has_its_own_socket_on_one_port(void **state)
{
	struct listeners *l = open_text("listen: [\"127.0.0.1:0\"]\n");
	struct handoff_listener of[SLOTS][ROOM];

	assert_non_null(l);
	assert_int_equal(listeners_max(l), SLOTS);
	for (uint32_t i = 0; i < SLOTS; i++) {
		struct netaddr a;

		assert_int_equal(listeners_of_slot(l, i, SLOTS, of[i]), 1);
		a = bound_to(of[i][0].fd);
		struct netaddr first = bound_to(of[0][0].fd);
		assert_int_not_equal(netaddr_port(&a), 0);
		assert_int_equal(netaddr_port(&a), netaddr_port(&first));
		assert_int_equal(int_option(of[i][0].fd, SOL_SOCKET, SO_ACCEPTCONN), 1);
		assert_true(fcntl(of[i][0].fd, F_GETFL) & O_NONBLOCK);
		assert_true(fcntl(of[i][0].fd, F_GETFD) & FD_CLOEXEC);
		assert_true(of[i][0].is_loopback);
		assert_false(of[i][0].is_unix || of[i][0].is_tls || of[i][0].is_metrics);
	}
	assert_int_not_equal(of[0][0].fd, of[1][0].fd);
	listeners_close(&l);
	assert_null(l);
}

static void
test_ipv6_is_ipv6_only_unless_no_address_is_given(void **state)
{
	struct listeners *l =
	    open_text("listen: [\"[::1]:0\", \":0\"]\n"
		      "keys: []\napps: [{id: a}]\n"
		      "providers: [{name: m, base_url: \"http://127.0.0.1:9/v1\"}]\n"
		      "models: [{name: d, targets: [{provider: m, model: m}]}]\n");
	struct handoff_listener of[ROOM];

	if (l == NULL) {
		skip(); /* no IPv6 on this machine */
		return;
	}
	assert_int_equal(listeners_of_slot(l, 1, SLOTS, of), 2);
	assert_int_equal(int_option(of[0].fd, IPPROTO_IPV6, IPV6_V6ONLY), 1);
	assert_true(of[0].is_loopback);
	assert_int_equal(int_option(of[1].fd, IPPROTO_IPV6, IPV6_V6ONLY), 0);
	assert_false(of[1].is_loopback);
	listeners_close(&l);
}

static void
test_a_unix_path_is_one_socket_for_all(void **state)
{
	struct handoff_listener of[2][ROOM];
	char text[256], path[96];
	struct stat st;

	snprintf(path, sizeof(path), "%s/shared.sock", dir);
	snprintf(text, sizeof(text), "listen: [\"unix:%s\"]\nunix_mode: 0660\n", path);
	struct listeners *l = open_text(text);
	assert_non_null(l);
	assert_int_equal(listeners_of_slot(l, 0, SLOTS, of[0]), 1);
	assert_int_equal(listeners_of_slot(l, 2, SLOTS, of[1]), 1);
	assert_int_equal(of[0][0].fd, of[1][0].fd);
	assert_true(of[0][0].is_unix && of[0][0].is_loopback);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0660);
	listeners_close(&l);
	assert_int_equal(stat(path, &st), -1);
}

static void
test_tls_and_metrics_are_marked_and_written_down(void **state)
{
	struct listeners *l = open_text("listen: [\"127.0.0.1:0\"]\n"
					"tls: {listen: [\"127.0.0.1:0\"], certificate: a, key: b}\n"
					"metrics: {listen: \"127.0.0.1:0\"}\n");
	struct handoff_listener of[ROOM];
	char path[96], line[3][160], expected[160], address[NETADDR_TEXT_MAX];
	static const char *const kinds[] = {"http", "tls", "metrics"};

	assert_non_null(l);
	assert_int_equal(listeners_of_slot(l, 0, SLOTS, of), 3);
	assert_true(!of[0].is_tls && !of[0].is_metrics);
	assert_true(of[1].is_tls && !of[1].is_metrics);
	assert_true(!of[2].is_tls && of[2].is_metrics);
	snprintf(path, sizeof(path), "%s/addresses", dir);
	assert_true(listeners_write_addresses(l, path));
	FILE *f = fopen(path, "r");
	for (int i = 0; i < 3; i++) {
		struct netaddr a = bound_to(of[i].fd);

		netaddr_format(&a, address);
		snprintf(expected, sizeof(expected), "%s %s\n", kinds[i], address);
		assert_non_null(fgets(line[i], sizeof(line[i]), f));
		assert_string_equal(line[i], expected);
	}
	assert_null(fgets(line[0], sizeof(line[0]), f));
	fclose(f);
	assert_false(listeners_write_addresses(l, "/nowhere/addresses"));
	listeners_close(&l);
}

/* ---- Unix paths ---- */

static void
test_only_a_stale_socket_is_replaced(void **state)
{
	char path[96];

	snprintf(path, sizeof(path), "%s/stale.sock", dir);
	int first = listen_unix(path, 0600, 4);
	assert_true(first >= 0);
	assert_int_equal(listen_unix(path, 0600, 4), -EADDRINUSE);
	close(first); /* the path stays */
	int second = listen_unix(path, 0600, 4);
	assert_true(second >= 0);
	close(second);
	unlink(path);

	FILE *f = fopen(path, "w");
	fclose(f);
	assert_int_equal(listen_unix(path, 0600, 4), -EEXIST);
	unlink(path);
	assert_int_equal(listen_unix("/nowhere/at/all", 0600, 4), -ENOENT);
	char far[200];
	memset(far, 'a', sizeof(far));
	far[sizeof(far) - 1] = '\0';
	assert_int_equal(listen_unix(far, 0600, 4), -ENAMETOOLONG);
}

/* ---- inherited sockets ---- */

static int
bind_any(uint16_t port, bool is_reuseport)
{
	struct sockaddr_in in = {.sin_family = AF_INET,
	    .sin_port = htons(port),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0), on = is_reuseport;

	setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(listen(fd, 8), 0);
	return fd;
}

/* Puts descriptors where systemd puts them: 3, 4, .. ; what was there is saved by the caller. */
static void
hand_over(const int *fds, int count)
{
	char text[16];

	for (int i = 0; i < count; i++) {
		int high = fcntl(fds[i], F_DUPFD, 100);

		close(fds[i]);
		dup2(high, 3 + i);
		close(high);
	}
	snprintf(text, sizeof(text), "%d", count);
	setenv("LISTEN_FDS", text, 1);
	snprintf(text, sizeof(text), "%d", (int)getpid());
	setenv("LISTEN_PID", text, 1);
}

/* Each in a child, because descriptors 3 and up are taken over. */
static void
in_child(void (*job)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		close_range(3, ~0U, 0);
		job();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

#define CHILD_ASSERT(condition)                                                                    \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "failed line=%d: %s\n", __LINE__, #condition);             \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

static struct listeners *
adopt(int fd, uint16_t *ret_port)
{
	struct netaddr a = bound_to(fd);
	char text[160], address[NETADDR_TEXT_MAX];

	*ret_port = netaddr_port(&a);
	netaddr_format(&a, address);
	snprintf(text, sizeof(text), "listen: [\"%s\"]\n", address);
	return open_text(text);
}

static void
adopt_one_that_can_be_joined(void)
{
	struct handoff_listener of[SLOTS][ROOM];
	int fds[] = {bind_any(0, true)};
	uint16_t port;

	hand_over(fds, 1);
	struct listeners *l = adopt(3, &port);
	CHILD_ASSERT(l != NULL && listeners_max(l) == SLOTS);
	for (uint32_t i = 0; i < SLOTS; i++) {
		CHILD_ASSERT(listeners_of_slot(l, i, SLOTS, of[i]) == 1);
		struct netaddr a = bound_to(of[i][0].fd);
		CHILD_ASSERT(netaddr_port(&a) == port);
	}
	CHILD_ASSERT(of[0][0].fd == 3);
	CHILD_ASSERT(fcntl(3, F_GETFL) & O_NONBLOCK);
	CHILD_ASSERT(getenv("LISTEN_FDS") == NULL);
	listeners_close(&l);
}

static void
share_one_that_cannot_be_joined(void)
{
	struct handoff_listener of[ROOM];
	int fds[] = {bind_any(0, false)};
	uint16_t port;

	hand_over(fds, 1);
	struct listeners *l = adopt(3, &port);
	CHILD_ASSERT(l != NULL);
	for (uint32_t i = 0; i < SLOTS; i++) {
		CHILD_ASSERT(listeners_of_slot(l, i, SLOTS, of) == 1);
		struct netaddr a = bound_to(of[0].fd);
		CHILD_ASSERT(netaddr_port(&a) == port);
	}
	listeners_close(&l);
}

static void
adopt_more_than_slots_and_close_the_strange(void)
{
	struct handoff_listener of[ROOM];
	int fds[SLOTS + 2];
	uint16_t port;

	fds[0] = bind_any(0, true);
	struct netaddr a = bound_to(fds[0]);
	for (int i = 1; i <= SLOTS; i++)
		fds[i] = bind_any(netaddr_port(&a), true);
	fds[SLOTS + 1] = bind_any(0, true); /* of no address of ours */
	hand_over(fds, SLOTS + 2);
	struct listeners *l = adopt(3, &port);
	CHILD_ASSERT(l != NULL && listeners_max(l) == SLOTS + 1);
	CHILD_ASSERT(listeners_of_slot(l, 0, SLOTS, of) == 2);
	CHILD_ASSERT(listeners_of_slot(l, 1, SLOTS, of) == 1);
	CHILD_ASSERT(fcntl(3 + SLOTS + 1, F_GETFD) == -1);
	listeners_close(&l);
}

/* Of the store, as the name says: one of a socket unit is left as it is. */
static struct listeners *
adopt_unix(const char *path)
{
	char text[160];

	setenv("LISTEN_FDNAMES", "parley-http", 1);
	snprintf(text, sizeof(text), "listen: [\"unix:%s\"]\n", path);
	return open_text(text);
}

static bool
is_reachable(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(un.sun_path, path);
	return connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0;
}

static void
adopt_a_unix_socket(void)
{
	struct handoff_listener of[ROOM];
	char path[96];

	snprintf(path, sizeof(path), "%s/kept.sock", dir);
	int fds[] = {listen_unix(path, 0600, 4)};
	hand_over(fds, 1);
	struct listeners *l = adopt_unix(path);
	CHILD_ASSERT(l != NULL && listeners_of_slot(l, 0, SLOTS, of) == 1 && of[0].fd == 3);
	CHILD_ASSERT(is_reachable(path));
	listeners_close(&l);
}

static void
open_a_unix_path_that_is_gone(void)
{
	struct handoff_listener of[ROOM];
	char path[96];

	snprintf(path, sizeof(path), "%s/gone.sock", dir);
	int fds[] = {listen_unix(path, 0600, 4)};
	unlink(path);
	hand_over(fds, 1);
	struct listeners *l = adopt_unix(path);
	CHILD_ASSERT(l != NULL && listeners_of_slot(l, 0, SLOTS, of) == 1);
	CHILD_ASSERT(is_reachable(path));
	listeners_close(&l);
}

static void
test_inherited_sockets(void **state)
{
	in_child(adopt_a_unix_socket);
	in_child(open_a_unix_path_that_is_gone);
	in_child(adopt_one_that_can_be_joined);
	in_child(share_one_that_cannot_be_joined);
	in_child(adopt_more_than_slots_and_close_the_strange);
}

static int
make_dir(void **state)
{
	strcpy(dir, "/tmp/parley-listen-XXXXXX");
	return mkdtemp(dir) != NULL ? 0 : -1;
}

static int
remove_dir(void **state)
{
	char path[96];

	snprintf(path, sizeof(path), "%s/addresses", dir);
	unlink(path);
	return rmdir(dir);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_every_slot_has_its_own_socket_on_one_port),
	    cmocka_unit_test(test_ipv6_is_ipv6_only_unless_no_address_is_given),
	    cmocka_unit_test(test_a_unix_path_is_one_socket_for_all),
	    cmocka_unit_test(test_tls_and_metrics_are_marked_and_written_down),
	    cmocka_unit_test(test_only_a_stale_socket_is_replaced),
	    cmocka_unit_test(test_inherited_sockets),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
