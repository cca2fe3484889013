/*
 * http_headers - the headers of a request to an upstream; private to worker/mcp. Pure.
 */
#ifndef WORKER_MCP_HTTP_HEADERS_H
#define WORKER_MCP_HTTP_HEADERS_H

#include "common/arena.h"
#include "common/conf.h"
#include "worker/client/client.h"
#include "worker/mcp/catalog.h"
#include "worker/mcp/revision.h"

struct http_headers {
	struct arena arena;
	struct client_header *v;
	size_t n, cap;
};
void http_headers_init(struct http_headers *);
void http_headers_fini(struct http_headers *);
void http_headers_add(struct http_headers *, const char *name, struct str value); /* copied */
void http_headers_add_map(struct http_headers *, const struct conf_map *);

/* A value that no header can carry as it is becomes =?base64?..?=. */
void http_headers_add_encoded(struct http_headers *, const char *name, struct str value);

/* Mcp-Param-X for each argument whose schema has x-mcp-header: X. tool: its JSON. */
void http_headers_add_params(struct http_headers *, struct str tool, struct str arguments);

/* Has it an x-mcp-header that is no header's name, is there twice, or stands with what is neither
 * a string nor an integer nor a boolean? Such a tool must not be used over HTTP. */
bool http_headers_are_wrong(struct str tool);

#endif
