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

struct control {
	const struct control_verbs *verbs;
	void *arg;
	struct evconnlistener *listener;
	struct bufferevent *peers[PEERS_MAX]; /* NULL: free */
};

static void
drop_peer(struct control *c, struct bufferevent *peer)
{
	for (int i = 0; i < PEERS_MAX; i++) {
		if (c->peers[i] == peer)
			c->peers[i] = NULL;
	}
	bufferevent_free(peer);
}

static bool
run(struct control *c, const char *line, struct buf *out)
{
	const struct {
		const char *name;
		bool (*verb)(void *arg, struct buf *out);
	} verbs[] = {
	    {"status", c->verbs->status},
	    {"reload", c->verbs->reload},
	    {"drain", c->verbs->drain},
	    {"keys", c->verbs->keys},
	};

	for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
		if (strcmp(verbs[i].name, line) == 0)
			return verbs[i].verb(c->arg, out);
	}
	buf_add_cstr(out, "unknown command");
	return false;
}

static void
on_written(struct bufferevent *peer, void *arg)
{
	drop_peer(arg, peer);
}

static void
on_gone(struct bufferevent *peer, short what, void *arg)
{
	(void)what;
	drop_peer(arg, peer);
}

static void
on_line(struct bufferevent *peer, void *arg)
{
	struct control *c = arg;
	char *line = evbuffer_readln(bufferevent_get_input(peer), NULL, EVBUFFER_EOL_CRLF);
	struct buf text = BUF_INIT;

	if (line == NULL) {
		if (evbuffer_get_length(bufferevent_get_input(peer)) >= LINE_MAX_BYTES)
			drop_peer(c, peer);
		return;
	}
	bool is_ok = run(c, line, &text);
	bufferevent_disable(peer, EV_READ);
	bufferevent_setcb(peer, NULL, on_written, on_gone, c);
	evbuffer_add_printf(bufferevent_get_output(peer), "%s", is_ok ? "ok\n" : "error ");
	evbuffer_add(bufferevent_get_output(peer), text.data, text.len);
	evbuffer_add(bufferevent_get_output(peer), "\n", 1);
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
	while (i < PEERS_MAX && c->peers[i] != NULL)
		i++;
	if (i == PEERS_MAX) {
		close(fd);
		return;
	}
	c->peers[i] =
	    bufferevent_socket_new(evconnlistener_get_base(listener), fd, BEV_OPT_CLOSE_ON_FREE);
	check(c->peers[i] != NULL);
	bufferevent_set_timeouts(c->peers[i], &timeout, &timeout);
	bufferevent_setwatermark(c->peers[i], EV_READ, 0, LINE_MAX_BYTES);
	bufferevent_setcb(c->peers[i], on_line, NULL, on_gone, c);
	bufferevent_enable(c->peers[i], EV_READ | EV_WRITE);
}

struct control *
control_new(struct event_base *base, const char *path, const struct control_verbs *verbs, void *arg)
{
	int fd = listen_unix(path, 0600, BACKLOG);

	if (fd < 0) {
		log_error("control socket not made path=%s error=\"%s\"", path, strerror(-fd));
		return NULL;
	}
	struct control *c = xcalloc(1, sizeof(*c));
	c->verbs = verbs;
	c->arg = arg;
	c->listener = evconnlistener_new(
	    base, on_accept, c, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
	check(c->listener != NULL);
	return c;
}

void
control_free(struct control **c)
{
	if (*c == NULL)
		return;
	for (int i = 0; i < PEERS_MAX; i++) {
		if ((*c)->peers[i] != NULL)
			bufferevent_free((*c)->peers[i]);
	}
	evconnlistener_free((*c)->listener);
	free(*c);
	*c = NULL;
}
