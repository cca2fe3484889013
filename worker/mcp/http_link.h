/*
 * http_link - carries messages to an upstream over HTTP; private to worker/mcp.
 */
#ifndef WORKER_MCP_HTTP_LINK_H
#define WORKER_MCP_HTTP_LINK_H

#include "common/str.h"

struct upstream;

/* In FALLBACK: looks for the stream of 2024-11-05; upstream_connected() follows, or _failed(). */
void http_link_fall_back(struct upstream *);

/* Where an `endpoint` event leads, seen from url: of the same origin, or NULL. The caller frees it.
 * Pure. */
char *http_link_resolve(const char *url, struct str endpoint);

#endif
