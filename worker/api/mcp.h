/*
 * mcp - /mcp: what MCP clients ask of the tool servers behind us, as if they were one.
 *
 * Nothing of a client is kept between its requests, also of those whose revision has sessions: any
 * worker answers any of them.
 */
#ifndef WORKER_API_MCP_H
#define WORKER_API_MCP_H

#include "worker/api/api.h"

struct mcp_front *mcp_front_new(struct api *);
void mcp_front_drain(struct mcp_front *); /* streams end, their clients come back elsewhere */
/* Before http and the upstreams. What is in progress is given up. */
void mcp_front_free(struct mcp_front **);

#endif
