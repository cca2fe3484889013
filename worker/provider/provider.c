/*
 * provider - one call of a model: the first target of the alias, once.
 *
 *   start -> (head: 200 event stream) -> deltas -> done
 *         \-> (head: an error) -> its body -> done
 *
 * The transfer's own timer covers the time until the first byte; from the head on
 * the call measures what the model gives, so that comments and empty events do not
 * count as life.
 */
#include <stdlib.h>
#include <time.h>

#include "common/check.h"
#include "common/err.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/provider/openai.h"
#include "worker/provider/provider_parts.h"

enum {
	ERROR_BODY_BYTES_MAX = 64 << 10,
	/* After [DONE] the connection may end, so that it can be kept; a provider that lets us wait
	 * loses it. */
	DONE_LINGER_MS = 200,
	RETRY_AFTER_MAX_S = 86400,
	HEADERS_MAX = 5,
};

struct call {
	struct providers *providers;
	const struct route *route;   /* NULL: the alias is unknown */
	const struct target *target; /* likewise */
	uint64_t handle;             /* 0: ended or cancelled */
	uint64_t transfer;           /* 0: none, or ended */
	struct provider_handlers handlers;
	void *arg;
	unsigned depth; /* inside the answer's callbacks */

	struct openai_answer *answer;
	struct buf error_body;
	int status; /* 0: no head yet */
	bool is_stream;
	uint32_t retry_after_ms;
	size_t request_bytes;

	struct loop_timer timer;
	uint64_t deltas_seen, progress_ms; /* when the model last gave something */
	uint64_t first_due_ms;
};

/* ---- the end ---- */

static void
call_free(struct call *c)
{
	if (c->handle != 0)
		idmap_remove(c->providers->calls, c->handle);
	c->handle = 0;
	if (c->transfer != 0)
		client_cancel(c->providers->client, c->transfer);
	c->transfer = 0;
	loop_timer_stop(c->providers->loop, &c->timer);
	if (c->depth > 0)
		return; /* freed when the answer has been left */
	openai_answer_free(&c->answer);
	buf_fini(&c->error_body);
	free(c);
}

static void
call_count(const struct call *c, unsigned outcome)
{
	if (c->target != NULL)
		metric_add(METRIC_PROVIDER_REQUESTS, c->target->label, outcome, 1);
}

static const struct conf_provider *
call_conf(const struct call *c)
{
	return c->target->upstream->conf;
}

/* The caller's last word; the call is gone when it is spoken, what it borrows is not yet. */
static void
call_end(struct call *c, struct provider_result *r)
{
	struct provider_handlers handlers = c->handlers;
	void *arg = c->arg;

	check(c->handle != 0);
	idmap_remove(c->providers->calls, c->handle);
	c->handle = 0;
	c->depth++; /* keeps what the result borrows */
	call_free(c);
	r->provider = c->target != NULL ? call_conf(c)->name : "";
	r->model = c->target != NULL ? c->target->model : "";
	handlers.on_done(arg, r);
	c->depth--;
	call_free(c);
}

/* Whatever the provider says, our key is not passed on. */
static const char *
without_key(const struct call *c, int err, const char *message)
{
	const char *key = c->target != NULL ? call_conf(c)->api_key : "";

	return *key != '\0' && strstr(message, key) != NULL ? err_info(err)->text : message;
}

static void
call_fail(struct call *c, int err, unsigned outcome, const char *message, const char *detail)
{
	struct provider_result r = {.err = err,
	    .message = without_key(c, err, message),
	    .retry_after_ms = c->retry_after_ms};

	call_count(c, outcome);
	if (c->target != NULL && err != E_PROVIDER_REFUSED)
		log_warn("provider call failed provider=%s model=%s error=%s status=%d detail=%s",
		    call_conf(c)->name, c->target->model, err_info(err)->code, c->status,
		    log_quote(str_of(without_key(c, err, detail))).s);
	call_end(c, &r);
}

static void
call_fail_plain(struct call *c, int err, unsigned outcome, const char *detail)
{
	call_fail(c, err, outcome, err_info(err)->text, detail);
}

static void
call_fail_answer(struct call *c)
{
	int err = openai_answer_end(c->answer);
	unsigned outcome =
	    err == E_RATE_LIMITED ? PROVIDER_OUTCOME_RATE_LIMITED : PROVIDER_OUTCOME_BROKEN;
	const char *message = openai_answer_message(c->answer);

	call_fail(c, err, outcome, message, message);
}

static void
call_complete(struct call *c)
{
	struct provider_result r = {0};

	call_count(c, PROVIDER_OUTCOME_OK);
	openai_answer_result(c->answer, &r);
	if (r.usage.is_estimated)
		r.usage.input_tokens = (c->request_bytes + 3) / 4;
	call_end(c, &r);
}

/* An error answer, its body read. */
static void
call_refused(struct call *c)
{
	struct buf message = BUF_INIT;

	if (c->status == 429) {
		call_fail(c, E_RATE_LIMITED, PROVIDER_OUTCOME_RATE_LIMITED,
		    "The model provider's rate limit is reached.", "rate limited");
	} else if (c->status == 401 || c->status == 402 || c->status == 403) {
		/* Our key, our bill: what it says may quote the key. */
		call_fail_plain(c, E_PROVIDER, PROVIDER_OUTCOME_4XX, "the key was refused");
	} else if (c->status >= 400 && c->status < 500) {
		openai_error_message(buf_str(&c->error_body), &message);
		call_fail(c, E_PROVIDER_REFUSED, PROVIDER_OUTCOME_4XX,
		    message.len > 0 ? message.data : err_info(E_PROVIDER_REFUSED)->text, "");
	} else if (c->status >= 500) {
		call_fail_plain(c, E_PROVIDER, PROVIDER_OUTCOME_5XX, "server error");
	} else
		call_fail(c, E_PROVIDER, PROVIDER_OUTCOME_BROKEN,
		    "The model provider's answer was not an event stream.", "not an event stream");
	buf_fini(&message);
}

static void
transfer_ended_well(struct call *c)
{
	if (!c->is_stream)
		call_refused(c);
	else if (openai_answer_end(c->answer) != 0)
		call_fail_answer(c);
	else
		call_complete(c);
}

/* ---- time ---- */

/* False: it waits for nothing that has a limit. */
static bool
call_due_ms(const struct call *c, uint64_t *ret)
{
	uint64_t stall_ms = call_conf(c)->http_client.stall_timeout_ms;

	if (openai_answer_is_done(c->answer))
		*ret = c->progress_ms + DONE_LINGER_MS;
	else if (c->deltas_seen == 0)
		*ret = c->first_due_ms;
	else
		*ret = stall_ms > 0 ? c->progress_ms + stall_ms : UINT64_MAX;
	return *ret != UINT64_MAX;
}

static void
call_wait(struct call *c)
{
	uint64_t now_ms = loop_now_ms(c->providers->loop), due_ms;

	if (call_due_ms(c, &due_ms))
		loop_timer_set(
		    c->providers->loop, &c->timer, due_ms > now_ms ? due_ms - now_ms : 0);
	else
		loop_timer_stop(c->providers->loop, &c->timer);
}

/* Deltas move the time without touching the timer, so it may come early. */
static void
on_timer(struct loop_timer *timer)
{
	struct call *c = container_of(timer, struct call, timer);
	uint64_t due_ms;

	if (c->target == NULL) {
		call_fail(c, E_INVALID_VALUE, 0, "There is no such model.", "");
		return;
	}
	if (call_due_ms(c, &due_ms) && due_ms > loop_now_ms(c->providers->loop))
		call_wait(c);
	else if (!c->is_stream)
		call_refused(c); /* without the whole body */
	else if (openai_answer_is_done(c->answer))
		transfer_ended_well(c);
	else if (c->deltas_seen == 0)
		call_fail_plain(c, E_PROVIDER_TIMEOUT, PROVIDER_OUTCOME_TIMEOUT, "no first token");
	else
		call_fail_plain(
		    c, E_PROVIDER_TIMEOUT, PROVIDER_OUTCOME_STALLED, "silence between tokens");
}

/* ---- the transfer ---- */

/* Seconds or a date; what is neither, or in the past, is none. */
static uint32_t
parse_retry_after(struct str value)
{
	struct tm tm = {0};
	uint64_t seconds = 0;

	if (!str_to_u64(value, &seconds)) {
		char text[64];

		if (value.len >= sizeof(text))
			return 0;
		memcpy(text, value.p, value.len);
		text[value.len] = '\0';
		if (strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm) == NULL)
			return 0;
		time_t at = timegm(&tm), now = time(NULL);
		seconds = at > now ? (uint64_t)(at - now) : 0;
	}
	return (uint32_t)(seconds < RETRY_AFTER_MAX_S ? seconds : RETRY_AFTER_MAX_S) * 1000;
}

static void
on_head(void *arg, const struct client_head *head)
{
	struct call *c = arg;
	uint64_t now_ms = loop_now_ms(c->providers->loop);
	uint64_t first_ms = call_conf(c)->http_client.first_token_timeout_ms;

	c->status = head->status;
	if (head->retry_after.len > 0)
		c->retry_after_ms = parse_retry_after(head->retry_after);
	c->is_stream = head->status == 200 && str_eq(head->content_type, STR("text/event-stream"));
	c->first_due_ms = first_ms > 0 ? now_ms - head->waited_ms + first_ms : UINT64_MAX;
	if (!c->is_stream)
		c->first_due_ms = now_ms + call_conf(c)->http_client.read_timeout_ms;
	c->progress_ms = now_ms;
	call_wait(c);
}

static void
note_progress(struct call *c)
{
	uint64_t deltas = openai_answer_deltas(c->answer);
	bool is_first = c->deltas_seen == 0 && deltas > 0;

	if (deltas != c->deltas_seen || openai_answer_is_done(c->answer))
		c->progress_ms = loop_now_ms(c->providers->loop);
	c->deltas_seen = deltas;
	if (is_first || openai_answer_is_done(c->answer))
		call_wait(c);
}

static void
feed_answer(struct call *c, struct str bytes)
{
	c->depth++;
	int rc = openai_answer_feed(c->answer, bytes);
	c->depth--;
	if (c->handle == 0)
		call_free(c); /* cancelled from inside */
	else if (rc != 0)
		call_fail_answer(c);
	else
		note_progress(c);
}

static bool
on_body(void *arg, struct str bytes)
{
	struct call *c = arg;
	size_t room = ERROR_BODY_BYTES_MAX - c->error_body.len;

	if (c->is_stream)
		feed_answer(c, bytes);
	else
		buf_add(&c->error_body, bytes.p, bytes.len < room ? bytes.len : room);
	return true;
}

static void
on_text(void *arg, struct str text)
{
	struct call *c = arg;

	if (c->handle != 0)
		c->handlers.on_text(c->arg, text);
}

static void
on_reasoning(void *arg, struct str text)
{
	struct call *c = arg;

	if (c->handle != 0 && c->handlers.on_reasoning != NULL)
		c->handlers.on_reasoning(c->arg, text);
}

static void
on_transfer_done(void *arg, enum client_outcome outcome, const char *detail)
{
	struct call *c = arg;

	c->transfer = 0;
	if (outcome == CLIENT_OK || openai_answer_is_done(c->answer)) {
		transfer_ended_well(c);
		return;
	}
	switch (outcome) {
	case CLIENT_POOL_TIMEOUT:
		call_fail_plain(c, E_POOL_TIMEOUT, PROVIDER_OUTCOME_POOL_TIMEOUT, detail);
		break;
	case CLIENT_POOL_FULL:
		call_fail(c, E_POOL_TIMEOUT, PROVIDER_OUTCOME_POOL_TIMEOUT,
		    "Too many calls wait for the model provider.", detail);
		break;
	case CLIENT_TIMEOUT:
		call_fail_plain(c, E_PROVIDER_TIMEOUT, PROVIDER_OUTCOME_TIMEOUT, detail);
		break;
	case CLIENT_CONNECT_TIMEOUT:
		call_fail_plain(c, E_PROVIDER_TIMEOUT, PROVIDER_OUTCOME_CONNECT, detail);
		break;
	case CLIENT_CONNECT_FAILED:
	case CLIENT_REFUSED_ADDRESS:
		call_fail_plain(c, E_PROVIDER, PROVIDER_OUTCOME_CONNECT, detail);
		break;
	default:
		if (c->status >= 400) /* the status says enough without the whole body */
			call_refused(c);
		else
			call_fail_plain(c, E_PROVIDER, PROVIDER_OUTCOME_BROKEN, detail);
	}
}

/* ---- the beginning ---- */

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
smaller_limit(uint64_t a, uint64_t b)
{
	if (a == 0 || b == 0)
		return (uint32_t)(a + b);
	return (uint32_t)(a < b ? a : b);
}

static void
call_start(struct call *c, const struct provider_request *r)
{
	const struct client_handlers handlers = {on_head, on_body, on_transfer_done};
	const struct upstream *upstream = c->target->upstream;
	const struct conf_provider *conf = upstream->conf;
	struct client_header headers[HEADERS_MAX];
	struct buf body = BUF_INIT;
	size_t n = 0;

	openai_request(r, c->target->model, &body);
	c->request_bytes = body.len;
	headers[n++] = (struct client_header){"Content-Type", "application/json"};
	headers[n++] = (struct client_header){"Accept", "text/event-stream"};
	if (upstream->authorization != NULL)
		headers[n++] = (struct client_header){"Authorization", upstream->authorization};
	if (is_header_value(r->request_id))
		headers[n++] = (struct client_header){"X-Request-Id", r->request_id};
	if (is_header_value(r->traceparent))
		headers[n++] = (struct client_header){"traceparent", r->traceparent};
	check(n <= HEADERS_MAX);
	struct client_request request = {
	    .method = "POST",
	    .url = upstream->chat_url,
	    .headers = headers,
	    .header_count = n,
	    .body = buf_str(&body),
	    .first_byte_timeout_ms = smaller_limit(
		conf->http_client.first_token_timeout_ms, conf->http_client.read_timeout_ms),
	    .total_timeout_ms = r->timeout_ms,
	};
	c->transfer = client_start(upstream->pool, &request, &handlers, c);
	buf_fini(&body);
}

uint64_t
provider_call(struct providers *p, const struct provider_request *r,
    const struct provider_handlers *handlers, void *arg)
{
	struct call *c = xcalloc(1, sizeof(*c));

	c->providers = p;
	c->handlers = *handlers;
	c->arg = arg;
	c->route = providers_route(p, r->model);
	c->timer.on_fire = on_timer;
	c->handle = idmap_add(p->calls, c);
	c->answer = openai_answer_new(&(struct openai_handlers){on_text, on_reasoning}, c);
	if (c->route != NULL && c->route->conf->targets.n > 0)
		c->target = &c->route->targets[0];
	if (c->target != NULL)
		call_start(c, r);
	else
		loop_timer_set(p->loop, &c->timer, 0); /* fails from there */
	return c->handle;
}

void
provider_cancel(struct providers *p, uint64_t handle)
{
	struct call *c = idmap_get(p->calls, handle);

	if (c == NULL)
		return;
	call_count(c, PROVIDER_OUTCOME_CANCELLED);
	call_free(c);
}
