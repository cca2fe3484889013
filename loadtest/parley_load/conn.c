/* conn - a bufferevent, a head parser and a body that is counted, chunked or until close. */
#include "loadtest/parley_load/conn.h"

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>

#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"
#include "loadtest/parley_load/tally.h"

/* Below the server's keep-alive time, or a request may cross the server's close. */
enum { IDLE_MAX_MS = 4000, SLOW_BUFFER = 4096, SOURCE_LAST = 250, SESSION_MAX = 128 };

enum conn_state { IDLE, HEAD, COUNTED, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER, UNTIL_CLOSE };

struct conn {
	struct conn_target *target;
	const struct conn_handlers *handlers;
	void *arg;
	struct bufferevent *bev;
	enum conn_state state;
	int status;
	uint64_t left; /* of the body or chunk */
	bool closes, is_made;
	uint64_t began_us; /* connecting; then idle */
	uint64_t retry_after_s;
	char session[SESSION_MAX];
	uint32_t slow_bytes_per_s;
	struct ev_token_bucket_cfg *slow;
};

static void
finish(struct conn *c, int status)
{
	c->state = IDLE;
	c->began_us = clock_mono_us();
	if (c->closes || status == 0)
		conn_close(c);
	c->handlers->on_done(c->arg, status);
}

static void
parse_header(struct conn *c, struct str line, bool *is_chunked, bool *is_counted)
{
	struct str name = str_split(&line, ':'), value = str_trim(line);

	if (str_ieq(name, STR("content-length")))
		*is_counted = str_to_u64(value, &c->left);
	else if (str_ieq(name, STR("transfer-encoding")))
		*is_chunked = str_ieq(value, STR("chunked"));
	else if (str_ieq(name, STR("connection")))
		c->closes = str_ieq(value, STR("close"));
	else if (str_ieq(name, STR("retry-after")))
		str_to_u64(value, &c->retry_after_s);
	else if (str_ieq(name, STR("mcp-session-id")) && value.len < sizeof(c->session))
		snprintf(c->session, sizeof(c->session), "%.*s", (int)value.len, value.p);
}

/* A whole head is in `text`. */
static void
parse_head(struct conn *c, struct str text)
{
	bool is_chunked = false, is_counted = false;
	uint64_t status = 0;

	str_to_u64(str_sub(text.p + 9, text.len > 12 ? 3 : 0), &status);
	c->status = (int)status;
	c->closes = false;
	c->left = 0;
	str_split(&text, '\n');
	while (text.len > 0) {
		struct str line = str_split(&text, '\n');

		if (line.len > 0 && line.p[line.len - 1] == '\r')
			line.len--;
		parse_header(c, line, &is_chunked, &is_counted);
	}
	c->state = is_chunked ? CHUNK_SIZE : is_counted ? COUNTED : UNTIL_CLOSE;
	if (c->status == 204 || c->status == 304) {
		c->left = 0;
		c->state = COUNTED;
	}
}

static bool
read_head(struct conn *c, struct evbuffer *in)
{
	struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, NULL);

	if (end.pos < 0)
		return false;
	size_t len = (size_t)end.pos + 4;
	parse_head(c, str_sub((const char *)evbuffer_pullup(in, (ssize_t)len), len - 2));
	evbuffer_drain(in, len);
	return true;
}

/* Gives the body bytes that are there, at most c->left; false: more must come. */
static bool
read_counted(struct conn *c, struct evbuffer *in)
{
	size_t n = evbuffer_get_length(in);

	if (n > c->left)
		n = (size_t)c->left;
	if (n > 0 && c->handlers->on_data != NULL)
		c->handlers->on_data(
		    c->arg, str_sub((const char *)evbuffer_pullup(in, (ssize_t)n), n));
	evbuffer_drain(in, n);
	c->left -= n;
	return c->left == 0;
}

static bool
read_chunk_size(struct conn *c, struct evbuffer *in)
{
	size_t len;
	char *line = evbuffer_readln(in, &len, EVBUFFER_EOL_CRLF);

	if (line == NULL)
		return false;
	c->left = strtoull(line, NULL, 16);
	free(line);
	c->state = c->left > 0 ? CHUNK : TRAILER;
	return true;
}

static bool
read_line(struct evbuffer *in, size_t *ret_len)
{
	char *line = evbuffer_readln(in, ret_len, EVBUFFER_EOL_CRLF);

	free(line);
	return line != NULL;
}

/* One step over what is buffered; false: wait, or the request is done. */
static bool
conn_step(struct conn *c, struct evbuffer *in)
{
	size_t len;

	switch (c->state) {
	case HEAD:
		return read_head(c, in);
	case COUNTED:
		if (read_counted(c, in))
			finish(c, c->status);
		return false;
	case CHUNK_SIZE:
		return read_chunk_size(c, in);
	case CHUNK:
		if (!read_counted(c, in))
			return false;
		c->state = CHUNK_END;
		return true;
	case CHUNK_END:
		c->state = CHUNK_SIZE;
		return read_line(in, &len) || (c->state = CHUNK_END, false);
	case TRAILER:
		if (!read_line(in, &len))
			return false;
		if (len == 0)
			finish(c, c->status);
		return len > 0;
	case UNTIL_CLOSE:
		c->left = UINT64_MAX;
		read_counted(c, in);
		return false;
	case IDLE:
		return false;
	}
	return false;
}

static void
on_read(struct bufferevent *bev, void *arg)
{
	struct conn *c = arg;

	while (c->bev == bev && conn_step(c, bufferevent_get_input(bev)))
		;
}

static void
on_event(struct bufferevent *bev, short what, void *arg)
{
	struct conn *c = arg;

	(void)bev;
	if (what & BEV_EVENT_CONNECTED) {
		c->is_made = true;
		c->target->tally->connects++;
		latency_add(&c->target->tally->connect, clock_mono_us() - c->began_us);
		return;
	}
	c->target->tally->unmade += !c->is_made;
	bool was_busy = c->state != IDLE;
	bool is_whole = c->state == UNTIL_CLOSE && (what & BEV_EVENT_EOF);
	conn_close(c);
	if (was_busy)
		finish(c, is_whole ? c->status : 0);
}

/* Source n is 127.0.x.y, x from 1, y from 1 to SOURCE_LAST: 60,000 addresses, none of them .0 or
 * .255. */
static void
bind_source(struct conn_target *target, int fd)
{
	uint32_t n = target->source_first + target->source_next++ % target->source_count;
	uint32_t address = (127U << 24) | ((1 + n / SOURCE_LAST) << 8) | (1 + n % SOURCE_LAST);
	struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
	int on = 1;

	/* The port is chosen when it connects, so that it need be free for this target only. */
	setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
	int failed = bind(fd, (struct sockaddr *)&from, sizeof(from));
	check(failed == 0);
}

int
conn_open_socket(struct conn_target *target)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;

	if (fd < 0) {
		fprintf(stderr, "parley_load: no more sockets: %m\n");
		exit(71);
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (target->source_count > 0)
		bind_source(target, fd);
	return fd;
}

const char *
conn_socket_address(int fd)
{
	static char text[INET_ADDRSTRLEN + 8];
	char host[INET_ADDRSTRLEN];
	struct sockaddr_in at;
	socklen_t len = sizeof(at);

	if (getsockname(fd, (struct sockaddr *)&at, &len) != 0)
		return "-";
	inet_ntop(AF_INET, &at.sin_addr, host, sizeof(host));
	snprintf(text, sizeof(text), "%s:%u", host, ntohs(at.sin_port));
	return text;
}

const char *
conn_address(const struct conn *c)
{
	return c->bev == NULL ? "-" : conn_socket_address(bufferevent_getfd(c->bev));
}

static void
conn_connect(struct conn *c)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(c->target->port)};
	int is_address = inet_pton(AF_INET, c->target->host, &to.sin_addr);
	int fd = conn_open_socket(c->target), small = SLOW_BUFFER;

	check(is_address == 1);
	if (c->slow_bytes_per_s > 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	c->is_made = false;
	c->began_us = clock_mono_us();
	c->bev = bufferevent_socket_new(
	    c->target->base, fd, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
	check(c->bev != NULL);
	c->target->tally->open++;
	if (c->slow != NULL)
		bufferevent_set_rate_limit(c->bev, c->slow);
	bufferevent_setcb(c->bev, on_read, NULL, on_event, c);
	bufferevent_enable(c->bev, EV_READ | EV_WRITE);
	bufferevent_socket_connect(c->bev, (struct sockaddr *)&to, sizeof(to));
}

struct conn *
conn_new(struct conn_target *target, const struct conn_handlers *handlers, void *arg)
{
	struct conn *c = xcalloc(1, sizeof(*c));

	c->target = target;
	c->handlers = handlers;
	c->arg = arg;
	return c;
}

void
conn_free(struct conn **c)
{
	if (*c == NULL)
		return;
	conn_close(*c);
	if ((*c)->slow != NULL)
		ev_token_bucket_cfg_free((*c)->slow);
	free(*c);
	*c = NULL;
}

void
conn_close(struct conn *c)
{
	if (c->bev == NULL)
		return;
	bufferevent_free(c->bev);
	c->bev = NULL;
	c->state = IDLE;
	c->target->tally->open--;
}

void
conn_slow(struct conn *c, uint32_t bytes_per_s)
{
	if (c->bev != NULL)
		bufferevent_set_rate_limit(c->bev, NULL);
	if (c->slow != NULL)
		ev_token_bucket_cfg_free(c->slow);
	c->slow_bytes_per_s = bytes_per_s;
	c->slow = bytes_per_s == 0 ? NULL
				   : ev_token_bucket_cfg_new(bytes_per_s, bytes_per_s,
					 EV_RATE_LIMIT_MAX, EV_RATE_LIMIT_MAX, NULL);
}

int
conn_status(const struct conn *c)
{
	return c->status;
}

uint64_t
conn_retry_after_s(const struct conn *c)
{
	return c->retry_after_s;
}

const char *
conn_session(const struct conn *c)
{
	return c->session;
}

void
conn_send(
    struct conn *c, const char *method, const char *path, const char *headers, struct str body)
{
	struct buf head = BUF_INIT;

	check(c->state == IDLE);
	if (c->bev != NULL && clock_mono_us() - c->began_us > IDLE_MAX_MS * UINT64_C(1000))
		conn_close(c);
	if (c->bev == NULL)
		conn_connect(c);
	buf_printf(
	    &head, "%s %s HTTP/1.1\r\nHost: %s\r\n%s", method, path, c->target->host, headers);
	if (c->target->key != NULL)
		buf_printf(&head, "Authorization: Bearer %s\r\n", c->target->key);
	if (c->target->header != NULL)
		buf_printf(&head, "%s\r\n", c->target->header);
	if (body.len > 0)
		buf_printf(
		    &head, "Content-Type: application/json\r\nContent-Length: %zu\r\n", body.len);
	buf_add_cstr(&head, "\r\n");
	buf_add_str(&head, body);
	c->state = HEAD;
	c->retry_after_s = 0;
	bufferevent_write(c->bev, head.data, head.len);
	buf_fini(&head);
}

void
conn_request(struct conn *c, const char *method, const char *path, struct str body)
{
	conn_send(c, method, path, "", body);
}

void
conn_follow(struct conn *c, const char *path, const char *last_event_id)
{
	char header[128] = "";

	if (last_event_id != NULL && last_event_id[0] != '\0')
		snprintf(header, sizeof(header), "Last-Event-ID: %s\r\n", last_event_id);
	conn_send(c, "GET", path, header, STR_NONE);
}
