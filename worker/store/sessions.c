/*
 * sessions - conversations in the record: open (or reuse), get, list, close,
 * expire. Their content goes in erase.c.
 */
#include "worker/store/run.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/err.h"

#define SESSION_COLUMNS                                                                            \
	"id, app_id, device_id, status, model, system, tools, metadata, to_ms(created_at), "       \
	"to_ms(last_activity_at), CASE WHEN erased_at IS NULL THEN 0 ELSE 1 END"
#define INSERT_SESSION                                                                             \
	"INSERT INTO chat_sessions (id, app_id, device_id, status, model, system, tools,"          \
	" metadata, created_at, last_activity_at) VALUES ($id, $app_id, $device_id, 'active',"     \
	" $model, $system, $tools, $metadata, from_ms($now), from_ms($now))"                       \
	" RETURNING " SESSION_COLUMNS ", 0"
#define SELECT_REPEATED "SELECT " SESSION_COLUMNS ", 0 FROM chat_sessions WHERE id = $id"
#define SELECT_PAGE                                                                                \
	"SELECT " SESSION_COLUMNS " FROM chat_sessions WHERE app_id = $app_id"                     \
	" AND (CAST($status AS text) IS NULL OR status = $status)"                                 \
	" AND (CAST($after AS text) IS NULL OR id < $after)"
#define SET_EXPIRED "UPDATE chat_sessions SET status = 'expired', closed_at = from_ms($now)"
#define SELECT_IDLE                                                                                \
	"SELECT id FROM chat_sessions WHERE status = 'active'"                                     \
	" AND last_activity_at < from_ms($idle_before) AND NOT EXISTS"                             \
	" (SELECT 1 FROM turns WHERE turns.session_id = chat_sessions.id"                          \
	" AND turns.state = 'live') ORDER BY last_activity_at LIMIT $limit"
#define PAGE_ORDER " ORDER BY id DESC LIMIT $max_rows + 1"

const struct op op_session_create = {
    .name = "session_create",
    .params = "id app_id device_id model system tools metadata now",
    .is_write = true,
    .statements =
	{
	    {.sql = SELECT_REPEATED, .expect = OP_DONE_IF_ROW},
	    {.sql = INSERT_SESSION, .is_answer = true},
	},
};

/* Opens that meet wait for each other, so the second finds the first one's session. */
const struct op op_session_open = {
    .name = "session_open",
    .params = "id app_id device_id model system tools metadata now reuse_after",
    .is_write = true,
    .statements =
	{
	    {.sql = "",
		.postgres = "SELECT pg_advisory_xact_lock(hashtextextended(CAST($app_id AS text)"
			    " || ' ' || CAST($device_id AS text), 0))"},
	    {.sql = SELECT_REPEATED, .expect = OP_DONE_IF_ROW},
	    {.sql = "UPDATE chat_sessions SET model = coalesce($model, model),"
		    " tools = coalesce($tools, tools), metadata = coalesce($metadata, metadata),"
		    " last_activity_at = CASE WHEN last_activity_at > from_ms($now)"
		    " THEN last_activity_at ELSE from_ms($now) END"
		    " WHERE id = (SELECT id FROM chat_sessions WHERE app_id = $app_id"
		    " AND device_id = $device_id AND status = 'active'"
		    " AND last_activity_at >= from_ms($reuse_after)"
		    " ORDER BY last_activity_at DESC LIMIT 1) AND status = 'active'"
		    " RETURNING " SESSION_COLUMNS ", 1",
		.expect = OP_DONE_IF_ROW},
	    {.sql = INSERT_SESSION, .is_answer = true},
	},
};

const struct op op_session_get = {
    .name = "session_get",
    .params = "id",
    .statements = {{.sql = "SELECT " SESSION_COLUMNS " FROM chat_sessions WHERE id = $id",
	.expect = OP_ONE,
	.err = E_NOT_FOUND,
	.is_answer = true}},
};

const struct op op_session_list = {
    .name = "session_list",
    .params = "app_id status after max_rows",
    .statements = {{.sql = SELECT_PAGE PAGE_ORDER, .is_answer = true}},
};

const struct op op_session_list_device = {
    .name = "session_list_device",
    .params = "app_id status after max_rows device_id",
    .statements = {{.sql = SELECT_PAGE " AND device_id = $device_id" PAGE_ORDER,
	.is_answer = true}},
};

const struct op op_session_close = {
    .name = "session_close",
    .params = "id now",
    .is_write = true,
    .statements = {{.sql = "UPDATE chat_sessions SET status = 'closed',"
			   " closed_at = coalesce(closed_at, from_ms($now)) WHERE id = $id",
	.expect = OP_ONE,
	.err = E_NOT_FOUND}},
};

/* PostgreSQL: what someone has in his hands now is not idle. */
const struct op op_session_expire = {
    .name = "session_expire",
    .params = "idle_before now limit",
    .is_write = true,
    .is_upkeep = true,
    .statements = {{.sql = SET_EXPIRED " WHERE id IN (" SELECT_IDLE ") RETURNING id, app_id",
	.postgres = SET_EXPIRED " WHERE id = ANY (ARRAY(" SELECT_IDLE
				" FOR UPDATE OF chat_sessions SKIP LOCKED)) RETURNING id, app_id",
	.is_answer = true}},
};

const struct op op_session_count = {
    .name = "session_count",
    .params = "",
    .is_slow = true,
    .statements = {{.sql = "SELECT count(*) FROM chat_sessions WHERE status = 'active'",
	.expect = OP_ONE,
	.err = E_INTERNAL,
	.is_answer = true}},
};

static void
read_session(const struct op_value *v, struct store_session *ret)
{
	*ret = (struct store_session){
	    .id = op_text(&v[0]),
	    .app_id = op_text(&v[1]),
	    .device_id = op_text(&v[2]),
	    .status = op_text(&v[3]),
	    .model = op_text(&v[4]),
	    .system = op_text(&v[5]),
	    .tools_json = op_text(&v[6]),
	    .metadata_json = op_text(&v[7]),
	    .created_at = op_int(&v[8]),
	    .last_activity_at = op_int(&v[9]),
	    .is_erased = op_int(&v[10]) != 0,
	};
}

static void
decode_opened(struct op_rows *rows, store_callback *callback, void *arg)
{
	store_on_opened *on_opened = (store_on_opened *)callback;
	struct op_value v[OP_VALUES_MAX];
	struct store_session session;

	if (rows->err != 0 || !op_rows_next(rows, v)) {
		on_opened(arg, rows->err != 0 ? rows->err : E_INTERNAL, NULL, false);
		return;
	}
	read_session(v, &session);
	on_opened(arg, 0, &session, op_int(&v[11]) != 0);
}

void
store_session_open(struct store *store, const struct store_session_open *open,
    store_on_opened *on_opened, void *arg)
{
	const struct store_session *s = &open->session;
	bool may_reuse = open->reuse && s->device_id != NULL;
	struct op_call call;

	op_call_init(&call, may_reuse ? &op_session_open : &op_session_create);
	op_put_text(&call, s->id);
	op_put_text(&call, s->app_id);
	op_put_text(&call, s->device_id);
	op_put_text(&call, s->model);
	op_put_text(&call, s->system);
	op_put_text(&call, s->tools_json);
	op_put_text(&call, s->metadata_json);
	op_put_int(&call, open->now);
	if (may_reuse)
		op_put_int(&call, open->reuse_after);
	store_run(store, &call, decode_opened, (store_callback *)on_opened, arg);
}

static void
decode_session(struct op_rows *rows, store_callback *callback, void *arg)
{
	store_on_session *on_session = (store_on_session *)callback;
	struct op_value v[OP_VALUES_MAX];
	struct store_session session;

	if (rows->err != 0 || !op_rows_next(rows, v)) {
		on_session(arg, rows->err != 0 ? rows->err : E_NOT_FOUND, NULL);
		return;
	}
	read_session(v, &session);
	on_session(arg, 0, &session);
}

void
store_session_get(struct store *store, const char *id, store_on_session *on_session, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_session_get);
	op_put_text(&call, id);
	store_run(store, &call, decode_session, (store_callback *)on_session, arg);
}

static void
decode_sessions(struct op_rows *rows, store_callback *callback, void *arg)
{
	store_on_sessions *on_sessions = (store_on_sessions *)callback;
	struct store_session *sessions = xcalloc(rows->count + 1, sizeof(*sessions));
	struct op_value v[OP_VALUES_MAX];
	size_t count = 0;

	while (op_rows_next(rows, v))
		read_session(v, &sessions[count++]);
	on_sessions(arg, rows->err, sessions, count, rows->is_cut);
	free(sessions);
}

void
store_session_list(struct store *store, const struct store_session_filter *filter,
    store_on_sessions *on_sessions, void *arg)
{
	struct op_call call;

	check(filter->app_id != NULL);
	op_call_init(&call, filter->device_id != NULL ? &op_session_list_device : &op_session_list);
	op_put_text(&call, filter->app_id);
	op_put_text(&call, filter->status);
	op_put_text(&call, filter->after);
	op_put_int(&call, filter->limit);
	if (filter->device_id != NULL)
		op_put_text(&call, filter->device_id);
	store_run(store, &call, decode_sessions, (store_callback *)on_sessions, arg);
}

void
store_session_close(
    struct store *store, const char *id, int64_t now, store_on_done *on_done, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_session_close);
	op_put_text(&call, id);
	op_put_int(&call, now);
	store_run(store, &call, store_decode_done, (store_callback *)on_done, arg);
}

static void
decode_expired(struct op_rows *rows, store_callback *callback, void *arg)
{
	struct store_expired *list = xcalloc(rows->count + 1, sizeof(*list));
	struct op_value v[OP_VALUES_MAX];
	size_t count = 0;

	while (rows->err == 0 && op_rows_next(rows, v))
		list[count++] = (struct store_expired){op_text(&v[0]), op_text(&v[1])};
	((store_on_expired *)callback)(arg, rows->err, list, count);
	free(list);
}

void
store_session_expire(struct store *store, int64_t idle_before, int64_t now, uint32_t limit,
    store_on_expired *on_expired, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_session_expire);
	op_put_int(&call, idle_before);
	op_put_int(&call, now);
	op_put_int(&call, limit);
	store_run(store, &call, decode_expired, (store_callback *)on_expired, arg);
}

void
store_session_count_active(struct store *store, store_on_count *on_count, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_session_count);
	store_run(store, &call, store_decode_number, (store_callback *)on_count, arg);
}
