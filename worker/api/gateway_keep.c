/* gateway_keep - see gateway_keep.h. */
#include "worker/api/gateway_keep.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "worker/api/endpoints.h"

enum { SWEEP_MS = 60 * 1000 };

struct gateway_keep {
	struct api *api;
	char *key_id, *request_id;
	struct buf content_type, bytes;
	bool is_too_large;
};

/* ---- while it is given ---- */

struct gateway_keep *
gateway_keep_new(struct api_call *call, const char *request_id)
{
	struct gateway_keep *k = xcalloc(1, sizeof(*k));

	k->api = call->api;
	k->key_id = xstrdup(call->key_id);
	k->request_id = xstrdup(request_id);
	return k;
}

void
gateway_keep_free(struct gateway_keep **kp)
{
	struct gateway_keep *k = *kp;

	if (k == NULL)
		return;
	*kp = NULL;
	free(k->key_id);
	free(k->request_id);
	buf_fini(&k->content_type);
	buf_fini(&k->bytes);
	free(k);
}

void
gateway_keep_begin(struct gateway_keep *k, struct str content_type)
{
	if (k == NULL)
		return;
	buf_clear(&k->content_type);
	buf_add_str(&k->content_type, content_type);
}

void
gateway_keep_add(struct gateway_keep *k, struct str bytes)
{
	if (k == NULL || k->is_too_large)
		return;
	k->is_too_large = k->bytes.len + bytes.len > k->api->conf->gateway.max_kept_bytes;
	if (k->is_too_large)
		buf_fini(&k->bytes);
	else
		buf_add_str(&k->bytes, bytes);
}

/* ---- the end ---- */

static void
on_stored(void *arg, int err)
{
	(void)arg;
	if (err != 0)
		log_warn("answer not kept reason=%s", err_info(err)->code);
}

static void
store(const struct gateway_keep *k, int status, const char *content_type, struct str body)
{
	int64_t now = clock_wall_ms();
	const struct store_answer answer = {
	    .key_id = k->key_id,
	    .request_id = k->request_id,
	    .status = status,
	    .content_type = content_type,
	    .body = body,
	    .created_at = now,
	    .expires_at = now + (int64_t)k->api->conf->gateway.keep_answers_ms,
	};

	store_answer_put(k->api->store, &answer, on_stored, NULL);
}

static void
store_error(const struct gateway_keep *k, int err, const char *message)
{
	const struct err_info *info = err_info(err);
	struct buf b = BUF_INIT;

	buf_add_cstr(&b, "{\"error\":{\"message\":\"");
	buf_add_json_escaped(&b, str_of(message != NULL ? message : info->text));
	buf_printf(&b, "\",\"type\":\"%s\",\"code\":\"%s\",\"param\":null},\"request_id\":\"",
	    info->type, info->code);
	buf_add_json_escaped(&b, str_of(k->request_id));
	buf_add_cstr(&b, "\"}");
	store(k, info->status, "application/json", buf_str(&b));
	buf_fini(&b);
}

void
gateway_keep_store(struct gateway_keep *k, int err, const char *message, bool is_told)
{
	if (k == NULL)
		return;
	if (k->is_too_large)
		store_error(k, E_PAYLOAD_TOO_LARGE, "The answer was too large to be kept.");
	else if (err != 0 && !is_told)
		store_error(k, err, message);
	else
		store(k, 200, k->content_type.len > 0 ? k->content_type.data : "application/json",
		    buf_str(&k->bytes));
}

void
gateway_keep_store_whole(
    struct gateway_keep *k, int status, struct str content_type, struct str body)
{
	struct buf type = BUF_INIT;

	if (k == NULL)
		return;
	buf_add_str(&type, content_type);
	if (body.len > k->api->conf->gateway.max_kept_bytes)
		store_error(k, E_PAYLOAD_TOO_LARGE, "The answer was too large to be kept.");
	else
		store(k, status, type.len > 0 ? type.data : "application/json", body);
	buf_fini(&type);
}

/* ---- GET /v1/answers/{request} ---- */

static void
on_answer(void *arg, int err, const struct store_answer *answer)
{
	struct api_call *call = arg;
	struct http_req *req = call_req(call);

	if (err != 0) {
		call_reply_error(call, err, NULL,
		    err == E_NOT_FOUND ? "There is no such answer, or not yet." : NULL);
		return;
	}
	if (req != NULL)
		http_reply(req, answer->status,
		    arena_strdup(&call->arena, str_of(answer->content_type)), answer->body);
	call_end(call);
}

static void
get_answer(struct api_call *call, struct http_req *req)
{
	store_answer_get(call->api->store, call->key_id,
	    arena_strdup(&call->arena, str_of(http_param(req, "request"))), clock_wall_ms(),
	    on_answer, call);
}

const struct api_endpoint answers_endpoints[] = {
    {"GET", "/v1/answers/{request}", 0, API_SERVER, get_answer},
    {NULL, NULL, 0, 0, NULL},
};

/* ---- what has expired ---- */

struct answer_sweeper {
	struct loop *loop;
	struct store *store;
	struct loop_timer timer;
};

static void
on_swept(void *arg, int err, uint64_t count)
{
	(void)arg;
	if (err != 0)
		log_warn("answers not swept reason=%s", err_info(err)->code);
	else if (count > 0)
		log_info("answers expired count=%ju", (uintmax_t)count);
}

static void
on_sweep(struct loop_timer *timer)
{
	struct answer_sweeper *s = container_of(timer, struct answer_sweeper, timer);

	if (store_is_elected(s->store) && store_is_available(s->store))
		store_answer_sweep(s->store, clock_wall_ms(), on_swept, NULL);
	loop_timer_set(s->loop, timer, SWEEP_MS);
}

struct answer_sweeper *
answer_sweeper_new(struct api *api)
{
	struct answer_sweeper *s = xcalloc(1, sizeof(*s));

	s->loop = api->loop;
	s->store = api->store;
	s->timer.on_fire = on_sweep;
	loop_timer_set(s->loop, &s->timer, SWEEP_MS);
	return s;
}

void
answer_sweeper_free(struct answer_sweeper **sp)
{
	if (*sp == NULL)
		return;
	loop_timer_stop((*sp)->loop, &(*sp)->timer);
	free(*sp);
	*sp = NULL;
}
