/* server - connections, requests and answers of the mock. */
#include "loadtest/mock_llm/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <event2/util.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/check.h"
#include "common/list.h"

enum {
	HEAD_BYTES_MAX = 64 << 10,
	BODY_BYTES_MAX = 64 << 20,
	BACKLOG = 4096,
	EMFILE_PAUSE_MS = 50,
};

struct server {
	struct event_base *base;
	struct evconnlistener *listener;
	struct event *resume;
	struct server_handlers handlers;
	void *arg;
	struct list conns;
	struct server_stats stats;
	char address[80];
};

struct conn {
	struct list node;
	struct server *server;
	struct bufferevent *bev; /* NULL: closed, freed when nothing of ours is on the stack */
	struct conn_owner owner;
	bool is_answering; /* a request was handed up and its answer is not whole */
	bool is_chunked;
	bool keeps_alive;
	bool is_closing; /* when all has left */
	bool is_processing;
	bool has_continued; /* 100 Continue was sent for the present request */
	unsigned depth;     /* our callbacks on the stack */
};

static const char *
reason_of(int status)
{
	switch (status) {
	case 200:
		return "OK";
	case 400:
		return "Bad Request";
	case 401:
		return "Unauthorized";
	case 404:
		return "Not Found";
	case 429:
		return "Too Many Requests";
	case 500:
		return "Internal Server Error";
	case 503:
		return "Service Unavailable";
	default:
		return "Status";
	}
}

/* ---- the life of a connection ---- */

static void
conn_destroy(struct conn *c)
{
	if (c->bev != NULL) {
		bufferevent_free(c->bev);
		c->bev = NULL;
		list_del(&c->node);
		c->server->stats.open--;
	}
	if (c->depth == 0)
		free(c);
}

static void
conn_enter(struct conn *c)
{
	c->depth++;
}

/* False: the connection is gone. */
static bool
conn_leave(struct conn *c)
{
	if (--c->depth > 0 || c->bev != NULL)
		return c->bev != NULL;
	free(c);
	return false;
}

static struct conn_owner
conn_disown(struct conn *c)
{
	struct conn_owner owner = c->owner;

	c->owner = (struct conn_owner){NULL, NULL, NULL};
	c->is_answering = false;
	return owner;
}

static void
on_event(struct bufferevent *bev, short what, void *arg)
{
	struct conn *c = arg;

	(void)bev;
	if (!(what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)))
		return;
	if (c->is_answering)
		c->server->stats.aborted++;
	struct conn_owner owner = conn_disown(c);
	conn_destroy(c);
	if (owner.on_gone != NULL)
		owner.on_gone(owner.arg);
}

static void
on_written(struct bufferevent *bev, void *arg)
{
	struct conn *c = arg;

	(void)bev;
	if (c->is_closing) {
		conn_destroy(c);
		return;
	}
	if (c->owner.on_drained != NULL)
		c->owner.on_drained(c->owner.arg);
}

/* ---- requests ---- */

struct str
request_header(const struct request *r, struct str name)
{
	struct str rest = r->headers;

	while (rest.len > 0) {
		struct str value = str_split(&rest, '\n');
		struct str key = str_split(&value, ':');

		if (!str_ieq(key, name))
			continue;
		if (value.len > 0 && value.p[value.len - 1] == '\r')
			value.len--;
		return str_trim(value);
	}
	return STR_NONE;
}

static void
request_parse_head(struct request *r, struct str head)
{
	struct str line;

	r->headers = head;
	line = str_split(&r->headers, '\n');
	r->method = str_split(&line, ' ');
	struct str target = str_split(&line, ' ');
	r->path = str_split(&target, '?');
}

/* The body's length; false: a request that we do not speak. */
static bool
request_body_length(const struct request *r, uint64_t *ret)
{
	struct str length = request_header(r, STR("content-length"));

	*ret = 0;
	if (request_header(r, STR("transfer-encoding")).len > 0)
		return false;
	return length.len == 0 || (str_to_u64(length, ret) && *ret <= BODY_BYTES_MAX);
}

static void
conn_refuse(struct conn *c)
{
	c->keeps_alive = false;
	conn_reply(c, 400, "text/plain", "", STR("bad request\n"));
}

/* One request, when it is there whole. */
static bool
conn_take_request(struct conn *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);
	struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, NULL);
	struct request r = {.body = STR_NONE};
	uint64_t body_len;

	if (end.pos < 0) {
		if (evbuffer_get_length(in) > HEAD_BYTES_MAX)
			conn_refuse(c);
		return false;
	}
	size_t head_len = (size_t)end.pos + 4;
	request_parse_head(
	    &r, str_sub((char *)evbuffer_pullup(in, (ssize_t)head_len), head_len - 2));
	c->keeps_alive = !str_ieq(request_header(&r, STR("connection")), STR("close"));
	if (!request_body_length(&r, &body_len)) {
		conn_refuse(c);
		return false;
	}
	if (evbuffer_get_length(in) < head_len + body_len) {
		if (!c->has_continued && request_header(&r, STR("expect")).len > 0)
			conn_raw(c, STR("HTTP/1.1 100 Continue\r\n\r\n"));
		c->has_continued = true;
		return false;
	}
	c->has_continued = false;
	char *all = (char *)evbuffer_pullup(in, (ssize_t)(head_len + body_len));
	request_parse_head(&r, str_sub(all, head_len - 2));
	r.body = str_sub(all + head_len, body_len);
	c->is_answering = true;
	c->server->handlers.on_request(c->server->arg, c, &r);
	if (c->bev != NULL)
		evbuffer_drain(in, head_len + body_len);
	return true;
}

static void
conn_process(struct conn *c)
{
	if (c->is_processing)
		return;
	conn_enter(c);
	c->is_processing = true;
	while (c->bev != NULL && !c->is_answering && !c->is_closing && conn_take_request(c))
		;
	c->is_processing = false;
	conn_leave(c);
}

static void
on_readable(struct bufferevent *bev, void *arg)
{
	(void)bev;
	conn_process(arg);
}

/* ---- answers ---- */

void
conn_own(struct conn *c, const struct conn_owner *owner)
{
	c->owner = *owner;
}

static void
write_head(struct conn *c, int status, const char *type, const char *framing, const char *extra)
{
	evbuffer_add_printf(bufferevent_get_output(c->bev),
	    "HTTP/1.1 %d %s\r\ncontent-type: %s\r\n%s%s%s\r\n", status, reason_of(status), type,
	    framing, c->keeps_alive ? "" : "connection: close\r\n", extra);
}

/* The answer is whole. The next request is looked at from a callback that is ours. */
static void
conn_answered(struct conn *c)
{
	conn_disown(c);
	if (!c->keeps_alive)
		c->is_closing = true;
	else if (!c->is_processing)
		conn_process(c);
}

void
conn_reply(struct conn *c, int status, const char *type, const char *extra, struct str body)
{
	char framing[64];

	snprintf(framing, sizeof(framing), "content-length: %zu\r\n", body.len);
	write_head(c, status, type, framing, extra);
	evbuffer_add(bufferevent_get_output(c->bev), body.p, body.len);
	conn_answered(c);
}

void
conn_begin(struct conn *c, int status, const char *type)
{
	c->is_chunked = true;
	write_head(
	    c, status, type, "transfer-encoding: chunked\r\ncache-control: no-cache\r\n", "");
}

void
conn_chunk(struct conn *c, struct str bytes)
{
	char head[24];
	struct evbuffer *out = bufferevent_get_output(c->bev);

	if (bytes.len == 0)
		return;
	int n = snprintf(head, sizeof(head), "%zx\r\n", bytes.len);
	evbuffer_expand(out, bytes.len + sizeof(head) + 2);
	evbuffer_add(out, head, (size_t)n);
	evbuffer_add(out, bytes.p, bytes.len);
	evbuffer_add(out, "\r\n", 2);
}

void
conn_finish(struct conn *c)
{
	if (c->is_chunked)
		conn_raw(c, STR("0\r\n\r\n"));
	c->is_chunked = false;
	conn_answered(c);
}

void
conn_raw(struct conn *c, struct str bytes)
{
	evbuffer_add(bufferevent_get_output(c->bev), bytes.p, bytes.len);
}

void
conn_close(struct conn *c)
{
	conn_disown(c);
	if (conn_pending_bytes(c) == 0)
		conn_destroy(c);
	else
		c->is_closing = true;
}

void
conn_reset(struct conn *c)
{
	struct linger at_once = {.l_onoff = 1, .l_linger = 0};

	conn_disown(c);
	setsockopt(bufferevent_getfd(c->bev), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	conn_destroy(c);
}

size_t
conn_pending_bytes(const struct conn *c)
{
	return evbuffer_get_length(bufferevent_get_output(c->bev));
}

/* ---- listening ---- */

static void
on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *sa, int len, void *arg)
{
	struct server *s = arg;
	struct conn *c = xcalloc(1, sizeof(*c));
	int one = 1;

	(void)l, (void)sa, (void)len;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c->server = s;
	c->bev = bufferevent_socket_new(s->base, fd, BEV_OPT_CLOSE_ON_FREE);
	check(c->bev != NULL);
	bufferevent_setcb(c->bev, on_readable, on_written, on_event, c);
	bufferevent_enable(c->bev, EV_READ | EV_WRITE);
	list_add_tail(&s->conns, &c->node);
	s->stats.accepted++;
	s->stats.open++;
}

static void
on_resume(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	evconnlistener_enable(((struct server *)arg)->listener);
}

/* Out of descriptors: a pause instead of a busy loop. */
static void
on_accept_error(struct evconnlistener *l, void *arg)
{
	struct timeval pause = {.tv_usec = EMFILE_PAUSE_MS * 1000};

	fprintf(stderr, "mock_llm: accept: %s\n", strerror(errno));
	evconnlistener_disable(l);
	event_add(((struct server *)arg)->resume, &pause);
}

static void
remember_address(struct server *s)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);
	char host[INET6_ADDRSTRLEN] = "?";

	getsockname(evconnlistener_get_fd(s->listener), (struct sockaddr *)&ss, &len);
	if (ss.ss_family == AF_INET6) {
		struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ss;

		inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		snprintf(s->address, sizeof(s->address), "[%s]:%u", host, ntohs(in6->sin6_port));
	} else {
		struct sockaddr_in *in = (struct sockaddr_in *)&ss;

		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(s->address, sizeof(s->address), "%s:%u", host, ntohs(in->sin_port));
	}
}

/* "host:port" or "[host]:port", numbers only. */
static bool
parse_address(const char *addr, struct sockaddr_storage *ret, int *ret_len)
{
	struct addrinfo *found, hints = {.ai_socktype = SOCK_STREAM};
	const char *colon = strrchr(addr, ':');
	char host[INET6_ADDRSTRLEN];

	if (colon == NULL)
		return false;
	struct str h = str_sub(addr, (size_t)(colon - addr));
	if (h.len > 1 && h.p[0] == '[' && h.p[h.len - 1] == ']')
		h = str_sub(h.p + 1, h.len - 2);
	if (h.len == 0 || h.len >= sizeof(host))
		return false;
	snprintf(host, sizeof(host), "%.*s", (int)h.len, h.p);
	hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
	if (getaddrinfo(host, colon + 1, &hints, &found) != 0)
		return false;
	memcpy(ret, found->ai_addr, found->ai_addrlen);
	*ret_len = (int)found->ai_addrlen;
	freeaddrinfo(found);
	return true;
}

struct server *
server_new(
    struct event_base *base, const char *addr, const struct server_handlers *handlers, void *arg)
{
	struct sockaddr_storage ss;
	int len;

	if (!parse_address(addr, &ss, &len)) {
		fprintf(stderr, "mock_llm: not an address: %s\n", addr);
		return NULL;
	}
	struct server *s = xcalloc(1, sizeof(*s));
	s->base = base;
	s->handlers = *handlers;
	s->arg = arg;
	list_init(&s->conns);
	s->listener = evconnlistener_new_bind(base, on_accept, s,
	    LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE, BACKLOG,
	    (struct sockaddr *)&ss, len);
	if (s->listener == NULL) {
		fprintf(stderr, "mock_llm: cannot listen on %s: %s\n", addr, strerror(errno));
		free(s);
		return NULL;
	}
	s->resume = evtimer_new(base, on_resume, s);
	evconnlistener_set_error_cb(s->listener, on_accept_error);
	remember_address(s);
	return s;
}

void
server_free(struct server **sp)
{
	struct server *s = *sp;

	if (s == NULL)
		return;
	*sp = NULL;
	list_for_safe (node, &s->conns) {
		struct conn *c = list_entry(node, struct conn, node);
		struct conn_owner owner = conn_disown(c);

		conn_destroy(c);
		if (owner.on_gone != NULL)
			owner.on_gone(owner.arg);
	}
	event_free(s->resume);
	evconnlistener_free(s->listener);
	free(s);
}

const char *
server_address(const struct server *s)
{
	return s->address;
}

struct server_stats *
server_stats(struct server *s)
{
	return &s->stats;
}
