/*
 * mcp_door - who may come to /mcp: which web pages, by which name on loopback, with a key or
 * without, and where the others are sent.
 *
 * A page that a browser on this machine shows must not reach us by a name that its own server has
 * bound to loopback: there Origin and Host are both looked at. cors does not govern this.
 */
#ifndef WORKER_API_MCP_DOOR_H
#define WORKER_API_MCP_DOOR_H

#include "worker/http/http.h"

bool mcp_door_lets_in(struct http_req *); /* false: it has answered 403 */

/* mcp.auth is none, and it comes from this machine. */
bool mcp_door_needs_no_key(const struct http_req *);

/* WWW-Authenticate of a 401, or of a 403 for want of a scope (RFC 6750, RFC 9728); as long as the
 * request. */
const char *mcp_door_challenge(struct http_req *, bool has_key);

#endif
