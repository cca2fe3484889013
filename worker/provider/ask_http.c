/*
 * ask_http - one attempt: the request to the target, the pieces of its answer, the
 * time that each may take.
 */
#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"
#include "worker/provider/ask_impl.h"
#include "worker/provider/openai.h"
#include "worker/provider/retry.h"

enum {
	REFUSAL_BYTES_MAX = 64 << 10,
	/* After [DONE] the connection may end, so that it can be kept; a provider that lets us wait
	 * loses it. Between finish_reason and [DONE] the usage comes, if it comes. */
	DONE_LINGER_MS = 200,
	WHOLE_LINGER_MS = 1000,
	HEADERS_MAX = 7,
};

/* ---- what the asker says ---- */

static void
take_sign(struct ask *a, struct ask_sign sign)
{
	bool has_token = sign.progress == ASK_FAULT ? sign.has_begun : sign.progress != ASK_LIFE;

	a->is_paused = sign.is_paused;
	a->has_token |= has_token;
	a->has_begun |= has_token;
	if (sign.progress == ASK_FAULT) {
		ask_failed(a, sign.failure, sign.message,
		    sign.message != NULL ? sign.message : failure_info(sign.failure)->name);
		return;
	}
	if (has_token)
		ask_proved(a);
	if (sign.progress == ASK_TOKEN && a->state == ASK_STATE_FIRST)
		ask_enter(a, ASK_STATE_STREAM);
	else if (sign.progress == ASK_DONE && !a->is_done) {
		a->is_done = true;
		ask_enter(a, ASK_STATE_TAIL);
	} else if (sign.progress == ASK_WHOLE && a->state != ASK_STATE_TAIL)
		ask_enter(a, ASK_STATE_TAIL);
}

static const struct dialect *
dialect_of(const struct ask *a)
{
	return a->target->upstream->dialect;
}

/* Bytes for the asker. False: the ask is gone, or the attempt. */
static bool
give_bytes(struct ask *a, struct str bytes, bool *ret_is_paused)
{
	a->depth++;
	struct ask_sign sign = a->handlers.on_bytes(a->arg, bytes);
	if (!ask_leave_asker(a))
		return false;
	*ret_is_paused = sign.is_paused && sign.progress != ASK_FAULT;
	if (*ret_is_paused)
		loop_timer_stop(a->providers->loop, &a->timer);
	take_sign(a, sign); /* the ask may be gone */
	return sign.progress != ASK_FAULT;
}

/* What the dialect has still to say of an answer that has ended. False: as of give_bytes(). */
static bool
finish_translation(struct ask *a)
{
	struct buf rest = BUF_INIT;
	bool goes_on = true, is_paused;

	if (!dialect_of(a)->finish(a->translation, &rest)) {
		ask_failed(a, FAILURE_MALFORMED, NULL, "not an answer of its dialect");
		goes_on = false;
	} else if (rest.len > 0)
		goes_on = give_bytes(a, buf_str(&rest), &is_paused);
	buf_fini(&rest);
	return goes_on;
}

/* No more bytes come, or are needed. */
static void
answer_ended(struct ask *a)
{
	if (a->transfer != 0)
		client_cancel(a->providers->client, a->transfer);
	a->transfer = 0;
	if (a->translation != NULL && !finish_translation(a))
		return;
	a->depth++;
	struct ask_sign sign = a->handlers.on_end(a->arg);
	if (!ask_leave_asker(a))
		return;
	if (sign.progress == ASK_FAULT)
		take_sign(a, sign);
	else
		ask_succeeded(a);
}

/* An error answer, its body read or given up. */
static void
refused(struct ask *a)
{
	struct str body = buf_str(&a->refusal);
	enum failure failure = failure_of_status(a->status, body);
	struct buf message = BUF_INIT;
	const char *text = NULL;

	if (failure == FAILURE_RATE_LIMITED)
		text = "The model provider's rate limit is reached.";
	else if (failure == FAILURE_MALFORMED)
		text = "The model provider's answer was not an event stream.";
	else if (failure_info(failure)->err == E_PROVIDER_REFUSED) {
		openai_error_message(body, &message);
		text = message.len > 0 ? message.data : NULL;
	}
	ask_failed(a, failure, text, failure_info(failure)->name);
	buf_fini(&message);
}

/* ---- time ---- */

static uint64_t
after(uint64_t from_ms, int64_t limit_ms)
{
	return limit_ms > 0 ? from_ms + (uint64_t)limit_ms : UINT64_MAX;
}

/* Of the whole attempt: who shows life for ever is not waited for, for ever. */
static uint64_t
total_due_ms(const struct ask *a)
{
	bool is_over = a->state < ASK_STATE_HEAD || a->state == ASK_STATE_TAIL;

	return is_over ? UINT64_MAX : after(a->sent_ms, ask_conf(a)->http_client.total_timeout_ms);
}

/* In PLACE the gate has its own limit, in HEAD the transfer. */
static uint64_t
silence_due_ms(const struct ask *a)
{
	const struct conf_provider_http_client *limits = &ask_conf(a)->http_client;

	switch (a->state) {
	case ASK_STATE_FIRST:
		return after(a->state_ms,
		    a->is_streamed ? limits->first_token_timeout_ms : limits->read_timeout_ms);
	case ASK_STATE_STREAM:
		return after(a->state_ms,
		    a->is_streamed ? limits->stall_timeout_ms : limits->read_timeout_ms);
	case ASK_STATE_TAIL:
		return a->state_ms + (a->is_done ? DONE_LINGER_MS : WHOLE_LINGER_MS);
	case ASK_STATE_REFUSAL:
		return after(a->state_ms, limits->read_timeout_ms);
	default:
		return UINT64_MAX;
	}
}

uint64_t
ask_http_due_ms(const struct ask *a)
{
	uint64_t silence_ms = silence_due_ms(a), total_ms = total_due_ms(a);

	if (a->is_paused)
		return UINT64_MAX;
	return silence_ms < total_ms ? silence_ms : total_ms;
}

void
ask_http_late(struct ask *a)
{
	if (a->state == ASK_STATE_REFUSAL)
		refused(a); /* without the whole body */
	else if (a->state == ASK_STATE_TAIL)
		answer_ended(a);
	else if (ask_now_ms(a) >= total_due_ms(a))
		ask_failed(a, a->has_token ? FAILURE_STALLED : FAILURE_SILENT, NULL,
		    "not whole in total_timeout");
	else if (a->state == ASK_STATE_FIRST)
		ask_failed(a, FAILURE_SILENT, NULL, "no first token");
	else
		ask_failed(a, FAILURE_STALLED, NULL, "silence between tokens");
}

/* ---- the transfer ---- */

static void
on_head(void *arg, const struct client_head *head)
{
	struct ask *a = arg;

	a->status = head->status;
	a->retry_after_ms = retry_after_parse(head->retry_after, clock_wall_ms());
	buf_add_str(&a->content_type, head->content_type);
	if (head->status < 200 || head->status > 299) {
		ask_enter(a, ASK_STATE_REFUSAL);
		return;
	}
	ask_enter(a, ASK_STATE_FIRST);
	a->state_ms -= head->waited_ms; /* a head is not the model's life */
	ask_wait(a);
	if (a->handlers.on_head == NULL)
		return;
	a->depth++;
	struct ask_sign sign = a->handlers.on_head(a->arg, head);
	if (ask_leave_asker(a))
		take_sign(a, sign);
}

/* What came before bytes that are malformed is given. False: no more, please. */
static bool
take_translated(struct ask *a, struct str bytes)
{
	struct buf ours = BUF_INIT;
	bool ok = dialect_of(a)->feed(a->translation, bytes, &ours);
	bool goes_on = true, is_paused = false;

	if (ours.len > 0)
		goes_on = give_bytes(a, buf_str(&ours), &is_paused);
	buf_fini(&ours);
	if (!goes_on)
		return true;
	if (!ok)
		ask_failed(a, FAILURE_MALFORMED, NULL, "not an answer of its dialect");
	return !ok || !is_paused;
}

static bool
on_body(void *arg, struct str bytes)
{
	struct ask *a = arg;
	bool is_paused = false;
	size_t room = REFUSAL_BYTES_MAX - a->refusal.len;

	if (a->state == ASK_STATE_REFUSAL) {
		a->state_ms = loop_now_ms(a->providers->loop);
		buf_add(&a->refusal, bytes.p, bytes.len < room ? bytes.len : room);
		return true;
	}
	if (a->state != ASK_STATE_TAIL) /* what lingers does not live */
		a->state_ms = loop_now_ms(a->providers->loop);
	return a->translation != NULL ? take_translated(a, bytes)
				      : !give_bytes(a, bytes, &is_paused) || !is_paused;
}

static enum failure
failure_of_outcome(const struct ask *a, enum client_outcome outcome)
{
	switch (outcome) {
	case CLIENT_POOL_TIMEOUT:
	case CLIENT_POOL_FULL:
		return FAILURE_NO_PLACE;
	case CLIENT_CONNECT_TIMEOUT:
		return FAILURE_CONNECT_TIMEOUT;
	case CLIENT_CONNECT_FAILED:
	case CLIENT_REFUSED_ADDRESS:
		return FAILURE_CONNECT;
	case CLIENT_TIMEOUT:
		return a->state == ASK_STATE_STREAM ? FAILURE_STALLED : FAILURE_SILENT;
	default:
		return FAILURE_CUT;
	}
}

static void
on_transfer_done(void *arg, enum client_outcome outcome, const char *detail)
{
	struct ask *a = arg;

	a->transfer = 0;
	if (a->state == ASK_STATE_REFUSAL) /* the status says enough without the whole body */
		refused(a);
	else if (outcome == CLIENT_OK || a->state == ASK_STATE_TAIL)
		answer_ended(a);
	else
		ask_failed(a, failure_of_outcome(a, outcome), NULL, detail);
}

/* ---- the request ---- */

/* A header's value from outside: nothing that could begin another header. */
static bool
is_header_value(const char *s)
{
	if (s == NULL || *s == '\0')
		return false;
	for (; *s != '\0'; s++) {
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			return false;
	}
	return true;
}

static uint32_t
smaller_limit(uint64_t x, uint64_t y)
{
	if (x == 0 || y == 0)
		return (uint32_t)(x + y);
	return (uint32_t)(x < y ? x : y);
}

static uint32_t
first_byte_limit_ms(const struct ask *a)
{
	const struct conf_provider_http_client *limits = &ask_conf(a)->http_client;

	return a->is_streamed
		   ? smaller_limit(limits->first_token_timeout_ms, limits->read_timeout_ms)
		   : (uint32_t)limits->read_timeout_ms;
}

static void
send_body(struct ask *a, const char *path, struct str body)
{
	const struct client_handlers handlers = {on_head, on_body, on_transfer_done};
	const struct upstream *u = a->target->upstream;
	struct client_header headers[HEADERS_MAX];
	size_t n = 0;

	headers[n++] = (struct client_header){"Content-Type", "application/json"};
	headers[n++] = (struct client_header){
	    "Accept", a->is_streamed ? "text/event-stream" : "application/json"};
	if (u->authorization != NULL)
		headers[n++] = (struct client_header){u->dialect->key_header, u->authorization};
	if (u->dialect->more_header != NULL)
		headers[n++] =
		    (struct client_header){u->dialect->more_header, u->dialect->more_value};
	if (is_header_value(a->request_id))
		headers[n++] = (struct client_header){"X-Request-Id", a->request_id};
	if (is_header_value(a->traceparent))
		headers[n++] = (struct client_header){"traceparent", a->traceparent};
	if (is_header_value(a->idempotency_key))
		headers[n++] = (struct client_header){"Idempotency-Key", a->idempotency_key};
	check(n <= HEADERS_MAX);
	char *url = xasprintf("%s%s", u->base_url, path);
	struct client_request request = {
	    .method = a->method,
	    .url = url,
	    .headers = headers,
	    .header_count = n,
	    .body = body,
	    .first_byte_timeout_ms = first_byte_limit_ms(a),
	};
	a->transfer = client_start(u->pool, &request, &handlers, a);
	free(url);
}

/* In the dialect of the target. What it cannot say another target may. */
static void
send_question(struct ask *a, struct str body)
{
	const struct dialect *dialect = dialect_of(a);
	const char *path = dialect->path(a->path), *why = "The model's provider has no such route.";
	struct buf theirs = BUF_INIT;

	dialect_end(dialect, &a->translation);
	if (path != NULL && dialect->request == NULL) {
		send_body(a, path, body);
	} else if (path != NULL && dialect->request(body, &theirs, &why)) {
		a->translation = dialect->begin(a->is_streamed);
		send_body(a, path, buf_str(&theirs));
	} else
		ask_failed(a, FAILURE_UNSAYABLE, why, why);
	buf_fini(&theirs);
}

void
ask_send(struct ask *a)
{
	struct buf body = BUF_INIT;
	struct ask_attempt attempt = {
	    .provider = ask_conf(a)->name,
	    .model = a->target->model,
	    .dialect = ask_conf(a)->dialect,
	    .supports_prefill = a->target->conf->supports_prefill,
	    .number = a->attempts,
	    .is_after_break = a->has_begun,
	};

	a->status = 0;
	a->retry_after_ms = 0;
	a->is_paused = a->is_done = a->has_token = false;
	buf_clear(&a->content_type);
	buf_clear(&a->refusal);
	a->sent_ms = ask_now_ms(a);
	ask_enter(a, ASK_STATE_HEAD);
	a->depth++;
	a->handlers.on_attempt(a->arg, &attempt, &body);
	if (ask_leave_asker(a))
		send_question(a, buf_str(&body));
	buf_fini(&body);
}
