/*
 * watch - see watch.h.
 *
 * Who looks is whoever first finds that it is due and moves the due time on by compare-and-swap; if
 * that one dies meanwhile, the next time is another's. What was found is one word of shared memory:
 *
 *   health   | status 8 | HTTP status 16 | wall clock in seconds 40 |
 */
#include "worker/provider/watch.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/metric.h"

enum { LOOK_MS = 1000, LOOK_MIN_MS = 10 };

struct look { /* at one provider */
	struct providers *providers;
	struct upstream *upstream;
	uint64_t transfer; /* 0: none */
	int status;
};

struct watch {
	struct providers *providers;
	struct loop_timer timer;
	struct look *looks; /* as upstreams */
};

/* ---- what was found ---- */

static uint64_t
health_word(enum provider_health health, int status)
{
	return (uint64_t)health << 56 | (uint64_t)(status & 0xffff) << 40 |
	       ((uint64_t)(clock_wall_ms() / 1000) & ((UINT64_C(1) << 40) - 1));
}

static enum provider_health
health_of_word(uint64_t word)
{
	return (enum provider_health)(word >> 56);
}

const char *
provider_health_name(enum provider_health health)
{
	static const char *const names[] = {"unknown", "up", "misconfigured", "down"};

	return names[health];
}

static enum provider_health
health_of_answer(enum client_outcome outcome, int status)
{
	if (status == 401 || status == 403)
		return PROVIDER_MISCONFIGURED;
	if (status >= 500 || (status == 0 && outcome != CLIENT_OK))
		return PROVIDER_DOWN;
	return PROVIDER_UP;
}

static void
on_head(void *arg, const struct client_head *head)
{
	((struct look *)arg)->status = head->status;
}

static bool
on_body(void *arg, struct str bytes)
{
	(void)arg, (void)bytes;
	return true;
}

static void
on_done(void *arg, enum client_outcome outcome, const char *detail)
{
	struct look *l = arg;
	const char *name = l->upstream->conf->name;
	enum provider_health now = health_of_answer(outcome, l->status), was;

	l->transfer = 0;
	if (outcome == CLIENT_POOL_TIMEOUT || outcome == CLIENT_POOL_FULL)
		return; /* busy is not known to be down */
	was = health_of_word(
	    atomic_exchange(&l->upstream->shared->health, health_word(now, l->status)));
	if (now == was)
		return;
	if (was != PROVIDER_UNKNOWN || now != PROVIDER_UP)
		provider_tell_health(l->providers, name, now, l->status);
	if (now == PROVIDER_UP)
		log_info("provider health provider=%s health=up", name);
	else
		log_warn("provider health provider=%s health=%s status=%d detail=%s", name,
		    provider_health_name(now), l->status, log_quote(str_of(detail)).s);
}

/* ---- looking ---- */

static void
look_at(struct look *l)
{
	static const struct client_handlers handlers = {on_head, on_body, on_done};
	const struct upstream *u = l->upstream;
	const struct client_header headers[] = {{u->dialect->key_header, u->authorization},
	    {u->dialect->more_header, u->dialect->more_value}};
	size_t has_more = u->dialect->more_header != NULL;
	char *url = xasprintf("%s/models", u->base_url);
	struct client_request request = {
	    .method = "GET",
	    .url = url,
	    .headers = headers,
	    .header_count = u->authorization != NULL ? 1 + has_more : 0,
	    .total_timeout_ms = (uint32_t)u->conf->health.timeout_ms,
	};

	l->status = 0;
	l->transfer = client_start(u->pool, &request, &handlers, l);
	free(url);
}

/* Is it due, and ours? The first time is an interval from now. */
static bool
take_turn(const struct look *l, uint64_t now_ms)
{
	uint64_t interval_ms = (uint64_t)l->upstream->conf->health.interval_ms;
	_Atomic uint64_t *due = &l->upstream->shared->health_due_ms;
	uint64_t due_ms = atomic_load(due);
	bool is_due = due_ms != 0 && due_ms <= now_ms;

	if (interval_ms == 0 || l->transfer != 0)
		return false;
	if (!is_due && due_ms != 0 && due_ms <= now_ms + interval_ms)
		return false;
	return atomic_compare_exchange_strong(due, &due_ms, now_ms + interval_ms) && is_due;
}

static void
show_gauges(const struct providers *p)
{
	for (size_t i = 0; i < p->target_count; i++)
		metric_gauge_set(METRIC_PROVIDER_BREAKER_STATE, p->targets[i]->label, 0,
		    breaker_state(p->targets[i]->breaker));
	for (size_t i = 0; i < p->conf->providers.n; i++) {
		const struct upstream *u = &p->upstreams[i];
		enum provider_health health = health_of_word(atomic_load(&u->shared->health));

		metric_gauge_set(METRIC_PROVIDER_UP, u->label, 0,
		    health == PROVIDER_UNKNOWN || health == PROVIDER_UP);
	}
}

/* A second, or less where somebody wants to look more often. */
static uint64_t
period_ms(const struct providers *p)
{
	uint64_t ms = LOOK_MS;

	for (size_t i = 0; i < p->conf->providers.n; i++) {
		uint64_t interval_ms = (uint64_t)p->conf->providers.v[i].health.interval_ms;

		if (interval_ms > 0 && interval_ms < ms)
			ms = interval_ms;
	}
	return ms > LOOK_MIN_MS ? ms : LOOK_MIN_MS;
}

static void
on_timer(struct loop_timer *timer)
{
	struct watch *w = container_of(timer, struct watch, timer);
	struct providers *p = w->providers;

	for (size_t i = 0; i < p->conf->providers.n; i++) {
		if (take_turn(&w->looks[i], loop_now_ms(p->loop)))
			look_at(&w->looks[i]);
	}
	show_gauges(p);
	loop_timer_set(p->loop, &w->timer, period_ms(p));
}

/* ---- for others ---- */

size_t
providers_count(const struct providers *p)
{
	return p->conf->providers.n;
}

void
providers_state(const struct providers *p, size_t i, struct provider_state *ret)
{
	check(i < p->conf->providers.n);
	const struct upstream *u = &p->upstreams[i];
	uint32_t max = (uint32_t)u->conf->http_client.concurrent_requests;

	*ret = (struct provider_state){
	    .name = u->conf->name,
	    .health = health_of_word(atomic_load(&u->shared->health)),
	    .calls = places_held(&u->shared->places, max, p->shm),
	    .calls_max = max,
	    .waiting =
		p->shm != NULL ? metric_total(p->shm, METRIC_PROVIDER_WAITING, u->label, 0) : 0,
	};
}

size_t
providers_target_count(const struct providers *p)
{
	return p->target_count;
}

void
providers_target_state(const struct providers *p, size_t i, struct provider_target_state *ret)
{
	check(i < p->target_count);
	const struct target *t = p->targets[i];

	*ret = (struct provider_target_state){
	    .provider = t->upstream->conf->name,
	    .model = t->model,
	    .breaker = breaker_state(t->breaker),
	    .retry_ms = breaker_wait_ms(t->breaker, &t->rule, loop_now_ms(p->loop)),
	    .cooling_ms = upstreams_cooling_ms(t->shared, loop_now_ms(p->loop)),
	};
}

/* ---- life ---- */

struct watch *
watch_new(struct providers *p)
{
	struct watch *w = xcalloc(1, sizeof(*w));

	w->providers = p;
	w->looks = xcalloc(p->conf->providers.n, sizeof(w->looks[0]));
	for (size_t i = 0; i < p->conf->providers.n; i++)
		w->looks[i] = (struct look){.providers = p, .upstream = &p->upstreams[i]};
	w->timer.on_fire = on_timer;
	loop_timer_set(p->loop, &w->timer, 0);
	return w;
}

void
watch_free(struct watch **wp)
{
	struct watch *w = *wp;

	if (w == NULL)
		return;
	*wp = NULL;
	for (size_t i = 0; i < w->providers->conf->providers.n; i++) {
		if (w->looks[i].transfer != 0)
			client_cancel(w->providers->client, w->looks[i].transfer);
	}
	loop_timer_stop(w->providers->loop, &w->timer);
	free(w->looks);
	free(w);
}
