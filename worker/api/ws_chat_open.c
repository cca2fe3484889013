/*
 * ws_chat_open - a request becomes a socket.
 *
 * In the order of refusals: the key (401, of a wrong kind 403), the origin (403),
 * the handshake (426, 400), draining (503), capacity: that is said over the socket,
 * 1013, as long as not too many linger for it.
 */
#include <stdlib.h>

#include "common/log.h"
#include "common/metric.h"
#include "worker/api/ws_chat_impl.h"

struct opening {
	struct chats *chats;
	uint64_t http;
};

/* ---- no place: accepted, told, closed ---- */

struct refused {
	struct ws_socket ws;
	struct chats *chats;
};

static void
on_refused_open(struct ws_socket *ws)
{
	ws_socket_close(ws, WS_CLOSE_TRY_LATER, STR("Server at maximum capacity"));
}

static void
on_refused_message(struct ws_socket *ws, struct str data, bool is_text)
{
	(void)ws;
	(void)data;
	(void)is_text;
}

static void
on_refused_writable(struct ws_socket *ws)
{
	(void)ws;
}

static void
on_refused_closed(struct ws_socket *ws)
{
	struct refused *r = container_of(ws, struct refused, ws);

	r->chats->refused--;
	free(r);
}

static const struct ws_handlers refused_handlers = {
    on_refused_open, on_refused_message, on_refused_writable, on_refused_closed};

static void
refuse_place(struct chats *c, struct http_req *req, const char *accept, const char *protocol)
{
	if (c->refused >= (uint64_t)c->api->conf->websocket.max_refused) {
		http_reply_capacity(req);
		return;
	}
	struct refused *r = xcalloc(1, sizeof(*r));
	r->chats = c;
	c->refused++;
	ws_socket_open(&r->ws, req, accept, protocol, &refused_handlers);
}

/* ---- the refusals that are answers ---- */

static void
refuse_key(struct chats *c, struct http_req *req, int err)
{
	metric_add(METRIC_CONNECTIONS_REJECTED, REJECT_UNAUTHORIZED, 0, 1);
	if (err == E_UNAUTHORIZED)
		call_refuse_key(c->api, req);
	else
		http_reply_retry(req, err, 1, NULL);
}

/* False: it was answered. */
static bool
may_open(struct chats *c, struct http_req *req, const struct principal *who,
    struct ws_protocols *ret_protocols, char ret_accept[WS_ACCEPT_LEN + 1])
{
	if (who->kind == KEY_ADMIN) {
		http_reply_error(
		    req, E_FORBIDDEN, NULL, "This kind of key may not use this route.");
		return false;
	}
	if (!http_is_origin_allowed(req)) {
		metric_add(METRIC_CONNECTIONS_REJECTED, REJECT_ORIGIN, 0, 1);
		http_reply_error(req, E_FORBIDDEN, NULL, "This origin is not allowed.");
		return false;
	}
	if (!ws_socket_check(req, ret_accept))
		return false;
	if (!ws_protocols_parse(http_header_list(req, "sec-websocket-protocol"), ret_protocols)) {
		http_reply_error(req, E_INVALID_REQUEST, "Sec-WebSocket-Protocol",
		    "Sec-WebSocket-Protocol must be a list of different tokens.");
		return false;
	}
	if (c->is_draining && c->giving == NULL) { /* else the successor gets it */
		metric_add(METRIC_CONNECTIONS_REJECTED, REJECT_DRAINING, 0, 1);
		http_reply_retry(req, E_DRAINING, 1, NULL);
		return false;
	}
	return true;
}

static void
open_socket(struct chats *c, struct http_req *req, const struct principal *who)
{
	struct ws_protocols protocols;
	char accept[WS_ACCEPT_LEN + 1];

	if (!may_open(c, req, who, &protocols, accept))
		return;
	const char *protocol = protocols.has_parley ? WS_PROTOCOL : NULL;
	if (http_take_place(req))
		chat_socket_open(c, req, who, accept, protocol);
	else
		refuse_place(c, req, accept, protocol);
}

static void
on_principal(void *arg, int err, const struct principal *who)
{
	struct opening o = *(struct opening *)arg;
	struct http_req *req = http_find(o.chats->api->http, o.http);

	free(arg);
	if (req == NULL)
		return;
	if (err != 0)
		refuse_key(o.chats, req, err);
	else
		open_socket(o.chats, req, who);
}

/* A header, the subprotocol bearer.KEY, or the query. */
static struct str
secret_of(struct http_req *req)
{
	struct str secret = call_secret(req, false);
	struct ws_protocols protocols;

	if (secret.len > 0)
		return secret;
	if (ws_protocols_parse(http_header_list(req, "sec-websocket-protocol"), &protocols) &&
	    protocols.bearer.len > 0)
		return protocols.bearer;
	return call_secret(req, true);
}

static void
on_request(struct http_req *req, void *arg)
{
	struct chats *c = arg;
	struct str secret = secret_of(req);

	if (secret.len == 0) {
		refuse_key(c, req, E_UNAUTHORIZED);
		return;
	}
	struct opening *o = xmalloc(sizeof(*o));
	*o = (struct opening){c, http_handle(req)};
	keys_check(c->api->keys, secret, on_principal, o);
}

const struct http_route chat_route = {"GET", "/ws/chat", HTTP_UPGRADE | HTTP_WORK, on_request};
