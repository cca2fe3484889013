/*
 * client - the other end of a socket, over TCP: opens it, says frames, and notes
 * what comes back as peer.h does:
 *
 *      text(hi) pong(x) close(1000) end
 *
 * `end` is the end of the stream in order, `reset` one without; of a close only
 * the code is noted.
 */
#ifndef T_UNIT_WORKER_WS_CLIENT_H
#define T_UNIT_WORKER_WS_CLIENT_H

#include <errno.h>

#include "t/unit/host.h"
#include "t/unit/worker/ws/peer.h"

struct client {
	int fd;
	bool is_over;
	bool is_counting; /* binary messages begin with their number and are not noted */
	unsigned counted;
	struct buf in; /* from the first frame that is not whole */
	struct buf said;
};

#define CLIENT_OPENING(path)                                                                       \
	"GET " path " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"        \
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

static inline void
client_write(struct client *c, struct str bytes)
{
	while (bytes.len > 0) {
		ssize_t n = send(c->fd, bytes.p, bytes.len, MSG_NOSIGNAL);

		/* Who has closed does not want the rest: what he said is what counts. */
		if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
			return;
		assert_true(n > 0);
		bytes = str_sub(bytes.p + n, bytes.len - (size_t)n);
	}
}

/* The server's answer to the opening, to its empty line. */
static inline void
client_read_answer(struct client *c)
{
	char text[1024];
	size_t len = 0;

	do {
		assert_true(len < sizeof(text) - 1);
		assert_int_equal(recv(c->fd, text + len, 1, 0), 1);
		text[++len] = '\0';
	} while (len < 4 || strcmp(text + len - 4, "\r\n\r\n") != 0);
	assert_memory_equal(text, "HTTP/1.1 101 ", 13);
	assert_non_null(strstr(text, "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
}

static inline void
client_open(struct client *c, const struct host *h)
{
	*c = (struct client){.fd = host_connect(h)};
	client_write(c, STR(CLIENT_OPENING("/ws")));
	client_read_answer(c);
}

static inline void
client_close(struct client *c)
{
	close(c->fd);
	buf_fini(&c->in);
	buf_fini(&c->said);
}

/* Without a farewell. */
static inline void
client_reset(struct client *c)
{
	struct linger now = {.l_onoff = 1};

	setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	client_close(c);
}

static inline void
client_frame(struct client *c, uint8_t first, struct str payload)
{
	struct buf wire = BUF_INIT;

	peer_frame(&wire, first, payload);
	client_write(c, buf_str(&wire));
	buf_fini(&wire);
}

static inline void
client_note_frame(struct client *c, uint8_t first, struct str payload)
{
	const uint8_t *p = (const uint8_t *)payload.p;

	if (c->is_counting && first == (PEER_FIN | WS_OP_BINARY)) {
		assert_int_equal(strtoul(payload.p, NULL, 10), c->counted++);
		return;
	}
	if (c->said.len > 0)
		buf_add_char(&c->said, ' ');
	switch (first) {
	case PEER_FIN | WS_OP_TEXT:
		assert_true(str_is_utf8(payload));
		buf_add_cstr(&c->said, "text(");
		break;
	case PEER_FIN | WS_OP_BINARY:
		buf_add_cstr(&c->said, "binary(");
		break;
	case PEER_FIN | WS_OP_PING:
		buf_add_cstr(&c->said, "ping(");
		break;
	case PEER_FIN | WS_OP_PONG:
		buf_add_cstr(&c->said, "pong(");
		break;
	case PEER_FIN | WS_OP_CLOSE:
		assert_true(payload.len != 1 && payload.len <= WS_CONTROL_MAX);
		assert_true(
		    payload.len == 0 || str_is_utf8(str_sub(payload.p + 2, payload.len - 2)));
		buf_printf(&c->said, "close(%u)",
		    payload.len > 0 ? (unsigned)(p[0] << 8 | p[1]) : WS_CLOSE_NO_CODE);
		return;
	default:
		fail_msg("a frame that begins with %02x", first);
	}
	peer_show(&c->said, payload);
	buf_add_char(&c->said, ')');
}

/* False: there is no whole frame. */
static inline bool
client_take_frame(struct client *c)
{
	const uint8_t *p = (const uint8_t *)c->in.data;
	size_t head = 2;
	uint64_t len;

	if (c->in.len < head)
		return false;
	assert_int_equal(p[1] & 0x80, 0); /* a server does not mask */
	len = p[1];
	head += len == 126 ? 2 : len == 127 ? 8 : 0;
	if (c->in.len < head)
		return false;
	for (size_t i = 2; i < head; i++)
		len = i == 2 ? p[i] : len << 8 | p[i];
	if (c->in.len < head + len)
		return false;
	client_note_frame(c, p[0], str_sub(c->in.data + head, (size_t)len));
	buf_consume(&c->in, head + (size_t)len);
	return true;
}

static inline void
client_note_end(struct client *c, const char *how)
{
	if (c->in.len > 0)
		buf_printf(&c->said, " %zu bytes of a frame", c->in.len);
	if (c->said.len > 0)
		buf_add_char(&c->said, ' ');
	buf_add_cstr(&c->said, how);
	c->is_over = true;
}

/* Waits for something to come; fails when nothing does. */
static inline void
client_read(struct client *c)
{
	static char bytes[256 << 10];
	ssize_t n = recv(c->fd, bytes, sizeof(bytes), 0);

	if (n < 0 && errno == ECONNRESET) {
		client_note_end(c, "reset");
	} else if (n == 0) {
		client_note_end(c, "end");
	} else {
		if (n < 0)
			fail_msg("nothing more after: %s", c->said.data ? c->said.data : "");
		buf_add(&c->in, bytes, (size_t)n);
		while (client_take_frame(c))
			;
	}
}

/* Until this has been said; it and nothing else. */
static inline void
client_expect(struct client *c, const char *said)
{
	size_t len = strlen(said);

	while (!c->is_over && c->said.len < len)
		client_read(c);
	assert_string_equal(c->said.data != NULL ? c->said.data : "", said);
}

/* The same to the end of the stream. */
static inline void
client_expect_end(struct client *c, const char *said)
{
	while (!c->is_over)
		client_read(c);
	assert_string_equal(c->said.data, said);
}

#endif
