/*
 * turns - turns in the record: who owns a live one, what it has said, how it
 * ended; and the messages and usage that are written with it.
 *
 * Every write of an owner names its fence; whoever takes a turn from a dead owner
 * raises it, so that a late write of the dead finds nothing to change.
 */
#include "worker/store/run.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"
#include "worker/store/turn_lost.h"
#include "worker/store/usage_rows.h"
#include "worker/store/webhook_rows.h"

#define TURN_COLUMNS                                                                               \
	"id, session_id, app_id, key_id, request_id, input_hash, state, owner, fence, model,"      \
	" error_code, error_message, finish_reason, text, result, last_seq, to_ms(created_at),"    \
	" to_ms(ended_at)"
#define SELECT_OF_REQUEST                                                                          \
	"SELECT " TURN_COLUMNS " FROM turns WHERE session_id = $session_id"                        \
	" AND request_id = $request_id"
#define SELECT_LIVE                                                                                \
	"SELECT " TURN_COLUMNS " FROM turns WHERE session_id = $session_id AND state = 'live'"
#define MESSAGE_PARAMS "message_id role body is_partial created_at"
#define INSERT_MESSAGE                                                                             \
	"INSERT INTO messages (id, session_id, turn_id, position, role, body, is_partial,"         \
	" created_at) VALUES ($message_id, $session_id, $turn_id,"                                 \
	" (SELECT coalesce(max(position), 0) + 1 FROM messages WHERE session_id = $session_id),"   \
	" $role, $body, $is_partial, from_ms($created_at)) ON CONFLICT (id) DO NOTHING"
/* The session was erased while the turn was live: what the turn writes goes too. */
#define IS_ERASED                                                                                  \
	"EXISTS (SELECT 1 FROM chat_sessions WHERE chat_sessions.id = (SELECT session_id"          \
	" FROM turns WHERE turns.id = $turn_id) AND erased_at IS NOT NULL)"
#define ERASE_MESSAGES "DELETE FROM messages WHERE turn_id = $turn_id AND " IS_ERASED
#define ERASE_TURN                                                                                 \
	"UPDATE turns SET text = NULL, result = NULL, error_message = NULL"                        \
	" WHERE id = $turn_id AND " IS_ERASED
/*
 * PostgreSQL: whoever writes to a turn locks its session first, as who erases it does: one of them
 * sees what the other has done.
 */
#define LOCK_SESSION_OF_TURN                                                                       \
	{                                                                                          \
		.sql = "", .postgres = "SELECT 1 FROM chat_sessions WHERE id = (SELECT session_id" \
				       " FROM turns WHERE id = $turn_id) FOR NO KEY UPDATE"        \
	}
#define TOUCH_SESSION                                                                              \
	"UPDATE chat_sessions SET last_activity_at = from_ms($now) WHERE id = $session_id"         \
	" AND last_activity_at < from_ms($now)"
/* PostgreSQL locks the session's row, so that turns of one session begin one after another. */
const struct op op_turn_begin = {
    .name = "turn_begin",
    .params = "turn_id session_id app_id key_id request_id input_hash owner fence model "
	      "now " MESSAGE_PARAMS,
    .is_write = true,
    .statements =
	{
	    {.sql = "SELECT 1 FROM chat_sessions WHERE id = $session_id AND app_id = $app_id",
		.postgres = "SELECT 1 FROM chat_sessions WHERE id = $session_id"
			    " AND app_id = $app_id FOR UPDATE",
		.expect = OP_ONE,
		.err = E_NOT_FOUND},
	    {.sql = "SELECT 1 FROM turns WHERE id = $turn_id", .expect = OP_DONE_IF_ROW},
	    {.sql = SELECT_OF_REQUEST " AND input_hash <> $input_hash",
		.expect = OP_NONE,
		.err = E_REQUEST_ID_REUSED},
	    {.sql = SELECT_OF_REQUEST " AND NOT (state = 'failed' AND coalesce(error_code, '')"
				      " IN ('worker_lost', 'draining'))",
		.expect = OP_NONE,
		.err = E_DUPLICATE},
	    {.sql = "SELECT 1 FROM chat_sessions WHERE id = $session_id AND status = 'active'",
		.expect = OP_ONE,
		.err = E_SESSION_CLOSED},
	    {.sql = SELECT_LIVE, .expect = OP_NONE, .err = E_TURN_IN_PROGRESS},
	    /* The lost turn of this request is void: the new one says it all again. */
	    {.sql = "DELETE FROM messages WHERE turn_id IN (SELECT id FROM turns"
		    " WHERE session_id = $session_id AND request_id = $request_id)"},
	    {.sql = "UPDATE turns SET request_id = NULL"
		    " WHERE session_id = $session_id AND request_id = $request_id"},
	    {.sql = "INSERT INTO turns (id, session_id, app_id, key_id, request_id, input_hash,"
		    " state, owner, fence, model, last_seq, created_at) VALUES ($turn_id,"
		    " $session_id, $app_id, $key_id, $request_id, $input_hash, 'live', $owner,"
		    " $fence, $model, 0, from_ms($now))"},
	    {.sql = INSERT_MESSAGE},
	    {.sql = TOUCH_SESSION},
	},
    .constraints = {{"turns_live", "turns.session_id", E_TURN_IN_PROGRESS},
	{"turns_request", "turns.session_id, turns.request_id", E_DUPLICATE}},
};

const struct op op_turn_add = {
    .name = "turn_add",
    .params = "turn_id fence",
    .groups = {"session_id " MESSAGE_PARAMS, USAGE_PARAMS},
    .is_write = true,
    .is_first = true,
    .statements =
	{
	    LOCK_SESSION_OF_TURN,
	    {.sql = "SELECT 1 FROM turns WHERE id = $turn_id AND fence = $fence"
		    " AND state = 'live'",
		.postgres = "SELECT 1 FROM turns WHERE id = $turn_id AND fence = $fence"
			    " AND state = 'live' FOR UPDATE",
		.expect = OP_ONE,
		.err = E_FENCED},
	    {.sql = INSERT_MESSAGE, .each = 1},
	    USAGE_STATEMENTS(2),
	    {.sql = ERASE_MESSAGES},
	},
};

const struct op op_turn_progress = {
    .name = "turn_progress",
    .params = "turn_id fence text last_seq",
    .is_write = true,
    .is_first = true,
    .statements =
	{
	    LOCK_SESSION_OF_TURN,
	    {.sql = "UPDATE turns SET text = $text, last_seq = $last_seq"
		    " WHERE id = $turn_id AND fence = $fence AND state = 'live'",
		.expect = OP_ONE,
		.err = E_FENCED},
	    {.sql = ERASE_TURN},
	},
};

const struct op op_turn_end = {
    .name = "turn_end",
    .params = "turn_id session_id fence state error_code error_message finish_reason text result "
	      "last_seq now",
    .groups = {MESSAGE_PARAMS, USAGE_PARAMS, WEBHOOK_PARAMS},
    .is_write = true,
    .is_first = true,
    .statements =
	{
	    LOCK_SESSION_OF_TURN,
	    {.sql = "SELECT 1 FROM turns WHERE id = $turn_id AND fence = $fence"
		    " AND state <> 'live'",
		.expect = OP_DONE_IF_ROW},
	    {.sql = "UPDATE turns SET state = $state, error_code = $error_code,"
		    " error_message = $error_message, finish_reason = $finish_reason,"
		    " text = $text, result = $result, last_seq = $last_seq,"
		    " ended_at = from_ms($now)"
		    " WHERE id = $turn_id AND fence = $fence AND state = 'live'",
		.expect = OP_ONE,
		.err = E_FENCED},
	    {.sql = INSERT_MESSAGE, .each = 1},
	    USAGE_STATEMENTS(2),
	    WEBHOOK_STATEMENT(3),
	    {.sql = TOUCH_SESSION},
	    {.sql = ERASE_MESSAGES},
	    {.sql = ERASE_TURN},
	},
};

const struct op op_turn_get = {
    .name = "turn_get",
    .params = "id",
    .statements = {{.sql = "SELECT " TURN_COLUMNS " FROM turns WHERE id = $id",
	.expect = OP_ONE,
	.err = E_NOT_FOUND,
	.is_answer = true}},
};

const struct op op_turn_live = {
    .name = "turn_live",
    .params = "session_id",
    .statements = {{.sql = SELECT_LIVE, .expect = OP_ONE, .err = E_NOT_FOUND, .is_answer = true}},
};

#define LOST_ONE      "id = $id AND owner = $owner AND state = 'live'"
#define LOST_OF_OWNER "owner = $owner AND state = 'live'"
#define LOST_OF_OTHERS                                                                             \
	"state = 'live' AND substr(owner, 1, length(CAST($host_prefix AS text)))"                  \
	" <> CAST($host_prefix AS text)"

const struct op op_turn_lose = {
    .name = "turn_lose",
    .params = "id owner now message",
    .groups = {TURN_LOST_PARAMS},
    .is_write = true,
    .statements =
	{
	    {.sql = "SELECT 1 FROM turns WHERE id = $id AND owner = $owner AND state = 'failed'"
		    " AND error_code = 'worker_lost'",
		.expect = OP_DONE_IF_ROW},
	    TURN_LOST_LOCK(LOST_ONE),
	    TURN_LOST_HOOKS(LOST_ONE),
	    {.sql = "UPDATE turns SET " TURN_LOST " WHERE " LOST_ONE,
		.expect = OP_ONE,
		.err = E_FENCED},
	},
};

const struct op op_turn_lose_all = {
    .name = "turn_lose_all",
    .params = "owner now message",
    .groups = {TURN_LOST_PARAMS},
    .is_write = true,
    .statements = {TURN_LOST_LOCK(LOST_OF_OWNER), TURN_LOST_HOOKS(LOST_OF_OWNER),
	{.sql = "UPDATE turns SET " TURN_LOST " WHERE " LOST_OF_OWNER, .is_answer = true}},
};

const struct op op_turn_lose_former = {
    .name = "turn_lose_former",
    .params = "host_prefix now message",
    .groups = {TURN_LOST_PARAMS},
    .is_write = true,
    .statements = {TURN_LOST_LOCK(LOST_OF_OTHERS), TURN_LOST_HOOKS(LOST_OF_OTHERS),
	{.sql = "UPDATE turns SET " TURN_LOST " WHERE " LOST_OF_OTHERS, .is_answer = true}},
};

static void
read_turn(const struct op_value *v, struct store_turn *ret)
{
	*ret = (struct store_turn){
	    .id = op_text(&v[0]),
	    .session_id = op_text(&v[1]),
	    .app_id = op_text(&v[2]),
	    .key_id = op_text(&v[3]),
	    .request_id = op_text(&v[4]),
	    .input_hash = op_text(&v[5]),
	    .state = op_text(&v[6]),
	    .owner = op_text(&v[7]),
	    .fence = (uint64_t)op_int(&v[8]),
	    .model = op_text(&v[9]),
	    .error_code = op_text(&v[10]),
	    .error_message = op_text(&v[11]),
	    .finish_reason = op_text(&v[12]),
	    .text = op_text(&v[13]),
	    .result_json = op_text(&v[14]),
	    .last_seq = (uint64_t)op_int(&v[15]),
	    .created_at = op_int(&v[16]),
	    .ended_at = op_int(&v[17]),
	};
}

/* Also for store_on_begun: there the row is the turn in the way, and none is well. */
static void
decode_turn(struct op_rows *rows, store_callback *callback, void *arg)
{
	store_on_turn *on_turn = (store_on_turn *)callback;
	bool has_turn = rows->count > 0 && rows->columns == 18;
	struct op_value v[OP_VALUES_MAX];
	struct store_turn turn;

	if (!has_turn || !op_rows_next(rows, v)) {
		on_turn(arg, rows->err, NULL);
		return;
	}
	read_turn(v, &turn);
	on_turn(arg, rows->err, &turn);
}

static void
put_message(struct op_call *call, const struct store_message *m, int64_t created_at)
{
	op_put_text(call, m->id);
	op_put_text(call, m->role);
	op_put_text(call, m->body_json);
	op_put_int(call, m->is_partial);
	op_put_int(call, m->created_at != 0 ? m->created_at : created_at);
}

void
store_turn_begin(
    struct store *store, const struct store_turn_begin *begin, store_on_begun *on_begun, void *arg)
{
	const struct store_turn *t = &begin->turn;
	struct op_call call;

	op_call_init(&call, &op_turn_begin);
	op_put_text(&call, t->id);
	op_put_text(&call, t->session_id);
	op_put_text(&call, t->app_id);
	op_put_text(&call, t->key_id);
	op_put_text(&call, t->request_id);
	op_put_text(&call, t->input_hash);
	op_put_text(&call, t->owner);
	op_put_int(&call, (int64_t)t->fence);
	op_put_text(&call, t->model);
	op_put_int(&call, begin->now);
	put_message(&call, &begin->message, begin->now);
	store_run(store, &call, decode_turn, (store_callback *)on_begun, arg);
}

void
store_turn_add(struct store *store, const char *turn_id, uint64_t fence,
    const struct store_message *messages, size_t count, const struct store_usage *usage,
    size_t usage_count, store_on_done *on_done, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_turn_add);
	op_put_text(&call, turn_id);
	op_put_int(&call, (int64_t)fence);
	op_put_count(&call, count);
	for (size_t i = 0; i < count; i++) {
		op_put_text(&call, messages[i].session_id);
		put_message(&call, &messages[i], 0);
	}
	op_put_count(&call, usage_count);
	for (size_t i = 0; i < usage_count; i++)
		usage_put(&call, &usage[i]);
	store_run(store, &call, store_decode_done, (store_callback *)on_done, arg);
}

void
store_turn_progress(struct store *store, const char *turn_id, uint64_t fence, const char *text,
    uint64_t last_seq, store_on_done *on_done, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_turn_progress);
	op_put_text(&call, turn_id);
	op_put_int(&call, (int64_t)fence);
	op_put_text(&call, text);
	op_put_int(&call, (int64_t)last_seq);
	store_run(store, &call, store_decode_done, (store_callback *)on_done, arg);
}

void
store_turn_end(
    struct store *store, const struct store_turn_end *end, store_on_done *on_done, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_turn_end);
	op_put_text(&call, end->turn_id);
	op_put_text(&call, end->session_id);
	op_put_int(&call, (int64_t)end->fence);
	op_put_text(&call, end->state);
	op_put_text(&call, end->error_code);
	op_put_text(&call, end->error_message);
	op_put_text(&call, end->finish_reason);
	op_put_text(&call, end->text);
	op_put_text(&call, end->result_json);
	op_put_int(&call, (int64_t)end->last_seq);
	op_put_int(&call, end->now);
	op_put_count(&call, end->message_count);
	for (size_t i = 0; i < end->message_count; i++)
		put_message(&call, &end->messages[i], end->now);
	op_put_count(&call, end->usage_count);
	for (size_t i = 0; i < end->usage_count; i++)
		usage_put(&call, &end->usage[i]);
	op_put_count(&call, end->webhook_count);
	for (size_t i = 0; i < end->webhook_count; i++)
		webhook_put(&call, &end->webhooks[i]);
	store_run(store, &call, store_decode_done, (store_callback *)on_done, arg);
}

static void
run_select(
    struct store *store, const struct op *op, const char *id, store_on_turn *on_turn, void *arg)
{
	struct op_call call;

	op_call_init(&call, op);
	op_put_text(&call, id);
	store_run(store, &call, decode_turn, (store_callback *)on_turn, arg);
}

void
store_turn_get(struct store *store, const char *id, store_on_turn *on_turn, void *arg)
{
	run_select(store, &op_turn_get, id, on_turn, arg);
}

void
store_turn_live(struct store *store, const char *session_id, store_on_turn *on_turn, void *arg)
{
	run_select(store, &op_turn_live, session_id, on_turn, arg);
}

static void
put_lost_hook(struct op_call *call, const struct store_lost_hook *h, const char *at)
{
	struct buf head = BUF_INIT, tail = BUF_INIT;

	buf_printf(
	    &head, "{\"type\":\"turn.failed\",\"timestamp\":\"%s\",\"data\":%s", at, h->data_head);
	buf_printf(&tail, "%s}", h->data_tail);
	op_put_text(call, h->endpoint_id);
	op_put_text(call, h->app_id);
	op_put_text(call, h->place);
	op_put_text(call, head.data);
	op_put_text(call, tail.data);
	buf_fini(&head);
	buf_fini(&tail);
}

void
put_lost(struct store *store, struct op_call *call, int64_t now)
{
	const struct store_lost_hook *hooks;
	size_t count = store_lost_hooks(store, &hooks);
	char at[CLOCK_RFC3339_LEN + 1];

	clock_format(now, at);
	op_put_int(call, now);
	op_put_text(call, err_info(E_WORKER_LOST)->text);
	op_put_count(call, count);
	for (size_t i = 0; i < count; i++)
		put_lost_hook(call, &hooks[i], at);
}

void
store_turn_lose(struct store *store, const char *id, const char *owner, int64_t now,
    store_on_done *on_done, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_turn_lose);
	op_put_text(&call, id);
	op_put_text(&call, owner);
	put_lost(store, &call, now);
	store_run(store, &call, store_decode_done, (store_callback *)on_done, arg);
}

void
store_turn_lose_all(
    struct store *store, const char *owner, int64_t now, store_on_count *on_count, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_turn_lose_all);
	op_put_text(&call, owner);
	put_lost(store, &call, now);
	store_run(store, &call, store_decode_count, (store_callback *)on_count, arg);
}

void
store_turn_lose_former(
    struct store *store, const char *host_prefix, int64_t now, store_on_count *on_count, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_turn_lose_former);
	op_put_text(&call, host_prefix);
	put_lost(store, &call, now);
	store_run(store, &call, store_decode_count, (store_callback *)on_count, arg);
}
