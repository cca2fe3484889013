/*
 * sweeper - idle sessions become expired, and the content of closed and expired ones goes after
 * sessions.retention, every sessions.sweep_interval, by the one worker that the store has elected.
 * Also counts the active ones.
 */
#ifndef WORKER_SESSION_SWEEPER_H
#define WORKER_SESSION_SWEEPER_H

#include "common/conf.h"
#include "worker/loop/loop.h"
#include "worker/store/store.h"

struct events;
struct sweeper;

/* events: session.expired is told there; NULL: nowhere. All are borrowed. */
struct sweeper *sweeper_new(struct loop *, const struct conf *, struct store *, struct events *);
void sweeper_free(struct sweeper **); /* before the store; the loop does not run between */

#endif
