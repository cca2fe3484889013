/*
 * socket_test - socket.c and upgrade.c over TCP: pings, both closing handshakes, each
 * time limit, pressure, what comes with the request, and a peer that goes at any time.
 * The server does what it is told in messages; a message that is no order is echoed.
 */
#include "t/unit/unit.h"

#include <stdio.h>

#include "t/unit/worker/ws/client.h"
#include "worker/ws/socket.h"

/* More than the kernel holds for one connection. */
enum { FLOOD_FRAME_BYTES = 16 << 10, FLOOD_FRAMES = 2000 };

/* More than h2o reads of in one turn of its loop, which is 256; and longer than of_standstill's. */
enum { MANY = 400, STANDSTILL_MS = 3100 };

struct told {
	_Atomic int made, opened, closed, messages, slow, full, gone, writable, refused;
	_Atomic int standing, go;
};

struct ordered {
	struct ws_socket ws;
	unsigned next, until; /* of a flood */
	bool is_greedy;       /* it does not stop when it is told to */
	struct loop_post leave;
};

static struct host host;

static struct told *
told(void)
{
	return host.told;
}

/* ---- the server ---- */

static enum ws_sent
send_numbered(struct ordered *o)
{
	static char payload[FLOOD_FRAME_BYTES];

	snprintf(payload, sizeof(payload), "%08u", o->next);
	struct ws_out *out = ws_out_new(WS_OP_BINARY, str_sub(payload, sizeof(payload)));
	enum ws_sent sent = ws_socket_send(&o->ws, out);
	ws_out_unref(&out);
	return sent;
}

static void
flood(struct ordered *o)
{
	while (o->next < o->until) {
		enum ws_sent sent = send_numbered(o);

		if (sent == WS_GONE) {
			atomic_fetch_add(&told()->gone, 1);
			return;
		}
		if (sent == WS_FULL) {
			atomic_fetch_add(&told()->full, 1);
			return;
		}
		o->next++;
		if (sent == WS_SLOW) {
			atomic_fetch_add(&told()->slow, 1);
			if (!o->is_greedy)
				return;
		}
	}
}

static void
on_open(struct ws_socket *w)
{
	atomic_fetch_add(&told()->opened, 1);
	check(ws_socket_is_open(w));
}

static void
echo(struct ws_socket *w, struct str data, bool is_text)
{
	struct ws_out *out = ws_out_new(is_text ? WS_OP_TEXT : WS_OP_BINARY, data);

	if (ws_socket_send(w, out) == WS_GONE)
		atomic_fetch_add(&told()->gone, 1);
	ws_out_unref(&out);
}

/* What it was just told is on its way: it is not given yet, and hears nothing until that is out. */
static void
leave(struct loop_post *post)
{
	struct ordered *o = container_of(post, struct ordered, leave);

	echo(&o->ws, STR("leaving"), true);
	if (ws_socket_give(&o->ws) == WS_GIVE_LATER && o->ws.is_parting)
		atomic_fetch_add(&told()->refused, 1);
}

/* As a worker that gets no core. */
static void
stand_still(void)
{
	uint64_t until_ms = clock_mono_ms() + STANDSTILL_MS;

	atomic_store(&told()->standing, 1);
	while (clock_mono_ms() < until_ms || !atomic_load(&told()->go))
		poll(NULL, 0, 1);
}

static void
on_message(struct ws_socket *w, struct str data, bool is_text)
{
	struct ordered *o = container_of(w, struct ordered, ws);

	atomic_fetch_add(&told()->messages, 1);
	if (str_eq(data, STR("flood")) || str_eq(data, STR("flood greedily"))) {
		o->is_greedy = data.len > 5;
		o->until = FLOOD_FRAMES;
		flood(o);
	} else if (str_eq(data, STR("close"))) {
		ws_socket_close(w, 4000, STR("as you said"));
		ws_socket_close(w, WS_CLOSE_NORMAL, STR("twice")); /* nothing */
		echo(w, STR("too late"), true);
	} else if (str_eq(data, STR("stand still"))) {
		stand_still();
	} else if (str_eq(data, STR("leave"))) {
		check(ws_socket_give(w) == WS_GIVE_LATER && !w->is_parting); /* more may follow */
		o->leave.run = leave;
		loop_post(http_server_loop(w->http.server), &o->leave);
	} else {
		echo(w, data, is_text);
	}
}

static void
on_writable(struct ws_socket *w)
{
	atomic_fetch_add(&told()->writable, 1);
	ws_socket_stay(w);
	flood(container_of(w, struct ordered, ws));
}

static void
on_closed(struct ws_socket *w)
{
	free(container_of(w, struct ordered, ws));
	atomic_fetch_add(&told()->closed, 1);
}

static const struct ws_handlers handlers = {on_open, on_message, on_writable, on_closed};

static void
on_request(struct http_req *req, void *arg)
{
	struct ordered *o;
	char accept[WS_ACCEPT_LEN + 1];

	if (!ws_socket_check(req, accept))
		return;
	check(http_take_place(req));
	o = xcalloc(1, sizeof(*o));
	atomic_fetch_add(&told()->made, 1);
	ws_socket_open(&o->ws, req, accept, NULL, &handlers);
}

static const struct http_route routes[] = {{"GET", "/ws", HTTP_UPGRADE, on_request}};

/* Short limits only for what a test waits for. */
static const struct conf_override of_pings[] = {
    {"websocket.ping_interval", "150ms", "the test"},
    {"websocket.ping_timeout", "300ms", "the test"},
};
static const struct conf_override of_standstill[] = {
    {"websocket.ping_interval", "500ms", "the test"},
    {"websocket.ping_timeout", "3s", "the test"},
};
static const struct conf_override of_parts[] = {
    {"websocket.ping_interval", "300ms", "the test"},
    {"websocket.message_timeout", "1s", "the test"},
};
static const struct conf_override of_parts_without_pings[] = {
    {"websocket.ping_interval", "0", "the test"},
    {"websocket.message_timeout", "1s", "the test"},
};
static const struct conf_override of_closing[] = {
    {"websocket.close_timeout", "300ms", "the test"},
};
static const struct conf_override of_patience[] = {
    {"websocket.close_timeout", "1m", "the test"},
    {"websocket.max_queue", "64KiB", "the test"},
    {"http.send_timeout", "1m", "the test"},
};
static const struct conf_override of_pressure[] = {
    {"websocket.max_queue", "64KiB", "the test"},
    {"websocket.close_timeout", "1m", "the test"},
    {"http.send_timeout", "1s", "the test"},
};
static const struct conf_override of_sizes[] = {
    {"websocket.max_message", "64KiB", "the test"},
    {"websocket.close_timeout", "1m", "the test"},
};

static void
begin(const struct conf_override *own, size_t count)
{
	host = (struct host){.routes = routes,
	    .route_count = ARRAY_LEN(routes),
	    .own = own,
	    .own_count = count,
	    .told_bytes = sizeof(struct told)};
	host_start(&host);
}

#define BEGIN(own) begin(own, ARRAY_LEN(own))

/* All that were made are gone, and their places given back. */
static void
end(void)
{
	host_wait(&told()->closed, atomic_load(&told()->made));
	assert_int_equal(metric_total(host.shm, METRIC_CONNECTIONS, KIND_WEBSOCKET, 0), 0);
	host_stop(&host);
}

static uint64_t
closed_for(unsigned reason)
{
	return metric_total(host.shm, METRIC_WEBSOCKET_CLOSED, reason, 0);
}

#define TEXT(c, text)  client_frame((c), 0x81, STR(text))
#define CLOSE(c, code) client_frame((c), 0x88, STR(code))
#define NORMAL         "\x03\xe8"

/* ---- pings ---- */

static void
test_pinged_when_silent_and_anything_is_an_answer(void **state)
{
	struct client c;

	BEGIN(of_pings);
	client_open(&c, &host);
	client_expect(&c, "ping()");
	client_frame(&c, 0x8a, STR(""));
	client_expect(&c, "ping() ping()");
	TEXT(&c, "hi");
	client_expect(&c, "ping() ping() text(hi)");
	client_expect(&c, "ping() ping() text(hi) ping()");
	client_frame(&c, 0x89, STR("you?"));
	client_expect(&c, "ping() ping() text(hi) ping() pong(you?)");
	client_expect(&c, "ping() ping() text(hi) ping() pong(you?) ping()");
	CLOSE(&c, NORMAL);
	client_expect_end(&c, "ping() ping() text(hi) ping() pong(you?) ping() close(1000) end");
	client_close(&c);
	assert_int_equal(closed_for(WS_CLOSED_PONG), 0);
	end();
}

static void
test_part_of_a_frame_is_a_sign_of_life(void **state)
{
	struct client c;

	BEGIN(of_pings);
	client_open(&c, &host);
	client_expect(&c, "ping()");
	client_write(&c, STR("\x81"));
	client_expect(&c, "ping() ping()");
	client_write(&c, STR("\x82"));
	client_expect(&c, "ping() ping() ping()");
	client_write(&c, STR("\x01\x02\x03\x04i"));
	client_write(&c, STR("k"));
	client_expect(&c, "ping() ping() ping() text(hi)");
	client_close(&c);
	end();
}

/* More sockets than the loop reads of in one turn: all have answered, and nobody has looked. */
static void
test_who_answers_a_worker_that_stands_still_is_not_cut(void **state)
{
	static struct client c[MANY];

	BEGIN(of_standstill);
	for (int i = 0; i < MANY; i++)
		client_open(&c[i], &host);
	for (int i = 0; i < MANY; i++) {
		client_expect(&c[i], "ping()");
		client_frame(&c[i], 0x8a, STR(""));
	}
	for (int i = 0; i < MANY; i++)
		client_expect(&c[i], "ping() ping()");
	TEXT(&c[0], "stand still");
	host_wait(&told()->standing, 1);
	for (int i = 0; i < MANY; i++)
		client_frame(&c[i], 0x8a, STR(""));
	atomic_store(&told()->go, 1);
	TEXT(&c[0], "hi");
	TEXT(&c[MANY - 1], "hi");
	host_wait(&told()->messages, 3);
	for (int i = 0; i < MANY; i++)
		CLOSE(&c[i], NORMAL);
	host_wait(&told()->closed, MANY);
	assert_int_equal(closed_for(WS_CLOSED_PONG), 0);
	for (int i = 0; i < MANY; i++)
		client_close(&c[i]);
	end();
}

static void
test_who_does_not_answer_a_ping_is_cut(void **state)
{
	struct client c;

	BEGIN(of_pings);
	client_open(&c, &host);
	client_expect_end(&c, "ping() end");
	assert_int_equal(closed_for(WS_CLOSED_PONG), 1);
	client_close(&c);
	end();
}

/* However alive the peer says it is. */
static void
test_message_that_does_not_end_ends_the_socket(void **state)
{
	struct client c;

	BEGIN(of_parts);
	client_open(&c, &host);
	TEXT(&c, "whole");
	client_frame(&c, WS_OP_TEXT, STR("begun"));
	HOST_WAIT(closed_for(WS_CLOSED_PARTIAL) == 1)
	{
		client_frame(&c, PEER_FIN | WS_OP_PONG, STR_NONE);
	}
	CLOSE(&c, NORMAL);
	client_expect_end(&c, "text(whole) close(1008) end");
	client_close(&c);
	end();

	BEGIN(of_parts_without_pings);
	client_open(&c, &host);
	client_frame(&c, WS_OP_TEXT, STR("begun"));
	HOST_WAIT(closed_for(WS_CLOSED_PARTIAL) == 1)
	{
	}
	CLOSE(&c, NORMAL);
	client_expect_end(&c, "close(1008) end");
	client_close(&c);
	end();
}

/* A long one is only as old as its own beginning. */
static void
test_messages_in_parts_one_after_another(void **state)
{
	struct client c;

	BEGIN(of_parts);
	client_open(&c, &host);
	uint64_t end_ms = clock_mono_ms() + 2500;
	int sent = 0;
	client_frame(&c, WS_OP_TEXT, STR("a"));
	/* At no time is nothing begun. */
	HOST_WAIT(clock_mono_ms() > end_ms)
	{
		struct buf wire = BUF_INIT;

		peer_frame(&wire, PEER_FIN | WS_OP_CONTINUATION, STR("b"));
		peer_frame(&wire, WS_OP_TEXT, STR("a"));
		client_write(&c, buf_str(&wire));
		buf_fini(&wire);
		sent++;
	}
	assert_true(sent > 1);
	HOST_WAIT(told()->messages >= sent)
	{
	}
	assert_int_equal(closed_for(WS_CLOSED_PARTIAL), 0);
	client_reset(&c);
	end();
}

/* ---- going to another process ---- */

static void
test_what_is_on_its_way_goes_out_before_it_is_given(void **state)
{
	struct client c;

	BEGIN(of_patience);
	client_open(&c, &host);
	TEXT(&c, "leave");
	client_expect(&c, "text(leaving)");
	TEXT(&c, "hi");
	client_expect(&c, "text(leaving) text(hi)");
	assert_int_equal(atomic_load(&told()->refused), 1);
	assert_int_equal(atomic_load(&told()->writable), 1);
	client_close(&c);
	end();
}

/* ---- the closing handshake ---- */

static void
test_we_close_and_it_answers(void **state)
{
	struct client c;

	BEGIN(of_patience);
	client_open(&c, &host);
	TEXT(&c, "close");
	client_expect(&c, "close(4000)");
	CLOSE(&c, "\x0f\xa0");
	client_expect_end(&c, "close(4000) end");
	client_close(&c);
	assert_int_equal(atomic_load(&told()->gone), 1); /* what it sent after that */
	end();
}

static void
test_closing_nothing_of_it_is_heard(void **state)
{
	struct buf wire = BUF_INIT;
	struct client c;

	BEGIN(of_patience);
	client_open(&c, &host);
	peer_frame(&wire, 0x81, STR("close"));
	peer_frame(&wire, 0x81, STR("close"));
	peer_frame(&wire, 0x81, STR("hello"));
	peer_frame(&wire, 0x89, STR("ping"));
	client_write(&c, buf_str(&wire));
	client_expect(&c, "close(4000)");
	TEXT(&c, "after");
	CLOSE(&c, NORMAL);
	client_expect_end(&c, "close(4000) end");
	assert_int_equal(atomic_load(&told()->messages), 1);
	assert_int_equal(atomic_load(&told()->gone), 1);
	client_close(&c);
	buf_fini(&wire);
	end();
}

static void
test_closing_a_fault_ends_it(void **state)
{
	struct client c;

	BEGIN(of_patience);
	client_open(&c, &host);
	TEXT(&c, "close");
	client_expect(&c, "close(4000)");
	client_write(&c, STR("\xff\xff\xff"));
	client_expect_end(&c, "close(4000) end");
	client_close(&c);
	end();
}

static void
test_both_close_at_once(void **state)
{
	struct buf wire = BUF_INIT;
	struct client c;

	BEGIN(of_patience);
	client_open(&c, &host);
	peer_frame(&wire, 0x81, STR("close"));
	peer_frame(&wire, 0x88, STR("\x03\xe9"));
	client_write(&c, buf_str(&wire));
	client_expect_end(&c, "close(4000) end");
	client_close(&c);
	buf_fini(&wire);
	end();
}

static void
test_who_does_not_answer_our_close_is_cut(void **state)
{
	struct client c;

	BEGIN(of_closing);
	client_open(&c, &host);
	TEXT(&c, "close");
	client_expect_end(&c, "close(4000) end");
	host_wait(&told()->closed, 1);
	client_close(&c);
	end();
}

/* Both have said close, we have ended our side; it keeps the connection, or goes on talking. */
static void
test_who_stays_after_the_handshake_is_cut(void **state)
{
	struct client quiet, loud;

	BEGIN(of_closing);
	client_open(&quiet, &host);
	client_open(&loud, &host);
	CLOSE(&quiet, NORMAL);
	CLOSE(&loud, NORMAL);
	client_expect_end(&quiet, "close(1000) end");
	HOST_WAIT(atomic_load(&told()->closed) == 2)
	TEXT(&loud, "and another thing");
	assert_int_equal(atomic_load(&told()->messages), 0);
	client_close(&quiet);
	client_close(&loud);
	end();
}

static void
test_end_of_stream_without_a_close(void **state)
{
	struct client c;

	BEGIN(of_patience);
	client_open(&c, &host);
	TEXT(&c, "bye");
	client_expect(&c, "text(bye)");
	shutdown(c.fd, SHUT_WR);
	client_expect_end(&c, "text(bye) end");
	client_close(&c);
	end();
}

/* ---- pressure ---- */

static void
client_open_counting(struct client *c)
{
	client_open(c, &host);
	c->is_counting = true;
}

static void
test_slow_reader_gets_all_in_order(void **state)
{
	struct client c;

	BEGIN(of_patience);
	client_open_counting(&c);
	TEXT(&c, "flood");
	HOST_WAIT(atomic_load(&told()->slow) > 0);
	TEXT(&c, "heard when the queue is empty"); /* it is paused meanwhile */
	while (c.counted < FLOOD_FRAMES)
		client_read(&c);
	client_expect(&c, "text(heard when the queue is empty)");
	assert_true(atomic_load(&told()->writable) > 0);
	assert_int_equal(atomic_load(&told()->full), 0);
	assert_int_equal(closed_for(WS_CLOSED_SLOW), 0);
	CLOSE(&c, NORMAL);
	client_expect_end(&c, "text(heard when the queue is empty) close(1000) end");
	client_close(&c);
	end();
}

/* The limit holds also for who does not stop: what was not taken comes again later, once. */
static void
test_greedy_sender_meets_the_limit_and_loses_nothing(void **state)
{
	struct client c;

	BEGIN(of_patience);
	client_open_counting(&c);
	TEXT(&c, "flood greedily");
	while (c.counted < FLOOD_FRAMES)
		client_read(&c);
	assert_true(atomic_load(&told()->full) > 0);
	client_close(&c);
	end();
}

static void
test_reader_that_stays_slow_is_closed_with_a_reason(void **state)
{
	struct client c;

	BEGIN(of_pressure);
	client_open_counting(&c);
	TEXT(&c, "flood");
	HOST_WAIT(closed_for(WS_CLOSED_SLOW) == 1);
	client_expect(&c, "close(1008)"); /* behind what was on its way, and whole */
	assert_true(c.counted > 0 && c.counted < FLOOD_FRAMES);
	CLOSE(&c, NORMAL);
	client_expect_end(&c, "close(1008) end");
	client_close(&c);
	end();
}

/* A peer that takes nothing, not even the close, is cut when its time is up. */
static void
test_reader_that_takes_no_close_is_cut(void **state)
{
	static const struct conf_override own[] = {
	    {"websocket.max_queue", "64KiB", "the test"},
	    {"websocket.close_timeout", "200ms", "the test"},
	    {"http.send_timeout", "1s", "the test"},
	};
	struct client c;

	BEGIN(own);
	client_open_counting(&c);
	TEXT(&c, "flood");
	host_wait(&told()->closed, 1);
	assert_int_equal(closed_for(WS_CLOSED_SLOW), 1);
	client_close(&c);
	end();
}

static void
test_pings_without_end_and_nothing_read(void **state)
{
	char payload[WS_CONTROL_MAX] = {0};
	struct buf wire = BUF_INIT;
	struct client c;

	BEGIN(of_pressure);
	client_open_counting(&c);
	for (int i = 0; i < 1000; i++)
		peer_frame(&wire, 0x89, str_sub(payload, sizeof(payload)));
	HOST_WAIT(closed_for(WS_CLOSED_SLOW) == 1)
	{
		ssize_t n = send(c.fd, wire.data, wire.len, MSG_DONTWAIT | MSG_NOSIGNAL);

		assert_true(n >= 0 || errno == EAGAIN);
	}
	client_reset(&c);
	buf_fini(&wire);
	end();
}

/* ---- sizes ---- */

static void
test_largest_message_is_heard_and_a_larger_one_refused(void **state)
{
	static const struct {
		size_t parts[3];
		bool is_heard;
	} cases[] = {{{65536}, true}, {{65537}, false}, {{65535, 1}, true}, {{65535, 1, 1}, false},
	    {{1, 65536}, false}, {{30000, 30000, 5536}, true}};
	static char bytes[65537];

	BEGIN(of_sizes);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const size_t *parts = cases[i].parts;
		struct client c;

		client_open(&c, &host);
		for (size_t p = 0; p < 3 && parts[p] > 0; p++) {
			bool is_last = p == 2 || parts[p + 1] == 0;

			client_frame(&c, (uint8_t)((is_last ? 0x80 : 0) | (p == 0 ? 2 : 0)),
			    str_sub(bytes, parts[p]));
		}
		if (cases[i].is_heard)
			CLOSE(&c, NORMAL);
		while (!c.is_over)
			client_read(&c);
		assert_string_equal(strstr(c.said.data, "close("),
		    cases[i].is_heard ? "close(1000) end" : "close(1009) end");
		client_close(&c);
	}
	assert_int_equal(atomic_load(&told()->messages), 3);
	end();
}

/* ---- the opening ---- */

static void
test_frames_with_the_request(void **state)
{
	struct buf wire = BUF_INIT;
	struct client c;

	BEGIN(of_patience);
	buf_add_cstr(&wire, CLIENT_OPENING("/ws"));
	size_t head = wire.len;
	peer_frame(&wire, 0x81, STR("early"));
	peer_frame(&wire, 0x89, STR("too"));
	peer_frame(&wire, 0x88, STR(NORMAL));
	/* Cut at each byte of what follows the request, and octet by octet. */
	for (size_t cut = head; cut <= wire.len; cut++) {
		c = (struct client){.fd = host_connect(&host)};
		client_write(&c, str_sub(wire.data, cut));
		client_write(&c, str_sub(wire.data + cut, wire.len - cut));
		client_read_answer(&c);
		client_expect_end(&c, "text(early) pong(too) close(1000) end");
		client_close(&c);
	}
	c = (struct client){.fd = host_connect(&host)};
	for (size_t at = 0; at < wire.len; at++)
		client_write(&c, str_sub(wire.data + at, 1));
	client_read_answer(&c);
	client_expect_end(&c, "text(early) pong(too) close(1000) end");
	client_close(&c);
	buf_fini(&wire);
	end();
}

/* A long message, of which the first part comes with the request. */
static void
test_long_message_that_begins_with_the_request(void **state)
{
	static char bytes[200000];
	struct buf wire = BUF_INIT, echo = BUF_INIT;
	struct client c;

	BEGIN(of_patience);
	buf_add_cstr(&wire, CLIENT_OPENING("/ws"));
	peer_frame(&wire, 0x82, str_sub(bytes, sizeof(bytes)));
	c = (struct client){.fd = host_connect(&host)};
	client_write(&c, buf_str(&wire));
	client_read_answer(&c);
	buf_add_cstr(&echo, "binary(");
	peer_show(&echo, str_sub(bytes, sizeof(bytes)));
	buf_add_char(&echo, ')');
	client_expect(&c, echo.data);
	client_close(&c);
	buf_fini(&wire);
	buf_fini(&echo);
	end();
}

/* Two requests in one piece, and a frame behind the second, which is the opening. */
static void
test_opening_behind_another_request(void **state)
{
	struct buf wire = BUF_INIT, seen = BUF_INIT;
	struct client c = {0};

	BEGIN(of_patience);
	c.fd = host_connect(&host);
	buf_add_cstr(&wire, "GET /none HTTP/1.1\r\nHost: x\r\n\r\n");
	buf_add_cstr(&wire, CLIENT_OPENING("/ws"));
	peer_frame(&wire, 0x81, STR("at last"));
	client_write(&c, buf_str(&wire));
	while (seen.len == 0 || seen.data[seen.len - 1] != '}' ||
	       strstr(seen.data, "request_id") == NULL) {
		char byte;

		assert_int_equal(recv(c.fd, &byte, 1, 0), 1);
		buf_add_char(&seen, byte);
	}
	assert_memory_equal(seen.data, "HTTP/1.1 404 ", 13);
	client_read_answer(&c);
	client_expect(&c, "text(at last)");
	client_close(&c);
	buf_fini(&wire);
	buf_fini(&seen);
	end();
}

/* A body, which no opening has, is no frame. */
static void
test_opening_with_a_body(void **state)
{
	struct buf wire = BUF_INIT;
	struct client c = {0};

	BEGIN(of_patience);
	buf_add_cstr(&wire, CLIENT_OPENING("/ws"));
	wire.len -= 2; /* one more header */
	buf_add_cstr(&wire, "Content-Type: application/json\r\nContent-Length: 5\r\n\r\nhello");
	peer_frame(&wire, 0x81, STR("after the body"));
	c.fd = host_connect(&host);
	client_write(&c, buf_str(&wire));
	client_read_answer(&c);
	client_expect(&c, "text(after the body)");
	client_close(&c);
	buf_fini(&wire);
	end();
}

/* ---- a peer that goes ---- */

enum when { GO_AT_ONCE, GO_OPEN, GO_SLOW, GO_CLOSING, GO_ENDING, GO_COUNT };

static void
bring_to(struct client *c, enum when when)
{
	switch (when) {
	case GO_AT_ONCE:
		client_write(c, STR(CLIENT_OPENING("/ws")));
		return;
	case GO_OPEN:
	case GO_COUNT:
		break;
	case GO_SLOW:
		TEXT(c, "flood");
		client_read(c);
		break;
	case GO_CLOSING:
		TEXT(c, "close");
		client_expect(c, "close(4000)");
		break;
	case GO_ENDING:
		CLOSE(c, NORMAL);
		client_expect(c, "close(1000)");
		break;
	}
}

static void
go(enum when when, bool is_reset)
{
	struct client c;

	if (when == GO_AT_ONCE)
		c = (struct client){.fd = host_connect(&host)};
	else
		client_open_counting(&c);
	bring_to(&c, when);
	if (is_reset)
		client_reset(&c);
	else
		client_close(&c);
}

static void
test_peer_that_goes_in_each_state(void **state)
{
	BEGIN(of_patience);
	for (int round = 0; round < 20; round++) {
		for (int when = 0; when < GO_COUNT; when++)
			go((enum when)when, round % 2 == 0);
	}
	host_wait(&told()->closed, atomic_load(&told()->made));
	/* The server is well. */
	go(GO_ENDING, false);
	end();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_pinged_when_silent_and_anything_is_an_answer),
	    cmocka_unit_test(test_part_of_a_frame_is_a_sign_of_life),
	    cmocka_unit_test(test_who_answers_a_worker_that_stands_still_is_not_cut),
	    cmocka_unit_test(test_who_does_not_answer_a_ping_is_cut),
	    cmocka_unit_test(test_what_is_on_its_way_goes_out_before_it_is_given),
	    cmocka_unit_test(test_we_close_and_it_answers),
	    cmocka_unit_test(test_closing_nothing_of_it_is_heard),
	    cmocka_unit_test(test_closing_a_fault_ends_it),
	    cmocka_unit_test(test_both_close_at_once),
	    cmocka_unit_test(test_message_that_does_not_end_ends_the_socket),
	    cmocka_unit_test(test_messages_in_parts_one_after_another),
	    cmocka_unit_test(test_who_does_not_answer_our_close_is_cut),
	    cmocka_unit_test(test_who_stays_after_the_handshake_is_cut),
	    cmocka_unit_test(test_end_of_stream_without_a_close),
	    cmocka_unit_test(test_slow_reader_gets_all_in_order),
	    cmocka_unit_test(test_greedy_sender_meets_the_limit_and_loses_nothing),
	    cmocka_unit_test(test_reader_that_stays_slow_is_closed_with_a_reason),
	    cmocka_unit_test(test_reader_that_takes_no_close_is_cut),
	    cmocka_unit_test(test_pings_without_end_and_nothing_read),
	    cmocka_unit_test(test_largest_message_is_heard_and_a_larger_one_refused),
	    cmocka_unit_test(test_frames_with_the_request),
	    cmocka_unit_test(test_long_message_that_begins_with_the_request),
	    cmocka_unit_test(test_opening_behind_another_request),
	    cmocka_unit_test(test_opening_with_a_body),
	    cmocka_unit_test(test_peer_that_goes_in_each_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
