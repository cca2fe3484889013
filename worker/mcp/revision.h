/*
 * revision - the revisions of MCP that are spoken here, as the table says.
 */
#ifndef WORKER_MCP_REVISION_H
#define WORKER_MCP_REVISION_H

#include <stdbool.h>

#include "common/str.h"

enum mcp_revision {
#define X(name, text, is_modern, has_batches, has_structured) name,
#include "worker/mcp/revision.tbl"
#undef X
	MCP_REVISION_COUNT,
	MCP_REVISION_NONE = MCP_REVISION_COUNT,
	MCP_REVISION_MODERN = MCP_2026_07_28, /* the newest of either era */
	MCP_REVISION_LEGACY = MCP_2025_11_25,
};

struct mcp_revision_info {
	const char *text;
	bool is_modern, has_batches, has_structured;
};

const struct mcp_revision_info *mcp_revision_info(enum mcp_revision); /* not of NONE */
/* MCP_REVISION_NONE: not spoken here. */
enum mcp_revision mcp_revision_parse(struct str);

/* Keys of a modern request's `_meta`. */
#define MCP_META_REVISION     "io.modelcontextprotocol/protocolVersion"
#define MCP_META_CAPABILITIES "io.modelcontextprotocol/clientCapabilities"
#define MCP_META_CLIENT       "io.modelcontextprotocol/clientInfo"
#define MCP_META_SERVER       "io.modelcontextprotocol/serverInfo"
#define MCP_META_LOG_LEVEL    "io.modelcontextprotocol/logLevel"
#define MCP_META_SUBSCRIPTION "io.modelcontextprotocol/subscriptionId"

/* Codes of errors: JSON-RPC's own, and those that the modern revision has given meaning to. */
enum {
	MCP_PARSE_ERROR = -32700,
	MCP_INVALID_REQUEST = -32600,
	MCP_METHOD_NOT_FOUND = -32601,
	MCP_INVALID_PARAMS = -32602,
	MCP_INTERNAL_ERROR = -32603,
	MCP_SERVER_ERROR = -32000,
	MCP_SESSION_NOT_FOUND = -32001,
	MCP_RESOURCE_NOT_FOUND = -32002, /* before the modern revision */
	MCP_REQUEST_CANCELLED = -32800,  /* as LSP has it: who has cancelled does not read it */
	MCP_HEADER_MISMATCH = -32020,
	MCP_CAPABILITY_MISSING = -32021,
	MCP_UNSUPPORTED_REVISION = -32022,
	/* -32020 to -32099 are the specification's: never relayed from an upstream. */
	MCP_RESERVED_FIRST = -32020,
	MCP_RESERVED_LAST = -32099,
};

#endif
