/*
 * autobahn_live_test - the cases of autobahn.h over TCP: upgrade, loop, socket.c,
 * and a route that echoes. Each is sent whole, frame by frame, and octet by octet;
 * what came back, to the end of the stream, is compared, and the server must have
 * let go of the socket. A case that leaves it open is closed by us, with 1000.
 */
#include "t/unit/unit.h"

#include "t/unit/worker/ws/autobahn.h"
#include "t/unit/worker/ws/client.h"
#include "worker/ws/socket.h"

struct told {
	_Atomic int opened, closed, refused;
};

static struct host host;

static struct told *
told(void)
{
	return host.told;
}

/* ---- the server ---- */

static void
on_open(struct ws_socket *w)
{
	atomic_fetch_add(&told()->opened, 1);
}

static void
on_message(struct ws_socket *w, struct str data, bool is_text)
{
	struct ws_out *out = ws_out_new(is_text ? WS_OP_TEXT : WS_OP_BINARY, data);

	if (ws_socket_send(w, out) == WS_FULL)
		atomic_fetch_add(&told()->refused, 1);
	ws_out_unref(&out);
}

static void
on_writable(struct ws_socket *w)
{
}

static void
on_closed(struct ws_socket *w)
{
	free(w);
	atomic_fetch_add(&told()->closed, 1);
}

static const struct ws_handlers handlers = {on_open, on_message, on_writable, on_closed};

static void
on_request(struct http_req *req, void *arg)
{
	char accept[WS_ACCEPT_LEN + 1];

	if (!ws_socket_check(req, accept))
		return;
	check(http_take_place(req));
	ws_socket_open(xmalloc(sizeof(struct ws_socket)), req, accept, NULL, &handlers);
}

static const struct http_route routes[] = {{"GET", "/ws", HTTP_UPGRADE, on_request}};

static const struct conf_override own[] = {
    {"websocket.max_message", "16MiB", "the test"},
    {"websocket.max_queue", "64MiB", "the test"},
    {"websocket.close_timeout", "1m", "the test"},
    {"http.send_timeout", "1m", "the test"},
};

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
	assert_int_equal(atomic_load(&told()->refused), 0);
	host_stop(&host);
	return 0;
}

/* ---- the client ---- */

/* What a client hears when the server hears this: messages come back, of the rest the replies. */
static void
heard_by_client(const char *heard, struct buf *ret)
{
	bool is_closed = strstr(heard, ">close(") != NULL;

	while (*heard != '\0') {
		const char *end = strchr(heard, ')') + 1;
		bool has_reply = *end == '>';
		const char *from = has_reply ? end + 1 : heard;

		if (has_reply)
			end = strchr(end, ')') + 1;
		if (has_reply || strncmp(from, "text", 4) == 0 || strncmp(from, "binary", 6) == 0) {
			buf_add(ret, from, (size_t)(end - from));
			buf_add_char(ret, ' ');
		}
		heard = *end == ' ' ? end + 1 : end;
	}
	buf_add_cstr(ret, is_closed ? "end" : "close(1000) end");
}

static void
await_nobody(void)
{
	host_wait(&told()->closed, atomic_load(&told()->opened));
}

/* One connection, the wire in pieces that end at each of the cuts. */
static void
expect_live(struct str wire, const size_t *cuts, size_t cut_count, const char *heard)
{
	struct client c;
	struct buf want = BUF_INIT;
	size_t from = 0;

	client_open(&c, &host);
	for (size_t i = 0; i <= cut_count; i++) {
		size_t until = i < cut_count ? cuts[i] : wire.len;

		client_write(&c, str_sub(wire.p + from, until - from));
		from = until;
	}
	if (strstr(heard, ">close(") == NULL)
		client_frame(&c, 0x88, S("\x03\xe8"));
	heard_by_client(heard, &want);
	client_expect_end(&c, want.data);
	client_close(&c);
	buf_fini(&want);
	await_nobody();
}

static void
test_row(void **state)
{
	const struct row *row = *state;
	struct buf wire = BUF_INIT;
	size_t ends[FRAMES_MAX], each[SPLIT_BYTES_MAX];
	size_t count = row_wire(row, &wire, ends);

	for (size_t at = 0; at < wire.len; at++)
		each[at] = at + 1;
	expect_live(buf_str(&wire), NULL, 0, row->heard);
	expect_live(buf_str(&wire), ends, count, row->heard);
	expect_live(buf_str(&wire), each, wire.len, row->heard);
	buf_fini(&wire);
}

/* The last part is never sent: the first two are enough for the refusal. */
static void
test_early(void **state)
{
	struct buf wire = BUF_INIT;
	size_t ends[3];

	early_wire(*state, &wire, ends);
	expect_live(str_sub(wire.data, ends[1]), ends, 1, "fail(1007)>close(1007)");
	buf_fini(&wire);
}

static void
test_sequence(void **state)
{
	const struct sequence *q = *state;
	struct buf wire = BUF_INIT, heard = BUF_INIT;
	size_t each[SPLIT_BYTES_MAX];

	peer_frame(&wire, 0x81, q->text);
	check(wire.len <= SPLIT_BYTES_MAX);
	for (size_t at = 0; at < wire.len; at++)
		each[at] = at + 1;
	sequence_heard(q, &heard);
	expect_live(buf_str(&wire), NULL, 0, heard.data);
	expect_live(buf_str(&wire), each, wire.len, heard.data);
	buf_fini(&wire);
	buf_fini(&heard);
}

/* ---- long ones: sent and read at once, the bytes of the echo compared ---- */

static struct buf *
echo_of(const struct bulk *b, struct str payload, size_t count, struct buf *echo)
{
	uint8_t head[WS_HEAD_OUT_MAX];
	size_t head_len = ws_frame_format_head(b->opcode, payload.len, head);

	for (size_t i = 0; i < count; i++) {
		buf_add(echo, head, head_len);
		buf_add_str(echo, payload);
	}
	return echo;
}

static size_t
send_some(int fd, struct str wire, size_t at, size_t chop)
{
	size_t left = wire.len - at;
	ssize_t n = send(fd, wire.p + at, left < chop ? left : chop, MSG_NOSIGNAL | MSG_DONTWAIT);

	assert_true(n > 0 || errno == EAGAIN);
	return n > 0 ? (size_t)n : 0;
}

static size_t
read_some(int fd, struct str want, size_t at)
{
	static char bytes[256 << 10];
	ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	assert_true(n > 0 && at + (size_t)n <= want.len);
	assert_memory_equal(bytes, want.p + at, (size_t)n);
	return (size_t)n;
}

static void
exchange(int fd, struct str wire, size_t chop, struct str want)
{
	size_t sent = 0, got = 0;

	while (got < want.len) {
		struct pollfd p = {fd, (short)(POLLIN | (sent < wire.len ? POLLOUT : 0)), 0};

		assert_int_equal(poll(&p, 1, HOST_LIMIT_MS), 1);
		if (p.revents & POLLIN)
			got += read_some(fd, want, got);
		if (p.revents & POLLOUT)
			sent += send_some(fd, wire, sent, chop);
	}
	assert_int_equal(sent, wire.len);
}

/* Many are sent twice: each after the echo of the one before, and all at once. */
static void
test_bulk(void **state)
{
	const struct bulk *b = *state;
	struct buf payload = BUF_INIT, wire = BUF_INIT, echo = BUF_INIT;
	struct client c;

	client_open(&c, &host);
	bulk_payload(b, &payload);
	bulk_message(b, buf_str(&payload), &wire);
	echo_of(b, buf_str(&payload), 1, &echo);
	for (size_t i = 0; i < b->count; i++)
		exchange(c.fd, buf_str(&wire), b->chop > 0 ? b->chop : wire.len, buf_str(&echo));
	for (size_t i = 1; i < b->count; i++)
		bulk_message(b, buf_str(&payload), &wire);
	echo_of(b, buf_str(&payload), b->count - 1, &echo);
	if (b->count > 1)
		exchange(c.fd, buf_str(&wire), wire.len, buf_str(&echo));
	client_frame(&c, 0x88, S("\x03\xe8"));
	client_expect_end(&c, "close(1000) end");
	client_close(&c);
	await_nobody();
	buf_fini(&payload);
	buf_fini(&wire);
	buf_fini(&echo);
}

/* 7.1.6 */
static void
test_close_behind_long_message(void **state)
{
	struct buf wire = BUF_INIT, heard = BUF_INIT;

	close_behind_wire(&wire, &heard);
	expect_live(buf_str(&wire), NULL, 0, heard.data);
	buf_fini(&wire);
	buf_fini(&heard);
}

int
main(void)
{
	static struct CMUnitTest tests[AUTOBAHN_COUNT];

	list_cases(
	    tests, test_row, test_early, test_sequence, test_bulk, test_close_behind_long_message);
	return cmocka_run_group_tests_name("autobahn live", tests, setup, teardown);
}
