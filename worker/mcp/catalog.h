/*
 * catalog - what tool servers offer: lists as they were read from one server, and the view over
 * several servers in which each thing has one name.
 *
 * Pure. A list is read page by page, checked, put in the order of its names (so that every worker
 * has the same one) and never changes afterwards; it is counted, because turns and requests hold it
 * while the server's next list has come already. Each item is kept as it was written; only its name
 * is understood.
 */
#ifndef WORKER_MCP_CATALOG_H
#define WORKER_MCP_CATALOG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/conf.h"
#include "common/str.h"

enum mcp_kind { MCP_TOOLS, MCP_PROMPTS, MCP_RESOURCES, MCP_TEMPLATES, MCP_KIND_COUNT };

struct mcp_kind_info {
	const char *method;     /* "tools/list" */
	const char *member;     /* of its result: "tools" */
	const char *key;        /* what names an item: "name", "uri", "uriTemplate" */
	const char *capability; /* that a server has who answers it: "tools" */
	const char *changed;    /* what it sends when the list has changed */
	const char *wish;       /* what a modern client asks to be told: "toolsListChanged" */
	bool has_prefix;        /* its names get the server's name in front */
};
const struct mcp_kind_info *mcp_kind_info(enum mcp_kind);

enum { MCP_NAME_MAX = 128, MCP_URI_MAX = 4096, MCP_PREFIX_MAX = 34 };

struct mcp_item {
	struct str key;    /* its name or URI, decoded */
	struct str json;   /* the whole object, as written */
	struct str name;   /* where the value of `key` stands in json, with its quotes */
	bool is_read_only; /* a tool that says so of itself (annotations.readOnlyHint) */
};

struct mcp_list;

/* ---- reading ---- */

struct mcp_list_limits {
	size_t items_max, bytes_max;
	const struct conf_list *allowed;  /* keys that count; NULL or empty: all */
	bool (*refuses)(struct str item); /* items that are left out; NULL: none */
};

struct mcp_list *mcp_list_new(enum mcp_kind); /* one reference; open for pages */
/*
 * A page: the result of a list's method. 0, and *next_cursor gets what is asked for next, as
 * written with its quotes (empty: that was the last page). E_INVALID_REQUEST: not of that shape;
 * E_PAYLOAD_TOO_LARGE. Items without a good name, and those whose name was there before, are left
 * out and counted.
 */
int mcp_list_add_page(
    struct mcp_list *, struct str result, const struct mcp_list_limits *, struct buf *next_cursor);
void mcp_list_close(struct mcp_list *); /* sorts; from now on it is constant */

struct mcp_list *mcp_list_ref(struct mcp_list *); /* NULL: NULL */
void mcp_list_unref(struct mcp_list **);

enum mcp_kind mcp_list_kind(const struct mcp_list *);
size_t mcp_list_count(const struct mcp_list *);
size_t mcp_list_left_out(const struct mcp_list *);
uint64_t mcp_list_ttl_ms(const struct mcp_list *); /* the least a page has said; 0: none did */
const struct mcp_item *mcp_list_at(const struct mcp_list *, size_t i);
const struct mcp_item *mcp_list_find(const struct mcp_list *, struct str key); /* NULL: none */
bool mcp_list_equal(const struct mcp_list *, const struct mcp_list *); /* both closed, or NULL */
/* {"tools":[..]}: what mcp_list_add_page() reads. */
void mcp_list_format(const struct mcp_list *, struct buf *);

/* ---- the view over several servers ---- */

struct mcp_source {
	const char *server; /* its name */
	bool has_prefix;
	struct mcp_list *list; /* borrowed; NULL: it has none */
};

struct mcp_entry {
	struct str name; /* what clients call it: one entry has it */
	uint32_t source; /* its index in what the view was made of */
	const struct mcp_item *item;
};

/*
 * In the order of the sources, within each of the names. With a prefix a name is
 * `<server>__<name>`. Without one a name that another source before had gets the prefix all the
 * same; where that is taken as well, and of URIs which have no prefix, the first one counts.
 * The view holds the lists.
 */
struct mcp_view *mcp_view_new(enum mcp_kind, const struct mcp_source *, size_t count);
void mcp_view_free(struct mcp_view **);
size_t mcp_view_count(const struct mcp_view *);
const struct mcp_entry *mcp_view_at(const struct mcp_view *, size_t i);
const struct mcp_entry *mcp_view_find(const struct mcp_view *, struct str name); /* NULL: none */
/* The item as it was written, under its name in the view. */
void mcp_entry_format(const struct mcp_entry *, struct buf *);

#endif
