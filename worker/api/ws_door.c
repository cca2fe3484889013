/* ws_door - see ws_door.h. */
#include "worker/api/ws_door.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/metric.h"
#include "worker/api/call.h"

struct asking {
	struct ws_door *door;
	uint64_t http, mark;
	ws_door_on_known *on_known;
	void *arg;
};

/* ---- no place: accepted, told, closed ---- */

struct refused {
	struct ws_socket ws;
	struct ws_door *door;
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

	r->door->refused--;
	free(r);
}

static const struct ws_handlers refused_handlers = {
    on_refused_open, on_refused_message, on_refused_writable, on_refused_closed};

static void
refuse_place(struct ws_door *d, struct http_req *req, const char *accept, const char *protocol)
{
	if (d->refused >= (uint64_t)d->api->conf->websocket.max_refused) {
		http_reply_capacity(req);
		return;
	}
	struct refused *r = xcalloc(1, sizeof(*r));
	r->door = d;
	d->refused++;
	ws_socket_open(&r->ws, req, accept, protocol, &refused_handlers);
}

/* ---- the key ---- */

void
ws_door_refuse_key(struct ws_door *d, struct http_req *req, int err)
{
	metric_add(METRIC_CONNECTIONS_REJECTED, REJECT_UNAUTHORIZED, 0, 1);
	if (err == E_UNAUTHORIZED)
		call_refuse_key(d->api, req);
	else
		http_reply_retry(req, err, 1, NULL);
}

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
on_principal(void *arg, int err, const struct principal *who)
{
	struct asking a = *(struct asking *)arg;
	struct http_req *req = http_find(a.door->api->http, a.http);

	free(arg);
	if (req != NULL)
		a.on_known(a.arg, req, err, who, a.mark);
}

void
ws_door_ask_key(
    struct ws_door *d, struct http_req *req, ws_door_on_known *on_known, void *arg, uint64_t mark)
{
	struct str secret = secret_of(req);

	if (secret.len == 0) {
		on_known(arg, req, E_UNAUTHORIZED, NULL, mark);
		return;
	}
	struct asking *a = xmalloc(sizeof(*a));
	*a = (struct asking){d, http_handle(req), mark, on_known, arg};
	keys_check(d->api->keys, secret, on_principal, a);
}

/* ---- the rest ---- */

bool
ws_door_admit(struct ws_door *d, struct http_req *req, char ret_accept[WS_ACCEPT_LEN + 1],
    const char **ret_protocol)
{
	struct ws_protocols protocols;

	if (!http_is_origin_allowed(req)) {
		metric_add(METRIC_CONNECTIONS_REJECTED, REJECT_ORIGIN, 0, 1);
		http_reply_error(req, E_FORBIDDEN, NULL, "This origin is not allowed.");
		return false;
	}
	if (!ws_socket_check(req, ret_accept))
		return false;
	if (!ws_protocols_parse(http_header_list(req, "sec-websocket-protocol"), &protocols)) {
		http_reply_error(req, E_INVALID_REQUEST, "Sec-WebSocket-Protocol",
		    "Sec-WebSocket-Protocol must be a list of different tokens.");
		return false;
	}
	if (d->is_draining) {
		metric_add(METRIC_CONNECTIONS_REJECTED, REJECT_DRAINING, 0, 1);
		http_reply_retry(req, E_DRAINING, 1, NULL);
		return false;
	}
	*ret_protocol = protocols.has_parley ? WS_PROTOCOL : NULL;
	if (!http_take_place(req)) {
		refuse_place(d, req, ret_accept, *ret_protocol);
		return false;
	}
	return true;
}
