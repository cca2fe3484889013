/*
 * mcp_own_model - the tool ask_model: a call of a configured model, as through the gateway, with
 * the same limits, budgets and row of usage.
 *
 *   refused | tokens reserved -> money held -> asked -> the answer is read, progress is told
 *                                                  \-- the request is taken back: it is stopped
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "worker/api/gateway_money.h"
#include "worker/api/mcp_impl.h"
#include "worker/provider/sse_parse.h"
#include "worker/usage/refusal.h"

enum { PROGRESS_EVERY_MS = 100 };

struct question {
	struct mcp_own own;
	const char *alias;
	struct buf text; /* of the request's body */
	struct body body;
	struct token_ask tokens;
	bool is_reserving, has_tokens, is_accounted;
	struct gateway_money money;
	struct relay *relay;
	bool is_stream;
	struct sse_parse events;
	struct buf answer;
	size_t answer_bytes_max;
	uint64_t told_ms;
};

/* ---- the end ---- */

/* Before the answer is sent: who has it may ask at once whether what he reserved is his again. */
static void
account(struct question *q)
{
	struct api_call *call = q->own.ask->call;
	struct relay_report r;
	uint64_t tokens = 0;

	if (q->is_accounted)
		return;
	q->is_accounted = true;
	if (q->is_reserving)
		tokens_cancel(&q->tokens);
	if (q->relay != NULL) {
		relay_report(q->relay, &r);
		tokens = gateway_money_settle(&q->money, call, q->alias, &r);
	} else {
		hold_release(call->api->holds, q->money.hold);
	}
	if (q->has_tokens)
		tokens_settle(call->api->limits, &call->rate.tpm, q->tokens.tokens, tokens);
}

static void
drop(struct mcp_own *own)
{
	struct question *q = container_of(own, struct question, own);

	account(q);
	relay_free(&q->relay);
	sse_parse_fini(&q->events);
	buf_fini(&q->text);
	buf_fini(&q->answer);
	free(q);
}

/* ---- the answer ---- */

static bool
is_json(struct str text)
{
	struct json_scan s;
	struct str value;

	json_scan_init(&s, text);
	return text.len > 0 && json_scan_skip(&s, &value) && json_scan_end(&s);
}

/* choices[0].delta.content, or of a whole answer .message.content. */
static void
take_text(struct question *q, struct str json, const char *member)
{
	struct str choices, choice, message;
	struct json_scan s;

	if (!jsonrpc_member(json, "choices", &choices))
		return;
	json_scan_init(&s, choices);
	if (json_scan_peek(&s) != '[' || !json_scan_array(&s) || json_scan_element(&s) != 1 ||
	    !json_scan_skip(&s, &choice) || !jsonrpc_member(choice, member, &message))
		return;
	jsonrpc_text_member(message, "content", &q->answer);
}

static void
tell_progress(struct question *q)
{
	uint64_t now = loop_now_ms(q->own.ask->front->api->loop);

	if (q->answer.len == 0 || now - q->told_ms < PROGRESS_EVERY_MS)
		return;
	q->told_ms = now;
	mcp_ask_progress(q->own.ask, q->answer.len);
}

static int
on_event(void *arg, const struct sse_event *e)
{
	struct question *q = arg;

	if (!str_eq(e->data, STR("[DONE]")) && is_json(e->data))
		take_text(q, e->data, "delta");
	return q->answer.len > q->answer_bytes_max ? E_PAYLOAD_TOO_LARGE : 0;
}

static void
on_begin(void *arg, struct str content_type, bool is_stream)
{
	struct question *q = arg;

	(void)content_type;
	q->is_stream = is_stream;
}

static bool
on_bytes(void *arg, struct str bytes)
{
	struct question *q = arg;
	int err = 0;

	if (q->is_stream)
		err = sse_parse_feed(&q->events, bytes);
	else
		buf_add_str(&q->answer, bytes);
	if (err != 0 || q->answer.len > q->answer_bytes_max) {
		mcp_own_fail(q->own.ask, "The model's answer is too large.");
		return true; /* it is gone, and so is the relay */
	}
	tell_progress(q);
	return true;
}

static void
on_done(void *arg, const struct relay_result *r)
{
	struct question *q = arg;
	struct buf whole = BUF_INIT;

	account(q);
	if (r->err != 0) {
		buf_add_cstr(&whole, r->message != NULL ? r->message : "The model failed.");
		mcp_own_fail(q->own.ask, whole.data);
		buf_fini(&whole);
		return;
	}
	if (r->status != 0 || !q->is_stream) {
		buf_add_str(&whole, r->status != 0 ? r->body : buf_str(&q->answer));
		buf_clear(&q->answer);
		if (is_json(buf_str(&whole)))
			take_text(q, buf_str(&whole), "message");
	}
	buf_clear(&whole);
	buf_add_str(&whole, buf_str(&q->answer));
	if (r->status >= 400)
		mcp_own_fail(q->own.ask, "The model's provider refused the request.");
	else
		mcp_own_reply(q->own.ask, buf_str(&whole));
	buf_fini(&whole);
}

/* ---- the question ---- */

static void
ask(struct question *q)
{
	static const struct relay_handlers handlers = {on_begin, on_bytes, on_done};
	struct api *api = q->own.ask->front->api;
	const struct relay_question question = {.kind = RELAY_CHAT,
	    .alias = q->alias,
	    .body = &q->body,
	    .event_bytes_max = api->conf->http.max_incomplete_bytes};

	q->relay = relay_start(api->providers, &question, &handlers, q);
}

static void
on_held(void *arg, int err, const struct hold_refusal *refusal)
{
	struct question *q = arg;

	if (err == 0) {
		ask(q);
		return;
	}
	q->money.hold = 0;
	mcp_own_fail(q->own.ask, refusal != NULL ? refusal->message
				 : err == E_FORBIDDEN
				     ? "The model has no price: it cannot be used under a budget."
				     : err_info(err)->text);
}

static void
hold(struct question *q)
{
	struct api_call *call = q->own.ask->call;

	gateway_money_init(&q->money);
	struct hold_question h =
	    gateway_money_question(&q->money, call, q->alias, RELAY_CHAT, &q->body);
	if (hold_is_needed(&h))
		q->money.hold = hold_ask(call->api->holds, &h, on_held, q);
	else
		ask(q);
}

static void
on_reserved(struct token_ask *tokens)
{
	struct question *q = container_of(tokens, struct question, tokens);
	struct buf why = BUF_INIT;

	q->is_reserving = false;
	if (tokens->verdict.is_allowed) {
		q->has_tokens = true;
		hold(q);
		return;
	}
	refusal_message(&tokens->verdict, TOKENS_UNIT, &why);
	mcp_own_fail(q->own.ask, why.data);
	buf_fini(&why);
}

/* NULL: none that the key may use. name empty: the first one. */
static const char *
choose(struct api_call *call, struct str name)
{
	const struct conf *conf = call->api->conf;

	for (size_t i = 0; i < conf->models.n; i++) {
		const char *alias = conf->models.v[i].name;

		if ((name.len == 0 || str_eq(name, str_of(alias))) &&
		    keys_allow_model(&call->models, alias))
			return arena_strdup(&call->arena, str_of(alias));
	}
	return NULL;
}

static void
add_message(struct buf *b, const char *role, struct str text)
{
	buf_printf(b, "{\"role\":\"%s\",\"content\":", role);
	jsonrpc_add_string(b, text);
	buf_add_char(b, '}');
}

static void
write_body(struct question *q, struct str prompt, struct str system, int64_t max_tokens)
{
	struct buf model = BUF_INIT;
	const char *param, *why;

	buf_add_cstr(&q->text, "{\"model\":");
	jsonrpc_add_string(&q->text, str_of(q->alias));
	buf_add_cstr(&q->text, ",\"stream\":true,\"messages\":[");
	if (system.len > 0) {
		add_message(&q->text, "system", system);
		buf_add_char(&q->text, ',');
	}
	add_message(&q->text, "user", prompt);
	buf_add_char(&q->text, ']');
	if (max_tokens > 0)
		buf_printf(&q->text, ",\"max_tokens\":%lld", (long long)max_tokens);
	buf_add_char(&q->text, '}');
	check(body_read(buf_str(&q->text), &q->body, &model, &param, &why) == 0);
	buf_fini(&model);
}

static void
begin(
    struct mcp_ask *a, const char *alias, struct str prompt, struct str system, int64_t max_tokens)
{
	struct question *q = xcalloc(1, sizeof(*q));
	struct api_call *call = a->call;
	const struct conf *conf = call->api->conf;

	q->alias = alias;
	q->answer_bytes_max = (size_t)conf->mcp.max_message_bytes;
	q->tokens.on_decided = on_reserved;
	sse_parse_init(&q->events, q->answer_bytes_max, on_event, q);
	write_body(q, prompt, system, max_tokens);
	mcp_own_begin(a, &q->own, drop);
	q->is_reserving = true;
	if (tokens_reserve(call->api->limits, &call->rate.tpm,
		(q->body.text.len + 3) / 4 + q->body.output_tokens_max, &q->tokens))
		on_reserved(&q->tokens);
}

void
mcp_own_ask_model(struct mcp_ask *a, struct str arguments)
{
	struct buf prompt = BUF_INIT, system = BUF_INIT, model = BUF_INIT;
	int64_t max_tokens = 0;
	struct str unused;
	const char *alias = NULL;

	if (!jsonrpc_text_member(arguments, "prompt", &prompt) || prompt.len == 0)
		mcp_own_fail(a, "prompt is required.");
	else if (jsonrpc_member(arguments, "max_tokens", &unused) &&
		 (!jsonrpc_int_member(arguments, "max_tokens", &max_tokens) || max_tokens < 1 ||
		     max_tokens > INT32_MAX))
		mcp_own_fail(a, "max_tokens is a whole number from 1.");
	else if ((jsonrpc_member(arguments, "system", &unused) &&
		     !jsonrpc_text_member(arguments, "system", &system)) ||
		 (jsonrpc_member(arguments, "model", &unused) &&
		     !jsonrpc_text_member(arguments, "model", &model)))
		mcp_own_fail(a, "system and model are texts.");
	else if ((alias = choose(a->call, buf_str(&model))) == NULL)
		mcp_own_fail(a, "There is no such model, or this key may not use it.");
	else if (!usages_have_room(a->call->api->usages))
		mcp_own_fail(a, err_info(E_STORE_UNAVAILABLE)->text);
	else
		begin(a, alias, buf_str(&prompt), buf_str(&system), max_tokens);
	buf_fini(&prompt);
	buf_fini(&system);
	buf_fini(&model);
}
