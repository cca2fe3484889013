/*
 * reply - results in the form of the client's revision, whoever made them. Pure.
 *
 * A modern result says how it ended (resultType) and whose it is (`_meta` with our serverInfo); an
 * older one does neither, and knows nothing of ttlMs and cacheScope. All else that an upstream has
 * written stays as it is.
 */
#ifndef WORKER_MCP_REPLY_H
#define WORKER_MCP_REPLY_H

#include "common/buf.h"
#include "worker/mcp/revision.h"

#define MCP_SERVER_INFO "{\"name\":\"parley\",\"version\":\"" PARLEY_VERSION "\"}"

/* result: an object as it was written. False: it is none, nothing was added. */
bool mcp_reply_add_result(struct buf *, enum mcp_revision, struct str result);

/* params with that member, as it is to stand, in the place of it and of whatever resembles it. */
void mcp_reply_replace(struct buf *, struct str params, const char *member, struct str value);

/* The params of a notification of progress under the client's token, as it wrote it. */
void mcp_reply_add_progress(struct buf *, struct str params, struct str token);

#endif
