/*
 * endpoints - the tables that the files of this folder end in.
 */
#ifndef WORKER_API_ENDPOINTS_H
#define WORKER_API_ENDPOINTS_H

#include "worker/api/call.h"

/* Each table ends with an entry whose method is NULL. */
extern const struct api_endpoint sessions_endpoints[];
extern const struct api_endpoint turns_endpoints[];
extern const struct api_endpoint tool_results_endpoints[];
extern const struct api_endpoint client_keys_endpoints[];
extern const struct api_endpoint gateway_endpoints[];
extern const struct api_endpoint answers_endpoints[];
extern const struct api_endpoint usage_endpoints[];
extern const struct api_endpoint admin_keys_endpoints[];
extern const struct api_endpoint host_endpoints[];
extern const struct api_endpoint stats_endpoints[];
extern const struct api_endpoint events_endpoints[];
extern const struct api_endpoint announcements_endpoints[];
extern const struct api_endpoint tasks_endpoints[];
extern const struct api_endpoint task_routes_endpoints[];
extern const struct api_endpoint mcp_endpoints[];
extern const struct api_endpoint mcp_pair_endpoints[];
extern const struct api_endpoint webhooks_endpoints[];
extern const struct api_endpoint mcp_door_endpoints[];

#endif
