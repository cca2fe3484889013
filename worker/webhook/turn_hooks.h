/*
 * turn_hooks - ends of turns as webhooks of the configuration's endpoints: turn.completed,
 * turn.failed, turn.cancelled, in the order of their session. Their data is that of the last event,
 * and whose it is: {"app_id","session_id","turn_id",..}.
 */
#ifndef WORKER_WEBHOOK_TURN_HOOKS_H
#define WORKER_WEBHOOK_TURN_HOOKS_H

#include "worker/turn/turn.h"
#include "worker/webhook/webhook.h"

struct turn_hooks turn_hooks_of(struct webhooks *);
/* .. and of turns that are lost with their worker, by whoever finds that. */
void turn_hooks_use_lost(const struct conf *, struct store *);

#endif
