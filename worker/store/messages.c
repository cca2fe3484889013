/*
 * messages - what was said in a session, by page for people and by budget for
 * the model. They are written with their turns (turns.c).
 */
#include "worker/store/run.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/err.h"

#define MESSAGE_COLUMNS                                                                            \
	"id, session_id, turn_id, position, role, body, is_partial, to_ms(created_at)"

#define SELECT_NEWEST                                                                              \
	" FROM messages WHERE session_id = $session_id ORDER BY position DESC LIMIT $max_rows + 1"

enum { HISTORY_MAX = 1000 };

const struct op op_message_list = {
    .name = "message_list",
    .params = "session_id after max_rows",
    .statements =
	{
	    {.sql = "SELECT 1 WHERE CAST($after AS text) IS NULL OR EXISTS (SELECT 1 FROM messages"
		    " WHERE id = $after AND session_id = $session_id)",
		.expect = OP_ONE,
		.err = E_NOT_FOUND},
	    {.sql = "SELECT " MESSAGE_COLUMNS " FROM messages WHERE session_id = $session_id"
		    " AND position > coalesce((SELECT position FROM messages WHERE id = $after), 0)"
		    " ORDER BY position LIMIT $max_rows + 1",
		.is_answer = true},
	},
};

/* SQLite is left when there is enough; PostgreSQL sends whatever is asked for: it counts itself. */
const struct op op_message_history = {
    .name = "message_history",
    .params = "session_id max_bytes max_rows",
    .statements = {{.sql = "SELECT " MESSAGE_COLUMNS SELECT_NEWEST,
	.postgres = "SELECT " MESSAGE_COLUMNS " FROM (SELECT *, sum(octet_length(body::text)) OVER"
		    " (ORDER BY position DESC ROWS UNBOUNDED PRECEDING)"
		    " - octet_length(body::text) AS bytes_before FROM (SELECT *" SELECT_NEWEST
		    ") AS newest) AS summed WHERE bytes_before <= $max_bytes"
		    " ORDER BY position DESC",
	.is_answer = true}},
};

static void
read_message(const struct op_value *v, struct store_message *ret)
{
	*ret = (struct store_message){
	    .id = op_text(&v[0]),
	    .session_id = op_text(&v[1]),
	    .turn_id = op_text(&v[2]),
	    .position = op_int(&v[3]),
	    .role = op_text(&v[4]),
	    .body_json = op_text(&v[5]),
	    .is_partial = op_int(&v[6]) != 0,
	    .created_at = op_int(&v[7]),
	};
}

static void
decode_messages(struct op_rows *rows, store_callback *callback, void *arg)
{
	store_on_messages *on_messages = (store_on_messages *)callback;
	struct store_message *messages = xcalloc(rows->count + 1, sizeof(*messages));
	struct op_value v[OP_VALUES_MAX];
	size_t count = 0;

	while (op_rows_next(rows, v))
		read_message(v, &messages[count++]);
	on_messages(arg, rows->err, messages, count, rows->is_cut);
	free(messages);
}

/* Read newest first, given oldest first. */
static void
decode_history(struct op_rows *rows, store_callback *callback, void *arg)
{
	store_on_messages *on_messages = (store_on_messages *)callback;
	size_t count = rows->count, i = count;
	struct store_message *messages = xcalloc(count + 1, sizeof(*messages));
	struct op_value v[OP_VALUES_MAX];

	while (op_rows_next(rows, v))
		read_message(v, &messages[--i]);
	on_messages(arg, rows->err, messages, count, rows->is_cut);
	free(messages);
}

void
store_message_list(struct store *store, const char *session_id, const char *after, uint32_t limit,
    store_on_messages *on_messages, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_message_list);
	op_put_text(&call, session_id);
	op_put_text(&call, after);
	op_put_int(&call, limit);
	store_run(store, &call, decode_messages, (store_callback *)on_messages, arg);
}

void
store_message_history(struct store *store, const char *session_id, uint64_t max_bytes,
    store_on_messages *on_messages, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_message_history);
	op_put_text(&call, session_id);
	op_put_int(&call, max_bytes < INT64_MAX ? (int64_t)max_bytes : INT64_MAX);
	op_put_int(&call, HISTORY_MAX);
	store_run(store, &call, decode_history, (store_callback *)on_messages, arg);
}
