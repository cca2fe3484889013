/*
 * webhook_rows - how a webhook is written into the outbox, and where it goes, as groups of an
 * operation: in the same transaction as the change that it tells of. Twice is once.
 *
 *   .groups = {.., WEBHOOK_PARAMS},  .statements = {.., WEBHOOK_STATEMENT(2)}
 *   op_put_count(&call, count); for (..) webhook_put(&call, &rows[i]);
 *
 * and likewise with WEBHOOK_ENDPOINT_PARAMS where somebody names an endpoint. Whoever has committed
 * calls webhooks_wake(). Writers of one order_key must follow each other, as those of one task do
 * who lock its row: their order here is that of the commits.
 *
 * For operations of worker/store.
 */
#ifndef WORKER_STORE_WEBHOOK_ROWS_H
#define WORKER_STORE_WEBHOOK_ROWS_H

#include "worker/store/op_wire.h"
#include "worker/store/store.h"

/* Behind all that wait; where none does, behind all that were: however many, none is looked at. */
#define WEBHOOK_POSITION(endpoint, order_key_of)                                                   \
	"(SELECT coalesce(max(w.position) + 1, now_ms()) FROM webhooks AS w"                       \
	" WHERE w.endpoint_id = " endpoint " AND w.order_key = " order_key_of                      \
	" AND w.state = 'pending')"
#define WEBHOOK_OWN_POSITION WEBHOOK_POSITION("$wh_endpoint", "$wh_order")

#define WEBHOOK_PARAMS "wh_id wh_endpoint wh_app wh_order wh_event wh_body wh_at"
#define WEBHOOK_STATEMENT(group)                                                                   \
	{                                                                                          \
		.sql =                                                                             \
		    "INSERT INTO webhooks (id, endpoint_id, app_id, order_key, position, event,"   \
		    " body, state, attempts, claim, due_at, created_at) VALUES ($wh_id,"           \
		    " $wh_endpoint, $wh_app, $wh_order, " WEBHOOK_OWN_POSITION ", $wh_event,"      \
		    " $wh_body, 'pending', 0, 0, from_ms(now_ms()), from_ms($wh_at))"              \
		    " ON CONFLICT (id) DO NOTHING",                                                \
		.each = (group)                                                                    \
	}

#define WEBHOOK_ENDPOINT_PARAMS "we_id we_app we_url we_secrets we_headers we_batch we_at"
/* One that is used again and again is written once an hour. */
#define WEBHOOK_ENDPOINT_STATEMENT(group)                                                          \
	{                                                                                          \
		.sql = "INSERT INTO webhook_endpoints (id, app_id, url, secrets, headers, batch,"  \
		       " failures, delivered, failed, dead, created_at, used_at) VALUES ($we_id,"  \
		       " $we_app, $we_url, $we_secrets, $we_headers, $we_batch, 0, 0, 0, 0,"       \
		       " from_ms($we_at), from_ms($we_at)) ON CONFLICT (id) DO UPDATE SET"         \
		       " url = excluded.url, secrets = excluded.secrets,"                          \
		       " headers = excluded.headers, batch = excluded.batch,"                      \
		       " used_at = excluded.used_at WHERE webhook_endpoints.url <> excluded.url"   \
		       " OR to_ms(webhook_endpoints.used_at) < to_ms(excluded.used_at) - 3600000", \
		.each = (group)                                                                    \
	}

void webhook_put(struct op_call *, const struct store_webhook *);
void webhook_endpoint_put(struct op_call *, const struct store_webhook_endpoint *);

#endif
