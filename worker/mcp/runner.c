/*
 * runner - see runner.h.
 *
 * What is on offer is read once for each change of a list and shared by all menus that are opened
 * until the next one.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/check.h"
#include "common/crypto.h"
#include "common/err.h"
#include "common/idmap.h"
#include "common/list.h"
#include "common/log.h"
#include "common/strmap.h"
#include "worker/mcp/runner_impl.h"

enum { HASH_SHOWN = 8 };

/* ---- what is on offer ---- */

static void
offer_unref(struct offer **ref)
{
	struct offer *o = *ref;

	*ref = NULL;
	if (o == NULL || --o->refs > 0)
		return;
	for (size_t i = 0; i < o->count; i++) {
		free(o->dishes[i].key);
		json_decref(o->dishes[i].function);
	}
	free(o->dishes);
	free(o);
}

static void
model_name(struct str name, char out[MODEL_NAME_MAX + 1])
{
	uint8_t hash[SHA256_LEN];
	size_t n = name.len < MODEL_NAME_MAX ? name.len : MODEL_NAME_MAX;

	for (size_t i = 0; i < n; i++) {
		char c = name.p[i];
		bool is_plain = (c >= '0' && c <= '9') ||
				((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '_' || c == '-';

		out[i] = is_plain ? c : '_';
	}
	out[n] = '\0';
	if (name.len <= MODEL_NAME_MAX)
		return;
	crypto_sha256(name, hash);
	snprintf(out + MODEL_NAME_MAX - HASH_SHOWN - 1, HASH_SHOWN + 2, "_%02x%02x%02x%02x",
	    hash[0], hash[1], hash[2], hash[3]);
}

static void
add_dish(struct mcp_runner *r, struct offer *o, const struct mcp_entry *e)
{
	struct mcp_upstream_info server;
	struct dish *d = &o->dishes[o->count];
	json_t *tool = json_loadb(e->item->json.p, e->item->json.len, 0, NULL);
	json_t *schema = json_object_get(tool, "inputSchema");
	json_t *description = json_object_get(tool, "description");
	char whole[MCP_PREFIX_MAX + MCP_NAME_MAX + 1];

	if (tool == NULL)
		return; /* no JSON to a stricter eye: twice the same key */
	mcp_upstream_get(r->upstreams, e->source, &server);
	*d = (struct dish){.server = e->source, .key = xstrndup(e->item->key.p, e->item->key.len)};
	snprintf(whole, sizeof(whole), "%s__%s", server.conf->name, d->key);
	model_name(e->name, d->name);
	model_name(str_of(whole), d->long_name);
	d->schema = json_is_object(schema)
			? json_incref(schema)
			: json_pack("{s:s,s:{}}", "type", "object", "properties");
	d->function = json_pack("{s:o}", "parameters", d->schema);
	if (json_is_string(description))
		json_object_set(d->function, "description", description);
	json_decref(tool);
	o->count++;
}

static struct offer *
read_offer(struct mcp_runner *r)
{
	const struct mcp_view *view = mcp_upstreams_view(r->upstreams, MCP_TOOLS);
	struct offer *o = xcalloc(1, sizeof(*o));

	o->refs = 1;
	o->dishes = xcalloc(mcp_view_count(view) + 1, sizeof(*o->dishes));
	for (size_t i = 0; i < mcp_view_count(view); i++)
		add_dish(r, o, mcp_view_at(view, i));
	return o;
}

static void
on_changed(void *arg, size_t server, enum mcp_kind kind)
{
	struct mcp_runner *r = arg;

	(void)server;
	if (kind == MCP_TOOLS)
		offer_unref(&r->offer);
}

/* ---- menus ---- */

static bool
may_use(const struct mcp_runner *r, const struct conf_app *app, size_t server)
{
	const char *name = r->conf->mcp.servers.v[server].name;

	return app == NULL || conf_list_has(&app->mcp_servers, "*") ||
	       conf_list_has(&app->mcp_servers, name);
}

static struct strmap *
names_of(const json_t *tools)
{
	struct strmap *names = strmap_new();

	for (size_t i = 0; i < json_array_size(tools); i++) {
		const json_t *f = json_object_get(json_array_get(tools, i), "function");
		const char *name = json_string_value(json_object_get(f, "name"));

		if (name != NULL)
			strmap_set(names, str_of(name), strmap_set);
	}
	return names;
}

static const char *
free_name(const struct tool_menu *m, const struct strmap *taken, const struct dish *d)
{
	const char *const names[] = {d->name, d->long_name};

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		if (strmap_get(taken, str_of(names[i])) == NULL &&
		    strmap_get(m->by_name, str_of(names[i])) == NULL)
			return names[i];
	}
	return NULL;
}

static void
serve(struct tool_menu *m, const struct strmap *taken, struct dish *d, json_t *tools)
{
	const char *name = free_name(m, taken, d);

	if (name == NULL) {
		log_info("mcp tool not offered tool=%s reason=\"its name is taken\"", d->long_name);
		return;
	}
	strmap_set(m->by_name, str_of(name), d);
	json_t *function = json_copy(d->function); /* flat: the schema is shared */
	json_object_set_new(function, "name", json_string(name));
	json_array_append_new(
	    tools, json_pack("{s:s,s:o}", "type", "function", "function", function));
}

static struct tool_menu *
open_menu(void *self, const struct conf_app *app, size_t max, json_t *tools)
{
	struct mcp_runner *r = self;
	struct strmap *taken;

	if (r->offer == NULL)
		r->offer = read_offer(r);
	if (r->offer->count == 0)
		return NULL;
	struct tool_menu *m = xcalloc(1, sizeof(*m));
	m->runner = r;
	m->offer = r->offer;
	m->offer->refs++;
	m->by_name = strmap_new();
	taken = names_of(tools);
	for (size_t i = 0; i < m->offer->count; i++) {
		struct dish *d = &m->offer->dishes[i];

		if (!may_use(r, app, d->server))
			continue;
		if (max > 0 && json_array_size(tools) >= max) {
			log_warn("mcp tools not offered reason=\"tools.max_tools\" max=%zu", max);
			break;
		}
		serve(m, taken, d, tools);
	}
	strmap_free(&taken);
	return m;
}

static void
close_menu(struct tool_menu *m)
{
	if (m == NULL)
		return;
	strmap_free(&m->by_name);
	offer_unref(&m->offer);
	free(m);
}

static const char *
server_of(const struct tool_menu *m, const char *name)
{
	const struct dish *d = strmap_get(m->by_name, str_of(name));

	return d != NULL ? m->runner->conf->mcp.servers.v[d->server].name : NULL;
}

/* ---- life ---- */

struct mcp_runner *
mcp_runner_new(struct mcp_upstreams *upstreams, struct loop *loop, const struct conf *conf)
{
	struct mcp_runner *r = xcalloc(1, sizeof(*r));

	r->upstreams = upstreams;
	r->loop = loop;
	r->conf = conf;
	r->runs = idmap_new();
	r->table = (struct tool_runner){
	    .self = r,
	    .open = open_menu,
	    .server_of = server_of,
	    .call = run_call,
	    .cancel = run_cancel,
	    .close = close_menu,
	};
	mcp_upstreams_on_changed(upstreams, on_changed, r);
	return r;
}

void
mcp_runner_free(struct mcp_runner **ref)
{
	struct mcp_runner *r = *ref;

	if (r == NULL)
		return;
	*ref = NULL;
	check(idmap_count(r->runs) == 0);
	offer_unref(&r->offer);
	idmap_free(&r->runs);
	free(r);
}

const struct tool_runner *
mcp_runner_table(struct mcp_runner *r)
{
	return &r->table;
}
