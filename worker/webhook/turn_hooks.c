/* turn_hooks - see turn_hooks.h. */
#include "worker/webhook/turn_hooks.h"

#include <stdlib.h>

#include "common/check.h"
#include "common/err.h"
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

	if (!webhooks_want(w->conf, event.app_id, event.event))
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

/* ---- of turns whose worker is dead: written by whoever finds them (store_use_lost_hooks()) ----
 */

static struct store_lost_hook
lost_hook(struct arena *arena, const struct conf_webhook *endpoint, size_t i, const char *app_id)
{
	static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz"; /* as of ids */
	const struct err_info *lost = err_info(E_WORKER_LOST);
	struct buf app = BUF_INIT;

	buf_add_json_escaped(&app, str_of(app_id));
	struct store_lost_hook hook = {
	    .endpoint_id = arena_printf(arena, ENDPOINT_CONF_PREFIX "%s", endpoint->name),
	    .app_id = app_id,
	    .place = arena_printf(arena, "%c%c", digits[i / 32 % 32], digits[i % 32]),
	    .data_head = arena_printf(arena, "{\"app_id\":\"%.*s\",\"session_id\":\"", (int)app.len,
		app.len > 0 ? app.data : ""),
	    .data_tail = arena_printf(arena,
		"\",\"error\":{\"message\":\"%s\",\"type\":\"%s\",\"code\":\"%s\"}}", lost->text,
		lost->type, lost->code),
	};
	buf_fini(&app);
	return hook;
}

void
turn_hooks_use_lost(const struct conf *conf, struct store *store)
{
	size_t endpoints = conf->webhooks.endpoints.n, count = 0;
	struct store_lost_hook *hooks = xcalloc(endpoints * conf->apps.n + 1, sizeof(*hooks));
	struct arena arena = ARENA_INIT;

	for (size_t i = 0; i < endpoints; i++)
		for (size_t k = 0; k < conf->apps.n; k++)
			if (endpoint_wants(
				&conf->webhooks.endpoints.v[i], conf->apps.v[k].id, "turn.failed"))
				hooks[count++] = lost_hook(
				    &arena, &conf->webhooks.endpoints.v[i], i, conf->apps.v[k].id);
	store_use_lost_hooks(store, hooks, count);
	arena_fini(&arena);
	free(hooks);
}
