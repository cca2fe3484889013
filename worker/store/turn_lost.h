/*
 * turn_lost - what becomes of live turns whose owner is dead, and the webhooks that tell of it, as
 * parts of an operation.
 *
 *   .params = ".. now message", .groups = {TURN_LOST_PARAMS},
 *   .statements = {TURN_LOST_LOCK(which), TURN_LOST_HOOKS(which),
 *       {.sql = "UPDATE turns SET " TURN_LOST " WHERE " which}}
 *   put_lost() behind the operation's other parameters
 *
 * which: a condition of columns of turns, the same in all three; the rows are locked first, so that
 * it means the same rows. A webhook's id is its turn's and its endpoint's place: twice is once.
 *
 * Private to worker/store.
 */
#ifndef WORKER_STORE_TURN_LOST_H
#define WORKER_STORE_TURN_LOST_H

#include "worker/store/op_wire.h"
#include "worker/store/store.h"
#include "worker/store/webhook_rows.h"

#define TURN_LOST                                                                                  \
	"state = 'failed', error_code = 'worker_lost', error_message = $message,"                  \
	" fence = fence + 1, ended_at = from_ms($now)"

#define TURN_LOST_PARAMS "wl_endpoint wl_app wl_place wl_head wl_tail"
#define TURN_LOST_LOCK(which)                                                                      \
	{                                                                                          \
		.sql = "",                                                                         \
		.postgres = "SELECT 1 FROM turns WHERE " which " ORDER BY id FOR UPDATE"           \
	}
#define TURN_LOST_POSITION WEBHOOK_POSITION("$wl_endpoint", "turns.session_id")
#define TURN_LOST_HOOKS(which)                                                                     \
	{                                                                                          \
		.sql =                                                                             \
		    "INSERT INTO webhooks (id, endpoint_id, app_id, order_key, position, event,"   \
		    " body, state, attempts, claim, due_at, created_at) SELECT"                    \
		    " 'wh_' || substr(turns.id, 6, 24) || CAST($wl_place AS text),"                \
		    " CAST($wl_endpoint AS text), turns.app_id, turns.session_id,"                 \
		    " " TURN_LOST_POSITION ", 'turn.failed', CAST($wl_head AS text)"               \
		    " || turns.session_id || '\",\"turn_id\":\"' || turns.id"                      \
		    " || CAST($wl_tail AS text), 'pending', 0, 0, from_ms(now_ms()),"              \
		    " from_ms(now_ms()) FROM turns WHERE turns.app_id = $wl_app AND " which        \
		    " ON CONFLICT (id) DO NOTHING",                                                \
		.each = 1                                                                          \
	}

/* now, message, and a row of the group for each of store_use_lost_hooks(). */
void put_lost(struct store *, struct op_call *, int64_t now);

#endif
