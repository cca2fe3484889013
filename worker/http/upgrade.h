/*
 * upgrade - a request becomes a connection in both directions, for worker/ws.
 *
 *   http_take_place --> http_upgrade --> on_open --> on_read, on_written .. --> on_closed
 *
 * The connection keeps the request's place (max_connections) until it is closed,
 * and is counted under its own kind. Idle it holds no buffers, and nothing of the
 * HTTP connection that it was. It has no limits in time of its own: who upgrades
 * must close what is silent or does not take what it is sent.
 */
#ifndef WORKER_HTTP_UPGRADE_H
#define WORKER_HTTP_UPGRADE_H

#include <sys/uio.h>

#include "worker/http/http.h"

struct http_socket;

/* None is called from inside a verb. */
struct http_socket_handlers {
	void (*on_open)(struct http_socket *); /* the answer is out */
	/* All bytes are taken; they may be changed. */
	void (*on_read)(struct http_socket *, uint8_t *bytes, size_t len);
	void (*on_written)(struct http_socket *); /* all of the last write is with the kernel */
	/* Last, once, also when the upgrade failed. The struct may be freed in it. */
	void (*on_closed)(struct http_socket *);
};

/* Embedded in the caller's struct, which stays until on_closed. All of it is upgrade.c's. */
struct http_socket {
	const struct http_socket_handlers *handlers;
	struct http_server *server;
	void *sock; /* h2o's; NULL until on_open */
	struct list node;
	uint8_t kind;
	uint16_t peer_place;
	bool is_counted, is_open, is_reading, is_writing, is_closing;
	bool is_given; /* another process has it: closed without a word */
};

bool http_may_upgrade(const struct http_req *); /* HTTP/2 may not */

/*
 * For routes with HTTP_UPGRADE, once it is known that the request will be upgraded: a place among
 * max_connections. False: there is none, which was counted and logged; upgrade it all the same to
 * say so, or reply with http_reply_capacity().
 */
bool http_take_place(struct http_req *);
void http_reply_capacity(struct http_req *); /* 503 */

/* Answers an HTTP/1 request with 101 and the headers that were added. kind: KIND_WEBSOCKET .. of
 * the metrics. The request is gone then. */
void http_upgrade(
    struct http_req *, struct http_socket *, const struct http_socket_handlers *, unsigned kind);

/* One write at a time: the next after on_written. The bytes stay valid until then, or until
 * on_closed. At most HTTP_SOCKET_IOV_MAX pieces. */
enum { HTTP_SOCKET_IOV_MAX = 16 };
void http_socket_write(struct http_socket *, const struct iovec *, size_t count);
/* For small and rare things, while nothing is being written: how many bytes the kernel took at
 * once, perhaps none. No callback follows. */
size_t http_socket_write_now(struct http_socket *, const void *bytes, size_t len);
void http_socket_pause(struct http_socket *); /* nothing is read until .. */
void http_socket_resume(struct http_socket *);
/* Bytes of the peer are with the kernel, and we have not read them yet. */
bool http_socket_has_unread(const struct http_socket *);
void http_socket_end_output(struct http_socket *); /* the peer sees the end of what was written */
void http_socket_close(struct http_socket *);      /* soon; on_closed follows, nothing else */

/*
 * From one process to another: who gives pauses it, sends the descriptor, and lets it go when the
 * other has it; on_closed follows. One over TLS cannot be given.
 */
bool http_socket_is_plain(const struct http_socket *);
int http_socket_fd(const struct http_socket *); /* borrowed; nothing is being written */
void http_socket_let_go(struct http_socket *);
/* Takes the fd over, beyond max_connections if need be: who is connected is not disturbed. False:
 * not taken, there is no descriptor to spare. */
bool http_socket_adopt(struct http_server *, struct http_socket *, int fd,
    const struct http_socket_handlers *, unsigned kind);

static inline bool
http_socket_is_closing(const struct http_socket *s)
{
	return s->is_closing;
}

struct wheel *http_server_wheel(const struct http_server *); /* for coarse timeouts */
struct loop *http_server_loop(const struct http_server *);
const struct conf *http_server_conf(const struct http_server *);

#endif
