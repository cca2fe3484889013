/* toll - see toll.h. */
#include "worker/api/toll.h"

#include <stdlib.h>

#include "common/check.h"
#include "worker/api/rate_warn.h"

void
toll_end(struct toll *t)
{
	rate_cancel(&t->ask);
	list_del(&t->node);
	free(t->app_id);
	free(t->key_id);
	t->app_id = t->key_id = NULL;
}

static void
decide(struct toll *t)
{
	rate_warn(t->tolls->api->rate_warns, t->app_id, t->key_id, &t->ask);
	t->on_decided(t);
}

static void
on_rate_decided(struct rate_ask *ask)
{
	decide(container_of(ask, struct toll, ask));
}

void
toll_take(struct toll *t, const struct principal *who, const struct rate_of *of)
{
	t->app_id = who->app_id != NULL ? xstrdup(who->app_id) : NULL;
	t->key_id = xstrdup(who->key_id);
	t->ask.on_decided = on_rate_decided;
	if (rate_take(t->tolls->api->limits, of, &t->ask))
		decide(t);
}

void
toll_begin(struct tolls *tolls, struct toll *t, toll_do *on_decided, toll_do *on_abandoned)
{
	t->tolls = tolls;
	t->on_decided = on_decided;
	t->on_abandoned = on_abandoned;
	list_add_tail(&tolls->all, &t->node);
}

void
tolls_abandon(struct tolls *tolls)
{
	list_for_safe (node, &tolls->all) {
		struct toll *t = list_entry(node, struct toll, node);

		t->on_abandoned(t);
	}
}

void
tolls_init(struct tolls *tolls, struct api *api)
{
	tolls->api = api;
	list_init(&tolls->all);
}
