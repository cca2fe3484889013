/*
 * mcp_impl - what the files of /mcp share. Nobody else includes it.
 *
 *   mcp.c        the routes: what was posted, of which era, and to whom it goes
 *   mcp_ask.c    one request: its life, and its answer in the client's form
 *   mcp_tools.c  the tools: their list, and calls
 */
#ifndef WORKER_API_MCP_IMPL_H
#define WORKER_API_MCP_IMPL_H

#include "common/list.h"
#include "worker/api/call.h"
#include "worker/api/mcp.h"
#include "worker/mcp/posted.h"
#include "worker/sse/sse.h"

struct mcp_front {
	struct api *api;
	struct list asks;
	struct list menus; /* mcp_tools.c */
};

/*
 *   begun --> answered at once
 *     \-----> at an upstream --progress--> streaming --> answered
 *                  \-- the client has gone: the upstream is told
 */
struct mcp_ask {
	struct list node;
	struct mcp_front *front;
	struct api_call *call;
	enum mcp_revision revision; /* the client's */
	struct str id;              /* as it was written */
	struct str params;          /* as long as the ask has not waited; may be empty */
	struct str token;           /* of progress; empty: none is wanted */
	bool wants_messages;
	bool takes_stream;
	struct sse *sse;   /* NULL: no notification has gone out */
	uint64_t upstream; /* mcp_call()'s handle; 0: none */
};

/* ---- mcp_ask.c: each answer ends the ask ---- */

/* m: a request; of what it has only params stay borrowed. */
struct mcp_ask *mcp_ask_new(struct mcp_front *, struct api_call *, struct http_req *,
    enum mcp_revision, const struct jsonrpc *m);
/* result: an object in any revision's form. */
void mcp_ask_reply(struct mcp_ask *, struct str result);
/* status: of HTTP for modern clients, where the answer has not begun. data may be empty. */
void mcp_ask_refuse(
    struct mcp_ask *, int status, int64_t code, const char *message, struct str data);
/* The request goes to that server; name: the item's own, in the place of params.<member>. */
void mcp_ask_forward(
    struct mcp_ask *, size_t server, const char *method, const char *member, struct str name);
void mcp_ask_drop(struct mcp_ask *); /* silently */

/* ---- mcp_tools.c ---- */

void mcp_tools_list(struct mcp_ask *);
void mcp_tools_call(struct mcp_ask *);
void mcp_tools_changed(struct mcp_front *); /* what was made of the lists is made anew */

#endif
