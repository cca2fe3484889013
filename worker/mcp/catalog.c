/* catalog - see catalog.h. */
#include "worker/mcp/catalog.h"

#include <stdlib.h>

#include "common/arena.h"
#include "common/check.h"
#include "common/err.h"
#include "common/json_scan.h"
#include "common/strmap.h"
#include "worker/mcp/jsonrpc.h"

struct mcp_list {
	enum mcp_kind kind;
	unsigned refs;
	struct arena arena;
	struct mcp_item *items;
	size_t count, cap, bytes, left_out;
	uint64_t ttl_ms;
	bool is_closed;
};

struct mcp_view {
	struct arena arena;
	struct strmap *by_name; /* struct mcp_entry */
	struct mcp_entry *entries;
	size_t count;
	struct mcp_list **lists;
	size_t list_count;
};

const struct mcp_kind_info *
mcp_kind_info(enum mcp_kind kind)
{
	static const struct mcp_kind_info kinds[MCP_KIND_COUNT] = {
	    [MCP_TOOLS] = {"tools/list", "tools", "name", "tools",
		"notifications/tools/list_changed", "toolsListChanged", true},
	    [MCP_PROMPTS] = {"prompts/list", "prompts", "name", "prompts",
		"notifications/prompts/list_changed", "promptsListChanged", true},
	    [MCP_RESOURCES] = {"resources/list", "resources", "uri", "resources",
		"notifications/resources/list_changed", "resourcesListChanged", false},
	    [MCP_TEMPLATES] = {"resources/templates/list", "resourceTemplates", "uriTemplate",
		"resources", "notifications/resources/list_changed", "resourcesListChanged", false},
	};

	check(kind < MCP_KIND_COUNT);
	return &kinds[kind];
}

/* ---- reading ---- */

struct mcp_list *
mcp_list_new(enum mcp_kind kind)
{
	struct mcp_list *l = xcalloc(1, sizeof(*l));

	l->kind = kind;
	l->refs = 1;
	l->arena = ARENA_INIT;
	return l;
}

static bool
is_good_key(enum mcp_kind kind, struct str key)
{
	static const char letters[] =
	    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-/";
	bool has_prefix = mcp_kind_info(kind)->has_prefix;

	if (key.len == 0 || key.len > (has_prefix ? MCP_NAME_MAX : MCP_URI_MAX))
		return false;
	for (size_t i = 0; i < key.len; i++) {
		if ((unsigned char)key.p[i] < ' ' || key.p[i] == 0x7f)
			return false;
		/* Prompts have had names like "my prompt" from the beginning. */
		if (kind == MCP_TOOLS && memchr(letters, key.p[i], sizeof(letters) - 1) == NULL)
			return false;
	}
	return true;
}

static bool
is_allowed(const struct mcp_list_limits *limits, struct str key)
{
	if (limits->allowed == NULL || limits->allowed->n == 0)
		return true;
	for (size_t i = 0; i < limits->allowed->n; i++) {
		if (str_eq(str_of(limits->allowed->v[i]), key))
			return true;
	}
	return false;
}

static bool
says_read_only(struct str json)
{
	struct str annotations;
	bool is_read_only = false;

	return jsonrpc_member(json, "annotations", &annotations) &&
	       jsonrpc_bool_member(annotations, "readOnlyHint", &is_read_only) && is_read_only;
}

/* 0 or E_PAYLOAD_TOO_LARGE. */
static int
add_item(struct mcp_list *l, struct str json, const struct mcp_list_limits *limits)
{
	struct mcp_item item = {.json = json};
	struct buf key = BUF_INIT;
	bool is_good = jsonrpc_member(json, mcp_kind_info(l->kind)->key, &item.name) &&
		       json_scan_decode(item.name, &key) && is_good_key(l->kind, buf_str(&key)) &&
		       (limits->refuses == NULL || !limits->refuses(json));

	if (is_good && is_allowed(limits, buf_str(&key)) && l->count >= limits->items_max) {
		buf_fini(&key);
		return E_PAYLOAD_TOO_LARGE;
	}
	if (!is_good) {
		l->left_out++;
	} else if (is_allowed(limits, buf_str(&key))) {
		item.key = str_sub(arena_strdup(&l->arena, buf_str(&key)), key.len);
		item.is_read_only = l->kind == MCP_TOOLS && says_read_only(json);
		if (l->count == l->cap) {
			l->cap = l->cap * 2 + 16;
			l->items = xrealloc(l->items, l->cap * sizeof(*l->items));
		}
		l->items[l->count++] = item;
	}
	buf_fini(&key);
	return 0;
}

static void
take_ttl(struct mcp_list *l, struct str result)
{
	int64_t ttl;

	if (jsonrpc_int_member(result, "ttlMs", &ttl) && ttl > 0 &&
	    (l->ttl_ms == 0 || (uint64_t)ttl < l->ttl_ms))
		l->ttl_ms = (uint64_t)ttl;
}

int
mcp_list_add_page(struct mcp_list *l, struct str result, const struct mcp_list_limits *limits,
    struct buf *next_cursor)
{
	struct str page, items, value;
	struct json_scan s;
	int err = 0;

	check(!l->is_closed);
	if (result.len > limits->bytes_max - l->bytes)
		return E_PAYLOAD_TOO_LARGE;
	page = str_sub(arena_strdup(&l->arena, result), result.len);
	l->bytes += result.len;
	if (!jsonrpc_member(page, mcp_kind_info(l->kind)->member, &items))
		return E_INVALID_REQUEST;
	json_scan_init(&s, items);
	if (!json_scan_array(&s))
		return E_INVALID_REQUEST;
	while (err == 0 && json_scan_element(&s) == 1) {
		if (!json_scan_skip(&s, &value))
			return E_INVALID_REQUEST;
		err = add_item(l, value, limits);
	}
	if (err != 0)
		return err;
	take_ttl(l, page);
	buf_clear(next_cursor);
	if (jsonrpc_member(page, "nextCursor", &value) && value.p[0] == '"')
		buf_add_str(next_cursor, value);
	return 0;
}

static int
compare(struct str a, struct str b)
{
	int order = memcmp(a.p, b.p, a.len < b.len ? a.len : b.len);

	return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

/* Of one name the first in the text comes first: they lie in the order of their pages only within a
 * page, which will do for what should not be. */
static int
compare_items(const void *a, const void *b)
{
	const struct mcp_item *x = a, *y = b;
	int order = compare(x->key, y->key);

	return order != 0 ? order : (x->json.p > y->json.p) - (x->json.p < y->json.p);
}

void
mcp_list_close(struct mcp_list *l)
{
	size_t n = 0;

	if (l->count > 0)
		qsort(l->items, l->count, sizeof(*l->items), compare_items);
	for (size_t i = 0; i < l->count; i++) {
		if (n > 0 && str_eq(l->items[n - 1].key, l->items[i].key))
			l->left_out++;
		else
			l->items[n++] = l->items[i];
	}
	l->count = n;
	l->is_closed = true;
}

struct mcp_list *
mcp_list_ref(struct mcp_list *l)
{
	if (l != NULL)
		l->refs++;
	return l;
}

void
mcp_list_unref(struct mcp_list **ref)
{
	struct mcp_list *l = *ref;

	*ref = NULL;
	if (l == NULL || --l->refs > 0)
		return;
	arena_fini(&l->arena);
	free(l->items);
	free(l);
}

enum mcp_kind
mcp_list_kind(const struct mcp_list *l)
{
	return l->kind;
}

size_t
mcp_list_count(const struct mcp_list *l)
{
	return l != NULL ? l->count : 0;
}

size_t
mcp_list_left_out(const struct mcp_list *l)
{
	return l->left_out;
}

uint64_t
mcp_list_ttl_ms(const struct mcp_list *l)
{
	return l->ttl_ms;
}

const struct mcp_item *
mcp_list_at(const struct mcp_list *l, size_t i)
{
	check(i < l->count);
	return &l->items[i];
}

const struct mcp_item *
mcp_list_find(const struct mcp_list *l, struct str key)
{
	size_t low = 0, high = mcp_list_count(l);

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = compare(l->items[middle].key, key);

		if (order == 0)
			return &l->items[middle];
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

bool
mcp_list_equal(const struct mcp_list *a, const struct mcp_list *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	if (a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++) {
		if (!str_eq(a->items[i].json, b->items[i].json))
			return false;
	}
	return true;
}

void
mcp_list_format(const struct mcp_list *l, struct buf *out)
{
	buf_printf(out, "{\"%s\":[", mcp_kind_info(l->kind)->member);
	for (size_t i = 0; i < l->count; i++) {
		if (i > 0)
			buf_add_char(out, ',');
		buf_add_str(out, l->items[i].json);
	}
	buf_add_cstr(out, "]}");
}

/* ---- the view ---- */

static struct str
with_prefix(struct mcp_view *v, const char *server, struct str name)
{
	struct buf b = BUF_INIT;

	buf_printf(&b, "%s__%.*s", server, (int)name.len, name.p);
	struct str kept = str_sub(arena_strdup(&v->arena, buf_str(&b)), b.len);
	buf_fini(&b);
	return kept;
}

static void
add_entry(
    struct mcp_view *v, const struct mcp_source *from, uint32_t source, const struct mcp_item *item)
{
	bool may_prefix = mcp_kind_info(from->list->kind)->has_prefix;
	struct str name = item->key;

	if (may_prefix && (from->has_prefix || strmap_get(v->by_name, name) != NULL))
		name = with_prefix(v, from->server, name);
	if (strmap_get(v->by_name, name) != NULL)
		return;
	struct mcp_entry *e = &v->entries[v->count++];
	*e = (struct mcp_entry){name, source, item};
	strmap_set(v->by_name, name, e);
}

struct mcp_view *
mcp_view_new(enum mcp_kind kind, const struct mcp_source *sources, size_t count)
{
	struct mcp_view *v = xcalloc(1, sizeof(*v));
	size_t total = 0;

	v->arena = ARENA_INIT;
	v->by_name = strmap_new();
	v->lists = xcalloc(count + 1, sizeof(*v->lists));
	v->list_count = count;
	for (size_t i = 0; i < count; i++)
		total += mcp_list_count(sources[i].list);
	v->entries = xcalloc(total + 1, sizeof(*v->entries));
	for (size_t i = 0; i < count; i++) {
		check(sources[i].list == NULL || sources[i].list->kind == kind);
		v->lists[i] = mcp_list_ref(sources[i].list);
		for (size_t j = 0; j < mcp_list_count(v->lists[i]); j++)
			add_entry(v, &sources[i], (uint32_t)i, &v->lists[i]->items[j]);
	}
	return v;
}

void
mcp_view_free(struct mcp_view **ref)
{
	struct mcp_view *v = *ref;

	if (v == NULL)
		return;
	*ref = NULL;
	for (size_t i = 0; i < v->list_count; i++)
		mcp_list_unref(&v->lists[i]);
	free(v->lists);
	free(v->entries);
	strmap_free(&v->by_name);
	arena_fini(&v->arena);
	free(v);
}

size_t
mcp_view_count(const struct mcp_view *v)
{
	return v->count;
}

const struct mcp_entry *
mcp_view_at(const struct mcp_view *v, size_t i)
{
	check(i < v->count);
	return &v->entries[i];
}

const struct mcp_entry *
mcp_view_find(const struct mcp_view *v, struct str name)
{
	return strmap_get(v->by_name, name);
}

void
mcp_entry_format(const struct mcp_entry *e, struct buf *out)
{
	const struct mcp_item *i = e->item;
	size_t before = (size_t)(i->name.p - i->json.p);

	if (str_eq(e->name, i->key)) {
		buf_add_str(out, i->json);
		return;
	}
	buf_add(out, i->json.p, before);
	jsonrpc_add_string(out, e->name);
	buf_add(out, i->name.p + i->name.len, i->json.len - before - i->name.len);
}
