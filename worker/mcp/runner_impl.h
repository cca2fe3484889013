/*
 * runner_impl - what the files of the runner share. Nobody else includes it.
 *
 *   runner.c   what is on offer, and menus of it
 *   run.c      calls of what is on a menu, and what they ask back
 */
#ifndef WORKER_MCP_RUNNER_IMPL_H
#define WORKER_MCP_RUNNER_IMPL_H

#include "worker/mcp/runner.h"

enum { MODEL_NAME_MAX = 64 };

struct dish { /* a tool on offer */
	size_t server;
	char *key; /* the server's name for it */
	char name[MODEL_NAME_MAX + 1], long_name[MODEL_NAME_MAX + 1];
	json_t *function; /* {"description","parameters"}; without the name */
	json_t *schema;   /* of that */
};

struct offer {
	unsigned refs;
	struct dish *dishes;
	size_t count;
};

struct mcp_runner {
	struct mcp_upstreams *upstreams;
	struct loop *loop;
	const struct conf *conf;
	struct tool_runner table;
	struct offer *offer; /* NULL: to be read anew */
	struct idmap *runs;
};

struct tool_menu {
	struct mcp_runner *runner;
	struct offer *offer;
	struct strmap *by_name; /* struct dish */
};

/* As in struct tool_runner. */
uint64_t run_call(struct tool_menu *, const char *name, const json_t *arguments,
    const struct tool_caller *, tool_on_outcome *, void *arg);
void run_cancel(void *self, uint64_t handle);

#endif
