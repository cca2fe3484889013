/*
 * question - what a server of an older revision asks while it works on a request: for a model's
 * answer (sampling), for a user's (elicitation), for folders (roots).
 *
 * It is the client's business whose request it is. Over HTTP that is the one on whose stream it
 * comes; on a stream that all requests share it is clear only while there is no other one, also
 * none that was given up and that the server may still be at. Otherwise nobody is asked: somebody
 * else's user must not be.
 *
 *   asked -> open -> answered, or withdrawn
 *               \-- the request ends: forgotten
 *
 * The request's own time stands still while one is open, and goes on afterwards: a server that asks
 * again and again has no more of it. Each question has its own, from when it was asked.
 */
#include <stdlib.h>

#include "common/log.h"
#include "worker/mcp/upstream_impl.h"

enum { QUESTIONS_MAX = 16 };

struct question {
	struct list node;
	uint64_t number; /* of this call's */
	char *id;        /* the server's, as it was written; NULL: relayed .. */
	uint64_t remote; /* .. under this number there */
	uint64_t until_ms;
};

static const struct {
	const char *capability, *method;
} kinds[] = {
    {"sampling", "sampling/createMessage"},
    {"elicitation", "elicitation/create"},
    {"roots", "roots/list"},
};

void
question_add_capabilities(const struct upstream *u, struct buf *b)
{
	const char *comma = "";

	buf_add_char(b, '{');
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (!conf_list_has(&u->conf->may_ask, kinds[i].capability))
			continue;
		buf_printf(b, "%s\"%s\":{}", comma, kinds[i].capability);
		comma = ",";
	}
	buf_add_char(b, '}');
}

static bool
may_ask(const struct upstream *u, const char *method)
{
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (strcmp(kinds[i].method, method) == 0)
			return conf_list_has(&u->conf->may_ask, kinds[i].capability);
	}
	return false;
}

static void
question_free(struct question *q)
{
	list_del(&q->node);
	free(q->id);
	free(q);
}

void
questions_drop(struct call *c)
{
	list_for_safe (node, &c->questions)
		question_free(list_entry(node, struct question, node));
}

static uint64_t
now_ms(const struct call *c)
{
	return loop_now_ms(c->upstream->all->of.loop);
}

static uint64_t
ms_until(const struct call *c, uint64_t until_ms)
{
	return until_ms > now_ms(c) ? until_ms - now_ms(c) : 0;
}

/* The oldest question's time, else the call's own. */
static void
set_timer(struct call *c)
{
	const struct question *q = list_first(&c->questions, struct question, node);

	if (c->timeout_ms > 0)
		loop_timer_set(c->upstream->all->of.loop, &c->timer,
		    ms_until(c, q != NULL ? q->until_ms : c->until_ms));
}

static struct question *
question_new(struct call *c)
{
	struct question *q = xcalloc(1, sizeof(*q));

	if (list_empty(&c->questions))
		c->left_ms = ms_until(c, c->until_ms);
	q->number = ++c->question_count;
	q->until_ms = now_ms(c) + c->upstream->all->of.conf->mcp.client_timeout_ms;
	list_add_tail(&c->questions, &q->node);
	set_timer(c);
	return q;
}

static void
question_close(struct call *c, struct question *q)
{
	question_free(q);
	if (list_empty(&c->questions))
		c->until_ms = now_ms(c) + c->left_ms;
	set_timer(c);
}

static bool
is_askable(const struct call *c)
{
	unsigned n = 0;

	list_for (node, &c->questions)
		n++;
	return c->handlers.on_question != NULL && c->handle != 0 && n < QUESTIONS_MAX;
}

void
questions_unclear(struct upstream *u, uint64_t for_ms)
{
	uint64_t until_ms = loop_now_ms(u->all->of.loop) + for_ms;

	if (u->unclear_until_ms < until_ms)
		u->unclear_until_ms = until_ms;
}

struct call *
question_whose(struct upstream *u)
{
	return loop_now_ms(u->all->of.loop) < u->unclear_until_ms ? NULL : call_only(u);
}

bool
question_take(struct upstream *u, struct call *c, const struct jsonrpc *m)
{
	if (!may_ask(u, m->method))
		return false;
	if (c == NULL)
		c = question_whose(u);
	if (c == NULL || !is_askable(c)) {
		log_info("mcp question refused server=%s method=%s reason=%s", u->conf->name,
		    m->method, c == NULL ? "whose" : "nobody");
		return false;
	}
	struct question *q = question_new(c);
	q->id = xstrndup(m->id.p, m->id.len);
	c->handlers.on_question(c->arg, m, q->number);
	return true;
}

void
question_relayed(struct call *c, uint64_t number, const struct jsonrpc *m)
{
	struct jsonrpc refusal = {.kind = JSONRPC_ERROR,
	    .code = MCP_METHOD_NOT_FOUND,
	    .message = STR("\"This client has no such method.\"")};

	if (!is_askable(c)) {
		errands_answer(c, number, &refusal);
		return;
	}
	struct question *q = question_new(c);
	q->remote = number;
	c->handlers.on_question(c->arg, m, q->number);
}

static void
tell(struct upstream *u, const char *id, const struct jsonrpc *answer)
{
	struct buf b = BUF_INIT;

	if (answer->kind == JSONRPC_RESULT)
		jsonrpc_add_result(&b, str_of(id), answer->result);
	else
		jsonrpc_add_error_as(&b, str_of(id), answer);
	jsonrpc_flatten(&b, 0);
	u->transport->notify(u, buf_str(&b), false);
	buf_fini(&b);
}

void
mcp_answer(
    struct mcp_upstreams *all, uint64_t handle, uint64_t number, const struct jsonrpc *answer)
{
	struct call *c = call_by_handle(all, handle);

	check(answer->kind == JSONRPC_RESULT || answer->kind == JSONRPC_ERROR);
	if (c == NULL)
		return;
	list_for_safe (node, &c->questions) {
		struct question *q = list_entry(node, struct question, node);

		if (q->number != number)
			continue;
		if (q->id != NULL)
			tell(c->upstream, q->id, answer);
		else
			errands_answer(c, q->remote, answer);
		question_close(c, q);
		return;
	}
}

/* ---- the server thinks better of it ---- */

static void
withdraw(struct call *c, struct question *q)
{
	uint64_t number = q->number;

	question_close(c, q);
	if (c->handlers.on_withdrawn != NULL)
		c->handlers.on_withdrawn(c->arg, number);
}

static bool
withdraw_of(struct call *c, struct str id)
{
	list_for_safe (node, &c->questions) {
		struct question *q = list_entry(node, struct question, node);

		if (q->id != NULL && str_eq(str_of(q->id), id)) {
			withdraw(c, q);
			return true;
		}
	}
	return false;
}

void
question_withdraw(struct upstream *u, const struct jsonrpc *m)
{
	struct str id;

	if (m->params.len == 0 || !jsonrpc_member(m->params, "requestId", &id))
		return;
	for (size_t i = 0; i < CALL_BUCKETS; i++) {
		list_for (node, &u->sent[i]) {
			if (withdraw_of(list_entry(node, struct call, node), id))
				return;
		}
	}
}

void
question_withdrawn_there(struct call *c, uint64_t number)
{
	list_for_safe (node, &c->questions) {
		struct question *q = list_entry(node, struct question, node);

		if (q->id == NULL && q->remote == number) {
			withdraw(c, q);
			return;
		}
	}
}
