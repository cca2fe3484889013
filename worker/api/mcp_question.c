/*
 * mcp_question - see mcp_impl.h.
 *
 * The question goes out on the stream of the client's own request, under an id that says where it
 * is remembered, and the client's answer may be posted to any worker of any host:
 *
 *   upstream -> put -> open -> answered here, or by a worker that it was posted to -> upstream
 *                         \-- withdrawn, or its request ends: the client is told where it can be
 *
 * An answer counts only within the session that was asked.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/idmap.h"
#include "worker/api/mcp_impl.h"
#include "worker/mcp/question_id.h"

struct mcp_question {
	struct list node;
	struct mcp_ask *ask;
	uint64_t handle, number;
	char *key; /* of a round, which is who wants the answer; NULL: the upstream */
};

static const struct {
	const char *name, *method;
	uint8_t cap;
} kinds[] = {
    {"sampling", "sampling/createMessage", TICKET_SAMPLING},
    {"elicitation", "elicitation/create", TICKET_ELICITATION},
    {"roots", "roots/list", TICKET_ROOTS},
};

uint8_t
mcp_question_caps(struct str params)
{
	struct str capabilities, value;
	uint8_t caps = 0;

	if (!jsonrpc_member(params, "capabilities", &capabilities))
		return 0;
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (jsonrpc_member(capabilities, kinds[i].name, &value) && value.p[0] == '{')
			caps |= kinds[i].cap;
	}
	return caps;
}

uint8_t
mcp_question_needs(const char *method)
{
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (strcmp(kinds[i].method, method) == 0)
			return kinds[i].cap;
	}
	return 0;
}

uint8_t
mcp_question_may(const struct mcp_ask *a, size_t server)
{
	const struct conf_mcp_server *conf = &a->front->api->conf->mcp.servers.v[server];
	uint8_t caps = 0;

	for (size_t i = 0; a->takes_stream && i < ARRAY_LEN(kinds); i++) {
		if (conf_list_has(&conf->may_ask, kinds[i].name))
			caps |= a->caps & kinds[i].cap;
	}
	return caps;
}

void
mcp_question_add_caps(struct buf *b, uint8_t caps)
{
	buf_add_char(b, '{');
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if ((caps & kinds[i].cap) != 0)
			buf_printf(
			    b, "%s\"%s\":{}", b->data[b->len - 1] == '{' ? "" : ",", kinds[i].name);
	}
	buf_add_char(b, '}');
}

static void
question_free(struct mcp_question *q)
{
	idmap_remove(q->ask->front->questions, q->handle);
	list_del(&q->node);
	free(q->key);
	free(q);
}

static void
refuse(const struct mcp_ask *a, uint64_t number)
{
	const struct jsonrpc refusal = {.kind = JSONRPC_ERROR,
	    .code = MCP_METHOD_NOT_FOUND,
	    .message = STR("\"The client whose request it is has no such method.\"")};

	mcp_answer(a->front->api->upstreams, a->upstream, number, &refusal);
}

static void
format_id(const struct mcp_question *q, char out[QUESTION_ID_MAX])
{
	question_id_format(backplane_self(q->ask->front->api->backplane), q->handle, out);
}

/* NULL: it cannot be asked. */
static struct mcp_question *
put(struct mcp_ask *a, const char *method, struct str params)
{
	bool is_legacy = !mcp_revision_info(a->revision)->is_modern;
	struct sse *sse =
	    is_legacy && (a->caps & mcp_question_needs(method)) != 0 ? mcp_ask_stream(a) : NULL;
	struct buf b = BUF_INIT;
	char id[QUESTION_ID_MAX];

	if (sse == NULL)
		return NULL;
	struct mcp_question *q = xcalloc(1, sizeof(*q));
	q->ask = a;
	q->handle = idmap_add(a->front->questions, q);
	list_add_tail(&a->questions, &q->node);
	format_id(q, id);
	jsonrpc_add_request(&b, str_of(id), method, params);
	jsonrpc_flatten(&b, 0);
	if (!sse_send(sse, STR_NONE, STR("message"), buf_str(&b))) {
		question_free(q);
		q = NULL;
	}
	buf_fini(&b);
	return q;
}

void
mcp_question_put(struct mcp_ask *a, const struct jsonrpc *m, uint64_t number)
{
	struct mcp_question *q = put(a, m->method, m->params);

	if (q != NULL)
		q->number = number;
	else
		refuse(a, number);
}

bool
mcp_question_put_round(struct mcp_ask *a, struct str key, const char *method, struct str params)
{
	struct mcp_question *q = put(a, method, params);

	if (q != NULL)
		q->key = xstrndup(key.p, key.len);
	return q != NULL;
}

/* Whoever sits before it need not answer any more. */
static void
withdraw(struct mcp_question *q, struct sse *sse)
{
	struct buf params = BUF_INIT, b = BUF_INIT;
	char id[QUESTION_ID_MAX];

	format_id(q, id);
	buf_printf(&params, "{\"requestId\":%s}", id);
	jsonrpc_add_notification(&b, "notifications/cancelled", buf_str(&params));
	if (sse != NULL)
		sse_send(sse, STR_NONE, STR("message"), buf_str(&b));
	buf_fini(&params);
	buf_fini(&b);
	question_free(q);
}

void
mcp_question_withdraw(struct mcp_ask *a, uint64_t number)
{
	list_for_safe (node, &a->questions) {
		struct mcp_question *q = list_entry(node, struct mcp_question, node);

		if (q->key == NULL && q->number == number) {
			withdraw(q, mcp_ask_stream(a));
			return;
		}
	}
}

void
mcp_questions_drop(struct mcp_ask *a)
{
	struct mcp_feed *pair = a->is_paired ? mcp_pair_find(a->front, a->session) : NULL;

	list_for_safe (node, &a->questions)
		withdraw(
		    list_entry(node, struct mcp_question, node), pair != NULL ? pair->sse : a->sse);
}

/* ---- the answer ---- */

static void
take(struct mcp_front *front, uint64_t session, uint64_t handle, const struct jsonrpc *answer)
{
	struct mcp_question *q = handle != 0 ? idmap_get(front->questions, handle) : NULL;

	if (q == NULL || q->ask->session != session)
		return;
	struct mcp_ask *a = q->ask;
	uint64_t number = q->number;
	char *key = q->key;
	q->key = NULL;
	question_free(q);
	if (key != NULL)
		mcp_round_answer(a, str_of(key), answer);
	else
		mcp_answer(front->api->upstreams, a->upstream, number, answer);
	free(key);
}

static void
on_reply(void *arg, const struct backplane_call *call)
{
	struct str rest = call->payload, text;
	uint64_t session, handle;
	struct jsonrpc m;

	if (backplane_take_u64(&rest, &session) && backplane_take_u64(&rest, &handle) &&
	    backplane_take_str(&rest, &text) && jsonrpc_parse(text, &m) == 0 &&
	    (m.kind == JSONRPC_RESULT || m.kind == JSONRPC_ERROR))
		take(arg, session, handle, &m);
}

void
mcp_question_answer(struct mcp_front *front, uint64_t session, const struct jsonrpc *answer)
{
	struct backplane *backplane = front->api->backplane;
	struct buf b = BUF_INIT, text = BUF_INIT;
	struct backplane_addr home;
	uint64_t handle;

	if (session == 0 || !question_id_parse(answer->id, &home, &handle))
		return;
	if (owner_equal(home, backplane_self(backplane))) {
		take(front, session, handle, answer);
		return;
	}
	if (answer->kind == JSONRPC_RESULT)
		jsonrpc_add_result(&text, STR("0"), answer->result);
	else
		jsonrpc_add_error_as(&text, STR("0"), answer);
	backplane_put_u64(&b, session);
	backplane_put_u64(&b, handle);
	backplane_put_str(&b, buf_str(&text));
	backplane_cast(backplane, home, BACKPLANE_MCP_REPLY, buf_str(&b));
	buf_fini(&b);
	buf_fini(&text);
}

/* ---- life ---- */

void
mcp_questions_init(struct mcp_front *front)
{
	front->questions = idmap_new();
	backplane_serve(front->api->backplane, BACKPLANE_MCP_REPLY, on_reply, front);
}

void
mcp_questions_fini(struct mcp_front *front)
{
	check(idmap_count(front->questions) == 0);
	idmap_free(&front->questions);
}
