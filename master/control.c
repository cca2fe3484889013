/*
 * control - the master's end.
 */
#include "master/control.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>

#include "common/check.h"
#include "common/log.h"
#include "common/str.h"
#include "master/listen_unix.h"

enum { LINE_MAX_BYTES = 256, PEERS_MAX = 16, PEER_TIMEOUT_S = 5, BACKLOG = 16 };

struct peer {
	struct control *control;
	struct bufferevent *socket; /* NULL: free */
	const char *waits_for;      /* the verb that is answered later; NULL: none */
};

struct control {
	const struct control_verbs *verbs;
	void *arg;
	struct evconnlistener *listener;
	struct peer peers[PEERS_MAX];
};

static void
drop_peer(struct peer *p)
{
	bufferevent_free(p->socket);
	*p = (struct peer){.control = p->control};
}

static enum control_answer
run(struct peer *p, const char *line, struct buf *out)
{
	struct control *c = p->control;
	const struct {
		const char *name;
		control_verb *verb;
	} verbs[] = {
	    {"status", c->verbs->status},
	    {"reload", c->verbs->reload},
	    {"drain", c->verbs->drain},
	    {"drain restart", c->verbs->drain_for_restart},
	    {"keys", c->verbs->keys},
	    {"upgrade", c->verbs->upgrade},
	};

	for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
		if (strcmp(verbs[i].name, line) != 0)
			continue;
		/* Before: it may be answered from inside. */
		p->waits_for = verbs[i].name;
		enum control_answer answer = verbs[i].verb(c->arg, out);
		if (answer != CONTROL_LATER)
			p->waits_for = NULL;
		return answer;
	}
	buf_add_cstr(out, "unknown command");
	return CONTROL_ERROR;
}

static void
on_written(struct bufferevent *socket, void *arg)
{
	(void)socket;
	drop_peer(arg);
}

static void
on_gone(struct bufferevent *socket, short what, void *arg)
{
	(void)socket, (void)what;
	drop_peer(arg);
}

static void
give_answer(struct peer *p, bool is_ok, struct str text)
{
	struct timeval timeout = {PEER_TIMEOUT_S, 0};
	struct evbuffer *out = bufferevent_get_output(p->socket);

	p->waits_for = NULL;
	bufferevent_disable(p->socket, EV_READ);
	bufferevent_set_timeouts(p->socket, NULL, &timeout);
	bufferevent_setcb(p->socket, NULL, on_written, on_gone, p);
	evbuffer_add_printf(out, "%s", is_ok ? "ok\n" : "error ");
	evbuffer_add(out, text.p, text.len);
	evbuffer_add(out, "\n", 1);
}

void
control_answer(struct control *c, const char *verb, bool is_ok, struct str text)
{
	for (int i = 0; c != NULL && i < PEERS_MAX; i++) {
		struct peer *p = &c->peers[i];

		if (p->waits_for != NULL && strcmp(p->waits_for, verb) == 0)
			give_answer(p, is_ok, text);
	}
}

static void
on_line(struct bufferevent *socket, void *arg)
{
	struct peer *p = arg;
	char *line = evbuffer_readln(bufferevent_get_input(socket), NULL, EVBUFFER_EOL_CRLF);
	struct buf text = BUF_INIT;

	if (line == NULL) {
		if (evbuffer_get_length(bufferevent_get_input(socket)) >= LINE_MAX_BYTES)
			drop_peer(p);
		return;
	}
	enum control_answer answer = run(p, line, &text);
	if (answer == CONTROL_LATER) {
		bufferevent_set_timeouts(socket, NULL, NULL);
		bufferevent_setcb(socket, NULL, NULL, on_gone, p);
	} else {
		give_answer(p, answer == CONTROL_OK, buf_str(&text));
	}
	buf_fini(&text);
	free(line);
}

static void
on_accept(
    struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *sa, int len, void *arg)
{
	struct control *c = arg;
	struct timeval timeout = {PEER_TIMEOUT_S, 0};
	int i = 0;

	(void)sa, (void)len;
	while (i < PEERS_MAX && c->peers[i].socket != NULL)
		i++;
	if (i == PEERS_MAX) {
		close(fd);
		return;
	}
	struct bufferevent *socket =
	    bufferevent_socket_new(evconnlistener_get_base(listener), fd, BEV_OPT_CLOSE_ON_FREE);
	check(socket != NULL);
	c->peers[i] = (struct peer){c, socket, NULL};
	bufferevent_set_timeouts(socket, &timeout, &timeout);
	bufferevent_setwatermark(socket, EV_READ, 0, LINE_MAX_BYTES);
	bufferevent_setcb(socket, on_line, NULL, on_gone, &c->peers[i]);
	bufferevent_enable(socket, EV_READ | EV_WRITE);
}

struct control *
control_new(struct event_base *base, const char *path, const struct control_verbs *verbs, void *arg)
{
	int fd = listen_unix(path, 0600, BACKLOG);

	if (fd < 0) {
		log_error("control socket not made path=%s error=\"%s\"", path, strerror(-fd));
		return NULL;
	}
	return control_of_fd(base, fd, verbs, arg);
}

struct control *
control_of_fd(struct event_base *base, int fd, const struct control_verbs *verbs, void *arg)
{
	struct control *c = xcalloc(1, sizeof(*c));
	c->verbs = verbs;
	c->arg = arg;
	c->listener = evconnlistener_new(
	    base, on_accept, c, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
	check(c->listener != NULL);
	return c;
}

int
control_fd(const struct control *c)
{
	return evconnlistener_get_fd(c->listener);
}

void
control_stop_listening(struct control *c)
{
	evconnlistener_disable(c->listener);
}

void
control_free(struct control **c)
{
	if (*c == NULL)
		return;
	for (int i = 0; i < PEERS_MAX; i++) {
		if ((*c)->peers[i].socket != NULL)
			bufferevent_free((*c)->peers[i].socket);
	}
	evconnlistener_free((*c)->listener);
	free(*c);
	*c = NULL;
}
