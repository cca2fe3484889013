/*
 * provider - a turn's call of a model: it asks (ask.h), and makes deltas and a
 * result of the answer's events (openai.h). An answer that breaks in the middle is
 * mended at the next target (mend.h), when there is one.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/err.h"
#include "worker/provider/ask.h"
#include "worker/provider/mend.h"
#include "worker/provider/openai.h"
#include "worker/provider/provider_parts.h"

struct call {
	struct providers *providers;
	uint64_t handle; /* 0: ended or cancelled */
	uint64_t ask;
	struct provider_handlers handlers;
	void *arg;
	unsigned depth; /* inside the answer's callbacks */

	struct str history; /* the caller's */
	json_t *messages, *tools;
	struct openai_answer *answer; /* of the present attempt */
	bool has_given;               /* something of it */
	bool may_mend;                /* there is another target, and the caller knows restarts */
	struct mend mend;             /* may_mend */
	uint32_t max_tokens;
	size_t request_bytes;
};

/* ---- the end ---- */

static void
call_free(struct call *c)
{
	if (c->handle != 0)
		idmap_remove(c->providers->calls, c->handle);
	c->handle = 0;
	if (c->ask != 0)
		ask_cancel(c->providers, c->ask);
	c->ask = 0;
	if (c->depth > 0)
		return; /* freed when the answer has been left */
	openai_answer_free(&c->answer);
	mend_fini(&c->mend);
	json_decref(c->messages);
	json_decref(c->tools);
	free(c);
}

/* The caller's last word; the call is gone when it is spoken, what it borrows is not yet. */
static void
on_done(void *arg, const struct ask_result *asked)
{
	struct call *c = arg;
	struct provider_result r = {
	    .err = asked->err,
	    .message = asked->message,
	    .retry_after_ms = asked->retry_after_ms,
	    .provider = asked->provider,
	    .model = asked->model,
	    .attempts = asked->attempts,
	};

	check(c->handle != 0);
	c->ask = 0;
	if (r.err == 0) {
		openai_answer_result(c->answer, &r);
		if (r.usage.is_estimated)
			r.usage.input_tokens = (c->request_bytes + 3) / 4;
	}
	c->depth++; /* keeps what the result borrows */
	call_free(c);
	c->handlers.on_done(c->arg, &r);
	c->depth--;
	call_free(c);
}

/* ---- the answer ---- */

static void
give_text(struct call *c, struct str text)
{
	if (text.len == 0 || c->handle == 0)
		return;
	c->has_given = true;
	c->handlers.on_text(c->arg, text);
}

static void
give_restart(struct call *c)
{
	if (c->handle == 0)
		return;
	c->has_given = true;
	c->handlers.on_restarted(c->arg);
}

static void
give_step(struct call *c, struct mend_step step)
{
	if (step.is_restart)
		give_restart(c);
	give_text(c, step.again);
	give_text(c, step.text);
}

static void
on_text(void *arg, struct str text)
{
	struct call *c = arg;

	if (c->may_mend)
		give_step(c, mend_text(&c->mend, text));
	else
		give_text(c, text);
}

static void
on_reasoning(void *arg, struct str text)
{
	struct call *c = arg;
	bool is_restart = false;

	if (c->handlers.on_reasoning == NULL ||
	    (c->may_mend && !mend_reasoning(&c->mend, &is_restart)))
		return;
	if (is_restart)
		give_restart(c);
	if (c->handle == 0)
		return;
	c->has_given = true;
	c->handlers.on_reasoning(c->arg, text);
}

static struct ask_sign
sign_of_failure(const struct call *c)
{
	return (struct ask_sign){.progress = ASK_FAULT,
	    .has_begun = c->has_given,
	    .failure = openai_answer_failure(c->answer),
	    .message = openai_answer_message(c->answer)};
}

static void
on_attempt(void *arg, const struct ask_attempt *attempt, struct buf *body)
{
	struct call *c = arg;
	struct provider_request r = {.history = c->history,
	    .messages = c->messages,
	    .tools = c->tools,
	    .max_tokens = c->max_tokens};

	if (attempt->is_after_break) {
		bool is_shown = attempt->supports_prefill && c->mend.given.len > 0;

		mend_begin(&c->mend, is_shown ? MEND_CONTINUES : MEND_REPEATS);
		r.prefill = is_shown ? buf_str(&c->mend.given) : STR_NONE;
	}
	openai_answer_free(&c->answer);
	c->answer = openai_answer_new(&(struct openai_handlers){on_text, on_reasoning}, c);
	openai_request(&r, attempt->model, body);
	c->request_bytes = body->len;
	c->has_given = false;
}

static bool
on_break(void *arg)
{
	return ((struct call *)arg)->may_mend;
}

static struct ask_sign
on_head(void *arg, const struct client_head *head)
{
	(void)arg;
	if (head->status == 200 && str_eq(head->content_type, STR("text/event-stream")))
		return (struct ask_sign){.progress = ASK_LIFE};
	return (struct ask_sign){.progress = ASK_FAULT,
	    .failure = FAILURE_MALFORMED,
	    .message = "The model provider's answer was not an event stream."};
}

static struct ask_sign
on_bytes(void *arg, struct str bytes)
{
	struct call *c = arg;
	struct ask_sign sign = {.progress = ASK_LIFE};

	c->depth++;
	int rc = openai_answer_feed(c->answer, bytes);
	c->depth--;
	if (c->handle == 0)
		call_free(c); /* cancelled from inside */
	else if (rc != 0)
		sign = sign_of_failure(c);
	else if (openai_answer_is_done(c->answer))
		sign.progress = ASK_DONE;
	else if (openai_answer_is_whole(c->answer))
		sign.progress = ASK_WHOLE;
	else if (c->has_given)
		sign.progress = ASK_TOKEN;
	return sign;
}

static struct ask_sign
on_end(void *arg)
{
	struct call *c = arg;

	if (openai_answer_end(c->answer) != 0)
		return sign_of_failure(c);
	if (c->may_mend) {
		c->depth++;
		give_step(c, mend_end(&c->mend));
		c->depth--;
		if (c->handle == 0)
			call_free(c); /* cancelled from inside */
	}
	return (struct ask_sign){.progress = ASK_DONE};
}

/* ---- the beginning ---- */

static bool
has_choice(const struct providers *p, const char *alias)
{
	const struct route *route = providers_route(p, alias);

	return route != NULL && route->count > 1;
}

uint64_t
provider_call(struct providers *p, const struct provider_request *r,
    const struct provider_handlers *handlers, void *arg)
{
	static const struct ask_handlers asker = {
	    on_attempt, on_head, on_bytes, on_end, on_break, on_done};
	const struct ask_question question = {
	    .alias = r->model,
	    .path = "/chat/completions",
	    .is_streamed = true,
	    .timeout_ms = r->timeout_ms,
	    .request_id = r->request_id,
	    .traceparent = r->traceparent,
	};
	struct call *c = xcalloc(1, sizeof(*c));

	c->providers = p;
	c->handlers = *handlers;
	c->arg = arg;
	c->history = r->history;
	c->messages = json_incref(r->messages);
	c->tools = json_incref(r->tools);
	c->max_tokens = r->max_tokens;
	c->may_mend = handlers->on_restarted != NULL && has_choice(p, r->model);
	c->handle = idmap_add(p->calls, c);
	c->ask = ask_start(p, &question, &asker, c);
	return c->handle;
}

void
provider_cancel(struct providers *p, uint64_t handle)
{
	struct call *c = idmap_get(p->calls, handle);

	if (c != NULL)
		call_free(c);
}
