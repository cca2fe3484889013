/* wsock - dial, upgrade, read, write; one buffer in and one out for all of them. */
#include "loadtest/parley_load/wsock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"
#include "worker/ws/message.h"

enum { READ_BYTES = 64 << 10, HEAD_MAX = 16 << 10, SMALL_BUFFER = 4096, MASK_BYTES = 4 };

struct wsock_rest {
	size_t len;
	char bytes[];
};

static uint8_t in_bytes[READ_BYTES];
static struct buf out;        /* what is being said in this round .. */
static struct wsock *talking; /* .. by this one; NULL: outside of a round */
static struct buf request;

static void on_event(evutil_socket_t fd, short what, void *arg);

/* ---- its event, its end ---- */

static int
fd_of(const struct wsock *w)
{
	return event_get_fd(&w->event);
}

static void
watch(struct wsock *w)
{
	short what = 0;

	if (w->state == WSOCK_DIALLING || (w->state >= WSOCK_GREETING && w->rest != NULL))
		what |= EV_WRITE;
	if (w->state != WSOCK_DIALLING && !w->is_paused)
		what |= EV_READ;
	int fd = fd_of(w);
	event_del(&w->event);
	event_assign(&w->event, w->load->target.base, fd, (short)(what | EV_PERSIST), on_event, w);
	if (what != 0)
		event_add(&w->event, NULL);
}

static void
drop_rest(struct wsock *w)
{
	free(w->rest);
	w->rest = NULL;
}

void
wsock_close(struct wsock *w)
{
	struct linger at_once = {.l_onoff = 1};

	if (w->state == WSOCK_CLOSED)
		return;
	setsockopt(fd_of(w), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	event_del(&w->event);
	close(fd_of(w));
	ws_reader_fini(&w->reader);
	drop_rest(w);
	w->state = WSOCK_CLOSED;
	w->is_paused = false;
	w->life++;
	w->load->target.tally->open--;
}

static void
end_as(struct wsock *w, const struct wsock_end *ended)
{
	w->load->target.tally->unmade += w->state == WSOCK_DIALLING;
	wsock_close(w);
	w->handlers->on_closed(w, ended);
}

static void
end(struct wsock *w, int status, uint16_t code)
{
	end_as(w, &(struct wsock_end){.status = status, .code = code});
}

const char *
wsock_address(const struct wsock *w)
{
	return conn_socket_address(fd_of(w));
}

enum outcome
wsock_outcome(const struct wsock_end *ended)
{
	if (ended->status == 503 || ended->code == WS_CLOSE_TRY_LATER)
		return LOAD_REFUSED;
	return LOAD_FAILED;
}

/* ---- writing ---- */

static void
keep_rest(struct wsock *w, struct str bytes)
{
	size_t had = w->rest != NULL ? w->rest->len : 0;

	w->rest = xrealloc(w->rest, sizeof(*w->rest) + had + bytes.len);
	memcpy(w->rest->bytes + had, bytes.p, bytes.len);
	w->rest->len = had + bytes.len;
}

/* Returns what was taken; of a broken line nothing is, and that it is broken is told later. */
static size_t
try_send(struct wsock *w, struct str bytes)
{
	ssize_t n = send(fd_of(w), bytes.p, bytes.len, MSG_NOSIGNAL);

	return n > 0 ? (size_t)n : 0;
}

static void
send_out(struct wsock *w)
{
	bool had_rest = w->rest != NULL;
	size_t sent = 0;

	if (!had_rest)
		sent = try_send(w, buf_str(&out));
	if (sent < out.len)
		keep_rest(w, str_sub(out.data + sent, out.len - sent));
	buf_clear(&out);
	if (!had_rest && w->rest != NULL)
		watch(w);
}

static void
add_frame(enum ws_opcode opcode, struct str payload)
{
	uint8_t head[WS_HEAD_OUT_MAX], key[MASK_BYTES];
	long number = random();

	memcpy(key, &number, sizeof(key));
	size_t head_len = ws_frame_format_head(opcode, payload.len, head);
	head[1] |= 0x80;
	buf_add(&out, head, head_len);
	buf_add(&out, key, sizeof(key));
	if (payload.len == 0)
		return;
	buf_add_str(&out, payload);
	ws_unmask((uint8_t *)out.data + out.len - payload.len, payload.len, key);
}

static void
say(struct wsock *w, enum ws_opcode opcode, struct str payload)
{
	if (talking != w && out.len > 0)
		send_out(talking);
	add_frame(opcode, payload);
	if (talking != w)
		send_out(w);
}

void
wsock_say(struct wsock *w, struct str text)
{
	check(w->state == WSOCK_OPEN);
	say(w, WS_OP_TEXT, text);
}

void
wsock_say_goodbye(struct wsock *w)
{
	static const char code[] = {WS_CLOSE_NORMAL >> 8, (char)(WS_CLOSE_NORMAL & 0xff)};

	check(w->state == WSOCK_OPEN);
	say(w, WS_OP_CLOSE, str_sub(code, sizeof(code)));
}

static void
on_writable(struct wsock *w)
{
	size_t sent = try_send(w, str_sub(w->rest->bytes, w->rest->len));

	if (sent == 0 && errno != EAGAIN) {
		end(w, 0, WSOCK_BROKEN);
		return;
	}
	w->rest->len -= sent;
	memmove(w->rest->bytes, w->rest->bytes + sent, w->rest->len);
	if (w->rest->len > 0)
		return;
	drop_rest(w);
	watch(w);
}

void
wsock_pause(struct wsock *w, bool is_paused)
{
	check(w->state == WSOCK_OPEN);
	w->is_paused = is_paused;
	watch(w);
}

/* ---- reading ---- */

static uint16_t
code_of(struct str payload)
{
	return payload.len < 2 ? WS_CLOSE_NO_CODE
			       : (uint16_t)((uint8_t)payload.p[0] << 8 | (uint8_t)payload.p[1]);
}

/* "draining; retry_after_ms=1234" */
static uint64_t
retry_after_of(struct str payload)
{
	static const char name[] = "retry_after_ms=";
	const char *at =
	    payload.len > 2 ? memmem(payload.p + 2, payload.len - 2, name, strlen(name)) : NULL;
	uint64_t ms = 0;

	if (at != NULL) {
		at += strlen(name);
		str_to_u64(str_sub(at, payload.len - (size_t)(at - payload.p)), &ms);
	}
	return ms;
}

static void
end_by_frame(struct wsock *w, struct str payload)
{
	struct wsock_end ended = {
	    .code = code_of(payload), .retry_after_ms = retry_after_of(payload)};

	end_as(w, &ended);
}

static void
become_open(struct wsock *w)
{
	w->state = WSOCK_OPEN;
	w->handlers->on_open(w);
}

static void
take_message(struct wsock *w, struct str data)
{
	if (w->state == WSOCK_OPEN)
		w->handlers->on_message(w, data);
	else if (str_starts(data, str_of(w->load->options->greeted)))
		become_open(w);
}

static void
take_frame(struct wsock *w, const struct ws_got *got)
{
	switch (got->opcode) {
	case WS_OP_PING:
		w->load->tally->pings++;
		say(w, WS_OP_PONG, got->data);
		break;
	case WS_OP_PONG:
		break;
	case WS_OP_CLOSE:
		end_by_frame(w, got->data);
		break;
	case WS_OP_CONTINUATION:
	case WS_OP_TEXT:
	case WS_OP_BINARY:
		if (got->is_final)
			take_message(w, got->data);
		break;
	default:
		end(w, 0, WS_CLOSE_PROTOCOL);
	}
}

static void
take_frames(struct wsock *w, struct ws_bytes in)
{
	uint32_t life = w->life;
	struct ws_got got;
	enum ws_reader_said said;

	check(talking == NULL);
	talking = w;
	while ((said = ws_reader_next(&w->reader, &in, &got)) == WS_READER_FRAME) {
		take_frame(w, &got);
		if (w->life != life)
			break;
	}
	talking = NULL;
	if (w->life != life)
		buf_clear(&out);
	else if (said == WS_READER_FAULT)
		end(w, 0, WS_CLOSE_PROTOCOL);
	else if (out.len > 0)
		send_out(w);
}

/* The answer to the key of our request, which is that of RFC 6455's example. */
static const char accept_value[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

static uint64_t
status_of(struct str head)
{
	uint64_t status = 0;

	if (head.len >= 12)
		str_to_u64(str_sub(head.p + 9, 3), &status);
	return status;
}

/* Some servers have a protocol of their own that begins so. */
static void
greet(struct wsock *w)
{
	const char *greeting = w->load->options->greet;

	if (greeting == NULL) {
		become_open(w);
		return;
	}
	w->state = WSOCK_GREETING;
	say(w, WS_OP_TEXT, str_of(greeting));
}

static void
take_head(struct wsock *w, struct ws_bytes in)
{
	size_t had = w->rest != NULL ? w->rest->len : 0;
	uint32_t life = w->life;

	keep_rest(w, str_sub((const char *)in.p, in.len));
	struct str head = str_sub(w->rest->bytes, w->rest->len);
	const char *blank = memmem(head.p, head.len, "\r\n\r\n", 4);
	if (blank == NULL) {
		if (head.len > HEAD_MAX)
			end(w, 0, WSOCK_BROKEN);
		return;
	}
	head.len = (size_t)(blank + 4 - head.p);
	uint64_t status = status_of(head);
	bool is_ours = memmem(head.p, head.len, accept_value, strlen(accept_value)) != NULL;
	size_t taken = head.len - had;
	drop_rest(w);
	if (status != 101 || !is_ours) {
		end(w, status == 101 ? 0 : (int)status, WSOCK_BROKEN);
		return;
	}
	greet(w);
	if (w->life == life && in.len > taken)
		take_frames(w, (struct ws_bytes){in.p + taken, in.len - taken});
}

static void
on_readable(struct wsock *w)
{
	ssize_t n = recv(fd_of(w), in_bytes, sizeof(in_bytes), 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		end(w, 0, WSOCK_BROKEN);
		return;
	}
	struct ws_bytes in = {in_bytes, (size_t)n};
	if (w->state >= WSOCK_GREETING)
		take_frames(w, in);
	else
		take_head(w, in);
}

/* ---- dialling ---- */

/* --key-in says where the key goes: browsers cannot set a header. */
static void
make_request(const struct load *load)
{
	const struct options *o = load->options;
	const char *key = load->target.key;
	bool is_query = key != NULL && o->key_in == KEY_IN_QUERY;

	buf_printf(&request, "GET %s", o->path);
	if (is_query)
		buf_printf(&request, "%caccess_token=%s", strchr(o->path, '?') ? '&' : '?', key);
	buf_printf(&request, " HTTP/1.1\r\nHost: %s:%u\r\n", load->target.host, load->target.port);
	if (key != NULL && o->key_in == KEY_IN_HEADER)
		buf_printf(&request, "Authorization: Bearer %s\r\n", key);
	if (key != NULL && o->key_in == KEY_IN_PROTOCOL)
		buf_printf(&request, "Sec-WebSocket-Protocol: parley, bearer.%s\r\n", key);
	if (o->offers_deflate)
		buf_add_cstr(&request,
		    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n");
	buf_add_cstr(&request,
	    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
	    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
}

/* The request fits in an empty socket: it goes as a whole or not at all. */
static bool
ask(struct wsock *w)
{
	if (try_send(w, buf_str(&request)) < request.len)
		return false;
	w->state = WSOCK_UPGRADING;
	w->load->tally->connects++;
	watch(w);
	return true;
}

static void
dial(struct wsock *w, int receive_bytes)
{
	struct conn_target *target = &w->load->target;
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(target->port)};
	int is_address = inet_pton(AF_INET, target->host, &to.sin_addr);
	int fd = conn_open_socket(target);

	check(is_address == 1);
	if (receive_bytes > 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
	if (request.len == 0)
		make_request(w->load);
	target->tally->open++;
	w->state = WSOCK_DIALLING;
	event_assign(&w->event, target->base, fd, 0, on_event, w);
	int failed = connect(fd, (struct sockaddr *)&to, sizeof(to));
	/* On the loopback it is made by now; elsewhere, or when it failed, the event tells. */
	if ((failed != 0 && errno != EINPROGRESS) || !ask(w))
		watch(w);
}

void
wsock_open(struct wsock *w, struct load *load, const struct wsock_handlers *handlers)
{
	check(w->state == WSOCK_CLOSED);
	w->load = load;
	w->handlers = handlers;
	dial(w, 0);
}

void
wsock_open_small(struct wsock *w, struct load *load, const struct wsock_handlers *handlers)
{
	check(w->state == WSOCK_CLOSED);
	w->load = load;
	w->handlers = handlers;
	dial(w, SMALL_BUFFER);
}

static void
on_dialled(struct wsock *w)
{
	int error = 0;
	socklen_t len = sizeof(error);

	getsockopt(fd_of(w), SOL_SOCKET, SO_ERROR, &error, &len);
	if (error != 0 || !ask(w))
		end(w, 0, WSOCK_BROKEN);
}

static void
on_event(evutil_socket_t fd, short what, void *arg)
{
	struct wsock *w = arg;
	uint32_t life = w->life;

	(void)fd;
	if (w->state == WSOCK_DIALLING) {
		on_dialled(w);
		return;
	}
	if ((what & EV_WRITE) != 0 && w->rest != NULL)
		on_writable(w);
	if ((what & EV_READ) != 0 && w->life == life && !w->is_paused)
		on_readable(w);
}
