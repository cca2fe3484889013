/*
 * errand_call - calls of a program that another worker of the host speaks to, and the other end of
 * that: its calls, done here.
 *
 *   CALL    a request, by the asker's number; answered when it is
 *   CANCEL  nobody waits for it any more
 *   SAID    a notification of it, on the way back; or a question of the server, or that it has
 *           withdrawn one
 *   ANSWER  to such a question
 */
#include <stdlib.h>

#include "worker/backplane/owner.h"
#include "worker/mcp/errands_impl.h"

enum { CALL_MARGIN_MS = 1000, NO_TIMEOUT_MS = 24 * 3600 * 1000 };

enum answer_kind { ANSWER_FAILED, ANSWER_RESULT, ANSWER_ERROR };

struct errand { /* of another worker */
	struct list node;
	struct errands *errands;
	struct backplane_addr from;
	uint64_t call_id, number, handle;
};

struct gap { /* a call of ours that another worker has */
	struct list node;
	struct errands *errands;
	uint64_t handle;
};

/* ---- calls of ours ---- */

static bool
take_answer(struct call *c, struct str rest)
{
	struct jsonrpc m = {.kind = JSONRPC_RESULT};
	uint64_t kind, number;
	struct str why;

	if (!backplane_take_u64(&rest, &kind))
		return false;
	if (kind == ANSWER_FAILED) {
		if (!backplane_take_u64(&rest, &number) || number == 0 || number > ERR_COUNT ||
		    !backplane_take_str(&rest, &why))
			return false;
		char *text = xstrndup(why.p, why.len);
		call_fail(c, -(int)number, text);
		free(text);
		return true;
	}
	if (kind == ANSWER_RESULT) {
		if (!backplane_take_str(&rest, &m.result))
			return false;
	} else {
		m.kind = JSONRPC_ERROR;
		if (!backplane_take_u64(&rest, &number) || !backplane_take_str(&rest, &m.message) ||
		    !backplane_take_str(&rest, &m.data))
			return false;
		m.code = (int64_t)number;
	}
	call_answer(c, &m);
	return true;
}

/* Who was given it did not speak to the program any more, which has not seen it: it waits for who
 * does, in its own time. */
static void
not_taken(struct call *c)
{
	struct upstream *u = c->upstream;

	c->is_relayed = false;
	if (u->step == STEP_OFF || u->step == STEP_PAUSE) {
		call_fail(c, E_UNAVAILABLE, "The tool server is not reachable.");
		return;
	}
	if (u->step == STEP_FOLLOW && owner_equal(u->speaker, c->carrier))
		upstream_restart(u);
	call_repeat(c);
	calls_flush(u);
}

static void
on_reply(void *arg, int err, struct str payload)
{
	struct gap *gap = arg;
	struct call *c = call_by_handle(gap->errands->all, gap->handle);

	list_del(&gap->node);
	free(gap);
	if (c == NULL)
		return;
	if (err == E_OWNER_UNAVAILABLE)
		call_fail(c, E_TIMEOUT, "The tool server did not answer in time.");
	else if (err == E_GONE)
		call_fail(c, E_GONE, "The worker that spoke to the tool server is gone.");
	else if (err == E_UNAVAILABLE)
		not_taken(c);
	else if (err != 0)
		call_fail(c, err, "The tool server is not reachable.");
	else if (!take_answer(c, payload))
		call_fail(c, E_INTERNAL, "The answer got lost.");
}

void
errands_send(struct call *c)
{
	struct upstream *u = c->upstream;
	struct errands *r = u->all->errands;
	struct gap *gap;
	struct buf b = BUF_INIT;

	if (u->step != STEP_FOLLOW) {
		call_fail_soon(c, E_UNAVAILABLE);
		return;
	}
	c->carrier = u->speaker;
	c->is_relayed = true;
	gap = xcalloc(1, sizeof(*gap));
	gap->errands = r;
	gap->handle = c->handle;
	list_add_tail(&r->gaps, &gap->node);
	backplane_put_u64(&b, stdio_link_program(u));
	backplane_put_u64(&b, c->handle);
	backplane_put_u64(&b, c->timeout_ms);
	backplane_put_u64(&b, c->wants_progress);
	backplane_put_str(&b, str_of(c->method));
	backplane_put_str(&b, buf_str(&c->params));
	backplane_send_call(r->all->of.backplane, u->speaker, BACKPLANE_MCP_CALL, buf_str(&b),
	    c->timeout_ms > 0 && c->timeout_ms < NO_TIMEOUT_MS && c->handlers.on_question == NULL
		? c->timeout_ms + CALL_MARGIN_MS
		: NO_TIMEOUT_MS, /* a client may be asked meanwhile; the call has its own */
	    on_reply, gap);
	buf_fini(&b);
}

void
errands_abandon(struct call *c)
{
	struct errands *r = c->upstream->all->errands;
	struct buf b = BUF_INIT;

	backplane_put_u64(&b, c->handle);
	backplane_put_u64(&b, c->is_late);
	errands_cast(r, c->carrier, BACKPLANE_MCP_CANCEL, buf_str(&b));
	buf_fini(&b);
}

static void
on_said(void *arg, const struct backplane_call *call)
{
	struct errands *r = arg;
	struct str rest = call->payload, text;
	struct jsonrpc m;
	uint64_t handle, question;

	if (!backplane_take_u64(&rest, &handle) || !backplane_take_u64(&rest, &question) ||
	    !backplane_take_str(&rest, &text) || jsonrpc_parse(text, &m) != 0)
		return;
	struct call *c = call_by_handle(r->all, handle);
	if (c == NULL)
		return;
	if (m.kind == JSONRPC_REQUEST)
		question_relayed(c, question, &m);
	else if (question != 0)
		question_withdrawn_there(c, question);
	else if (m.kind == JSONRPC_NOTIFICATION && c->handlers.on_notification != NULL)
		c->handlers.on_notification(c->arg, &m);
}

void
errands_answer(struct call *c, uint64_t question, const struct jsonrpc *answer)
{
	struct errands *r = c->upstream->all->errands;
	struct buf b = BUF_INIT, text = BUF_INIT;

	if (answer->kind == JSONRPC_RESULT)
		jsonrpc_add_result(&text, STR("0"), answer->result);
	else
		jsonrpc_add_error_as(&text, STR("0"), answer);
	backplane_put_u64(&b, c->handle);
	backplane_put_u64(&b, question);
	backplane_put_str(&b, buf_str(&text));
	errands_cast(r, c->carrier, BACKPLANE_MCP_ANSWER, buf_str(&b));
	buf_fini(&b);
	buf_fini(&text);
}

/* ---- calls of others ---- */

/* Nobody waits for it any more, because its time is up or for another reason. */
static void
give_up(struct errands *r, struct errand *e, bool is_late)
{
	struct call *c = call_by_handle(r->all, e->handle);

	if (c != NULL)
		c->is_late = is_late;
	mcp_cancel(r->all, e->handle);
	list_del(&e->node);
	free(e);
}

/* What was said in a call goes back to who gave it to us. Takes text. question 0: about none. */
static void
say_back(const struct errand *e, uint64_t question, struct buf *text)
{
	struct buf b = BUF_INIT;

	backplane_put_u64(&b, e->number);
	backplane_put_u64(&b, question);
	backplane_put_str(&b, buf_str(text));
	errands_cast(e->errands, e->from, BACKPLANE_MCP_SAID, buf_str(&b));
	buf_fini(&b);
	buf_fini(text);
}

static void
on_errand_said(void *arg, const struct jsonrpc *m)
{
	struct buf text = BUF_INIT;

	jsonrpc_add_notification(&text, m->method, m->params);
	say_back(arg, 0, &text);
}

static void
on_errand_question(void *arg, const struct jsonrpc *m, uint64_t question)
{
	struct buf text = BUF_INIT;

	jsonrpc_add_request(&text, STR("0"), m->method, m->params);
	say_back(arg, question, &text);
}

static void
on_errand_withdrawn(void *arg, uint64_t question)
{
	struct buf text = BUF_INIT;

	jsonrpc_add_notification(&text, "notifications/cancelled", STR_NONE);
	say_back(arg, question, &text);
}

static void
on_errand_done(void *arg, const struct mcp_answer *a)
{
	struct errand *e = arg;
	struct buf b = BUF_INIT;

	if (a->err != 0) {
		backplane_put_u64(&b, ANSWER_FAILED);
		backplane_put_u64(&b, (uint64_t)-a->err);
		backplane_put_str(&b, str_of(a->why));
	} else if (a->result.len > 0) {
		backplane_put_u64(&b, ANSWER_RESULT);
		backplane_put_str(&b, a->result);
	} else {
		backplane_put_u64(&b, ANSWER_ERROR);
		backplane_put_u64(&b, (uint64_t)a->upstream_code);
		backplane_put_str(&b, a->message);
		backplane_put_str(&b, a->data);
	}
	backplane_reply(e->errands->all->of.backplane, e->from, e->call_id, 0, buf_str(&b));
	buf_fini(&b);
	list_del(&e->node);
	free(e);
}

static void
on_call(void *arg, const struct backplane_call *call)
{
	static const struct mcp_handlers handlers = {
	    on_errand_said, on_errand_done, on_errand_question, on_errand_withdrawn};
	struct errands *r = arg;
	struct str rest = call->payload, method, params;
	uint64_t program, number, timeout_ms, wants_progress;

	if (!backplane_take_u64(&rest, &program) || !backplane_take_u64(&rest, &number) ||
	    !backplane_take_u64(&rest, &timeout_ms) ||
	    !backplane_take_u64(&rest, &wants_progress) || !backplane_take_str(&rest, &method) ||
	    !backplane_take_str(&rest, &params)) {
		backplane_reply(
		    r->all->of.backplane, call->from, call->call_id, E_INTERNAL, STR_NONE);
		return;
	}
	struct upstream *u = errands_find(r, program);
	if (u == NULL || !stdio_link_has_pipes(u)) {
		backplane_reply(
		    r->all->of.backplane, call->from, call->call_id, E_UNAVAILABLE, STR_NONE);
		return;
	}
	struct errand *e = xcalloc(1, sizeof(*e));
	e->errands = r;
	e->from = call->from;
	e->call_id = call->call_id;
	e->number = number;
	list_add_tail(&r->errands, &e->node);
	char *name = xstrndup(method.p, method.len);
	e->handle = mcp_call(r->all, u->index,
	    &(struct mcp_request){.method = name,
		.params = params,
		.wants_progress = wants_progress != 0,
		.is_errand = true,
		.timeout_ms = timeout_ms < UINT32_MAX ? (uint32_t)timeout_ms : UINT32_MAX},
	    &handlers, e);
	free(name);
}

static void
on_cancel(void *arg, const struct backplane_call *call)
{
	struct errands *r = arg;
	struct str rest = call->payload;
	uint64_t number, is_late = 0;

	if (!backplane_take_u64(&rest, &number))
		return;
	if (rest.len > 0 && !backplane_take_u64(&rest, &is_late))
		return;
	list_for_safe (node, &r->errands) {
		struct errand *e = list_entry(node, struct errand, node);

		if (e->number != number || !owner_equal(e->from, call->from))
			continue;
		/* Who asked knows; what he waits with does not. */
		backplane_reply(r->all->of.backplane, e->from, e->call_id, E_GONE, STR_NONE);
		give_up(r, e, is_late != 0);
	}
}

static void
on_answer(void *arg, const struct backplane_call *call)
{
	struct errands *r = arg;
	struct str rest = call->payload, text;
	uint64_t number, question;
	struct jsonrpc m;

	if (!backplane_take_u64(&rest, &number) || !backplane_take_u64(&rest, &question) ||
	    !backplane_take_str(&rest, &text) || jsonrpc_parse(text, &m) != 0)
		return;
	list_for_safe (node, &r->errands) {
		struct errand *e = list_entry(node, struct errand, node);

		if (e->number == number && owner_equal(e->from, call->from))
			mcp_answer(r->all, e->handle, question, &m);
	}
}

/* ---- life ---- */

void
errand_calls_peer_gone(struct errands *r, struct backplane_addr peer)
{
	list_for_safe (node, &r->errands) {
		struct errand *e = list_entry(node, struct errand, node);

		if (owner_equal(e->from, peer))
			give_up(r, e, false);
	}
}

void
errand_calls_init(struct errands *r)
{
	struct backplane *b = r->all->of.backplane;

	list_init(&r->errands);
	list_init(&r->gaps);
	backplane_serve(b, BACKPLANE_MCP_CALL, on_call, r);
	backplane_serve(b, BACKPLANE_MCP_CANCEL, on_cancel, r);
	backplane_serve(b, BACKPLANE_MCP_SAID, on_said, r);
	backplane_serve(b, BACKPLANE_MCP_ANSWER, on_answer, r);
}

void
errand_calls_fini(struct errands *r)
{
	list_for_safe (node, &r->errands)
		free(list_entry(node, struct errand, node));
	list_for_safe (node, &r->gaps)
		free(list_entry(node, struct gap, node));
}
