/*
 * ws_door - a request becomes a WebSocket, or is refused: chats, events and hubs come in by it.
 *
 * In the order of refusals: the key (401), the origin (403), the handshake (426, 400), draining
 * (503), capacity: that is said over the socket, 1013, as long as not too many linger for it.
 */
#ifndef WORKER_API_WS_DOOR_H
#define WORKER_API_WS_DOOR_H

#include "worker/api/api.h"
#include "worker/ws/socket.h"

struct ws_door {
	struct api *api;
	uint32_t refused; /* sockets that are told that there is no place */
	bool is_draining;
};

/* Who is asking; err as of keys_check(). Not called when the client has gone. req is to be
 * answered. */
typedef void ws_door_on_known(
    void *arg, struct http_req *, int err, const struct principal *who, uint64_t mark);
/* The key of a header, the subprotocol bearer.KEY, or the query; none: err is E_UNAUTHORIZED. */
void ws_door_ask_key(
    struct ws_door *, struct http_req *, ws_door_on_known *on_known, void *arg, uint64_t mark);
void ws_door_refuse_key(struct ws_door *, struct http_req *, int err); /* answers */

/* Checks the rest. False: it was answered. True: open the socket now, with what is returned. */
bool ws_door_admit(struct ws_door *, struct http_req *, char ret_accept[WS_ACCEPT_LEN + 1],
    const char **ret_protocol);

#endif
