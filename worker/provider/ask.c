/*
 * ask - the engine. See ask.h and ask_impl.h.
 */
#include "worker/provider/ask.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/check.h"
#include "common/err.h"
#include "common/log.h"
#include "common/metric.h"
#include "worker/provider/ask_impl.h"
#include "worker/provider/retry.h"

/* ---- what an attempt holds ---- */

uint64_t
ask_now_ms(const struct ask *a)
{
	return loop_now_ms(a->providers->loop);
}

const struct conf_provider *
ask_conf(const struct ask *a)
{
	return a->target->upstream->conf;
}

static void
log_breaker(const struct ask *a)
{
	enum breaker_state state = breaker_state(a->target->breaker);

	if (state == BREAKER_OPEN)
		log_warn("provider breaker open provider=%s model=%s recovery_ms=%u",
		    ask_conf(a)->name, a->target->model, a->target->rule.recovery_ms);
	else
		log_info("provider breaker %s provider=%s model=%s", breaker_state_name(state),
		    ask_conf(a)->name, a->target->model);
	metric_gauge_set(METRIC_PROVIDER_BREAKER_STATE, a->target->label, 0, state);
	provider_tell_breaker(a->providers, a->target, state);
}

void
ask_pass_use(struct ask *a, enum breaker_outcome outcome)
{
	bool has_pass = a->has_pass;

	a->has_pass = false;
	if (has_pass &&
	    breaker_record(a->target->breaker, &a->target->rule, a->pass, outcome, ask_now_ms(a)))
		log_breaker(a);
}

void
ask_pass_return(struct ask *a)
{
	if (a->has_pass && a->target != NULL)
		breaker_return(a->target->breaker, &a->target->rule, a->pass, ask_now_ms(a));
	a->has_pass = false;
}

bool
ask_pass_take(struct ask *a)
{
	const struct providers *p = a->providers;

	a->has_pass = breaker_enter(
	    a->target->breaker, &a->target->rule, p->shm, p->me, ask_now_ms(a), &a->pass);
	if (a->has_pass && breaker_is_probe(&a->pass))
		log_breaker(a);
	return a->has_pass;
}

void
ask_proved(struct ask *a)
{
	if (a->has_pass && breaker_is_probe(&a->pass))
		ask_pass_use(a, BREAKER_SUCCESS);
}

void
ask_stop_attempt(struct ask *a)
{
	if (a->transfer != 0)
		client_cancel(a->providers->client, a->transfer);
	a->transfer = 0;
	if (a->target != NULL) {
		gate_leave(a->target->upstream->gate, &a->ticket);
		dialect_end(a->target->upstream->dialect, &a->translation);
		if (a->is_outstanding)
			a->target->outstanding--;
		a->is_outstanding = false;
	}
}

void
ask_count_attempt(const struct ask *a, unsigned outcome)
{
	metric_add(METRIC_PROVIDER_REQUESTS, a->target->label, outcome, 1);
}

/* ---- the end ---- */

void
ask_free(struct ask *a)
{
	if (a->handle != 0)
		idmap_remove(a->providers->asks, a->handle);
	a->handle = 0;
	ask_stop_attempt(a);
	ask_pass_return(a);
	loop_timer_stop(a->providers->loop, &a->timer);
	loop_post_cancel(a->providers->loop, &a->post);
	if (a->depth > 0)
		return; /* freed when the asker's callback has been left */
	buf_fini(&a->content_type);
	buf_fini(&a->refusal);
	buf_fini(&a->message);
	buf_fini(&a->detail);
	free(a->path);
	free(a->request_id);
	free(a->traceparent);
	free(a->idempotency_key);
	free(a);
}

bool
ask_leave_asker(struct ask *a)
{
	a->depth--;
	if (a->handle != 0)
		return true;
	ask_free(a);
	return false;
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

/* Whatever the provider says, our key is not passed on. */
bool
ask_names_key(const struct ask *a, struct str text)
{
	const char *key = ask_conf(a)->api_key;

	return *key != '\0' && text.len > 0 && memmem(text.p, text.len, key, strlen(key)) != NULL;
}

static const char *
text_of(const struct buf *b)
{
	return b->len > 0 ? b->data : "";
}

void
ask_fail(struct ask *a)
{
	const struct failure_info *info = failure_info(a->failure);
	struct ask_result r = {.err = info->err,
	    .failure = a->failure,
	    .message = a->message.len > 0 ? a->message.data : err_info(info->err)->text,
	    .retry_after_ms = a->retry_after_ms};

	if (info->err != E_PROVIDER_REFUSED && a->failure != FAILURE_UNSAYABLE)
		log_warn("provider call failed provider=%s model=%s error=%s status=%d attempts=%u "
			 "detail=%s",
		    ask_conf(a)->name, a->target->model, err_info(info->err)->code, a->status,
		    a->attempts, log_quote(str_of(text_of(&a->detail))).s);
	else if (a->status >= 400 && !ask_names_key(a, buf_str(&a->refusal))) {
		r.status = a->status;
		r.content_type = buf_str(&a->content_type);
		r.body = buf_str(&a->refusal);
	}
	ask_end(a, &r);
}

void
ask_succeeded(struct ask *a)
{
	struct ask_result r = {0};

	ask_stop_attempt(a);
	ask_pass_use(a, BREAKER_SUCCESS);
	ask_count_attempt(a, PROVIDER_OUTCOME_OK);
	ask_end(a, &r);
}

/* ---- time ---- */

static uint64_t
state_due_ms(const struct ask *a)
{
	if (a->state == ASK_STATE_BACKOFF)
		return a->state_ms + a->backoff_ms;
	return ask_http_due_ms(a);
}

void
ask_wait(struct ask *a)
{
	uint64_t due_ms = state_due_ms(a);

	if (a->due_ms < due_ms)
		due_ms = a->due_ms;
	if (due_ms == UINT64_MAX)
		loop_timer_stop(a->providers->loop, &a->timer);
	else
		loop_timer_set(a->providers->loop, &a->timer,
		    due_ms > ask_now_ms(a) ? due_ms - ask_now_ms(a) : 0);
}

void
ask_enter(struct ask *a, enum ask_state state)
{
	a->state = state;
	a->state_ms = ask_now_ms(a);
	ask_wait(a);
}

/* Life moves state_ms without touching the timer, so it may come early. */
static void
on_timer(struct loop_timer *timer)
{
	struct ask *a = container_of(timer, struct ask, timer);

	if (ask_now_ms(a) >= a->due_ms)
		ask_failed(a, FAILURE_TIME_UP, NULL, failure_info(FAILURE_TIME_UP)->name);
	else if (ask_now_ms(a) < state_due_ms(a))
		ask_wait(a);
	else if (a->state != ASK_STATE_BACKOFF)
		ask_http_late(a);
	else if (a->is_unasked)
		ask_choose(a);
	else if (ask_pass_take(a))
		ask_go_to_gate(a);
	else {
		a->tried |= ask_bit_of(a, a->target); /* its breaker has opened meanwhile */
		ask_choose(a);
	}
}

/* ---- the gate ---- */

void
ask_go_to_gate(struct ask *a)
{
	a->target->outstanding++;
	a->is_outstanding = true;
	ask_enter(a, ASK_STATE_PLACE);
	gate_enter(a->target->upstream->gate, &a->ticket);
}

static void
on_open(struct gate_ticket *ticket)
{
	struct ask *a = container_of(ticket, struct ask, ticket);

	a->attempts++;
	if (a->tries++ == 0)
		retry_note_call(&a->target->upstream->shared->retries, ask_now_ms(a));
	ask_send(a);
}

static void
on_refused(struct gate_ticket *ticket, enum gate_refusal refusal, uint32_t retry_after_ms)
{
	struct ask *a = container_of(ticket, struct ask, ticket);

	a->retry_after_ms = retry_after_ms;
	if (refusal == GATE_MINUTE_SPENT)
		ask_failed(a, FAILURE_OWN_LIMIT, "The model provider's rate limit is reached.",
		    "requests_per_minute is spent");
	else if (refusal == GATE_QUEUE_FULL)
		ask_failed(a, FAILURE_NO_PLACE, "Too many calls wait for the model provider.",
		    "too many wait");
	else
		ask_failed(a, FAILURE_NO_PLACE, NULL, "no place became free");
}

/* ---- verbs ---- */

/* The target that it is about is not in the config any more. */
static bool
is_pinned_away(const struct ask *a)
{
	return a->is_pinned && a->pinned == 0;
}

static void
on_post(struct loop_post *post)
{
	struct ask *a = container_of(post, struct ask, post);

	if (a->route == NULL || a->route->count == 0 || is_pinned_away(a)) {
		struct ask_result r = {
		    .err = E_INVALID_VALUE, .message = "There is no such model."};

		ask_end(a, &r);
	} else {
		ask_choose(a);
	}
}

static char *
dup_or_null(const char *s)
{
	return s != NULL ? xstrdup(s) : NULL;
}

/* All but one target. */
static void
rule_out_others(struct ask *a, const char *provider, const char *model)
{
	for (size_t i = 0; a->route != NULL && i < a->route->count; i++) {
		const struct target *t = &a->route->targets[i];

		if (strcmp(t->upstream->conf->name, provider) != 0 || strcmp(t->model, model) != 0)
			a->tried |= ask_bit_of(a, t);
		else
			a->pinned = ask_bit_of(a, t);
	}
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
	a->idempotency_key = dup_or_null(q->idempotency_key);
	snprintf(a->method, sizeof(a->method), "%s", q->method != NULL ? q->method : "POST");
	a->is_pinned = q->provider != NULL;
	if (a->is_pinned)
		rule_out_others(a, q->provider, q->model);
	a->is_streamed = q->is_streamed;
	a->due_ms = q->timeout_ms > 0 ? loop_now_ms(p->loop) + q->timeout_ms : UINT64_MAX;
	a->timer.on_fire = on_timer;
	a->post.run = on_post;
	a->ticket.on_open = on_open;
	a->ticket.on_refused = on_refused;
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
	if (a->ticket.at == GATE_INSIDE)
		ask_count_attempt(a, PROVIDER_OUTCOME_CANCELLED);
	if (a->has_token)
		ask_pass_use(a, BREAKER_SUCCESS);
	ask_free(a);
}

void
ask_resume(struct providers *p, uint64_t handle)
{
	struct ask *a = idmap_get(p->asks, handle);

	if (a == NULL || !a->is_paused)
		return;
	a->is_paused = false;
	a->state_ms = loop_now_ms(p->loop);
	ask_wait(a);
	client_resume(p->client, a->transfer);
}
