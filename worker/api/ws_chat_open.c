/*
 * ws_chat_open - a request becomes a socket.
 *
 * In the order of refusals: the key (401), one of a wrong kind (403), then those of ws_door.h.
 */
#include "worker/api/ws_chat_impl.h"

static void
on_known(void *arg, struct http_req *req, int err, const struct principal *who, uint64_t mark)
{
	struct chats *c = arg;
	const char *protocol;
	char accept[WS_ACCEPT_LEN + 1];

	(void)mark;
	if (err != 0) {
		ws_door_refuse_key(&c->door, req, err);
		return;
	}
	if (who->kind == KEY_ADMIN) {
		http_reply_error(
		    req, E_FORBIDDEN, NULL, "This kind of key may not use this route.");
		return;
	}
	c->door.is_draining = c->is_draining && c->giving == NULL; /* else the successor gets it */
	if (ws_door_admit(&c->door, req, accept, &protocol))
		chat_socket_open(c, req, who, accept, protocol);
}

static void
on_request(struct http_req *req, void *arg)
{
	struct chats *c = arg;

	ws_door_ask_key(&c->door, req, on_known, c, 0);
}

const struct http_route chat_route = {"GET", "/ws/chat", HTTP_UPGRADE | HTTP_WORK, on_request};
