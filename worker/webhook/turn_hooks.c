/* turn_hooks - see turn_hooks.h. */
#include "worker/webhook/turn_hooks.h"

#include "common/check.h"
#include "worker/webhook/webhook_impl.h"

static const char *
event_of(enum turn_event_type outcome)
{
	switch (outcome) {
	case TURN_COMPLETED:
		return "turn.completed";
	case TURN_CANCELLED:
		return "turn.cancelled";
	default:
		return "turn.failed";
	}
}

static bool
is_wanted(const struct conf_webhooks *conf, const char *app_id, const char *event)
{
	for (size_t i = 0; i < conf->endpoints.n; i++)
		if (endpoint_wants(&conf->endpoints.v[i], app_id, event))
			return true;
	return false;
}

/* The members of the last event behind ours; ids need no escapes, app ids may. */
static const char *
format_data(const struct turn_ending *e, struct arena *arena)
{
	const char *rest = e->data_json != NULL && *e->data_json == '{' ? e->data_json + 1 : "}";
	struct buf app = BUF_INIT;
	const char *data;

	buf_add_json_escaped(&app, str_of(e->app_id));
	data = arena_printf(arena,
	    "{\"app_id\":\"%.*s\",\"session_id\":\"%s\",\"turn_id\":\"%s\"%s%s", (int)app.len,
	    app.len > 0 ? app.data : "", e->session_id, e->turn_id, *rest == '}' ? "" : ",", rest);
	buf_fini(&app);
	return data;
}

static size_t
make_rows(
    void *arg, const struct turn_ending *e, struct arena *arena, const struct store_webhook **ret)
{
	struct webhooks *w = arg;
	struct webhook_event event = {
	    .app_id = e->app_id, .event = event_of(e->outcome), .order_key = e->session_id};
	struct store_webhook_endpoint *endpoints;
	struct store_webhook *rows;

	if (!is_wanted(w->conf, event.app_id, event.event))
		return 0;
	event.data_json = format_data(e, arena);
	rows = arena_alloc(arena, w->conf->endpoints.n * sizeof(*rows));
	endpoints = arena_alloc(arena, w->conf->endpoints.n * sizeof(*endpoints));
	*ret = rows;
	return webhooks_of_event(w->conf, &event, arena, rows, endpoints);
}

static void
on_written(void *arg)
{
	webhooks_wake(arg);
}

struct turn_hooks
turn_hooks_of(struct webhooks *w)
{
	return (struct turn_hooks){make_rows, on_written, w};
}
