/*
 * sse_test - event streams and slow answers over real sockets: what a client sees, and
 * that its going is noticed. The server runs in a child; what happens in it is told
 * through shared memory.
 */
#include "t/unit/unit.h"

#include <stdio.h>
#include <string.h>

#include "t/unit/host.h"
#include "worker/sse/sse.h"

enum { EVENT_BYTES = 16 << 10 };

/* What the child tells. */
struct told {
	_Atomic int gone;      /* streams whose client went */
	_Atomic int full;      /* sse_send() said so */
	_Atomic int left;      /* slow requests whose client went */
	_Atomic int timed_out; /* .. or that were given up; their handle must be dead */
};

static struct host host;

static struct told *
told(void)
{
	return host.told;
}

/* ---- the server ---- */

static void
on_stream_gone(void *arg)
{
	atomic_fetch_add(&told()->gone, 1);
}

static void
on_quiet(struct http_req *req, void *arg)
{
	struct sse *s = sse_start(req, on_stream_gone, NULL);

	sse_send(s, STR("t.1"), STR("turn.started"), STR("{}"));
}

static void
on_three(struct http_req *req, void *arg)
{
	struct sse *s = sse_start(req, on_stream_gone, NULL);

	sse_send(s, STR("t.1"), STR("a"), STR("{\"n\":1}"));
	sse_send(s, STR_NONE, STR_NONE, STR("2"));
	sse_send(s, STR("t.3"), STR("c"), STR(""));
	sse_end(s);
}

static void
on_too_much(struct http_req *req, void *arg)
{
	struct sse *s = sse_start(req, on_stream_gone, NULL);
	static char data[EVENT_BYTES];

	memset(data, 'x', sizeof(data));
	for (int i = 0; i < 10000; i++) {
		if (!sse_send(s, STR_NONE, STR_NONE, str_sub(data, sizeof(data)))) {
			atomic_fetch_add(&told()->full, 1);
			return; /* the reader is stalled: it is cut */
		}
	}
}

static void
on_slow_left(void *arg)
{
	uint64_t *handle = arg;

	if (http_find(host.server, *handle) == NULL)
		atomic_fetch_add(&told()->left, 1);
	free(handle);
}

static void
on_slow(struct http_req *req, void *arg)
{
	uint64_t *handle = malloc(sizeof(*handle));

	*handle = http_handle(req);
	check(http_find(host.server, *handle) == req);
	http_on_gone(req, on_slow_left, handle);
}

static const struct http_route routes[] = {
    {"GET", "/quiet", HTTP_LONG, on_quiet},
    {"GET", "/three", HTTP_LONG, on_three},
    {"GET", "/too-much", HTTP_LONG, on_too_much},
    {"GET", "/slow", HTTP_LONG, on_slow},
    {"GET", "/limited", 0, on_slow},
};

static const struct conf_override own[] = {
    {"http.send_timeout", "1s", "the test"},
    {"http.request_timeout", "300ms", "the test"},
    {"sse.keepalive_interval", "1s", "the test"},
    {"sse.max_queue", "64KiB", "the test"},
};

/* ---- the client ---- */

static int
setup(void **state)
{
	host = (struct host){.routes = routes,
	    .route_count = ARRAY_LEN(routes),
	    .own = own,
	    .own_count = ARRAY_LEN(own),
	    .told_bytes = sizeof(struct told)};
	host_start(&host);
	return 0;
}

static int
teardown(void **state)
{
	host_stop(&host);
	return 0;
}

static int
get(const char *path)
{
	int fd = host_connect(&host), small = 4096;
	char request[128];
	int len = snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);

	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	assert_int_equal(write(fd, request, (size_t)len), len);
	return fd;
}

/* Reads until the text holds this, or to the end where it is NULL. */
static const char *
read_until(int fd, const char *needle)
{
	static char text[16 << 10];
	size_t len = 0;
	ssize_t n;

	text[0] = '\0';
	while ((n = read(fd, text + len, sizeof(text) - 1 - len)) > 0) {
		len += (size_t)n;
		text[len] = '\0';
		if (needle != NULL && strstr(text, needle) != NULL)
			return text;
	}
	assert_int_equal(n, 0);
	assert_null(needle);
	return text;
}

static void
test_events_have_their_form(void **state)
{
	int fd = get("/three");
	const char *text = read_until(fd, NULL);

	assert_non_null(strstr(text, "HTTP/1.1 200 OK\r\n"));
	assert_non_null(strstr(text, "content-type: text/event-stream"));
	assert_non_null(strstr(text, "cache-control: no-cache"));
	assert_non_null(strstr(text, "retry: 1000\n\n"));
	assert_non_null(strstr(text, "id: t.1\nevent: a\ndata: {\"n\":1}\n\n"));
	assert_non_null(strstr(text, "data: 2\n\nid: t.3\nevent: c\ndata: \n\n"));
	assert_non_null(strstr(text, "\r\n0\r\n\r\n")); /* a whole end */
	assert_int_equal(atomic_load(&told()->gone), 0);
	close(fd);
}

static void
test_quiet_client_that_goes_is_noticed(void **state)
{
	int fds[20];
	uint64_t start_ms;

	for (int i = 0; i < 20; i++) {
		fds[i] = get("/quiet");
		read_until(fds[i], "event: turn.started");
	}
	assert_int_equal(metric_total(host.shm, METRIC_CONNECTIONS, KIND_SSE, 0), 20);
	start_ms = clock_mono_ms();
	for (int i = 0; i < 20; i++)
		close(fds[i]);
	host_wait(&told()->gone, 20);
	assert_true(clock_mono_ms() - start_ms < 900); /* not by the next comment */
	assert_int_equal(metric_total(host.shm, METRIC_CONNECTIONS, KIND_SSE, 0), 0);
}

static void
test_comments_keep_a_quiet_stream_alive(void **state)
{
	int fd = get("/quiet");

	read_until(fd, "\n:\n\n");
	read_until(fd, ":\n\n");
	close(fd);
	host_wait(&told()->gone, 1);
}

static void
test_stalled_reader_is_told_and_cut(void **state)
{
	int fd = get("/too-much");

	host_wait(&told()->full, 1);
	host_wait(&told()->gone, 1); /* nothing was read for send_timeout */
	close(fd);
}

static void
test_client_that_leaves_before_the_answer(void **state)
{
	int fd = get("/slow");

	poll(NULL, 0, 20);
	assert_int_equal(atomic_load(&told()->left), 0);
	close(fd);
	host_wait(&told()->left, 1);
}

static void
test_answer_that_takes_too_long(void **state)
{
	int fd = get("/limited");
	const char *text = read_until(fd, "}");

	assert_non_null(strstr(text, "HTTP/1.1 503 "));
	assert_non_null(strstr(text, "dependency_unavailable"));
	host_wait(&told()->left, 1);
	close(fd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_events_have_their_form, setup, teardown),
	    cmocka_unit_test_setup_teardown(
		test_quiet_client_that_goes_is_noticed, setup, teardown),
	    cmocka_unit_test_setup_teardown(
		test_comments_keep_a_quiet_stream_alive, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_stalled_reader_is_told_and_cut, setup, teardown),
	    cmocka_unit_test_setup_teardown(
		test_client_that_leaves_before_the_answer, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_answer_that_takes_too_long, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
