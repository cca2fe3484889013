/*
 * erase - the content of sessions leaves the record; usage stays.
 *
 *   erased_at    nobody is shown anything any more, what is still written goes too
 *   .. rows are removed, batch after batch, by whoever erased it or by the next sweep ..
 *   emptied_at   there is nothing left
 */
#include "worker/store/run.h"

#include "common/err.h"

#define SET_ERASED                                                                                 \
	"erased_at = coalesce(erased_at, from_ms($now)), system = NULL, tools = NULL,"             \
	" metadata = NULL"
/* One session, or whichever were erased first. */
#define SELECT_ERASED                                                                              \
	"SELECT id FROM chat_sessions WHERE erased_at IS NOT NULL AND emptied_at IS NULL"          \
	" AND (CAST($id AS text) IS NULL OR id = $id) ORDER BY erased_at LIMIT 100"
#define HAS_CONTENT                                                                                \
	"(request_id IS NOT NULL OR input_hash IS NOT NULL OR text IS NOT NULL"                    \
	" OR result IS NOT NULL OR error_message IS NOT NULL)"

/* A live turn goes on to its end and its usage counts; what it still writes is erased as well. */
const struct op op_session_erase = {
    .name = "session_erase",
    .params = "id now",
    .is_write = true,
    .statements = {{.sql = "UPDATE chat_sessions SET status = 'closed',"
			   " closed_at = coalesce(closed_at, from_ms($now)), " SET_ERASED
			   " WHERE id = $id",
	.expect = OP_ONE,
	.err = E_NOT_FOUND}},
};

const struct op op_session_retire = {
    .name = "session_retire",
    .params = "closed_before now limit",
    .is_write = true,
    .is_upkeep = true,
    .statements = {{.sql = "UPDATE chat_sessions SET " SET_ERASED
			   " WHERE id IN (SELECT id FROM chat_sessions WHERE status <> 'active'"
			   " AND erased_at IS NULL AND closed_at < from_ms($closed_before)"
			   " ORDER BY closed_at LIMIT $limit)",
	.is_answer = true}},
};

const struct op op_session_empty = {
    .name = "session_empty",
    .params = "id limit",
    .is_write = true,
    .is_upkeep = true,
    .statements =
	{
	    {.sql = "DELETE FROM messages WHERE id IN (SELECT messages.id FROM messages"
		    " WHERE session_id IN (" SELECT_ERASED ") LIMIT $limit)"},
	    {.sql = "UPDATE turns SET request_id = NULL, input_hash = NULL, text = NULL,"
		    " result = NULL, error_message = NULL WHERE id IN (SELECT turns.id FROM turns"
		    " WHERE session_id IN (" SELECT_ERASED ") AND " HAS_CONTENT " LIMIT $limit)"},
	    {.sql = "UPDATE chat_sessions SET emptied_at = from_ms(now_ms())"
		    " WHERE id IN (" SELECT_ERASED ") AND NOT EXISTS (SELECT 1 FROM messages"
		    " WHERE messages.session_id = chat_sessions.id) AND NOT EXISTS"
		    " (SELECT 1 FROM turns WHERE turns.session_id = chat_sessions.id"
		    " AND " HAS_CONTENT ")"},
	    {.sql = "SELECT count(*) FROM (" SELECT_ERASED ") AS erased",
		.expect = OP_ONE,
		.err = E_INTERNAL,
		.is_answer = true},
	},
};

void
store_session_erase(
    struct store *store, const char *id, int64_t now, store_on_done *on_done, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_session_erase);
	op_put_text(&call, id);
	op_put_int(&call, now);
	store_run(store, &call, store_decode_done, (store_callback *)on_done, arg);
}

void
store_session_retire(struct store *store, int64_t closed_before, int64_t now, uint32_t limit,
    store_on_count *on_count, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_session_retire);
	op_put_int(&call, closed_before);
	op_put_int(&call, now);
	op_put_int(&call, limit);
	store_run(store, &call, store_decode_count, (store_callback *)on_count, arg);
}

void
store_session_empty(
    struct store *store, const char *id, uint32_t limit, store_on_count *on_count, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_session_empty);
	op_put_text(&call, id);
	op_put_int(&call, limit);
	store_run(store, &call, store_decode_number, (store_callback *)on_count, arg);
}
