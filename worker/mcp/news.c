/*
 * news - what a server says that belongs to no request: that a resource has changed which somebody
 * watches, and what it logs.
 *
 * Of an older server each resource is subscribed to; of a modern one they are on one stream, which
 * is opened anew when they change. Whose pipes another worker has is asked by that one, which tells
 * everybody; it forgets what was wanted by a worker that is gone.
 */
#include <stdlib.h>

#include "worker/backplane/owner.h"
#include "worker/mcp/upstream_impl.h"

enum { OPEN_DELAY_MS = 10 };

struct watcher {
	struct list node;
	struct backplane_addr worker;
};

struct watched {
	struct list node;
	char *uri;
	uint32_t count;       /* here */
	struct list watchers; /* other workers */
};

/* ---- asking ---- */

static const struct mcp_handlers nobody = {0};

/* The call's handle; 0: it cannot tell of changes. */
static uint64_t
ask_about(
    struct upstream *u, const char *method, struct str uri, const struct mcp_handlers *handlers)
{
	struct buf params = BUF_INIT;
	struct str resources;
	bool does = false;

	if (!jsonrpc_member(buf_str(&u->capabilities), "resources", &resources) ||
	    !jsonrpc_bool_member(resources, "subscribe", &does) || !does)
		return 0;
	buf_add_cstr(&params, "{\"uri\":");
	jsonrpc_add_string(&params, uri);
	buf_add_char(&params, '}');
	uint64_t handle =
	    call_ask(u, method, buf_str(&params), (uint32_t)u->conf->probe_timeout_ms, handlers, u);
	buf_fini(&params);
	return handle;
}

/* Several at once become one. Who wants something new does not wait for the end of a pause. */
static void
open_soon(struct upstream *u)
{
	if (loop_timer_is_set(&u->watch_timer) && !u->is_pausing)
		return;
	u->is_pausing = false;
	loop_timer_set(u->all->of.loop, &u->watch_timer, OPEN_DELAY_MS);
}

static void
on_stream_end(void *arg, const struct mcp_answer *a)
{
	struct upstream *u = arg;

	u->watch_call = 0;
	if (u->step != STEP_READY || a->upstream_code == MCP_METHOD_NOT_FOUND ||
	    loop_timer_is_set(&u->watch_timer))
		return;
	u->is_pausing = true;
	loop_timer_set(
	    u->all->of.loop, &u->watch_timer, listing_stream_pause_ms(u, &u->watch_pause));
}

/* All of them in one; the one before ends when this one has been asked for. */
static void
open_stream(struct upstream *u)
{
	static const struct mcp_handlers handlers = {.on_answer = on_stream_end};
	struct buf params = BUF_INIT;
	uint64_t before = u->watch_call;

	u->watch_call = 0;
	buf_add_cstr(&params, "{\"notifications\":{\"resourceSubscriptions\":[");
	list_for (node, &u->watched) {
		const struct watched *w = list_entry(node, struct watched, node);

		if (node != u->watched.next)
			buf_add_char(&params, ',');
		jsonrpc_add_string(&params, str_of(w->uri));
	}
	buf_add_cstr(&params, "]}}");
	listing_stream_opened(u, &u->watch_pause);
	if (!list_empty(&u->watched))
		u->watch_call =
		    call_ask(u, "subscriptions/listen", buf_str(&params), 0, &handlers, u);
	mcp_cancel(u->all, before);
	buf_fini(&params);
}

static void
on_open(struct loop_timer *timer)
{
	struct upstream *u = container_of(timer, struct upstream, watch_timer);

	u->is_pausing = false;
	if (u->step == STEP_READY && upstream_is_modern(u))
		open_stream(u);
}

static void
tell_server(struct upstream *u, const struct watched *w, bool is_on)
{
	if (u->step == STEP_FOLLOW)
		errands_watch(u, str_of(w->uri), is_on);
	else if (u->step != STEP_READY)
		return; /* it will be */
	else if (upstream_is_modern(u))
		open_soon(u);
	else
		ask_about(u, is_on ? "resources/subscribe" : "resources/unsubscribe",
		    str_of(w->uri), &nobody);
}

static void
set_level(struct upstream *u)
{
	const char *level = u->all->log_level;
	struct buf params = BUF_INIT;

	if (level == NULL || u->step != STEP_READY || upstream_is_modern(u) ||
	    !upstream_has_capability(u, "logging", false))
		return;
	buf_printf(&params, "{\"level\":\"%s\"}", level);
	call_ask(u, "logging/setLevel", buf_str(&params), (uint32_t)u->conf->probe_timeout_ms,
	    &nobody, NULL);
	buf_fini(&params);
}

void
news_ready(struct upstream *u)
{
	list_for (node, &u->watched)
		tell_server(u, list_entry(node, struct watched, node), true);
	set_level(u);
}

void
news_stop(struct upstream *u)
{
	loop_timer_stop(u->all->of.loop, &u->watch_timer);
	mcp_cancel(u->all, u->watch_call);
	mcp_cancel(u->all, u->drop_call);
	u->watch_call = u->drop_call = 0;
}

/* ---- who watches what ---- */

static struct watched *
find(struct upstream *u, struct str uri)
{
	list_for (node, &u->watched) {
		struct watched *w = list_entry(node, struct watched, node);

		if (str_eq(str_of(w->uri), uri))
			return w;
	}
	return NULL;
}

static struct watched *
need(struct upstream *u, struct str uri)
{
	struct watched *w = find(u, uri);

	if (w != NULL)
		return w;
	w = xcalloc(1, sizeof(*w));
	w->uri = xstrndup(uri.p, uri.len);
	list_init(&w->watchers);
	list_add_tail(&u->watched, &w->node);
	tell_server(u, w, true);
	return w;
}

static void
let_go(struct upstream *u, struct watched *w)
{
	if (w->count > 0 || !list_empty(&w->watchers))
		return;
	list_del(&w->node);
	tell_server(u, w, false);
	free(w->uri);
	free(w);
}

void
mcp_watch(struct mcp_upstreams *all, size_t server, struct str uri)
{
	check(server < all->count);
	need(all->all[server], uri)->count++;
}

void
mcp_unwatch(struct mcp_upstreams *all, size_t server, struct str uri)
{
	check(server < all->count);
	struct watched *w = find(all->all[server], uri);
	check(w != NULL && w->count > 0);
	w->count--;
	let_go(all->all[server], w);
}

static void
remove_watcher(struct watched *w, struct backplane_addr worker)
{
	list_for_safe (node, &w->watchers) {
		struct watcher *other = list_entry(node, struct watcher, node);

		if (owner_equal(other->worker, worker)) {
			list_del(&other->node);
			free(other);
		}
	}
}

void
news_watch_for(struct upstream *u, struct backplane_addr worker, struct str uri, bool is_on)
{
	struct watched *w = is_on ? need(u, uri) : find(u, uri);

	if (w == NULL)
		return;
	remove_watcher(w, worker);
	if (is_on) {
		struct watcher *mine = xcalloc(1, sizeof(*mine));

		mine->worker = worker;
		list_add_tail(&w->watchers, &mine->node);
	}
	let_go(u, w);
}

void
news_forget(struct upstream *u, struct backplane_addr worker)
{
	list_for_safe (node, &u->watched) {
		struct watched *w = list_entry(node, struct watched, node);

		remove_watcher(w, worker);
		let_go(u, w);
	}
}

/* ---- news ---- */

bool
news_is_of_resource(const struct jsonrpc *m)
{
	return strcmp(m->method, "notifications/resources/updated") == 0;
}

static bool
is_wanted(struct upstream *u, struct str uri)
{
	list_for (node, &u->watched) {
		if (mcp_uri_is_of(uri, str_of(list_entry(node, struct watched, node)->uri)))
			return true;
	}
	return false;
}

static void
on_dropped(void *arg, const struct mcp_answer *a)
{
	struct upstream *u = arg;

	(void)a;
	u->drop_call = 0;
}

/*
 * Of a program that another worker has spoken to before: what only that one's clients wanted is
 * taken back when it is heard of, one after the other. A worker that wants it still says so when it
 * hears that we speak to it now, and then it is asked for anew.
 */
static void
drop_unwanted(struct upstream *u, const struct jsonrpc *m)
{
	static const struct mcp_handlers handlers = {.on_answer = on_dropped};
	struct buf uri = BUF_INIT;

	if (u->step == STEP_READY && !upstream_is_modern(u) && stdio_link_is_taken_over(u) &&
	    u->drop_call == 0 && jsonrpc_text_member(m->params, "uri", &uri) &&
	    !is_wanted(u, buf_str(&uri)))
		u->drop_call = ask_about(u, "resources/unsubscribe", buf_str(&uri), &handlers);
	buf_fini(&uri);
}

void
news_take(struct upstream *u, const struct jsonrpc *m)
{
	if (m->params.len == 0 || m->params.p[0] != '{')
		return;
	if (news_is_of_resource(m))
		drop_unwanted(u, m);
	if (u->all->errands != NULL)
		errands_tell(u, m);
	if (u->all->on_news != NULL)
		u->all->on_news(u->all->news_arg, u->index, m);
}

void
mcp_upstreams_on_news(struct mcp_upstreams *all, mcp_on_news *on_news, void *arg)
{
	check(all->on_news == NULL);
	all->on_news = on_news;
	all->news_arg = arg;
}

void
mcp_set_log_level(struct mcp_upstreams *all, const char *level)
{
	if (all->log_level == level)
		return;
	all->log_level = level;
	for (size_t i = 0; i < all->count; i++)
		set_level(all->all[i]);
}

/* ---- life ---- */

void
news_init(struct upstream *u)
{
	list_init(&u->watched);
	u->watch_timer.on_fire = on_open;
}

void
news_fini(struct upstream *u)
{
	news_stop(u);
	list_for_safe (node, &u->watched) {
		struct watched *w = list_entry(node, struct watched, node);

		list_for_safe (other, &w->watchers)
			free(list_entry(other, struct watcher, node));
		list_del(&w->node);
		free(w->uri);
		free(w);
	}
}
