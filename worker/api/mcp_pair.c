/*
 * mcp_pair - HTTP+SSE of 2024-11-05: GET /sse is a stream, which begins with the address that
 * messages are posted to, and all answers come on it.
 *
 * The worker that has the stream is the session's home. A message may be posted to any other: it
 * goes there and is answered with 202 when it has arrived. What it asks for is done at the home, so
 * that the death of a worker is seen by the client whose requests it had: its stream ends.
 *
 *   posted -> at home -> who is it? (a key's rights may have changed since) -> an ask
 *        \-- no such stream: 404      \-- too many are in progress, or looked up: 503
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/strmap.h"
#include "worker/api/endpoints.h"
#include "worker/api/mcp_impl.h"
#include "worker/backplane/owner.h"

enum { FORWARD_TIMEOUT_MS = 10000 };

struct mcp_pairs {
	struct mcp_front *front;
	struct strmap *by_session; /* struct mcp_feed */
	struct list letters;       /* whose senders are being looked up */
	struct list forwards;      /* on their way to another worker */
};

struct letter {
	struct list node;
	struct mcp_front *front;
	uint64_t session;
	struct buf text;
};

struct forward {
	struct list node;
	struct api_call *call;
};

/* ---- the streams ---- */

static struct str
nonce_text(const uint64_t *nonce)
{
	return str_sub((const char *)nonce, sizeof(*nonce));
}

struct mcp_feed *
mcp_pair_find(const struct mcp_front *front, uint64_t session)
{
	return strmap_get(front->pairs->by_session, nonce_text(&session));
}

void
mcp_pair_forget(struct mcp_feed *f)
{
	strmap_del(f->front->pairs->by_session, nonce_text(&f->session));
	mcp_note_forget(f->front, f->session);
	mcp_asks_drop_paired(f->front, f->session);
}

void
mcp_pair_answer(struct mcp_front *front, uint64_t session, struct buf *message)
{
	struct mcp_feed *f = mcp_pair_find(front, session);

	if (f == NULL)
		return;
	jsonrpc_flatten(message, 0);
	if (!sse_send(f->sse, STR_NONE, STR("message"), buf_str(message)))
		loop_post(front->api->loop, &f->overflow);
}

static void
run_overflow(struct loop_post *post)
{
	mcp_feed_end(container_of(post, struct mcp_feed, overflow));
}

static void
get_sse(struct api_call *call, struct http_req *req)
{
	struct mcp_front *front = call->api->mcp;
	struct mcp_ticket t;

	if (str_eq(http_method(req), STR("HEAD"))) {
		http_add_header(req, "allow", "GET");
		call_reply_error(call, E_METHOD_NOT_ALLOWED, NULL, NULL);
		return;
	}
	const char *id = mcp_life_begin_pair(front, call, &t);
	struct mcp_feed *f = mcp_feed_new(front, call, req);
	f->is_pair = true;
	f->session = t.nonce;
	f->revision = t.revision;
	f->wishes = MCP_ALL_WISHES;
	f->overflow.run = run_overflow;
	strmap_set(front->pairs->by_session, nonce_text(&f->session), f);
	sse_send(f->sse, STR_NONE, STR("endpoint"),
	    str_of(arena_printf(&call->arena, "/messages?sessionId=%s", id)));
	call_end(call);
}

/* ---- messages, at home ---- */

static void
answer_error(struct mcp_feed *f, struct str id, int code, const char *why)
{
	struct buf b = BUF_INIT;

	jsonrpc_add_error(&b, id, code, str_of(why), STR_NONE);
	mcp_pair_answer(f->front, f->session, &b);
	buf_fini(&b);
}

static void
take_one(struct mcp_feed *f, const struct principal *who, struct str text)
{
	const struct mcp_ticket t = {.revision = f->revision, .nonce = f->session, .caps = f->caps};
	struct jsonrpc m;
	int err = jsonrpc_parse(text, &m);

	if (err != 0)
		answer_error(f, m.id, err, "This is no JSON-RPC message");
	else if (m.kind != JSONRPC_REQUEST)
		mcp_hear_legacy(f->front, &t, &m);
	else if (f->asks >= f->front->api->conf->mcp.max_pending)
		answer_error(f, m.id, MCP_SERVER_ERROR, "Too many requests are in progress");
	else
		mcp_run_legacy(mcp_ask_new_paired(f, call_new(f->front->api, who), &m), m.method);
}

static void
take(struct mcp_front *front, uint64_t session, const struct principal *who, struct str text)
{
	struct mcp_feed *f = mcp_pair_find(front, session);
	struct jsonrpc_batch batch;
	struct str one;
	int more = 0;

	if (!jsonrpc_is_batch(text)) {
		if (f != NULL)
			take_one(f, who, text);
		return;
	}
	jsonrpc_batch_init(&batch, text);
	/* What one of them asks for may end the stream. */
	while ((f = mcp_pair_find(front, session)) != NULL &&
	       (more = jsonrpc_batch_next(&batch, &one)) == 1)
		take_one(f, who, one);
	if (f != NULL && more < 0)
		answer_error(
		    f, STR_NONE, MCP_INVALID_REQUEST, "This is no array of so many messages");
}

static void
letter_free(struct letter *l)
{
	struct mcp_feed *f = mcp_pair_find(l->front, l->session);

	if (f != NULL)
		f->letters--;
	list_del(&l->node);
	buf_fini(&l->text);
	free(l);
}

static void
on_principal(void *arg, int err, const struct principal *who)
{
	struct letter *l = arg;
	struct mcp_feed *f = mcp_pair_find(l->front, l->session);
	struct jsonrpc m;

	if (err == 0)
		take(l->front, l->session, who, buf_str(&l->text));
	else if (f != NULL && jsonrpc_parse(buf_str(&l->text), &m) == 0 &&
		 m.kind == JSONRPC_REQUEST)
		answer_error(f, m.id, MCP_INTERNAL_ERROR, err_info(err)->text);
	letter_free(l);
}

/* 0, E_NOT_FOUND or E_BUSY. */
static int
deliver(struct mcp_front *front, uint64_t session, struct str text)
{
	struct mcp_feed *f = mcp_pair_find(front, session);

	if (f == NULL)
		return E_NOT_FOUND;
	if (f->asks + f->letters >= front->api->conf->mcp.max_pending)
		return E_BUSY;
	if (!f->has_key) {
		take(front, session, NULL, text);
		return 0;
	}
	struct letter *l = xcalloc(1, sizeof(*l));
	l->front = front;
	l->session = session;
	buf_add_str(&l->text, text);
	list_add_tail(&front->pairs->letters, &l->node);
	f->letters++;
	keys_check_hash(front->api->keys, f->key.hash, on_principal, l);
	return 0;
}

static void
on_post(void *arg, const struct backplane_call *call)
{
	struct mcp_pairs *pairs = arg;
	struct str rest = call->payload, text;
	uint64_t session;
	int err = E_INTERNAL;

	if (backplane_take_u64(&rest, &session) && backplane_take_str(&rest, &text))
		err = deliver(pairs->front, session, text);
	backplane_reply(pairs->front->api->backplane, call->from, call->call_id, err, STR_NONE);
}

/* ---- messages, where they arrive ---- */

static void
refuse(struct api_call *call, struct http_req *req, int status, struct str id, int code,
    const char *why)
{
	struct buf b = BUF_INIT;

	jsonrpc_add_error(&b, id, code, str_of(why), STR_NONE);
	http_reply(req, status, "application/json", buf_str(&b));
	buf_fini(&b);
	call_end(call);
}

static void
reply(struct api_call *call, int err)
{
	struct http_req *req = call_req(call);

	if (req == NULL) {
		call_end(call);
	} else if (err == 0) {
		http_reply(req, 202, "text/plain", STR("Accepted"));
		call_end(call);
	} else if (err == E_NOT_FOUND || err == E_GONE) {
		refuse(call, req, 404, STR_NONE, MCP_SESSION_NOT_FOUND, "Session not found");
	} else {
		call_add_retry_after(req, 1);
		refuse(call, req, 503, STR_NONE, MCP_SERVER_ERROR,
		    err == E_BUSY ? "Too many requests are in progress"
				  : "The session's worker does not answer");
	}
}

static void
on_forwarded(void *arg, int err, struct str payload)
{
	struct forward *fw = arg;
	struct api_call *call = fw->call;

	(void)payload;
	list_del(&fw->node);
	free(fw);
	reply(call, err);
}

static void
forward(struct mcp_front *front, struct api_call *call, const struct mcp_ticket *t, struct str text)
{
	const struct backplane_addr home = {t->home.host, {t->home.row, t->home.number}};
	struct forward *fw = xcalloc(1, sizeof(*fw));
	struct buf b = BUF_INIT;

	fw->call = call;
	list_add_tail(&front->pairs->forwards, &fw->node);
	backplane_put_u64(&b, t->nonce);
	backplane_put_str(&b, text);
	backplane_send_call(front->api->backplane, home, BACKPLANE_MCP_POST, buf_str(&b),
	    FORWARD_TIMEOUT_MS, on_forwarded, fw);
	buf_fini(&b);
}

static void
post_messages(struct api_call *call, struct http_req *req)
{
	struct mcp_front *front = call->api->mcp;
	const char *id = http_query(req, "sessionId");
	struct str text = http_body(req);
	struct backplane_addr self = backplane_self(front->api->backplane);
	struct mcp_ticket t;
	struct jsonrpc m;
	int err = jsonrpc_is_batch(text) ? 0 : jsonrpc_parse(text, &m);

	if (id == NULL)
		refuse(call, req, 400, STR_NONE, MCP_SERVER_ERROR, "sessionId is required");
	else if (!mcp_life_read_pair(front, call, str_of(id), &t))
		refuse(call, req, 404, STR_NONE, MCP_SESSION_NOT_FOUND, "Session not found");
	else if (err != 0)
		refuse(call, req, 400, m.id, err, "This is no JSON-RPC message");
	else if (owner_equal(
		     self, (struct backplane_addr){t.home.host, {t.home.row, t.home.number}}))
		reply(call, deliver(front, t.nonce, text));
	else
		forward(front, call, &t, text);
}

/* ---- life ---- */

struct mcp_pairs *
mcp_pairs_new(struct mcp_front *front)
{
	struct mcp_pairs *pairs = xcalloc(1, sizeof(*pairs));

	pairs->front = front;
	pairs->by_session = strmap_new();
	list_init(&pairs->letters);
	list_init(&pairs->forwards);
	backplane_serve(front->api->backplane, BACKPLANE_MCP_POST, on_post, pairs);
	return pairs;
}

void
mcp_pairs_free(struct mcp_pairs **ref)
{
	struct mcp_pairs *pairs = *ref;

	if (pairs == NULL)
		return;
	*ref = NULL;
	list_for_safe (node, &pairs->letters)
		letter_free(list_entry(node, struct letter, node));
	list_for_safe (node, &pairs->forwards) {
		struct forward *fw = list_entry(node, struct forward, node);

		call_end(fw->call);
		free(fw);
	}
	strmap_free(&pairs->by_session);
	free(pairs);
}

#define WHO (API_SERVER | API_ADMIN | API_MCP)

const struct api_endpoint mcp_pair_endpoints[] = {
    {"GET", "/sse", HTTP_LONG | HTTP_SAME_ORIGIN, WHO, get_sse},
    {"POST", "/messages", HTTP_LONG | HTTP_GATEWAY | HTTP_SAME_ORIGIN, WHO, post_messages},
    {NULL, NULL, 0, 0, NULL},
};
