/*
 * answers - answers of model calls that are kept for clients that may have gone, by key and
 * request. The one of a later request with the same id takes the place of the earlier.
 */
#include "worker/store/run.h"

#include "common/err.h"

const struct op op_answer_put = {
    .name = "answer_put",
    .params = "key_id request_id status content_type body created_at expires_at",
    .is_write = true,
    .statements = {{.sql = "INSERT INTO answers (key_id, request_id, status, content_type, body,"
			   " created_at, expires_at) VALUES ($key_id, $request_id, $status,"
			   " $content_type, $body, from_ms($created_at), from_ms($expires_at))"
			   " ON CONFLICT (key_id, request_id) DO UPDATE SET"
			   " status = excluded.status, content_type = excluded.content_type,"
			   " body = excluded.body, created_at = excluded.created_at,"
			   " expires_at = excluded.expires_at"}},
};

const struct op op_answer_get = {
    .name = "answer_get",
    .params = "key_id request_id now",
    .is_slow = true,
    .statements = {{.sql = "SELECT status, content_type, body FROM answers"
			   " WHERE key_id = $key_id AND request_id = $request_id"
			   " AND expires_at > from_ms($now)",
	.expect = OP_ONE,
	.err = E_NOT_FOUND,
	.is_answer = true}},
};

const struct op op_answer_sweep = {
    .name = "answer_sweep",
    .params = "now",
    .is_write = true,
    .statements = {{.sql = "DELETE FROM answers WHERE expires_at <= from_ms($now)",
	.is_answer = true}},
};

void
store_answer_put(
    struct store *store, const struct store_answer *a, store_on_done *on_done, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_answer_put);
	op_put_text(&call, a->key_id);
	op_put_text(&call, a->request_id);
	op_put_int(&call, a->status);
	op_put_text(&call, a->content_type);
	op_put_blob(&call, a->body.p != NULL ? a->body.p : "", a->body.len);
	op_put_int(&call, a->created_at);
	op_put_int(&call, a->expires_at);
	store_run(store, &call, store_decode_done, (store_callback *)on_done, arg);
}

static void
decode_answer(struct op_rows *rows, store_callback *callback, void *arg)
{
	store_on_answer *on_answer = (store_on_answer *)callback;
	struct op_value v[OP_VALUES_MAX];
	struct store_answer answer;

	if (rows->err != 0 || !op_rows_next(rows, v)) {
		on_answer(arg, rows->err != 0 ? rows->err : E_NOT_FOUND, NULL);
		return;
	}
	answer = (struct store_answer){
	    .status = (int)op_int(&v[0]), .content_type = op_text(&v[1]), .body = v[2].bytes};
	on_answer(arg, 0, &answer);
}

void
store_answer_get(struct store *store, const char *key_id, const char *request_id, int64_t now,
    store_on_answer *on_answer, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_answer_get);
	op_put_text(&call, key_id);
	op_put_text(&call, request_id);
	op_put_int(&call, now);
	store_run(store, &call, decode_answer, (store_callback *)on_answer, arg);
}

void
store_answer_sweep(struct store *store, int64_t now, store_on_count *on_count, void *arg)
{
	struct op_call call;

	op_call_init(&call, &op_answer_sweep);
	op_put_int(&call, now);
	store_run(store, &call, store_decode_count, (store_callback *)on_count, arg);
}
