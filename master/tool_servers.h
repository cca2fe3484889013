/*
 * tool_servers - the programs of mcp.servers, and which worker speaks to which.
 *
 * A program runs while workers want it: from when the first one says so until the last one that did
 * is gone. Its pipes are given to one of them; when that one goes, the one that has come last gets
 * them, which in a reload is not about to go itself, and is told what the era of the program was.
 * Of a program that runs `per: worker` each worker has one of its own, which the next one of its
 * slot goes on with when it dies.
 */
#ifndef MASTER_TOOL_SERVERS_H
#define MASTER_TOOL_SERVERS_H

#include <stdbool.h>
#include <sys/types.h>

#include <event2/event.h>

#include "common/conf.h"
#include "common/shm.h"

struct tool_servers;

/* NULL: its socket could not be made (logged). */
struct tool_servers *tool_servers_new(struct event_base *, struct shm *);
void tool_servers_free(struct tool_servers **); /* what still runs is killed */

/* What the programs are: copied. Also of a configuration that is still on trial: what is known
 * stays known while it is wanted. */
void tool_servers_learn(struct tool_servers *, const struct conf *);

/* A child that is no worker was reaped. False: it is none of these either. */
bool tool_servers_ended(struct tool_servers *, pid_t, int status);

/* Workers find this master again: another one, which shared the memory, has gone. */
void tool_servers_publish(struct tool_servers *);

/* Ends all, in order; on_stopped comes from the event loop, also when nothing runs. */
void tool_servers_stop(struct tool_servers *, void (*on_stopped)(void *arg), void *arg);

#endif
