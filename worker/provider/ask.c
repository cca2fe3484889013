/*
 * ask - the engine. See ask.h.
 *
 *   CHOOSE -> PLACE -> HEAD -> FIRST -> STREAM -> TAIL -> ended
 *                       |
 *                       +----> REFUSAL (the body of an error answer) -> ended
 */
#include "worker/provider/ask.h"

#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/provider/openai.h"
#include "worker/provider/provider_parts.h"
#include "worker/provider/retry.h"

enum {
	REFUSAL_BYTES_MAX = 64 << 10,
	/* After [DONE] the connection may end, so that it can be kept; a provider that lets us wait
	 * loses it. Between finish_reason and [DONE] the usage comes, if it comes. */
	DONE_LINGER_MS = 200,
	WHOLE_LINGER_MS = 1000,
	HEADERS_MAX = 5,
};

enum ask_state {
	ASK_STATE_CHOOSE,  /* a target; posted */
	ASK_STATE_PLACE,   /* waits for one */
	ASK_STATE_HEAD,    /* the request is on its way */
	ASK_STATE_FIRST,   /* a good head, nothing passed on */
	ASK_STATE_STREAM,  /* something was passed on */
	ASK_STATE_TAIL,    /* complete; what follows is not needed */
	ASK_STATE_REFUSAL, /* an error answer's body is read */
};

struct ask {
	struct providers *providers;
	uint64_t handle; /* 0: ended or cancelled */
	struct ask_handlers handlers;
	void *arg;
	unsigned depth; /* inside the asker's callbacks */
	enum ask_state state;
	struct loop_post post;
	struct loop_timer timer;

	const struct route *route;   /* NULL: the alias is unknown */
	const struct target *target; /* of this attempt, or of the last */
	char *path, *request_id, *traceparent;
	bool is_streamed;
	uint64_t due_ms; /* the asker's time is up; UINT64_MAX: never */
	uint32_t attempts;
	bool has_begun; /* something was passed on, ever */

	/* This attempt. */
	uint64_t transfer; /* 0: none, or ended */
	uint64_t progress_ms;
	bool is_paused, is_done;
	int status; /* 0: no head yet */
	struct buf content_type, refusal;
	uint32_t retry_after_ms;
};

/* ---- the end ---- */

static void
attempt_stop(struct ask *a)
{
	if (a->transfer != 0)
		client_cancel(a->providers->client, a->transfer);
	a->transfer = 0;
}

static void
ask_free(struct ask *a)
{
	if (a->handle != 0)
		idmap_remove(a->providers->asks, a->handle);
	a->handle = 0;
	attempt_stop(a);
	loop_timer_stop(a->providers->loop, &a->timer);
	loop_post_cancel(a->providers->loop, &a->post);
	if (a->depth > 0)
		return; /* freed when the asker's callback has been left */
	buf_fini(&a->content_type);
	buf_fini(&a->refusal);
	free(a->path);
	free(a->request_id);
	free(a->traceparent);
	free(a);
}

static const struct conf_provider *
ask_conf(const struct ask *a)
{
	return a->target->upstream->conf;
}

/* The asker's last word; the ask is gone when it is spoken, what it borrows is not yet. */
static void
ask_end(struct ask *a, struct ask_result *r)
{
	check(a->handle != 0);
	a->depth++;
	ask_free(a);
	r->provider = a->target != NULL ? ask_conf(a)->name : "";
	r->model = a->target != NULL ? a->target->model : "";
	r->attempts = a->attempts;
	r->has_begun = a->has_begun;
	a->handlers.on_done(a->arg, r);
	a->depth--;
	ask_free(a);
}

static void
count_attempt(const struct ask *a, unsigned outcome)
{
	if (a->target != NULL)
		metric_add(METRIC_PROVIDER_REQUESTS, a->target->label, outcome, 1);
}

/* Whatever the provider says, our key is not passed on. */
static bool
names_key(const struct ask *a, struct str text)
{
	const char *key = ask_conf(a)->api_key;

	return *key != '\0' && memmem(text.p, text.len, key, strlen(key)) != NULL;
}

static void
ask_fail(struct ask *a, enum failure failure, const char *message)
{
	int err = failure_info(failure)->err;
	struct ask_result r = {.err = err,
	    .failure = failure,
	    .message = message,
	    .retry_after_ms = a->retry_after_ms};

	if (err == E_PROVIDER_REFUSED && a->status >= 400 && !names_key(a, buf_str(&a->refusal))) {
		r.status = a->status;
		r.content_type = buf_str(&a->content_type);
		r.body = buf_str(&a->refusal);
	}
	ask_end(a, &r);
}

/* detail is for the log. message NULL: the error's own. */
static void
attempt_failed(struct ask *a, enum failure failure, const char *message, const char *detail)
{
	const struct failure_info *info = failure_info(failure);

	attempt_stop(a);
	count_attempt(a, info->outcome);
	if (message == NULL || names_key(a, str_of(message)))
		message = err_info(info->err)->text;
	if (names_key(a, str_of(detail)))
		detail = info->name;
	if (info->err != E_PROVIDER_REFUSED)
		log_warn("provider call failed provider=%s model=%s error=%s status=%d detail=%s",
		    ask_conf(a)->name, a->target->model, err_info(info->err)->code, a->status,
		    log_quote(str_of(detail)).s);
	ask_fail(a, failure, message);
}

/* An error answer, its body read or given up. */
static void
attempt_refused(struct ask *a)
{
	struct str body = buf_str(&a->refusal);
	enum failure failure = failure_of_status(a->status, body);
	struct buf message = BUF_INIT;
	const char *text = NULL;

	if (failure == FAILURE_RATE_LIMITED)
		text = "The model provider's rate limit is reached.";
	else if (failure_info(failure)->err == E_PROVIDER_REFUSED) {
		openai_error_message(body, &message);
		text = message.len > 0 ? message.data : NULL;
	}
	attempt_failed(a, failure, text, failure_info(failure)->name);
	buf_fini(&message);
}

static void
attempt_succeeded(struct ask *a)
{
	struct ask_result r = {0};

	attempt_stop(a);
	count_attempt(a, PROVIDER_OUTCOME_OK);
	ask_end(a, &r);
}

/* ---- time ---- */

static uint64_t
after(uint64_t from_ms, int64_t limit_ms)
{
	return limit_ms > 0 ? from_ms + (uint64_t)limit_ms : UINT64_MAX;
}

/* When the present state has lasted too long. In HEAD the transfer has its own limits. */
static uint64_t
state_due_ms(const struct ask *a)
{
	const struct conf_provider_http_client *limits = &ask_conf(a)->http_client;

	if (a->is_paused)
		return UINT64_MAX;
	switch (a->state) {
	case ASK_STATE_FIRST:
		return after(a->progress_ms,
		    a->is_streamed ? limits->first_token_timeout_ms : limits->read_timeout_ms);
	case ASK_STATE_STREAM:
		return after(a->progress_ms,
		    a->is_streamed ? limits->stall_timeout_ms : limits->read_timeout_ms);
	case ASK_STATE_TAIL:
		return a->progress_ms + (a->is_done ? DONE_LINGER_MS : WHOLE_LINGER_MS);
	case ASK_STATE_REFUSAL:
		return after(a->progress_ms, limits->read_timeout_ms);
	default:
		return UINT64_MAX;
	}
}

static void
ask_wait(struct ask *a)
{
	uint64_t now_ms = loop_now_ms(a->providers->loop), due_ms = state_due_ms(a);

	if (a->due_ms < due_ms)
		due_ms = a->due_ms;
	if (due_ms == UINT64_MAX)
		loop_timer_stop(a->providers->loop, &a->timer);
	else
		loop_timer_set(
		    a->providers->loop, &a->timer, due_ms > now_ms ? due_ms - now_ms : 0);
}

static void
ask_enter(struct ask *a, enum ask_state state)
{
	a->state = state;
	a->progress_ms = loop_now_ms(a->providers->loop);
	ask_wait(a);
}

static void attempt_ended(struct ask *);

/* Bytes move progress_ms without touching the timer, so it may come early. */
static void
on_timer(struct loop_timer *timer)
{
	struct ask *a = container_of(timer, struct ask, timer);
	uint64_t now_ms = loop_now_ms(a->providers->loop);

	if (now_ms >= a->due_ms)
		attempt_failed(a, FAILURE_TIME_UP, NULL, "the turn's time is up");
	else if (now_ms < state_due_ms(a))
		ask_wait(a);
	else if (a->state == ASK_STATE_REFUSAL)
		attempt_refused(a); /* without the whole body */
	else if (a->state == ASK_STATE_TAIL)
		attempt_ended(a);
	else if (a->state == ASK_STATE_FIRST)
		attempt_failed(a, FAILURE_SILENT, NULL, "no first token");
	else
		attempt_failed(a, FAILURE_STALLED, NULL, "silence between tokens");
}

/* ---- what the asker says ---- */

static void
take_sign(struct ask *a, struct ask_sign sign)
{
	a->is_paused = sign.is_paused;
	a->has_begun |= sign.progress == ASK_FAULT ? sign.has_begun : sign.progress != ASK_LIFE;
	if (sign.progress == ASK_FAULT) {
		attempt_failed(a, sign.failure, sign.message,
		    sign.message != NULL ? sign.message : failure_info(sign.failure)->name);
		return;
	}
	if (sign.progress == ASK_TOKEN && a->state == ASK_STATE_FIRST)
		ask_enter(a, ASK_STATE_STREAM);
	else if (sign.progress == ASK_DONE && !a->is_done) {
		a->is_done = true;
		ask_enter(a, ASK_STATE_TAIL);
	} else if (sign.progress == ASK_WHOLE && a->state != ASK_STATE_TAIL)
		ask_enter(a, ASK_STATE_TAIL);
}

/* False: the ask is gone. */
static bool
leave_asker(struct ask *a)
{
	a->depth--;
	if (a->handle != 0)
		return true;
	ask_free(a);
	return false;
}

/* No more bytes come, or are needed. */
static void
attempt_ended(struct ask *a)
{
	attempt_stop(a);
	a->depth++;
	struct ask_sign sign = a->handlers.on_end(a->arg);
	if (!leave_asker(a))
		return;
	if (sign.progress == ASK_FAULT)
		take_sign(a, sign);
	else
		attempt_succeeded(a);
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
	a->progress_ms -= head->waited_ms; /* a head is not the model's life */
	ask_wait(a);
	if (a->handlers.on_head == NULL)
		return;
	a->depth++;
	struct ask_sign sign = a->handlers.on_head(a->arg, head);
	if (leave_asker(a))
		take_sign(a, sign);
}

static bool
on_body(void *arg, struct str bytes)
{
	struct ask *a = arg;
	size_t room = REFUSAL_BYTES_MAX - a->refusal.len;

	a->progress_ms = loop_now_ms(a->providers->loop);
	if (a->state == ASK_STATE_REFUSAL) {
		buf_add(&a->refusal, bytes.p, bytes.len < room ? bytes.len : room);
		return true;
	}
	a->depth++;
	struct ask_sign sign = a->handlers.on_bytes(a->arg, bytes);
	if (!leave_asker(a))
		return true;
	bool was_paused = a->is_paused, is_paused = sign.is_paused;
	take_sign(a, sign);
	if (is_paused == was_paused || sign.progress == ASK_FAULT)
		return !is_paused;
	ask_wait(a);
	return false;
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
		attempt_refused(a);
	else if (outcome == CLIENT_OK || a->state == ASK_STATE_TAIL)
		attempt_ended(a);
	else
		attempt_failed(a, failure_of_outcome(a, outcome),
		    outcome == CLIENT_POOL_FULL ? "Too many calls wait for the model provider."
						: NULL,
		    detail);
}

/* ---- an attempt ---- */

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
attempt_send(struct ask *a, struct str body)
{
	const struct client_handlers handlers = {on_head, on_body, on_transfer_done};
	const struct upstream *u = a->target->upstream;
	struct client_header headers[HEADERS_MAX];
	size_t n = 0;

	headers[n++] = (struct client_header){"Content-Type", "application/json"};
	headers[n++] = (struct client_header){
	    "Accept", a->is_streamed ? "text/event-stream" : "application/json"};
	if (u->authorization != NULL)
		headers[n++] = (struct client_header){"Authorization", u->authorization};
	if (is_header_value(a->request_id))
		headers[n++] = (struct client_header){"X-Request-Id", a->request_id};
	if (is_header_value(a->traceparent))
		headers[n++] = (struct client_header){"traceparent", a->traceparent};
	check(n <= HEADERS_MAX);
	char *url = xasprintf("%s%s", u->base_url, a->path);
	struct client_request request = {
	    .method = "POST",
	    .url = url,
	    .headers = headers,
	    .header_count = n,
	    .body = body,
	    .first_byte_timeout_ms = first_byte_limit_ms(a),
	};
	a->transfer = client_start(u->pool, &request, &handlers, a);
	free(url);
}

static void
attempt_begin(struct ask *a)
{
	struct buf body = BUF_INIT;
	struct ask_attempt attempt = {
	    .provider = ask_conf(a)->name,
	    .model = a->target->model,
	    .dialect = ask_conf(a)->dialect,
	    .supports_prefill = a->target->conf->supports_prefill,
	    .number = ++a->attempts,
	    .is_after_break = a->has_begun,
	};

	a->status = 0;
	a->retry_after_ms = 0;
	a->is_paused = a->is_done = false;
	buf_clear(&a->content_type);
	buf_clear(&a->refusal);
	ask_enter(a, ASK_STATE_HEAD);
	a->depth++;
	a->handlers.on_attempt(a->arg, &attempt, &body);
	if (leave_asker(a))
		attempt_send(a, buf_str(&body));
	buf_fini(&body);
}

/* ---- the beginning ---- */

static void
on_post(struct loop_post *post)
{
	struct ask *a = container_of(post, struct ask, post);

	if (a->route == NULL || a->route->conf->targets.n == 0) {
		struct ask_result r = {
		    .err = E_INVALID_VALUE, .message = "There is no such model."};

		ask_end(a, &r);
		return;
	}
	a->target = &a->route->targets[0];
	attempt_begin(a);
}

static char *
dup_or_null(const char *s)
{
	return s != NULL ? xstrdup(s) : NULL;
}

uint64_t
ask_start(struct providers *p, const struct ask_question *q, const struct ask_handlers *handlers,
    void *arg)
{
	struct ask *a = xcalloc(1, sizeof(*a));

	a->providers = p;
	a->handlers = *handlers;
	a->arg = arg;
	a->route = providers_route(p, q->alias);
	a->path = xstrdup(q->path);
	a->request_id = dup_or_null(q->request_id);
	a->traceparent = dup_or_null(q->traceparent);
	a->is_streamed = q->is_streamed;
	a->due_ms = q->timeout_ms > 0 ? loop_now_ms(p->loop) + q->timeout_ms : UINT64_MAX;
	a->timer.on_fire = on_timer;
	a->post.run = on_post;
	a->handle = idmap_add(p->asks, a);
	loop_post(p->loop, &a->post);
	return a->handle;
}

void
ask_cancel(struct providers *p, uint64_t handle)
{
	struct ask *a = idmap_get(p->asks, handle);

	if (a == NULL)
		return;
	count_attempt(a, PROVIDER_OUTCOME_CANCELLED);
	ask_free(a);
}

void
ask_resume(struct providers *p, uint64_t handle)
{
	struct ask *a = idmap_get(p->asks, handle);

	if (a == NULL || !a->is_paused)
		return;
	a->is_paused = false;
	a->progress_ms = loop_now_ms(p->loop);
	ask_wait(a);
	client_resume(p->client, a->transfer);
}
