/*
 * hubs - /hubs/NAME: SignalR's JSON hub protocol, for existing clients.
 *
 *   POST /hubs/NAME/negotiate     a token for a connection, and the transports that there are
 *   GET  /hubs/NAME?id=TOKEN      as a WebSocket (also without a token), as an event stream, or
 *                                 as a long poll
 *   POST, DELETE the same         records of the client; the end
 *
 * A token is only a name: whoever has the first transport of it owns the connection, and what
 * comes to other workers goes to the owner (backplane_find_owner). Each request names the key that
 * the connection was opened with, or finds no connection. A worker that dies takes its
 * connections with it: their clients are answered 404 and negotiate anew.
 */
#ifndef WORKER_API_HUBS_H
#define WORKER_API_HUBS_H

#include "worker/api/api.h"

struct hubs *hubs_new(struct api *); /* adds its routes */
void hubs_drain(struct hubs *); /* connections are closed, a few at a time, and may come back */
void hubs_free(struct hubs **); /* nobody has a socket any more */

#endif
