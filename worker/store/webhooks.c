/*
 * webhooks - the outbox of webhooks in the record: what is pending, who has claimed it, what became
 * of it; and the endpoints, with what all hosts share about them (the breaker).
 *
 * Times are the database's (now_ms()), never a host's. In conditions PostgreSQL is given now():
 * what is volatile it does not look for in an index.
 */
#include "worker/store/run.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/err.h"
#include "worker/store/webhook_rows.h"

#define ENDPOINT_COLUMNS                                                                           \
	"webhook_endpoints.id, app_id, url, secrets, headers, batch, to_ms(created_at), failures," \
	" to_ms(probe_at), to_ms(disabled_at), delivered, failed, dead, last_status, last_error,"  \
	" to_ms(last_at)"
enum { ENDPOINT_COLUMN_COUNT = 16 };
#define WEBHOOK_COLUMNS                                                                            \
	"id, endpoint_id, app_id, order_key, event, body, to_ms(created_at), state, attempts,"     \
	" claim, to_ms(due_at), to_ms(ended_at), status, error, response, first_ms, total_ms,"     \
	" position"

const struct op op_webhook_add = {
    .name = "webhook_add",
    .params = "",
    .groups = {WEBHOOK_PARAMS, WEBHOOK_ENDPOINT_PARAMS},
    .is_write = true,
    .statements = {WEBHOOK_ENDPOINT_STATEMENT(2), WEBHOOK_STATEMENT(1)},
};

/* Endpoints that have something pending. Jumps from one to the next in the index, however many
 * webhooks each has. */
#define PENDING_ENDPOINTS(after)                                                                   \
	"(WITH RECURSIVE step(id) AS (SELECT min(endpoint_id) FROM webhooks"                       \
	" WHERE state = 'pending'" after " UNION ALL SELECT (SELECT min(endpoint_id)"              \
	" FROM webhooks WHERE state = 'pending' AND endpoint_id > step.id) FROM step"              \
	" WHERE step.id IS NOT NULL) SELECT id FROM step WHERE id IS NOT NULL) AS found"

const struct op op_webhook_look = {
    .name = "webhook_look",
    .params = "after limit",
    .statements =
	{{.sql = "SELECT " ENDPOINT_COLUMNS ", to_ms((SELECT min(due_at) FROM webhooks"
		 " WHERE state = 'pending' AND endpoint_id = webhook_endpoints.id))"
		 " - now_ms(), to_ms(probe_at) - now_ms()"
		 " FROM " PENDING_ENDPOINTS(
		     " AND endpoint_id > $after") " JOIN webhook_endpoints ON webhook_endpoints.id "
						  "= found.id"
						  " ORDER BY webhook_endpoints.id LIMIT $limit",
	    .is_answer = true}},
};

/* What may be claimed of an endpoint: nothing while its breaker is open, one when it may be tried.
 */
#define ROOM(limit)                                                                                \
	"coalesce((SELECT CASE WHEN e.probe_at IS NULL THEN CAST(" limit " AS bigint) ELSE 1 END"  \
	" FROM webhook_endpoints AS e WHERE e.id = $endpoint_id), 0)"
/* The first of each order. Asked for so, and not as what has none before it, PostgreSQL looks it up
 * in the index: that it made a join of, through all that the endpoint has. */
#define HEADS(now, lock)                                                                           \
	"SELECT w.order_key AS head_key, w.position AS head_position FROM webhooks AS w"           \
	" WHERE w.state = 'pending' AND w.endpoint_id = $endpoint_id"                              \
	" AND w.due_at <= (" now ") AND w.position = (SELECT before.position"                      \
	" FROM webhooks AS before WHERE before.endpoint_id = w.endpoint_id"                        \
	" AND before.order_key = w.order_key AND before.state = 'pending'"                         \
	" ORDER BY before.position LIMIT 1) AND NOT EXISTS"                                        \
	" (SELECT 1 FROM webhook_endpoints AS e WHERE e.id = $endpoint_id"                         \
	" AND (e.disabled_at IS NOT NULL OR e.probe_at > (" now ")))"                              \
	" ORDER BY w.due_at LIMIT " ROOM("$limit") lock
/* It, and so many behind it, up to the first that is not due: that was given to somebody. */
#define OF_ROW(name)                                                                               \
	" " name ".endpoint_id = $endpoint_id AND " name ".order_key = head_key"                   \
	" AND " name ".state = 'pending' AND " name ".position >= head_position"
#define ROW_ENDS(name, now)                                                                        \
	" AND " name ".position < coalesce((SELECT b.position FROM webhooks AS b WHERE" OF_ROW(    \
	    "b") " AND b.due_at > (" now ") ORDER BY b.position LIMIT 1), 9223372036854775807)"
#define IN_A_ROW_POSTGRES                                                                          \
	"SELECT f.id FROM webhooks AS f WHERE" OF_ROW("f")                                         \
	    ROW_ENDS("f", NOW_POSTGRES) " ORDER BY f.position LIMIT " ROOM("$in_a_row")
/* Through this index they come by position, so that a limit leaves no gap. */
#define IN_A_ROW_SQLITE                                                                            \
	" webhooks AS c INDEXED BY webhooks_order ON" OF_ROW("c") ROW_ENDS(                        \
	    "c", "now_ms()") " AND c.position < coalesce((SELECT n.position FROM webhooks AS n"    \
			     " WHERE" OF_ROW("n") " ORDER BY n.position LIMIT 1 OFFSET " ROOM(     \
				 "$in_a_row") "), 9223372036854775807)"
#define CLAIM                                                                                      \
	" UPDATE webhooks SET claim = claim + 1, owner = $owner,"                                  \
	" due_at = from_ms(now_ms() + CAST($lease_ms AS bigint))"
/* now() can be looked up in an index; what was due at once may have been rounded up. */
#define NOW_POSTGRES   "now() + interval '1 ms'"
#define HEADS_SQLITE   HEADS("now_ms()", "")
#define HEADS_POSTGRES HEADS(NOW_POSTGRES, " FOR UPDATE OF w SKIP LOCKED")

#define TAKE_PROBE(now)                                                                            \
	"UPDATE webhook_endpoints SET probe_at = from_ms(now_ms() + CAST($lease_ms AS bigint))"    \
	" WHERE id = $endpoint_id AND probe_at <= (" now ")"

/*
 * While the breaker is open, who is first takes one to try, and nobody else for the lease. Who has
 * the first of an order has those behind it: nobody else finds a first one there.
 */
const struct op op_webhook_claim = {
    .name = "webhook_claim",
    .params = "lease_ms owner",
    .groups = {"endpoint_id limit in_a_row"},
    .is_write = true,
    .statements =
	{
	    {.sql = "",
		.postgres = "SELECT 1 FROM webhook_endpoints WHERE id = $endpoint_id"
			    " AND probe_at IS NOT NULL FOR UPDATE",
		.each = 1},
	    {.sql = CLAIM " WHERE id IN (SELECT c.id FROM (" HEADS_SQLITE
			  ") AS heads CROSS JOIN" IN_A_ROW_SQLITE
			  " LIMIT $limit) RETURNING " WEBHOOK_COLUMNS,
		/* What somebody has ended meanwhile is left alone. */
		.postgres = "WITH heads AS MATERIALIZED (" HEADS_POSTGRES "), picked AS"
			    " MATERIALIZED (SELECT c.id AS picked_id FROM heads CROSS JOIN"
			    " LATERAL (" IN_A_ROW_POSTGRES ") AS c LIMIT $limit)" CLAIM
			    " FROM picked WHERE webhooks.id = picked.picked_id"
			    " AND webhooks.state = 'pending' RETURNING " WEBHOOK_COLUMNS,
		.each = 1,
		.is_answer = true},
	    /* The same moment as in the claim, or one more is let in during that millisecond. */
	    {.sql = TAKE_PROBE("from_ms(now_ms())"),
		.postgres = TAKE_PROBE(NOW_POSTGRES),
		.each = 1},
	},
};

/*
 * What is claimed is due later, so that of however many that wait only those are read. The owner
 * is looked at twice, for its last words may be on their way into the record.
 */
#define RELEASE(now, whose)                                                                        \
	"UPDATE webhooks SET claim = claim + 1, owner = NULL, due_at = from_ms(now_ms())"          \
	" WHERE state = 'pending' AND " whose " AND id IN (SELECT w.id FROM " PENDING_ENDPOINTS(   \
	    "") " JOIN webhooks AS w ON w.endpoint_id = found.id"                                  \
		" WHERE w.state = 'pending' AND w.due_at > " now " AND w." whose ")"
#define OF_OWNER  "owner = $owner"
#define OF_FORMER "owner NOT LIKE CAST($host_prefix AS text) || '%'"

const struct op op_webhook_release = {
    .name = "webhook_release",
    .params = "owner",
    .is_write = true,
    .is_upkeep = true,
    .statements = {{.sql = RELEASE("now_ms()", OF_OWNER),
	.postgres = RELEASE("now()", OF_OWNER),
	.is_answer = true}},
};

const struct op op_webhook_release_former = {
    .name = "webhook_release_former",
    .params = "host_prefix",
    .is_write = true,
    .is_upkeep = true,
    .statements = {{.sql = RELEASE("now_ms()", OF_FORMER),
	.postgres = RELEASE("now()", OF_FORMER),
	.is_answer = true}},
};

#define IF_TRIED(name, type)                                                                       \
#name " = CASE WHEN CAST($wr_tried AS bigint) = 1 THEN CAST($wr_" #name " AS " type ")"    \
	      " ELSE " #name " END"
#define FAILURES                                                                                   \
	"(CASE WHEN CAST($wt_success AS bigint) = 1 THEN 0 ELSE failures END"                      \
	" + CAST($wt_failures AS bigint))"

/* Of one that is repeated each result finds its claim raised, and the tallies the settler's number.
 * PostgreSQL: one that is still being carried out is waited for. */
const struct op op_webhook_settle = {
    .name = "webhook_settle",
    .params = "open_at_failures recovery_ms settler number",
    .groups = {"wr_id wr_claim wr_state wr_due_in wr_tried wr_status wr_error wr_response "
	       "wr_first_ms wr_total_ms",
	"wt_id wt_delivered wt_failed wt_dead wt_failures wt_success wt_gone wt_status wt_error"},
    .is_write = true,
    .statements =
	{
	    {.sql = "",
		.postgres = "SELECT 1 FROM webhook_settlers WHERE id = $settler FOR UPDATE"},
	    {.sql = "UPDATE webhooks SET state = $wr_state, owner = NULL, claim = claim + 1,"
		    " attempts = attempts + CAST($wr_tried AS bigint),"
		    " due_at = from_ms(now_ms() + CAST($wr_due_in AS bigint)),"
		    " ended_at = CASE WHEN CAST($wr_state AS text) = 'pending' THEN NULL"
		    " ELSE from_ms(now_ms()) END, " IF_TRIED(status, "bigint") ", " IF_TRIED(
			error, "text") ", " IF_TRIED(response, "text") ", " IF_TRIED(first_ms,
			"bigint") ", " IF_TRIED(total_ms,
			"bigint") " WHERE id = $wr_id"
				  " AND state = 'pending' AND (claim = $wr_claim"
				  " OR CAST($wr_state AS text) = 'delivered')",
		.each = 1},
	    {.sql = "UPDATE webhook_endpoints SET"
		    " delivered = delivered + CAST($wt_delivered AS bigint),"
		    " failed = failed + CAST($wt_failed AS bigint),"
		    " dead = dead + CAST($wt_dead AS bigint), failures = " FAILURES ","
		    " probe_at = CASE WHEN CAST($wt_failures AS bigint) > 0"
		    " AND CAST($open_at_failures AS bigint) > 0"
		    " AND " FAILURES " >= CAST($open_at_failures AS bigint)"
		    " THEN from_ms(now_ms() + CAST($recovery_ms AS bigint))"
		    " WHEN CAST($wt_success AS bigint) = 1 THEN NULL ELSE probe_at END,"
		    " disabled_at = CASE WHEN CAST($wt_gone AS bigint) = 1"
		    " THEN coalesce(disabled_at, from_ms(now_ms())) ELSE disabled_at END,"
		    " last_status = CAST($wt_status AS bigint),"
		    " last_error = CAST($wt_error AS text), last_at = from_ms(now_ms())"
		    " WHERE id = $wt_id AND NOT EXISTS (SELECT 1 FROM webhook_settlers AS s"
		    " WHERE s.id = $settler AND s.number >= CAST($number AS bigint))"
		    " RETURNING " ENDPOINT_COLUMNS,
		.each = 2,
		.is_answer = true},
	    {.sql = "INSERT INTO webhook_settlers (id, number, used_at) VALUES ($settler,"
		    " CAST($number AS bigint), from_ms(now_ms())) ON CONFLICT (id) DO UPDATE"
		    " SET number = excluded.number, used_at = excluded.used_at"
		    " WHERE webhook_settlers.number < excluded.number"},
	},
};

const struct op op_webhook_list = {
    .name = "webhook_list",
    .params = "app_id endpoint_id state order_key after max_rows fetch",
    .is_slow = true,
    .statements = {{.sql = "SELECT " WEBHOOK_COLUMNS " FROM webhooks"
			   " WHERE (CAST($after AS text) IS NULL OR id < $after)"
			   " AND (CAST($app_id AS text) IS NULL OR app_id = $app_id)"
			   " AND (CAST($endpoint_id AS text) IS NULL"
			   " OR endpoint_id = $endpoint_id)"
			   " AND (CAST($state AS text) IS NULL OR state = $state)"
			   " AND (CAST($order_key AS text) IS NULL OR order_key = $order_key)"
			   " ORDER BY id DESC LIMIT $fetch",
	.is_answer = true}},
};

/* The same of one state that has an index. */
const struct op op_webhook_list_state = {
    .name = "webhook_list_state",
    .params = "app_id endpoint_id state order_key after max_rows fetch",
    .is_slow = true,
    .statements = {{.sql = "SELECT " WEBHOOK_COLUMNS " FROM webhooks WHERE state = $state"
			   " AND state <> 'pending'"
			   " AND (CAST($after AS text) IS NULL OR id < $after)"
			   " AND (CAST($app_id AS text) IS NULL OR app_id = $app_id)"
			   " AND (CAST($endpoint_id AS text) IS NULL"
			   " OR endpoint_id = $endpoint_id)"
			   " AND (CAST($order_key AS text) IS NULL OR order_key = $order_key)"
			   " ORDER BY id DESC LIMIT $fetch",
	.is_answer = true}},
};

const struct op op_webhook_get = {
    .name = "webhook_get",
    .params = "id",
    .statements = {{.sql = "SELECT " WEBHOOK_COLUMNS " FROM webhooks WHERE id = $id",
	.expect = OP_ONE,
	.err = E_NOT_FOUND,
	.is_answer = true}},
};

/* Its age begins anew, too. */
#define AS_NEW                                                                                     \
	"state = 'pending', attempts = 0, claim = claim + 1, owner = NULL,"                        \
	" due_at = from_ms(now_ms()), ended_at = NULL, created_at = from_ms(now_ms())"

const struct op op_webhook_resend = {
    .name = "webhook_resend",
    .params = "id endpoint_id limit",
    .is_write = true,
    .statements =
	{
	    {.sql = "UPDATE webhooks SET " AS_NEW " WHERE id = $id AND state <> 'pending'",
		.is_answer = true},
	    {.sql = "UPDATE webhooks SET " AS_NEW " WHERE id IN (SELECT id FROM webhooks"
		    " WHERE state = 'dead' AND endpoint_id = $endpoint_id"
		    " ORDER BY id LIMIT $limit)",
		.is_answer = true},
	},
};

const struct op op_webhook_endpoint_list = {
    .name = "webhook_endpoint_list",
    .params = "after max_rows fetch",
    .is_slow = true,
    .statements = {{.sql = "SELECT " ENDPOINT_COLUMNS " FROM webhook_endpoints"
			   " WHERE (CAST($after AS text) IS NULL OR id > $after)"
			   " ORDER BY id LIMIT $fetch",
	.is_answer = true}},
};

const struct op op_webhook_endpoint_enable = {
    .name = "webhook_endpoint_enable",
    .params = "id is_enabled",
    .is_write = true,
    .statements = {{.sql = "UPDATE webhook_endpoints SET failures = 0, probe_at = NULL,"
			   " disabled_at = CASE WHEN CAST($is_enabled AS bigint) = 1 THEN NULL"
			   " ELSE from_ms(now_ms()) END WHERE id = $id",
	.expect = OP_ONE,
	.err = E_NOT_FOUND}},
};

/* The index finds by ids; what was sent again is younger than its id. */
#define OLDER(age) " id < $" age "_id AND created_at < from_ms($" age "_ms)"
#define DELETE_OF(state)                                                                           \
	"DELETE FROM webhooks WHERE id IN (SELECT id FROM webhooks WHERE state = '" state          \
	"' AND" OLDER(state) " ORDER BY id LIMIT $limit)"
#define LET_DIE(error, which)                                                                      \
	"UPDATE webhooks SET state = 'dead', ended_at = from_ms(now_ms()), error = '" error "'"    \
	" WHERE id IN (SELECT id FROM webhooks WHERE state = 'pending' AND " which                 \
	" LIMIT $limit)"

const struct op op_webhook_sweep = {
    .name = "webhook_sweep",
    .params = "delivered_id delivered_ms dead_id dead_ms pending_id pending_ms endpoints_before"
	      " limit",
    .is_write = true,
    .is_upkeep = true,
    .statements =
	{
	    {.sql = DELETE_OF("delivered"), .is_answer = true},
	    {.sql = DELETE_OF("dead"), .is_answer = true},
	    {.sql = LET_DIE("expired", OLDER("pending")), .is_answer = true},
	    {.sql = LET_DIE("endpoint_disabled",
		 "endpoint_id IN (SELECT webhook_endpoints.id FROM webhook_endpoints"
		 " WHERE disabled_at IS NOT NULL AND last_status = 410)"),
		.is_answer = true},
	    {.sql = "DELETE FROM webhook_endpoints WHERE id IN (SELECT e.id"
		    " FROM webhook_endpoints AS e WHERE e.used_at < from_ms($endpoints_before)"
		    " AND e.app_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM webhooks"
		    " WHERE webhooks.endpoint_id = e.id) LIMIT $limit)",
		.is_answer = true},
	    {.sql = "DELETE FROM webhook_settlers WHERE used_at"
		    " < (SELECT from_ms(now_ms() - 86400000))"},
	},
};

const struct op op_webhook_count = {
    .name = "webhook_count",
    .params = "",
    .is_slow = true,
    .statements = {{.sql = "SELECT (SELECT count(*) FROM webhooks WHERE state = 'pending'),"
			   " (SELECT count(*) FROM webhooks WHERE state = 'dead'),"
			   " (SELECT count(*) FROM webhook_endpoints WHERE probe_at IS NOT NULL)",
	.expect = OP_ONE,
	.err = E_INTERNAL,
	.is_answer = true}},
};

/* ---- rows in ---- */

void
webhook_put(struct op_call *call, const struct store_webhook *w)
{
	op_put_text(call, w->id);
	op_put_text(call, w->endpoint_id);
	op_put_text(call, w->app_id);
	op_put_text(call, w->order_key != NULL ? w->order_key : w->id);
	op_put_text(call, w->event);
	op_put_text(call, w->body);
	op_put_int(call, w->created_at);
}

void
webhook_endpoint_put(struct op_call *call, const struct store_webhook_endpoint *e)
{
	op_put_text(call, e->id);
	op_put_text(call, e->app_id);
	op_put_text(call, e->url);
	op_put_text(call, e->secrets);
	op_put_text(call, e->headers);
	op_put_int(call, (int64_t)e->batch);
	op_put_int(call, e->created_at);
}

void
store_webhook_add(struct store *store, const struct store_webhook *rows, size_t count,
    const struct store_webhook_endpoint *endpoints, size_t endpoint_count, store_on_done *on_done,
    void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_webhook_add);
	op_put_count(&call, count);
	for (size_t i = 0; i < count; i++)
		webhook_put(&call, &rows[i]);
	op_put_count(&call, endpoint_count);
	for (size_t i = 0; i < endpoint_count; i++)
		webhook_endpoint_put(&call, &endpoints[i]);
	store_run(store, &call, store_decode_done, (store_callback *)on_done, arg);
}

/* ---- rows out ---- */

static void
read_webhook(const struct op_value *v, struct store_webhook *ret)
{
	*ret = (struct store_webhook){
	    .id = op_text(&v[0]),
	    .endpoint_id = op_text(&v[1]),
	    .app_id = op_text(&v[2]),
	    .order_key = op_text(&v[3]),
	    .event = op_text(&v[4]),
	    .body = op_text(&v[5]),
	    .created_at = op_int(&v[6]),
	    .state = op_text(&v[7]),
	    .attempts = (uint64_t)op_int(&v[8]),
	    .claim = (uint64_t)op_int(&v[9]),
	    .due_at = op_int(&v[10]),
	    .ended_at = op_int(&v[11]),
	    .status = (int)op_int(&v[12]),
	    .error = op_text(&v[13]),
	    .response = op_text(&v[14]),
	    .first_ms = (uint64_t)op_int(&v[15]),
	    .total_ms = (uint64_t)op_int(&v[16]),
	    .position = op_int(&v[17]),
	};
}

static void
decode_webhooks(struct op_rows *rows, store_callback *callback, void *arg)
{
	struct store_webhook *list = xcalloc(rows->count + 1, sizeof(*list));
	struct op_value v[OP_VALUES_MAX];
	size_t count = 0;

	while (rows->err == 0 && op_rows_next(rows, v))
		read_webhook(v, &list[count++]);
	((store_on_webhooks *)callback)(arg, rows->err, list, count, rows->is_cut);
	free(list);
}

static void
decode_webhook(struct op_rows *rows, store_callback *callback, void *arg)
{
	struct op_value v[OP_VALUES_MAX];
	struct store_webhook webhook;

	if (rows->err != 0 || !op_rows_next(rows, v)) {
		((store_on_webhook *)callback)(arg, rows->err != 0 ? rows->err : E_NOT_FOUND, NULL);
		return;
	}
	read_webhook(v, &webhook);
	((store_on_webhook *)callback)(arg, 0, &webhook);
}

static void
read_endpoint(const struct op_value *v, unsigned columns, struct store_webhook_endpoint *ret)
{
	*ret = (struct store_webhook_endpoint){
	    .id = op_text(&v[0]),
	    .app_id = op_text(&v[1]),
	    .url = op_text(&v[2]),
	    .secrets = op_text(&v[3]),
	    .headers = op_text(&v[4]),
	    .batch = (uint64_t)op_int(&v[5]),
	    .created_at = op_int(&v[6]),
	    .failures = (uint64_t)op_int(&v[7]),
	    .probe_at = op_int(&v[8]),
	    .disabled_at = op_int(&v[9]),
	    .delivered = (uint64_t)op_int(&v[10]),
	    .failed = (uint64_t)op_int(&v[11]),
	    .dead = (uint64_t)op_int(&v[12]),
	    .last_status = (int)op_int(&v[13]),
	    .last_error = op_text(&v[14]),
	    .last_at = op_int(&v[15]),
	};
	if (columns > ENDPOINT_COLUMN_COUNT) {
		ret->due_in_ms = op_int(&v[16]);
		ret->probe_in_ms = op_int(&v[17]);
	}
}

static void
decode_endpoints(struct op_rows *rows, store_callback *callback, void *arg)
{
	struct store_webhook_endpoint *list = xcalloc(rows->count + 1, sizeof(*list));
	struct op_value v[OP_VALUES_MAX];
	size_t count = 0;

	while (rows->err == 0 && op_rows_next(rows, v))
		read_endpoint(v, rows->columns, &list[count++]);
	((store_on_webhook_endpoints *)callback)(arg, rows->err, list, count, rows->is_cut);
	free(list);
}

/* ---- the way of a webhook ---- */

void
store_webhook_look(struct store *store, const char *after, uint32_t limit,
    store_on_webhook_endpoints *on_endpoints, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_webhook_look);
	op_put_text(&call, after != NULL ? after : "");
	op_put_int(&call, limit);
	store_run(store, &call, decode_endpoints, (store_callback *)on_endpoints, arg);
}

void
store_webhook_claim(struct store *store, const char *owner, const struct store_webhook_want *wants,
    size_t count, uint64_t lease_ms, store_on_webhooks *on_webhooks, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_webhook_claim);
	op_put_int(&call, (int64_t)lease_ms);
	op_put_text(&call, owner);
	op_put_count(&call, count);
	for (size_t i = 0; i < count; i++) {
		op_put_text(&call, wants[i].endpoint_id);
		op_put_int(&call, wants[i].limit);
		op_put_int(&call, wants[i].in_a_row > 0 ? wants[i].in_a_row : 1);
	}
	store_run(store, &call, decode_webhooks, (store_callback *)on_webhooks, arg);
}

static void
release(struct store *store, const struct op *op, const char *whose, store_on_count *on_count,
    void *arg)
{
	struct op_call call;

	op_call_init(&call, op);
	op_put_text(&call, whose);
	store_run(store, &call, store_decode_count, (store_callback *)on_count, arg);
}

void
store_webhook_release(struct store *store, const char *owner, store_on_count *on_count, void *arg)
{
	release(store, &op_webhook_release, owner, on_count, arg);
}

void
store_webhook_release_former(
    struct store *store, const char *host_prefix, store_on_count *on_count, void *arg)
{
	release(store, &op_webhook_release_former, host_prefix, on_count, arg);
}

static void
put_result(struct op_call *call, const struct store_webhook_result *r)
{
	op_put_text(call, r->id);
	op_put_int(call, (int64_t)r->claim);
	op_put_text(call, r->state);
	op_put_int(call, (int64_t)r->due_in_ms);
	op_put_int(call, r->was_tried);
	op_put_int(call, r->status);
	op_put_text(call, r->error);
	op_put_text(call, r->response);
	op_put_int(call, (int64_t)r->first_ms);
	op_put_int(call, (int64_t)r->total_ms);
}

static void
put_tally(struct op_call *call, const struct store_webhook_tally *t)
{
	op_put_text(call, t->endpoint_id);
	op_put_int(call, (int64_t)t->delivered);
	op_put_int(call, (int64_t)t->failed);
	op_put_int(call, (int64_t)t->dead);
	op_put_int(call, (int64_t)t->failures);
	op_put_int(call, t->had_success);
	op_put_int(call, t->is_gone);
	op_put_int(call, t->last_status);
	op_put_text(call, t->last_error);
}

void
store_webhook_settle(struct store *store, const struct store_webhook_settler *settler,
    const struct store_webhook_result *results, size_t count,
    const struct store_webhook_tally *tallies, size_t tally_count,
    const struct store_webhook_breaker *breaker, store_on_webhook_endpoints *on_endpoints,
    void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_webhook_settle);
	op_put_int(&call, (int64_t)breaker->failures);
	op_put_int(&call, (int64_t)breaker->recovery_ms);
	op_put_text(&call, settler->id);
	op_put_int(&call, (int64_t)settler->number);
	op_put_count(&call, count);
	for (size_t i = 0; i < count; i++)
		put_result(&call, &results[i]);
	op_put_count(&call, tally_count);
	for (size_t i = 0; i < tally_count; i++)
		put_tally(&call, &tallies[i]);
	store_run(store, &call, decode_endpoints, (store_callback *)on_endpoints, arg);
}

/* ---- for people ---- */

void
store_webhook_list(struct store *store, const struct store_webhook_filter *f,
    store_on_webhooks *on_webhooks, void *arg)
{
	bool is_ended = f->state != NULL && strcmp(f->state, "pending") != 0;
	struct op_call call;

	op_call_init(&call, is_ended ? &op_webhook_list_state : &op_webhook_list);
	op_put_text(&call, f->app_id);
	op_put_text(&call, f->endpoint_id);
	op_put_text(&call, f->state);
	op_put_text(&call, f->order_key);
	op_put_text(&call, f->after);
	op_put_int(&call, f->limit);
	op_put_int(&call, (int64_t)f->limit + 1);
	store_run(store, &call, decode_webhooks, (store_callback *)on_webhooks, arg);
}

void
store_webhook_get(struct store *store, const char *id, store_on_webhook *on_webhook, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_webhook_get);
	op_put_text(&call, id);
	store_run(store, &call, decode_webhook, (store_callback *)on_webhook, arg);
}

void
store_webhook_resend(struct store *store, const char *id, const char *endpoint_id, uint32_t limit,
    store_on_count *on_count, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_webhook_resend);
	op_put_text(&call, id);
	op_put_text(&call, endpoint_id);
	op_put_int(&call, limit);
	store_run(store, &call, store_decode_count, (store_callback *)on_count, arg);
}

void
store_webhook_endpoint_list(struct store *store, const char *after, uint32_t limit,
    store_on_webhook_endpoints *on_endpoints, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_webhook_endpoint_list);
	op_put_text(&call, after);
	op_put_int(&call, limit);
	op_put_int(&call, (int64_t)limit + 1);
	store_run(store, &call, decode_endpoints, (store_callback *)on_endpoints, arg);
}

void
store_webhook_endpoint_enable(
    struct store *store, const char *id, bool is_enabled, store_on_done *on_done, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_webhook_endpoint_enable);
	op_put_text(&call, id);
	op_put_int(&call, is_enabled);
	store_run(store, &call, store_decode_done, (store_callback *)on_done, arg);
}

/* ---- upkeep ---- */

/* The least id of that time: what was written before has a lesser one. */
static void
put_before(struct op_call *call, int64_t wall_ms)
{
	uint8_t bits[16] = {0};
	struct id id;

	for (int i = 0; i < 6; i++)
		bits[i] = (uint8_t)((uint64_t)wall_ms >> (40 - 8 * i));
	id = id_of_bits("wh", bits);
	op_put_text(call, id.s);
	op_put_int(call, wall_ms);
}

void
store_webhook_sweep(
    struct store *store, const struct store_webhook_sweep *s, store_on_count *on_count, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_webhook_sweep);
	put_before(&call, s->delivered_before);
	put_before(&call, s->dead_before);
	put_before(&call, s->pending_before);
	op_put_int(&call, s->endpoints_before);
	op_put_int(&call, s->limit);
	store_run(store, &call, store_decode_count, (store_callback *)on_count, arg);
}

static void
decode_counts(struct op_rows *rows, store_callback *callback, void *arg)
{
	struct store_webhook_counts counts = {0};
	struct op_value v[OP_VALUES_MAX];

	if (rows->err == 0 && op_rows_next(rows, v)) {
		counts.pending = (uint64_t)op_int(&v[0]);
		counts.dead = (uint64_t)op_int(&v[1]);
		counts.open = (uint64_t)op_int(&v[2]);
	}
	((store_on_webhook_counts *)callback)(arg, rows->err, &counts);
}

void
store_webhook_count(struct store *store, store_on_webhook_counts *on_counts, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_webhook_count);
	store_run(store, &call, decode_counts, (store_callback *)on_counts, arg);
}
