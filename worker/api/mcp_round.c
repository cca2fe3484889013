/*
 * mcp_round - see mcp_impl.h: a server of 2026-07-28 asks in its result (input_required) for what
 * it needs, and wants to be called again with the answers; an older client does not know that form,
 * and is asked as servers of its own time would (mcp_question.c).
 *
 *   sent -> input_required -> asked, each under its key -> all answered -> sent again
 *      \-- any other answer: it is over            \-- it cannot be asked, its answer is an error,
 *                                                      its time is up: the request has failed
 *
 * Without questions it is sent again after a pause. The server's state goes back as it came.
 * Nothing is under way at the server while the client is asked, so a client that goes then ends its
 * request.
 */
#include <stdlib.h>

#include "worker/api/mcp_impl.h"
#include "worker/mcp/reply.h"

enum { QUESTIONS_MAX = 16, AGAIN_MS = 100 };

struct mcp_round {
	struct mcp_ask *ask;
	size_t server;
	char *method;
	struct buf params;           /* as they were sent first */
	struct buf responses, state; /* of this round, as JSON; empty: none */
	uint32_t open;               /* questions */
	int64_t rounds;
	struct loop_timer timer; /* for the answers; or until it is sent again */
};

void
mcp_round_drop(struct mcp_ask *a)
{
	struct mcp_round *r = a->round;

	if (r == NULL)
		return;
	a->round = NULL;
	loop_timer_stop(a->front->api->loop, &r->timer);
	buf_fini(&r->params);
	buf_fini(&r->responses);
	buf_fini(&r->state);
	free(r->method);
	free(r);
}

/* ---- again ---- */

static void
send_again(struct mcp_round *r)
{
	struct buf with_state = BUF_INIT, params = BUF_INIT;

	loop_timer_stop(r->ask->front->api->loop, &r->timer);
	if (r->state.len > 0)
		mcp_reply_replace(
		    &with_state, buf_str(&r->params), "requestState", buf_str(&r->state));
	else
		buf_add_str(&with_state, buf_str(&r->params));
	if (r->responses.len > 0) {
		buf_add_char(&r->responses, '}');
		mcp_reply_replace(
		    &params, buf_str(&with_state), "inputResponses", buf_str(&r->responses));
	} else {
		buf_add_str(&params, buf_str(&with_state));
	}
	mcp_ask_send(r->ask, r->server, r->method, buf_str(&params));
	buf_fini(&with_state);
	buf_fini(&params);
}

static void
on_time(struct loop_timer *timer)
{
	struct mcp_round *r = container_of(timer, struct mcp_round, timer);

	if (r->open == 0)
		send_again(r);
	else
		mcp_ask_fail(r->ask, "The client did not answer in time what the server asked.");
}

void
mcp_round_keep(struct mcp_ask *a, size_t server, const char *method, struct str params)
{
	struct mcp_round *r = xcalloc(1, sizeof(*r));

	r->ask = a;
	r->server = server;
	r->method = xstrdup(method);
	r->timer.on_fire = on_time;
	buf_add_str(&r->params, params);
	a->round = r;
}

/* ---- the client is asked ---- */

/* NULL: it was. */
static char *
ask(struct mcp_round *r, struct str key, struct str request)
{
	struct buf method = BUF_INIT;
	struct str params = STR_NONE;
	char *why = NULL;

	if (request.p[0] != '{' || !jsonrpc_text_member(request, "method", &method) ||
	    method.len == 0 || mcp_question_needs(method.data) == 0) {
		why = xstrdup("The server asks the client for something unknown.");
	} else if ((r->ask->caps & mcp_question_needs(method.data)) == 0) {
		why = xasprintf(
		    "The server needs an answer of the client to %s, and the client has not "
		    "declared that it gives any.",
		    method.data);
	} else {
		jsonrpc_member(request, "params", &params);
		if ((mcp_question_may(r->ask, r->server) & mcp_question_needs(method.data)) == 0 ||
		    !mcp_question_put_round(r->ask, key, method.data, params))
			why = xasprintf("The server needs an answer of the client to %s, and "
					"cannot ask for it.",
			    method.data);
		else
			r->open++;
	}
	buf_fini(&method);
	return why;
}

static char *
ask_all(struct mcp_round *r, struct str requests)
{
	struct str key, value;
	struct json_scan s;
	char *why = NULL;

	json_scan_init(&s, requests);
	if (json_scan_peek(&s) != '{' || !json_scan_object(&s))
		return xstrdup("The server's answer is no result.");
	while (why == NULL && json_scan_member(&s, &key) == 1 && json_scan_skip(&s, &value))
		why = r->open < QUESTIONS_MAX ? ask(r, key, value)
					      : xstrdup("The server asks for too much at once.");
	return why;
}

static char *
begin(struct mcp_round *r, struct str result)
{
	const struct conf *conf = r->ask->front->api->conf;
	struct str requests, state;
	char *why = NULL;

	buf_clear(&r->responses);
	buf_clear(&r->state);
	if (++r->rounds > conf->mcp.max_rounds)
		return xstrdup("The server asks back in too many rounds.");
	if (jsonrpc_member(result, "requestState", &state))
		buf_add_str(&r->state, state);
	if (jsonrpc_member(result, "inputRequests", &requests))
		why = ask_all(r, requests);
	if (why == NULL)
		loop_timer_set(r->ask->front->api->loop, &r->timer,
		    r->open > 0 ? conf->mcp.client_timeout_ms : AGAIN_MS);
	return why;
}

bool
mcp_round_take(struct mcp_ask *a, struct str result)
{
	struct str type;
	char *why;

	if (a->round == NULL || !jsonrpc_member(result, "resultType", &type) ||
	    str_eq(type, STR("\"complete\"")))
		return false;
	why = str_eq(type, STR("\"input_required\""))
		  ? begin(a->round, result)
		  : xstrdup("The server's answer is of a kind that the client does not know.");
	if (why != NULL)
		mcp_ask_fail(a, why);
	free(why);
	return true;
}

/* ---- .. and answers ---- */

static void
fail(struct mcp_ask *a, const struct jsonrpc *answer)
{
	struct buf why = BUF_INIT;

	buf_add_cstr(&why, "The client did not answer what the server asked");
	if (answer->kind == JSONRPC_ERROR && answer->message.len > 0) {
		buf_add_cstr(&why, ": ");
		json_scan_decode(answer->message, &why);
	}
	mcp_ask_fail(a, why.data);
	buf_fini(&why);
}

void
mcp_round_answer(struct mcp_ask *a, struct str key, const struct jsonrpc *answer)
{
	struct mcp_round *r = a->round;

	if (answer->kind != JSONRPC_RESULT || answer->result.p[0] != '{') {
		fail(a, answer);
		return;
	}
	buf_add_cstr(&r->responses, r->responses.len == 0 ? "{\"" : ",\"");
	buf_add_str(&r->responses, key);
	buf_add_cstr(&r->responses, "\":");
	buf_add_str(&r->responses, answer->result);
	if (--r->open == 0)
		send_again(r);
}
