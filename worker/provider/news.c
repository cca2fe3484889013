/*
 * news - what has become of providers, told to who hears `providers`, `navigation-state` or
 * `notifications`: a look that found something else than the last, a breaker that opened or closed.
 *
 * Told by the worker that saw it first, once for the host; each host has looks and breakers of its
 * own.
 */
#include "worker/events/events.h"
#include "worker/provider/ask_impl.h"

void
providers_use_events(struct providers *p, struct events *events)
{
	p->events = events;
}

static void
add_text(struct buf *b, const char *name, const char *value)
{
	buf_printf(b, "%s\"%s\":\"", b->len == 0 ? "{" : ",", name);
	buf_add_json_escaped(b, str_of(value));
	buf_add_char(b, '"');
}

static void
publish(const struct providers *p, const char *name, const char *topic, const char *also,
    const struct buf *payload)
{
	const struct events_news news = {
	    .topic = topic, .also = also, .name = name, .payload = buf_str(payload)};

	events_publish(p->events, &news);
}

void
provider_tell_health(
    const struct providers *p, const char *provider, enum provider_health now, int status)
{
	struct buf b = BUF_INIT;

	if (p->events == NULL)
		return;
	add_text(&b, "provider", provider);
	add_text(&b, "health", provider_health_name(now));
	buf_printf(
	    &b, ",\"is_healthy\":%s,\"status\":%d}", now == PROVIDER_UP ? "true" : "false", status);
	publish(p, "provider.health", "providers", "navigation-state", &b);
	publish(p, now == PROVIDER_UP ? "service.restored" : "service.degraded", "notifications",
	    NULL, &b);
	buf_fini(&b);
}

/* By the names that clients ask for. */
static void
tell_models(const struct providers *p, const struct target *t, bool is_available)
{
	for (size_t i = 0; i < p->conf->models.n; i++) {
		const struct conf_model *m = &p->conf->models.v[i];
		bool is_of_it = false;
		struct buf b = BUF_INIT, topic = BUF_INIT;

		for (size_t k = 0; k < m->targets.n && !is_of_it; k++)
			is_of_it = strcmp(m->targets.v[k].provider, t->upstream->conf->name) == 0 &&
				   strcmp(m->targets.v[k].model, t->model) == 0;
		if (is_of_it) {
			add_text(&b, "model", m->name);
			add_text(&b, "provider", t->upstream->conf->name);
			add_text(&b, "provider_model", t->model);
			buf_printf(&b, ",\"is_available\":%s}", is_available ? "true" : "false");
			buf_printf(&topic, "model:%s", m->name);
			publish(p, "model.availability", "navigation-state", topic.data, &b);
		}
		buf_fini(&b);
		buf_fini(&topic);
	}
}

void
provider_tell_breaker(const struct providers *p, const struct target *t, enum breaker_state state)
{
	struct buf b = BUF_INIT;

	if (p->events == NULL)
		return;
	add_text(&b, "provider", t->upstream->conf->name);
	add_text(&b, "model", t->model);
	add_text(&b, "breaker", breaker_state_name(state));
	buf_printf(&b, ",\"recovery_ms\":%u}", state == BREAKER_OPEN ? t->rule.recovery_ms : 0);
	publish(p, "provider.breaker", "providers", NULL, &b);
	buf_fini(&b);
	if (state != BREAKER_HALF_OPEN)
		tell_models(p, t, state == BREAKER_CLOSED);
}
