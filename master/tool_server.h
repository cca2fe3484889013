/*
 * tool_server - one program that a worker speaks MCP with: its process, its pipes, its end.
 *
 *   IDLE --start--> RUNNING --it ends--> PAUSED --back-off--> RUNNING ..
 *                      |
 *                      +--stop--> CLOSING (its input is closed) --2 s--> ENDING (SIGTERM) --2 s-->
 *                                 KILLED (SIGKILL) --reaped--> IDLE
 *
 * It is started again for ever, but no more than max_restarts times in any hour.
 *
 * The program is started without a shell, in a session of its own, with a minimal environment and
 * what the config gives it, with a limit on its data, and dies with the master. What it says on
 * standard error is logged, so much of it in a second and no more: then it waits. Its pipes to the
 * worker are kept here, so that they outlive the worker.
 */
#ifndef MASTER_TOOL_SERVER_H
#define MASTER_TOOL_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <event2/event.h>

#include "common/conf.h"
#include "common/list.h"

enum tool_server_state {
	TOOL_SERVER_IDLE,
	TOOL_SERVER_RUNNING,
	TOOL_SERVER_PAUSED,
	TOOL_SERVER_CLOSING,
	TOOL_SERVER_ENDING,
	TOOL_SERVER_KILLED,
};

struct tool_server;

struct tool_server_program { /* owns its texts */
	uint64_t id;         /* pipes_program() */
	char *name, *command;
	char **argv; /* NULL-terminated, with the command */
	char **env;  /* "NAME=value", what is added; NULL-terminated */
	bool is_per_worker;
	uint64_t max_memory_bytes, backoff_ms, backoff_max_ms;
	uint32_t max_restarts; /* in an hour; 0: no limit */
};

struct tool_server_program *tool_server_program_new(
    const struct conf_mcp_server *, uint64_t backoff_ms, uint64_t backoff_max_ms);
void tool_server_program_free(struct tool_server_program **);

/* From the event loop. */
struct tool_server_handlers {
	void (*on_started)(void *arg, struct tool_server *); /* its pipes can be given away */
	void (*on_ended)(void *arg, struct tool_server *);   /* they are closed */
};

/* The program is borrowed. */
struct tool_server *tool_server_new(struct event_base *, const struct tool_server_program *,
    const struct tool_server_handlers *, void *arg);
void tool_server_free(struct tool_server **); /* one that runs is killed and reaped */

void tool_server_start(struct tool_server *);   /* IDLE, else nothing */
void tool_server_stop(struct tool_server *);    /* it is not started again */
void tool_server_restart(struct tool_server *); /* it hangs */
/* A child was reaped. False: it is not this one's process. */
bool tool_server_ended(struct tool_server *, pid_t, int status);

enum tool_server_state tool_server_state(const struct tool_server *);
const struct tool_server_program *tool_server_program(const struct tool_server *);
uint64_t tool_server_life(const struct tool_server *); /* grows with each start */
/* Of one that is RUNNING: [0] its input, [1] its output. They stay ours. */
void tool_server_pipes(const struct tool_server *, int ret[2]);

#endif
