/*
 * mock_mcp - a tool server that costs next to nothing: what a gateway before it is measured with.
 *
 *   mock_mcp --listen 127.0.0.1:0     over HTTP, POST to any path; prints where it listens
 *   mock_mcp --stdio                  a message in a line each way
 *     --legacy      knows no revision without sessions
 *     --tools N     that it lists (20)
 *
 * It believes its clients: one thread, no limits, no checks of headers. For tests and figures only.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/check.h"
#include "loadtest/mock_mcp/answer.h"

enum { READ_BYTES = 64 << 10, EVENTS_MAX = 256 };

struct client {
	int fd;
	struct buf in, out;
	bool waits; /* for room to write */
};

static struct answer_conf conf;
static int epoll_fd;

/* ---- HTTP ---- */

static void
client_free(struct client *c)
{
	close(c->fd);
	buf_fini(&c->in);
	buf_fini(&c->out);
	free(c);
}

static size_t
content_length(struct str head)
{
	uint64_t n;

	while (head.len > 0) {
		struct str line = str_split(&head, '\n'), name = str_split(&line, ':');

		if (line.len > 0 && line.p[line.len - 1] == '\r')
			line.len--;
		if (str_ieq(name, STR("content-length")) && str_to_u64(str_trim(line), &n))
			return (size_t)n;
	}
	return 0;
}

static void
serve(struct client *c, struct str head, struct str body)
{
	static struct buf text;

	buf_clear(&text);
	if (!str_starts(head, STR("POST ")))
		buf_add_cstr(&c->out, "HTTP/1.1 405 Method Not Allowed\r\nAllow: POST\r\n"
				      "Content-Length: 0\r\n\r\n");
	else if (!answer(&conf, body, &text))
		buf_add_cstr(&c->out, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
	else
		buf_printf(&c->out,
		    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
		    "Content-Length: %zu\r\n\r\n%.*s",
		    text.len, (int)text.len, text.data);
}

static void
serve_all(struct client *c)
{
	const char *end;

	while (c->in.len > 0 && (end = memmem(c->in.data, c->in.len, "\r\n\r\n", 4)) != NULL) {
		size_t head = (size_t)(end - c->in.data) + 4;
		size_t body = content_length(str_sub(c->in.data, head));

		if (c->in.len < head + body)
			return;
		serve(c, str_sub(c->in.data, head), str_sub(c->in.data + head, body));
		buf_consume(&c->in, head + body);
	}
}

/* False: it has gone. */
static bool
flush(struct client *c)
{
	ssize_t n = c->out.len > 0 ? write(c->fd, c->out.data, c->out.len) : 0;

	if (n < 0 && errno != EAGAIN)
		return false;
	if (n > 0)
		buf_consume(&c->out, (size_t)n);
	bool waits = c->out.len > 0;
	if (waits != c->waits) {
		struct epoll_event e = {EPOLLIN | (waits ? EPOLLOUT : 0), {.ptr = c}};

		epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
		c->waits = waits;
	}
	return true;
}

static bool
on_ready(struct client *c, uint32_t events)
{
	static char room[READ_BYTES];

	if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
		ssize_t n = read(c->fd, room, sizeof(room));

		if (n == 0 || (n < 0 && errno != EAGAIN))
			return false;
		if (n > 0)
			buf_add(&c->in, room, (size_t)n);
		serve_all(c);
	}
	return flush(c);
}

static void
take_client(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), on = 1;

	if (fd < 0)
		return;
	struct client *c = xcalloc(1, sizeof(*c));
	struct epoll_event e = {EPOLLIN, {.ptr = c}};
	c->fd = fd;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
}

static int
listen_at(const char *address)
{
	struct sockaddr_in at = {.sin_family = AF_INET};
	socklen_t len = sizeof(at);
	const char *colon = strrchr(address, ':');
	char host[16] = "127.0.0.1";
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
	uint64_t port;

	if (colon != NULL && (size_t)(colon - address) < sizeof(host))
		snprintf(host, sizeof(host), "%.*s", (int)(colon - address), address);
	if (!str_to_u64(str_of(colon != NULL ? colon + 1 : address), &port) || port > UINT16_MAX)
		exit(64);
	at.sin_port = htons((uint16_t)port);
	inet_pton(AF_INET, host, &at.sin_addr);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(fd, 2048) != 0) {
		fprintf(stderr, "mock_mcp: %s: %m\n", address);
		exit(EXIT_FAILURE);
	}
	getsockname(fd, (struct sockaddr *)&at, &len);
	printf("listening %s:%u\n", host, ntohs(at.sin_port));
	fflush(stdout);
	return fd;
}

static _Noreturn void
run_http(const char *address)
{
	struct epoll_event events[EVENTS_MAX], e = {EPOLLIN, {.ptr = NULL}};
	int listener = listen_at(address);

	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	check(epoll_fd >= 0);
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e);
	for (;;) {
		int n = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);

		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr == NULL)
				take_client(listener);
			else if (!on_ready(events[i].data.ptr, events[i].events))
				client_free(events[i].data.ptr);
		}
	}
}

/* ---- stdio ---- */

static void
write_whole(struct str text)
{
	while (text.len > 0) {
		ssize_t n = write(STDOUT_FILENO, text.p, text.len);

		if (n <= 0)
			exit(EXIT_SUCCESS);
		text = str_sub(text.p + n, text.len - (size_t)n);
	}
}

static void
run_stdio(void)
{
	static char room[READ_BYTES];
	struct buf in = BUF_INIT, out = BUF_INIT;
	const char *end;
	ssize_t n;

	while ((n = read(STDIN_FILENO, room, sizeof(room))) > 0) {
		size_t done = 0;

		buf_add(&in, room, (size_t)n);
		while ((end = memchr(in.data + done, '\n', in.len - done)) != NULL) {
			size_t len = (size_t)(end - in.data) - done;

			if (answer(&conf, str_sub(in.data + done, len), &out))
				buf_add_char(&out, '\n');
			done += len + 1;
		}
		buf_consume(&in, done);
		write_whole(buf_str(&out));
		buf_clear(&out);
	}
	buf_fini(&in);
	buf_fini(&out);
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {{"listen", required_argument, NULL, 'l'},
	    {"stdio", no_argument, NULL, 's'}, {"legacy", no_argument, NULL, 'o'},
	    {"tools", required_argument, NULL, 't'}, {NULL, 0, NULL, 0}};
	const char *address = "127.0.0.1:0";
	bool is_stdio = false, is_legacy = false;
	uint64_t tools = 20;

	signal(SIGPIPE, SIG_IGN);
	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (c == 'l')
			address = optarg;
		else if (c == 's')
			is_stdio = true;
		else if (c == 'o')
			is_legacy = true;
		else if (c != 't' || !str_to_u64(str_of(optarg), &tools) || tools < 1 ||
			 tools > 10000)
			return 64;
	}
	answer_init(&conf, (unsigned)tools, is_legacy);
	if (!is_stdio)
		run_http(address);
	run_stdio();
	answer_fini(&conf);
	return EXIT_SUCCESS;
}
