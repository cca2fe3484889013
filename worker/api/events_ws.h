/*
 * events_ws - /ws/events: topics over a WebSocket.
 *
 *   in {"action":"subscribe","request_id":"..","payload":{"topics":["..",..],"last_event_id":".."}}
 *        {"action":"unsubscribe","request_id":"..","payload":{"stream":".."}}   {"action":"ping"}
 *   out  {"status":"subscribed","request_id","stream","topics","event_id","gap"}
 *        {"status":"event","stream","event_id","event","topic","at","data"}
 *        {"status":"unsubscribed","request_id","stream"}   {"status":"pong"}
 *        {"status":"error","request_id","error":{"code","message"}}
 *
 * A stream is what one subscribe asked for, and is named by its request_id; there are
 * events.max_streams of them at most. `subscribed` comes after what was missed. A subscribe counts
 * against the limits of the key as GET /v1/events does; all else costs nothing.
 */
#ifndef WORKER_API_EVENTS_WS_H
#define WORKER_API_EVENTS_WS_H

#include "worker/api/api.h"

struct events_sockets *events_sockets_new(struct api *); /* adds its route */
void events_sockets_drain(struct events_sockets *);
void events_sockets_free(struct events_sockets **); /* nobody is connected */

#endif
