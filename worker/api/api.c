/* api - binds the tables of endpoints to the server. */
#include "worker/api/api.h"

#include "common/check.h"
#include "worker/api/endpoints.h"
#include "worker/api/events_feed.h"
#include "worker/api/events_ws.h"
#include "worker/api/gateway.h"
#include "worker/api/host.h"
#include "worker/api/hubs.h"
#include "worker/api/key_watch.h"
#include "worker/api/mcp.h"
#include "worker/api/rate_warn.h"
#include "worker/api/task_watch.h"
#include "worker/api/turn_stream.h"
#include "worker/api/turn_wait.h"
#include "worker/api/ws_chat.h"
#include "worker/http/upgrade.h"

static const struct api_endpoint *const tables[] = {
    sessions_endpoints,
    turns_endpoints,
    tool_results_endpoints,
    client_keys_endpoints,
    gateway_endpoints,
    answers_endpoints,
    usage_endpoints,
    admin_keys_endpoints,
    host_endpoints,
    stats_endpoints,
    events_endpoints,
    announcements_endpoints,
    tasks_endpoints,
    task_routes_endpoints,
    mcp_endpoints,
    mcp_pair_endpoints,
    mcp_door_endpoints,
    webhooks_endpoints,
};

enum { ENDPOINTS_MAX = 128 };

/* What a route hands to its handler; as long as the worker. */
static struct binding {
	struct api *api;
	const struct api_endpoint *endpoint;
	struct http_route route;
} bindings[ENDPOINTS_MAX];

static void
on_request(struct http_req *req, void *arg)
{
	const struct binding *b = arg;

	call_start(b->api, b->endpoint, req);
}

void
api_add_routes(struct api *api)
{
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
		for (const struct api_endpoint *e = tables[i]; e->method != NULL; e++) {
			check(n < ENDPOINTS_MAX);
			struct binding *b = &bindings[n++];
			*b =
			    (struct binding){api, e, {e->method, e->pattern, e->flags, on_request}};
			http_server_add_routes(api->http, &b->route, 1, b);
		}
	}
	api->key_watch = key_watch_new(api->loop, api->keys, http_server_wheel(api->http));
	api->task_watch = task_watch_new(api);
	api->rate_warns = rate_warns_new(api->loop, api->events);
	api->streams = turn_streams_new(api);
	api->turn_waits = turn_waits_new(api);
	api->host_asks = host_asks_new(api);
	api->events_feeds = events_feeds_new(api);
	api->events_sockets = events_sockets_new(api);
	api->hubs = hubs_new(api);
	api->chats = chats_new(api);
	api->gateways = gateways_new(api);
	api->mcp = mcp_front_new(api);
}

void
api_drain(struct api *api)
{
	task_watch_drain(api->task_watch);
	turn_streams_drain(api->streams);
	turn_waits_drain(api->turn_waits);
	gateways_drain(api->gateways);
	mcp_front_drain(api->mcp);
	events_feeds_drain(api->events_feeds);
	events_sockets_drain(api->events_sockets);
	hubs_drain(api->hubs);
	chats_drain(api->chats);
}

void
api_give_sockets(struct api *api, int fd)
{
	chats_give(api->chats, fd);
}

void
api_take_sockets(struct api *api, int fd)
{
	chats_take(api->chats, fd);
}

bool
api_is_idle(const struct api *api)
{
	return chats_are_idle(api->chats) && gateways_are_idle(api->gateways);
}

void
api_fini(struct api *api)
{
	mcp_front_free(&api->mcp);
	hubs_free(&api->hubs);
	events_sockets_free(&api->events_sockets);
	events_feeds_free(&api->events_feeds);
	chats_free(&api->chats);
	gateways_free(&api->gateways);
	host_asks_free(&api->host_asks);
	turn_waits_free(&api->turn_waits);
	turn_streams_free(&api->streams);
	task_watch_free(&api->task_watch);
	rate_warns_free(&api->rate_warns);
	key_watch_free(&api->key_watch);
}
