/*
 * api - the routes of the public API: parse, call one verb, answer.
 *
 * Each file of this folder is one group of routes and ends in its table of
 * endpoints; api.c lists the tables. What a request needs from below comes in
 * struct api, borrowed for the worker's life.
 */
#ifndef WORKER_API_API_H
#define WORKER_API_API_H

#include "common/conf.h"
#include "common/shm.h"
#include "worker/backplane/backplane.h"
#include "worker/backplane/limits.h"
#include "worker/events/events.h"
#include "worker/http/http.h"
#include "worker/mcp/upstream.h"
#include "worker/provider/provider.h"
#include "worker/session/keys.h"
#include "worker/stats/stats.h"
#include "worker/store/store.h"
#include "worker/task/task.h"
#include "worker/turn/turn.h"
#include "worker/usage/usage.h"
#include "worker/webhook/webhook.h"

struct api {
	struct loop *loop;
	const struct conf *conf;
	struct shm *shm;
	struct backplane *backplane;
	struct events *events;
	struct limits *limits;
	struct stats *stats;
	struct http_server *http;
	struct store *store;
	struct keys *keys;
	struct providers *providers;
	struct turns *turns;
	struct tasks *tasks;
	struct holds *holds;
	struct usages *usages;
	struct mcp_upstreams *upstreams;
	struct webhooks *webhooks;
	struct chats *chats;       /* api's own: the WebSockets */
	struct gateways *gateways; /* likewise: calls of models for others */
	struct mcp_front *mcp;     /* likewise: requests of MCP clients */
	struct turn_streams *streams;
	struct turn_waits *turn_waits;
	struct events_feeds *events_feeds;     /* .. who hears events: over an event stream, */
	struct events_sockets *events_sockets; /* a WebSocket, */
	struct hubs *hubs;                     /* a hub of existing clients */
	struct host_asks *host_asks;           /* .. and what the master is asked */
	struct task_watch *task_watch;         /* .. and tasks that are heard of */
	struct rate_warns *rate_warns;         /* .. and apps whose keys near their limits */
	struct key_watch *key_watch;           /* .. and who ends when a key does */
};

/* Adds the routes to api->http, which has not started yet. The struct stays the caller's and valid.
 */
void api_add_routes(struct api *);
void api_drain(struct api *);
/* Idle WebSockets go over this socket when we drain; come over it from one that drains. Takes the
 * fd.
 */
void api_give_sockets(struct api *, int fd);
void api_take_sockets(struct api *, int fd);
bool api_is_idle(const struct api *); /* no call goes on without a client */
void api_fini(struct api *);          /* the server is idle */

#endif
