/*
 * runner - the tools of the upstreams as turns use them (worker/tool/runner.h).
 *
 * Models take names of at most 64 letters, digits, _ and -: what else a name has becomes _, and a
 * long one ends in a part of its hash. A name that is taken gets its server in front, as
 * `server__tool`; if that is taken as well the tool is not offered.
 */
#ifndef WORKER_MCP_RUNNER_H
#define WORKER_MCP_RUNNER_H

#include "worker/mcp/upstream.h"
#include "worker/tool/runner.h"

struct mcp_runner;

struct mcp_runner *mcp_runner_new(struct mcp_upstreams *, struct loop *, const struct conf *);
/* After the turns; its calls were cancelled and its menus closed. */
void mcp_runner_free(struct mcp_runner **);
const struct tool_runner *mcp_runner_table(struct mcp_runner *);

#endif
