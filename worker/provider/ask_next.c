/*
 * ask_next - which target is asked, and what follows an attempt that has failed: the
 * same target again, the next one, or the end.
 */
#include <string.h>

#include "common/log.h"
#include "common/metric.h"
#include "worker/provider/ask_impl.h"
#include "worker/provider/choose.h"
#include "worker/provider/retry.h"

#define COOLING_TEXT      "The model provider's rate limit is reached."
#define BREAKER_OPEN_TEXT "The model provider is failing and is not asked for a while."

/* ---- which target ---- */

uint64_t
ask_bit_of(const struct ask *a, const struct target *t)
{
	return UINT64_C(1) << (t - a->route->targets);
}

/* Would its breaker let a call through? */
static bool
is_let_through(const struct ask *a, const struct target *t)
{
	return breaker_allows(t->breaker, &t->rule, a->providers->shm, ask_now_ms(a));
}

/* One that is not in `tried`, whose breaker lets a call through and that wants to be asked; NULL:
 * none. */
static struct target *
find_target(struct ask *a, uint64_t tried)
{
	struct choose_target choice[ROUTE_TARGETS_MAX];
	struct target *targets = a->route->targets;

	for (size_t i = 0; i < a->route->count; i++) {
		struct target *t = &targets[i];

		choice[i] = (struct choose_target){.weight = (uint32_t)t->conf->weight,
		    .outstanding = t->outstanding,
		    .may_be_asked = (tried & ask_bit_of(a, t)) == 0 && is_let_through(a, t) &&
				    upstreams_cooling_ms(t->shared, ask_now_ms(a)) == 0};
	}
	int at = choose_target(choice, a->route->count, providers_dice(a->providers));
	return at >= 0 ? &targets[at] : NULL;
}

/* Nobody has been asked, for no breaker lets us. */
static void
fail_at_breakers(struct ask *a)
{
	uint32_t soonest_ms = UINT32_MAX;

	for (size_t i = 0; i < a->route->count; i++) {
		const struct target *t = &a->route->targets[i];
		uint32_t wait_ms = breaker_wait_ms(t->breaker, &t->rule, ask_now_ms(a));

		metric_add(METRIC_PROVIDER_REQUESTS, t->label, PROVIDER_OUTCOME_BREAKER, 1);
		metric_add(
		    METRIC_PROVIDER_REJECTED, t->upstream->label, PROVIDER_REJECT_BREAKER, 1);
		soonest_ms = wait_ms < soonest_ms ? wait_ms : soonest_ms;
	}
	a->target = &a->route->targets[0];
	a->failure = FAILURE_BREAKER;
	a->retry_after_ms = soonest_ms > 1000 ? soonest_ms : 1000;
	buf_add_cstr(&a->message, BREAKER_OPEN_TEXT);
	buf_add_cstr(&a->detail, failure_info(FAILURE_BREAKER)->name);
	ask_fail(a);
}

/* ---- providers that want not to be asked ---- */

static uint64_t
left_ms(const struct ask *a)
{
	if (a->due_ms == UINT64_MAX)
		return UINT64_MAX;
	return a->due_ms > ask_now_ms(a) ? a->due_ms - ask_now_ms(a) : 0;
}

/* What the provider said to one call holds for all of the host's. */
static void
cool_down(const struct ask *a)
{
	uint64_t max_ms = ask_conf(a)->http_client.cooldown_max_ms, now_ms = ask_now_ms(a);
	uint64_t ms = a->retry_after_ms < max_ms ? a->retry_after_ms : max_ms;

	if (ms > 0 && upstreams_cool_down(a->target->shared, now_ms + ms, now_ms))
		log_info("provider cools down provider=%s model=%s ms=%ju", ask_conf(a)->name,
		    a->target->model, (uintmax_t)ms);
}

/* Nothing but its own wish keeps it from being asked; the first that may be. NULL: none. */
static struct target *
find_cooling(const struct ask *a)
{
	struct target *first = NULL;
	uint32_t first_ms = 0;

	for (size_t i = 0; i < a->route->count; i++) {
		struct target *t = &a->route->targets[i];
		uint32_t ms = upstreams_cooling_ms(t->shared, ask_now_ms(a));

		if (a->is_pinned && a->pinned != ask_bit_of(a, t))
			continue;
		if (ms > 0 && is_let_through(a, t) && (first == NULL || ms < first_ms)) {
			first = t;
			first_ms = ms;
		}
	}
	return first;
}

/* As if it had been said to this call: it waits where a retry would, or that is the answer. Those
 * that wait do not come back all at once. */
static void
wait_until_cool(struct ask *a, struct target *t)
{
	const struct conf_provider_http_client *conf = &t->upstream->conf->http_client;
	uint32_t ms = upstreams_cooling_ms(t->shared, ask_now_ms(a));
	double wait_ms = ms + conf->backoff_factor * 1000 * providers_dice(a->providers);

	a->target = t;
	if (conf->max_retries > 0 && retry_may_wait(ms, conf->backoff_max_ms, left_ms(a)) &&
	    wait_ms < (double)left_ms(a)) {
		a->is_unasked = true;
		a->backoff_ms = (uint32_t)wait_ms;
		ask_enter(a, ASK_STATE_BACKOFF);
		return;
	}
	metric_add(METRIC_PROVIDER_REJECTED, t->upstream->label, PROVIDER_REJECT_COOLDOWN, 1);
	a->failure = FAILURE_RATE_LIMITED;
	a->retry_after_ms = ms;
	buf_add_cstr(&a->message, COOLING_TEXT);
	buf_add_cstr(&a->detail, "cooling down");
	ask_fail(a);
}

void
ask_choose(struct ask *a)
{
	struct target *t;

	if (a->is_unasked)
		a->target = NULL;
	a->is_unasked = false;
	while ((t = find_target(a, a->tried)) != NULL) {
		struct target *was = a->target;

		a->target = t;
		a->tries = 0;
		if (ask_pass_take(a)) {
			ask_go_to_gate(a);
			return;
		}
		a->target = was; /* somebody else became the probe in between: look again */
	}
	if (a->target != NULL)
		ask_fail(a); /* as the last one did */
	else if ((t = find_cooling(a)) != NULL)
		wait_until_cool(a, t);
	else
		fail_at_breakers(a);
}

/* ---- what follows a failure ---- */

/* Only a larger context helps; an unknown one is none. */
static void
rule_out_small_contexts(struct ask *a)
{
	int64_t context = a->target->conf->context;

	for (size_t i = 0; i < a->route->count; i++) {
		if (context == 0 || a->route->targets[i].conf->context <= context)
			a->tried |= UINT64_C(1) << i;
	}
}

static void
count_again(const struct ask *a, unsigned how)
{
	metric_add(METRIC_PROVIDER_AGAIN, a->target->upstream->label, how, 1);
}

/* The same target is asked again only if its breaker and the host's budget let us. */
static bool
may_go_again(struct ask *a)
{
	const struct target *t = a->target;

	if (!breaker_allows(t->breaker, &t->rule, a->providers->shm, ask_now_ms(a)))
		return false;
	if (retry_take(&t->upstream->shared->retries, ask_now_ms(a)))
		return true;
	count_again(a, PROVIDER_AGAIN_NO_BUDGET);
	return false;
}

static enum retry_step
decide(struct ask *a)
{
	const struct conf_provider_http_client *conf = &ask_conf(a)->http_client;
	bool has_next = find_target(a, a->tried | ask_bit_of(a, a->target)) != NULL;
	const struct retry_case c = {
	    .failure = a->failure,
	    .has_begun = a->has_token,
	    .has_next = has_next,
	    .tries = a->tries,
	    .retries_max = (uint32_t)conf->max_retries,
	    .backoff_factor_s = conf->backoff_factor,
	    .backoff_max_ms = (uint32_t)conf->backoff_max_ms,
	    .retry_after_ms = a->retry_after_ms,
	    .left_ms = left_ms(a),
	    .dice = providers_dice(a->providers),
	};
	enum retry_step step = retry_decide(&c, &a->backoff_ms);

	if (step == RETRY_SAME && !may_go_again(a))
		step = has_next ? RETRY_NEXT : RETRY_NOT;
	return step;
}

/* Something of the answer was passed on: it is the asker's to say whether it can be mended. */
static bool
may_go_on(struct ask *a)
{
	if (!a->has_token)
		return true;
	if (a->handlers.on_break == NULL)
		return false;
	a->depth++;
	bool is_willing = a->handlers.on_break(a->arg);
	a->depth--;
	return is_willing;
}

static void
log_attempt(const struct ask *a, enum retry_step step)
{
	static const char *const steps[] = {"same_target", "next_target", "none"};

	log_info("provider attempt failed provider=%s model=%s failure=%s status=%d attempt=%u "
		 "next=%s wait_ms=%u detail=%s",
	    ask_conf(a)->name, a->target->model,
	    log_quote(str_of(failure_info(a->failure)->name)).s, a->status, a->attempts,
	    steps[step], step == RETRY_SAME ? a->backoff_ms : 0, log_quote(buf_str(&a->detail)).s);
}

static void
go_on(struct ask *a)
{
	enum retry_step step = decide(a);

	if (step == RETRY_NEXT && !may_go_on(a))
		step = RETRY_NOT;
	if (a->handle == 0) {
		ask_free(a); /* cancelled in on_break */
		return;
	}
	log_attempt(a, step);
	if (step == RETRY_NOT) {
		ask_fail(a);
	} else if (step == RETRY_SAME) {
		count_again(a, PROVIDER_AGAIN_SAME);
		ask_enter(a, ASK_STATE_BACKOFF);
	} else {
		count_again(a, a->has_token ? PROVIDER_AGAIN_RESUMED : PROVIDER_AGAIN_NEXT);
		a->tried |= ask_bit_of(a, a->target);
		ask_choose(a);
	}
}

static void
set_text(struct buf *b, const struct ask *a, const char *text)
{
	struct buf copy = BUF_INIT; /* the text may be b's own */

	if (text != NULL && !ask_names_key(a, str_of(text)))
		buf_add_cstr(&copy, text);
	buf_fini(b);
	*b = copy;
}

void
ask_failed(struct ask *a, enum failure failure, const char *message, const char *detail)
{
	const struct failure_info *info = failure_info(failure);

	ask_stop_attempt(a);
	a->failure = failure;
	set_text(&a->message, a, message);
	set_text(&a->detail, a, detail);
	ask_count_attempt(a, info->outcome);
	if (info->weight == SAYS_NOTHING)
		ask_pass_return(a);
	else
		ask_pass_use(a, info->weight == FAILS ? BREAKER_FAILURE : BREAKER_SUCCESS);
	if (failure == FAILURE_CONTEXT)
		rule_out_small_contexts(a);
	if (failure == FAILURE_RATE_LIMITED || failure == FAILURE_SERVER)
		cool_down(a);
	go_on(a);
}
