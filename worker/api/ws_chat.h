/*
 * ws_chat - /ws/chat: conversations over a WebSocket, as the API says.
 *
 * A socket follows the sessions that it chatted in, joined or resumed: whatever turn
 * runs in them, on any worker of the host, begun by whomever, is told to it.
 */
#ifndef WORKER_API_WS_CHAT_H
#define WORKER_API_WS_CHAT_H

#include "worker/api/api.h"

struct chats;

struct chats *chats_new(struct api *); /* adds its route to the server */
void chats_free(struct chats **);      /* no socket is open */

/* Each socket is closed with 1001 when no turn is told to it any more, at the latest shortly before
 * drain.timeout; those that are idle spread over drain.spread. New ones are refused. */
void chats_drain(struct chats *);

/* Over this socket, which is taken: idle plain sockets go to the successor when this worker drains;
 * come from a predecessor. */
void chats_give(struct chats *, int fd);
void chats_take(struct chats *, int fd);
bool chats_are_idle(
    const struct chats *); /* draining: no predecessor's sockets are to be passed on */

#endif
