/*
 * posted - what a client has posted to our endpoint: of which era it is, and whether it is as the
 * specification of that era wants it.
 *
 * Pure. The order of the checks is part of the wire: content type, shape, era and revision,
 * `_meta`, supported revision, headers. What a tool's own arguments demand of the headers is looked
 * at when the tool is known (posted_params_agree()).
 */
#ifndef WORKER_MCP_POSTED_H
#define WORKER_MCP_POSTED_H

#include "common/buf.h"
#include "worker/mcp/jsonrpc.h"
#include "worker/mcp/revision.h"

struct posted_headers { /* of the request, borrowed; .p == NULL: absent */
	struct str content_type;
	struct str revision; /* MCP-Protocol-Version */
	struct str method;   /* Mcp-Method */
	struct str name;     /* Mcp-Name */
};

enum posted_kind {
	POSTED_REFUSED, /* status, code, message, data */
	POSTED_MODERN,  /* a request or a notification */
	POSTED_LEGACY,  /* any message */
	POSTED_BATCH,   /* an array: legacy, each of it for jsonrpc_parse() */
};

struct posted { /* borrowed from headers and body, but for data */
	enum posted_kind kind;
	struct jsonrpc message; /* refused: its id, where it could be read */

	/* Modern. */
	struct str meta;           /* params._meta */
	struct str progress_token; /* as written; empty: none is wanted */
	bool wants_messages;       /* notifications/message: it has named a log level */

	/* Refused. */
	int status; /* of HTTP */
	int code;
	const char *why;
	struct buf data; /* JSON; empty: none */
};

void posted_read(struct str body, const struct posted_headers *, struct posted *ret);
void posted_fini(struct posted *);

/* The member of params that Mcp-Name repeats, by the method; NULL: there is none. */
const char *posted_name_member(const char *method);

/* The value of a header that may be =?base64?..?=, appended to out. False: it is badly encoded. */
bool posted_decode(struct str value, struct buf *out);

/*
 * Is there a header Mcp-Param-X, and does it say the same, for each argument whose schema has
 * x-mcp-header: X, and none for those that are not given? tool: its JSON. header_of gives the value
 * of a header by its name in lower case.
 */
typedef struct str posted_header_of(void *arg, const char *lower_case_name);
bool posted_params_agree(struct str tool, struct str arguments, posted_header_of *, void *arg);

#endif
