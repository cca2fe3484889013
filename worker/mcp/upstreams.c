/*
 * upstreams - all tool servers of this worker: life, views, who is told of changes.
 */
#include <stdlib.h>

#include "worker/mcp/upstream_impl.h"

struct watcher {
	struct list node;
	mcp_on_changed *on_changed;
	void *arg;
};

struct old_view {
	struct list node;
	struct mcp_view *view;
};

/* ---- what there is ---- */

size_t
mcp_upstreams_count(const struct mcp_upstreams *all)
{
	return all->count;
}

static enum mcp_upstream_state
state_of(const struct upstream *u)
{
	switch (u->step) {
	case STEP_OFF:
		return MCP_UPSTREAM_OFF;
	case STEP_READY:
	case STEP_FOLLOW:
		return MCP_UPSTREAM_READY;
	case STEP_PAUSE:
		return MCP_UPSTREAM_AWAY;
	default:
		return MCP_UPSTREAM_CONNECTING;
	}
}

static bool
has_prefix(const struct mcp_upstreams *all, const struct conf_mcp_server *conf)
{
	if (strcmp(conf->prefix, "auto") == 0)
		return all->of.conf->mcp.prefix;
	return strcmp(conf->prefix, "true") == 0;
}

void
mcp_upstream_get(const struct mcp_upstreams *all, size_t server, struct mcp_upstream_info *ret)
{
	check(server < all->count);
	const struct upstream *u = all->all[server];
	*ret = (struct mcp_upstream_info){
	    .conf = u->conf,
	    .state = state_of(u),
	    .revision = u->revision,
	    .server_info = buf_str(&u->server_info),
	    .capabilities = buf_str(&u->capabilities),
	    .instructions = buf_str(&u->instructions),
	    .has_prefix = has_prefix(all, u->conf),
	};
}

struct mcp_list *
mcp_upstream_list(const struct mcp_upstreams *all, size_t server, enum mcp_kind kind)
{
	check(server < all->count && kind < MCP_KIND_COUNT);
	return all->all[server]->lists[kind];
}

const struct mcp_view *
mcp_upstreams_view(struct mcp_upstreams *all, enum mcp_kind kind)
{
	check(kind < MCP_KIND_COUNT);
	if (all->views[kind] != NULL)
		return all->views[kind];
	struct mcp_source *sources = xcalloc(all->count + 1, sizeof(*sources));
	for (size_t i = 0; i < all->count; i++) {
		const struct upstream *u = all->all[i];

		sources[i] =
		    (struct mcp_source){u->conf->name, has_prefix(all, u->conf), u->lists[kind]};
	}
	all->views[kind] = mcp_view_new(kind, sources, all->count);
	free(sources);
	return all->views[kind];
}

/* ---- changes ---- */

static void
drop_old_views(struct mcp_upstreams *all)
{
	list_for_safe (node, &all->old_views) {
		struct old_view *old = list_entry(node, struct old_view, node);

		list_del(&old->node);
		mcp_view_free(&old->view);
		free(old);
	}
}

static void
run_drop(struct loop_post *post)
{
	drop_old_views(container_of(post, struct mcp_upstreams, drop_views));
}

/* Somebody may be looking at the view that goes. */
static void
retire_view(struct mcp_upstreams *all, enum mcp_kind kind)
{
	if (all->views[kind] == NULL)
		return;
	struct old_view *old = xcalloc(1, sizeof(*old));
	old->view = all->views[kind];
	all->views[kind] = NULL;
	list_add_tail(&all->old_views, &old->node);
	loop_post(all->of.loop, &all->drop_views);
}

void
mcp_upstreams_changed(struct mcp_upstreams *all, size_t server, enum mcp_kind kind)
{
	retire_view(all, kind);
	list_for (node, &all->watchers) {
		struct watcher *w = list_entry(node, struct watcher, node);

		w->on_changed(w->arg, server, kind);
	}
}

void
mcp_upstreams_on_changed(struct mcp_upstreams *all, mcp_on_changed *on_changed, void *arg)
{
	struct watcher *w = xcalloc(1, sizeof(*w));

	w->on_changed = on_changed;
	w->arg = arg;
	list_add_tail(&all->watchers, &w->node);
}

/* ---- the start ---- */

bool
mcp_upstreams_are_settled(const struct mcp_upstreams *all)
{
	for (size_t i = 0; i < all->count; i++) {
		if (all->all[i]->transport != NULL && !all->all[i]->is_settled)
			return false;
	}
	return true;
}

static void
run_settled(struct loop_post *post)
{
	struct mcp_upstreams *all = container_of(post, struct mcp_upstreams, settled);
	void (*on_settled)(void *arg) = all->on_settled;

	all->on_settled = NULL;
	if (on_settled != NULL)
		on_settled(all->settled_arg);
}

void
mcp_upstreams_settled(struct mcp_upstreams *all)
{
	if (all->on_settled != NULL && mcp_upstreams_are_settled(all))
		loop_post(all->of.loop, &all->settled);
}

void
mcp_upstreams_on_settled(struct mcp_upstreams *all, void (*on_settled)(void *arg), void *arg)
{
	all->on_settled = on_settled;
	all->settled_arg = arg;
}

/* ---- life ---- */

static bool
has_commands(const struct conf *conf)
{
	for (size_t i = 0; i < conf->mcp.servers.n; i++) {
		const struct conf_mcp_server *s = &conf->mcp.servers.v[i];

		if (s->enabled && *s->command != '\0')
			return true;
	}
	return false;
}

struct mcp_upstreams *
mcp_upstreams_new(const struct mcp_upstreams_of *of)
{
	struct mcp_upstreams *all = xcalloc(1, sizeof(*all));

	all->of = *of;
	all->calls = idmap_new();
	all->drop_views.run = run_drop;
	all->settled.run = run_settled;
	list_init(&all->watchers);
	list_init(&all->old_views);
	all->count = of->conf->mcp.servers.n;
	all->all = xcalloc(all->count + 1, sizeof(struct upstream *));
	for (size_t i = 0; i < all->count; i++)
		all->all[i] = upstream_new(all, i);
	if (has_commands(of->conf)) {
		all->stdio = stdio_new(all);
		all->errands = errands_new(all);
	}
	return all;
}

void
mcp_upstreams_start(struct mcp_upstreams *all)
{
	for (size_t i = 0; i < all->count; i++)
		upstream_start(all->all[i]);
}

bool
mcp_upstreams_are_idle(const struct mcp_upstreams *all)
{
	return all->call_count == 0 && all->leaving == 0;
}

void
mcp_upstreams_leave(struct mcp_upstreams *all)
{
	for (size_t i = 0; i < all->count; i++)
		upstream_leave(all->all[i]);
	if (all->stdio != NULL)
		stdio_leave(all->stdio);
}

void
mcp_upstreams_free(struct mcp_upstreams **ref)
{
	struct mcp_upstreams *all = *ref;

	if (all == NULL)
		return;
	*ref = NULL;
	for (size_t i = 0; i < all->count; i++)
		upstream_free(&all->all[i]);
	stdio_free(&all->stdio);
	errands_free(&all->errands);
	for (enum mcp_kind k = 0; k < MCP_KIND_COUNT; k++)
		mcp_view_free(&all->views[k]);
	loop_post_cancel(all->of.loop, &all->drop_views);
	loop_post_cancel(all->of.loop, &all->settled);
	drop_old_views(all);
	list_for_safe (node, &all->watchers)
		free(list_entry(node, struct watcher, node));
	idmap_free(&all->calls);
	free(all->all);
	free(all);
}
