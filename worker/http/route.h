/*
 * route - which handler a method and a path lead to.
 *
 * Pure. Literal segments win over {parameters}. Paths are matched segment by
 * segment as they were sent; parameters are decoded.
 */
#ifndef WORKER_HTTP_ROUTE_H
#define WORKER_HTTP_ROUTE_H

#include "common/buf.h"
#include "common/str.h"
#include "worker/http/http.h"

enum { ROUTE_PARAMS_MAX = 4, ROUTE_SEGMENTS_MAX = 12 };

struct route_table;

/* One route as it was added. */
struct route_entry {
	const struct http_route *route;
	void *arg;
	unsigned label; /* its pattern's index in the metrics */
};

struct route_param {
	struct str name;  /* of the pattern */
	struct str value; /* of the path, still encoded */
};

struct route_match {
	const struct route_entry *entry; /* NULL: no such path, or not with this method */
	const struct route_path *path;   /* NULL: no such path */
	struct route_param params[ROUTE_PARAMS_MAX];
	unsigned param_count;
};

struct route_table *route_table_new(void);
void route_table_free(struct route_table **);
/* One method of one pattern, once. The route stays valid. */
void route_table_add(
    struct route_table *, const struct http_route *, void *arg, unsigned metric_label);

/* path without query. HEAD finds GET's. */
void route_find(
    const struct route_table *, struct str method, struct str path, struct route_match *);

void route_methods(const struct route_path *, struct buf *out); /* "GET, HEAD, OPTIONS" */

unsigned route_flags(const struct route_path *); /* of all its methods together */

/* Percent-decoding; '+' is a space in queries. False: a broken escape, or a NUL. dst: text.len + 1
 * bytes, may be text.p itself. */
bool route_decode(struct str text, bool is_query, char *dst, size_t *ret_len);

#endif
