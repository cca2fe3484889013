/*
 * relay - see relay.h.
 *
 *   a stream:   held (until the model says something) -> passed on, event by event
 *   otherwise:  held (until it is whole, or too large) -> passed on as it comes
 */
#include "worker/provider/relay.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"
#include "worker/provider/ask.h"
#include "worker/provider/body_watch.h"
#include "worker/provider/chunk.h"
#include "worker/provider/event_scan.h"
#include "worker/provider/openai.h"

struct relay {
	struct providers *providers;
	struct loop *loop;
	struct relay_handlers handlers;
	void *arg;
	uint64_t ask; /* 0: over */
	unsigned depth;
	bool is_freed;

	enum relay_kind kind;
	struct buf request; /* until something was passed on: no other attempt follows then */
	struct body body;
	size_t event_bytes_max, request_bytes;
	uint64_t started_ms, first_ms;

	/* The answer; of the present attempt, but for has_begun. */
	struct buf content_type;
	struct buf held;
	bool has_begun; /* on_begin was called */
	bool is_paused; /* the caller wants no more for now */
	struct event_scan events;
	struct body_watch watch; /* over what is too large to be held */
	bool has_unread, has_done;
	bool has_token;     /* the model has said something */
	bool is_told;       /* an error of the provider was passed on */
	bool is_unfinished; /* a picture */
	uint64_t finished;  /* choices, as in struct chunk */
	struct ask_sign fault;
	struct openai_answer *judge; /* of an error in a stream; owns fault.message */

	bool has_usage;
	struct provider_usage usage;
	uint64_t output_bytes;
	const char *provider, *model;
	uint32_t attempts;
	int err;
};

static const char *const paths[RELAY_KINDS] = {
    [RELAY_CHAT] = "/chat/completions",
    [RELAY_EMBEDDINGS] = "/embeddings",
    [RELAY_IMAGES] = "/images/generations",
    [RELAY_RESPONSES] = "/responses",
};

const char *
relay_path(enum relay_kind kind)
{
	return paths[kind];
}

/* ---- passing on ---- */

static void
begin(struct relay *r)
{
	if (r->has_begun)
		return;
	r->has_begun = true;
	r->first_ms = loop_now_ms(r->loop) - r->started_ms;
	r->first_ms += r->first_ms == 0; /* 0 says that there was none */
	buf_fini(&r->request);
	r->handlers.on_begin(r->arg, buf_str(&r->content_type), r->body.is_streamed);
}

static void
give(struct relay *r, struct str bytes)
{
	if (!r->is_freed && bytes.len > 0)
		r->is_paused = !r->handlers.on_bytes(r->arg, bytes);
}

static void
give_held(struct relay *r)
{
	begin(r);
	give(r, buf_str(&r->held));
	buf_fini(&r->held);
}

/* Events that are too large to be read are those that end an answer: they hold all of it, and its
 * usage. */
static void
watch_unread(struct relay *r, struct str bytes)
{
	const char *brace =
	    r->watch.has_begun || bytes.len == 0 ? bytes.p : memchr(bytes.p, '{', bytes.len);

	if (brace != NULL)
		body_watch_feed(&r->watch, str_sub(brace, bytes.len - (size_t)(brace - bytes.p)));
}

static void
begin_watch(struct relay *r)
{
	body_watch_fini(&r->watch);
	body_watch_init(&r->watch, r->kind == RELAY_RESPONSES && r->body.is_streamed ? 2 : 1);
}

static void
end_unread(struct relay *r)
{
	struct provider_usage usage;

	if (chunk_read_usage(body_watch_usage(&r->watch), &usage)) {
		r->has_usage = true;
		r->usage = usage;
	}
	begin_watch(r);
}

/* Before the model has said something another attempt may still take the place of this one. */
static void
on_pass(void *arg, struct str bytes)
{
	struct relay *r = arg;

	if (r->events.is_passing)
		watch_unread(r, bytes);
	if (r->has_begun) {
		give(r, bytes);
		return;
	}
	buf_add_str(&r->held, bytes);
	if (r->has_token || r->held.len > r->event_bytes_max || r->events.is_passing)
		give_held(r);
}

/* ---- faults ---- */

static struct ask_sign
fault_of(const struct relay *r, enum failure failure, const char *message)
{
	return (struct ask_sign){.progress = ASK_FAULT,
	    .has_begun = r->has_begun,
	    .failure = failure,
	    .message = message};
}

static struct ask_sign
malformed(const struct relay *r)
{
	return fault_of(r, FAILURE_MALFORMED, "The model provider's answer was malformed.");
}

static void
on_nothing(void *arg, struct str text)
{
	(void)arg;
	(void)text;
}

/* What an error object in an answer means: the dialect knows. */
static struct ask_sign
judge_error(struct relay *r, struct str error)
{
	const struct openai_handlers nothing = {on_nothing, on_nothing};
	struct buf event = BUF_INIT;

	openai_answer_free(&r->judge);
	r->judge = openai_answer_new(&nothing, r);
	buf_add_cstr(&event, "data: {\"error\":");
	for (size_t i = 0; i < error.len; i++)
		buf_add_char(&event, error.p[i] == '\n' || error.p[i] == '\r' ? ' ' : error.p[i]);
	buf_add_cstr(&event, "}\n\n");
	int err = openai_answer_feed(r->judge, buf_str(&event));
	buf_fini(&event);
	if (err == 0)
		return malformed(r);
	return fault_of(r, openai_answer_failure(r->judge), openai_answer_message(r->judge));
}

/* ---- events ---- */

static void
take_usage(struct relay *r, const struct chunk *c)
{
	r->output_bytes += c->output_bytes;
	if (!c->has_usage)
		return;
	r->has_usage = true;
	r->usage = c->usage;
}

static enum scan_verdict
stop(struct relay *r, struct ask_sign fault)
{
	r->fault = fault;
	return SCAN_STOP;
}

/* The provider says that it has failed: its own words, unless they are about our account, and
 * unless another attempt may still be made. */
static enum scan_verdict
take_error(struct relay *r, struct str error)
{
	struct ask_sign fault = judge_error(r, error);

	r->fault = fault;
	if (!r->has_begun || fault.failure == FAILURE_KEY)
		return SCAN_STOP;
	r->is_told = true;
	return SCAN_KEEP;
}

/* The client asked for the usage, and the provider did not tell it. */
static bool
lacks_usage(const struct relay *r)
{
	return r->kind == RELAY_CHAT && r->body.wants_usage && !r->has_usage;
}

/* One that ends twice does not stand for another that was cut. */
static bool
have_all_finished(const struct relay *r)
{
	uint64_t wanted = r->body.choices < 64 ? r->body.choices : 64;

	return (uint64_t)__builtin_popcountll(r->finished) >= wanted;
}

static enum scan_verdict
take_done(struct relay *r)
{
	if (r->kind == RELAY_CHAT && r->finished == 0 && !r->has_unread)
		return stop(r, fault_of(r, FAILURE_CUT,
				   "The model provider's answer ended before it was complete."));
	r->has_done = true;
	r->has_token = true; /* what was held goes */
	return lacks_usage(r) ? SCAN_DROP : SCAN_KEEP;
}

/* The provider has failed before it said anything, and it is not about what was asked: another
 * attempt may help. */
static bool
may_be_asked_again(const struct relay *r, struct str data, enum failure *ret)
{
	static const struct {
		struct str word;
		enum failure failure;
	} words[] = {{{"\"rate_limit_exceeded\"", 21}, FAILURE_RATE_LIMITED},
	    {{"\"server_error\"", 14}, FAILURE_SERVER}};

	for (size_t i = 0; i < ARRAY_LEN(words) && !r->has_begun && data.len > 0; i++) {
		*ret = words[i].failure;
		if (memmem(data.p, data.len, words[i].word.p, words[i].word.len) != NULL)
			return true;
	}
	return false;
}

/* The events that end an answer of /responses, whose data is often too large to be read. */
static enum scan_verdict
take_named_end(struct relay *r, struct str name, struct str data)
{
	enum failure failure;

	if (str_eq(name, STR("response.completed")) || str_eq(name, STR("response.incomplete"))) {
		r->finished |= 1;
		r->has_token = true;
	} else if (str_eq(name, STR("response.failed")) || str_eq(name, STR("error"))) {
		if (may_be_asked_again(r, data, &failure))
			return stop(r, fault_of(r, failure, NULL));
		r->has_token = true;
		r->is_told = true;
		r->fault = fault_of(r, FAILURE_SERVER, NULL);
		r->fault.has_begun = true;
	}
	return SCAN_KEEP;
}

/* A picture that was begun is followed by the whole one. */
static void
take_picture(struct relay *r, struct str name)
{
	r->has_token = true;
	if (str_starts(name, STR("image_generation.")))
		r->is_unfinished = !str_eq(name, STR("image_generation.completed"));
}

static enum scan_verdict
take_chat_chunk(struct relay *r, const struct chunk *c)
{
	if (c->is_broken_off)
		return stop(
		    r, fault_of(r, FAILURE_SERVER, "The model provider broke the answer off."));
	r->finished |= c->finished;
	r->has_token |= c->has_finish;
	if (c->has_usage && !c->has_choices && !r->body.wants_usage)
		return SCAN_DROP;
	return SCAN_KEEP;
}

static enum scan_verdict
on_event(void *arg, const struct scan_event *e)
{
	struct relay *r = arg;
	struct str data = e->data.p != NULL ? str_trim(e->data) : STR_NONE;
	struct chunk c;

	if (r->fault.progress == ASK_FAULT) /* what follows an error */
		return SCAN_STOP;
	if (e->is_unread) {
		r->has_unread = r->has_token = true; /* it may have been the end: [DONE] will say */
		end_unread(r);
		if (r->kind == RELAY_IMAGES)
			take_picture(r, e->name);
		return r->kind == RELAY_RESPONSES ? take_named_end(r, e->name, STR_NONE)
						  : SCAN_KEEP;
	}
	if (data.len == 0)
		return SCAN_KEEP;
	if (str_eq(data, STR("[DONE]")))
		return take_done(r);
	if (!chunk_read(data, &c))
		return stop(r, malformed(r));
	take_usage(r, &c);
	r->has_token |= c.output_bytes > 0;
	if (r->kind == RELAY_RESPONSES)
		return take_named_end(r, e->name.len > 0 ? e->name : c.type, data);
	if (c.has_error)
		return take_error(r, c.error);
	if (r->kind == RELAY_CHAT)
		return take_chat_chunk(r, &c);
	take_picture(r, e->name.len > 0 ? e->name : c.type);
	return SCAN_KEEP;
}

/* Instead of a [DONE] that came, or did not. */
static void
give_end(struct relay *r)
{
	struct relay_report report;
	struct buf b = BUF_INIT;

	relay_report(r, &report);
	if (lacks_usage(r)) {
		uint64_t input = report.usage.input_tokens, output = report.usage.output_tokens;

		buf_printf(&b,
		    "data: {\"id\":\"chatcmpl-parley\",\"object\":\"chat.completion.chunk\","
		    "\"created\":%jd,\"model\":\"",
		    (intmax_t)(clock_wall_ms() / 1000));
		buf_add_json_escaped(&b, str_of(r->model));
		buf_add_cstr(&b, "\",");
		buf_printf(&b,
		    "\"choices\":[],\"usage\":{\"prompt_tokens\":%ju,\"completion_tokens\":%ju,"
		    "\"total_tokens\":%ju,\"estimated\":true}}\n\n",
		    (uintmax_t)input, (uintmax_t)output, (uintmax_t)(input + output));
	}
	buf_add_cstr(&b, "data: [DONE]\n\n");
	give(r, buf_str(&b));
	buf_fini(&b);
}

static struct ask_sign
stream_sign(const struct relay *r)
{
	struct ask_sign sign = {.progress = ASK_LIFE, .is_paused = r->is_paused};

	if (r->fault.progress == ASK_FAULT) {
		sign = r->fault;
		sign.has_begun = r->has_begun;
	} else if (r->has_done)
		sign.progress = ASK_DONE;
	else if (have_all_finished(r))
		sign.progress = ASK_WHOLE;
	else if (r->has_begun)
		sign.progress = ASK_TOKEN;
	return sign;
}

/* ---- the answer ---- */

static bool
is_json_type(struct str type)
{
	return type.len == 0 || str_eq(type, STR("application/json")) ||
	       (type.len > 5 && str_eq(str_sub(type.p + type.len - 5, 5), STR("+json")));
}

static void
forget_attempt(struct relay *r)
{
	event_scan_fini(&r->events);
	event_scan_init(
	    &r->events, r->event_bytes_max, &(struct scan_handlers){on_event, on_pass}, r);
	begin_watch(r);
	buf_clear(&r->content_type);
	buf_clear(&r->held);
	r->has_unread = r->has_done = r->has_token = r->is_told = r->has_usage = r->is_paused =
	    r->is_unfinished = false;
	r->finished = 0;
	r->output_bytes = 0;
	r->usage = (struct provider_usage){0};
	r->fault = (struct ask_sign){0};
}

static void
on_attempt(void *arg, const struct ask_attempt *attempt, struct buf *out)
{
	struct relay *r = arg;

	check(!r->has_begun);
	forget_attempt(r);
	r->provider = attempt->provider;
	r->model = attempt->model;
	r->attempts = attempt->number;
	body_write(&r->body, attempt->model, r->kind == RELAY_CHAT, out);
	r->request_bytes = out->len;
}

static struct ask_sign
on_head(void *arg, const struct client_head *head)
{
	struct relay *r = arg;
	bool is_stream = str_eq(head->content_type, STR("text/event-stream"));

	buf_add_str(&r->content_type, head->content_type);
	if (r->body.is_streamed && !is_stream)
		return fault_of(
		    r, FAILURE_MALFORMED, "The model provider's answer was not an event stream.");
	if (!r->body.is_streamed && !is_json_type(head->content_type))
		return fault_of(r, FAILURE_MALFORMED, "The model provider's answer was not JSON.");
	return (struct ask_sign){.progress = ASK_LIFE};
}

static struct ask_sign
take_whole_bytes(struct relay *r, struct str bytes)
{
	if (!r->has_begun) {
		buf_add_str(&r->held, bytes);
		if (r->held.len <= RELAY_HELD_BYTES_MAX)
			return (struct ask_sign){.progress = ASK_LIFE};
		if (!body_watch_feed(&r->watch, buf_str(&r->held)))
			return malformed(r);
		give_held(r);
	} else if (!body_watch_feed(&r->watch, bytes))
		return malformed(r);
	else
		give(r, bytes);
	return (struct ask_sign){.progress = ASK_TOKEN, .is_paused = r->is_paused};
}

static void
leave(struct relay *r)
{
	struct relay *own = r;

	if (--r->depth == 0 && r->is_freed)
		relay_free(&own);
}

static struct ask_sign
on_bytes(void *arg, struct str bytes)
{
	struct relay *r = arg;
	struct ask_sign sign;

	r->depth++;
	if (r->body.is_streamed) {
		bool was_done = r->has_done;

		event_scan_feed(&r->events, bytes);
		if (r->has_done && !was_done && lacks_usage(r)) {
			give_held(r);
			give_end(r);
		}
		sign = stream_sign(r);
	} else
		sign = take_whole_bytes(r, bytes);
	leave(r);
	return sign;
}

/* ---- the end ---- */

static struct ask_sign
end_stream(struct relay *r)
{
	bool has_end = r->has_done || have_all_finished(r);

	if (r->fault.progress == ASK_FAULT)
		return stream_sign(r);
	if (r->kind == RELAY_IMAGES || r->kind == RELAY_EMBEDDINGS)
		has_end = r->has_token && !r->is_unfinished;
	if (!has_end || event_scan_is_cut(&r->events))
		return fault_of(
		    r, FAILURE_CUT, "The model provider's answer ended before it was complete.");
	if (!r->has_begun)
		give_held(r);
	if (r->kind == RELAY_CHAT && !r->has_done)
		give_end(r);
	return (struct ask_sign){.progress = ASK_DONE};
}

static struct ask_sign
end_whole(struct relay *r)
{
	struct chunk c;

	if (r->has_begun) {
		if (!body_watch_is_whole(&r->watch))
			return malformed(r);
		r->has_usage = chunk_read_usage(body_watch_usage(&r->watch), &r->usage);
		return (struct ask_sign){.progress = ASK_DONE};
	}
	if (!chunk_read(buf_str(&r->held), &c))
		return malformed(r);
	take_usage(r, &c);
	if (c.has_error && r->kind != RELAY_RESPONSES)
		return judge_error(r, c.error);
	return (struct ask_sign){.progress = ASK_DONE};
}

static struct ask_sign
on_end(void *arg)
{
	struct relay *r = arg;
	struct ask_sign sign;

	r->depth++;
	sign = r->body.is_streamed ? end_stream(r) : end_whole(r);
	leave(r);
	return sign;
}

/* A refusal of the provider is passed on if it is what it should be. */
static void
add_refusal(const struct ask_result *asked, struct relay_result *result)
{
	struct chunk c;

	if (asked->status == 0 || !is_json_type(asked->content_type) ||
	    !chunk_read(asked->body, &c))
		return;
	result->status = asked->status;
	result->content_type = asked->content_type;
	result->body = asked->body;
}

static void
on_done(void *arg, const struct ask_result *asked)
{
	struct relay *r = arg;
	struct relay_result result = {
	    .err = asked->err,
	    .message = asked->message,
	    .retry_after_ms = asked->retry_after_ms,
	    .is_told = r->is_told,
	    .is_in_event = event_scan_has_passed_part(&r->events),
	};

	r->ask = 0;
	r->err = asked->err;
	r->provider = asked->provider;
	r->model = asked->model;
	r->attempts = asked->attempts;
	if (asked->err != 0 && !r->has_begun)
		add_refusal(asked, &result);
	if (asked->err == 0 && !r->has_begun) {
		result.status = 200;
		result.content_type =
		    r->content_type.len > 0 ? buf_str(&r->content_type) : STR("application/json");
		result.body = buf_str(&r->held);
	}
	r->depth++;
	r->handlers.on_done(r->arg, &result);
	leave(r);
}

/* ---- life ---- */

struct relay *
relay_start(struct providers *p, const struct relay_question *q,
    const struct relay_handlers *handlers, void *arg)
{
	static const struct ask_handlers asker = {
	    on_attempt, on_head, on_bytes, on_end, NULL, on_done};
	struct relay *r = xcalloc(1, sizeof(*r));
	const struct ask_question question = {.alias = q->alias,
	    .path = paths[q->kind],
	    .is_streamed = q->body->is_streamed,
	    .request_id = q->request_id,
	    .traceparent = q->traceparent,
	    .idempotency_key = q->idempotency_key};

	r->providers = p;
	r->loop = providers_loop(p);
	r->handlers = *handlers;
	r->arg = arg;
	r->kind = q->kind;
	r->event_bytes_max = q->event_bytes_max;
	r->err = E_CANCELLED;
	r->provider = r->model = "";
	r->started_ms = loop_now_ms(r->loop);
	buf_add_str(&r->request, q->body->text);
	body_copy(&r->body, q->body, buf_str(&r->request));
	forget_attempt(r);
	r->ask = ask_start(p, &question, &asker, r);
	return r;
}

void
relay_resume(struct relay *r)
{
	if (!r->is_paused)
		return;
	r->is_paused = false;
	ask_resume(r->providers, r->ask);
}

void
relay_report(const struct relay *r, struct relay_report *ret)
{
	*ret = (struct relay_report){
	    .provider = r->provider,
	    .model = r->model,
	    .attempts = r->attempts,
	    .err = r->err,
	    .usage = r->usage,
	    .first_ms = r->first_ms,
	    .total_ms = loop_now_ms(r->loop) - r->started_ms,
	};
	if (ret->total_ms < r->first_ms)
		ret->total_ms = r->first_ms;
	if (r->has_usage || r->attempts == 0 || (r->err != 0 && r->err != E_CANCELLED))
		return;
	ret->usage.is_estimated = true;
	ret->usage.input_tokens = (r->request_bytes + 3) / 4;
	ret->usage.output_tokens = (r->output_bytes + 3) / 4;
}

bool
relay_stop(struct relay *r, int err)
{
	if (r->ask != 0)
		ask_cancel(r->providers, r->ask);
	r->ask = 0;
	r->err = err;
	return event_scan_has_passed_part(&r->events);
}

void
relay_free(struct relay **rp)
{
	struct relay *r = *rp;

	if (r == NULL)
		return;
	*rp = NULL;
	r->is_freed = true;
	if (r->ask != 0)
		ask_cancel(r->providers, r->ask);
	r->ask = 0;
	if (r->depth > 0)
		return; /* freed when the callback has been left */
	event_scan_fini(&r->events);
	body_watch_fini(&r->watch);
	openai_answer_free(&r->judge);
	buf_fini(&r->request);
	buf_fini(&r->content_type);
	buf_fini(&r->held);
	free(r);
}
