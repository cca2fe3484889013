/*
 * cors - which web pages may read our answers.
 *
 * "*" in the config means any origin; otherwise it must be equal, byte for byte. With
 * credentials the origin is named in the answer, because browsers refuse "*" there.
 */
#include "common/check.h"
#include "worker/http/server.h"

static bool
is_origin_allowed(const struct conf_list *origins, struct str origin)
{
	for (size_t i = 0; i < origins->n; i++) {
		if (strcmp(origins->v[i], "*") == 0 || str_eq(str_of(origins->v[i]), origin))
			return true;
	}
	return false;
}

static bool
is_any_allowed(const struct conf_list *origins)
{
	for (size_t i = 0; i < origins->n; i++) {
		if (strcmp(origins->v[i], "*") == 0)
			return true;
	}
	return false;
}

bool
http_is_origin_allowed(const struct http_req *r)
{
	struct str origin = http_header(r, "origin");

	return origin.p == NULL || is_origin_allowed(&r->server->conf->cors.allow_origins, origin);
}

void
cors_decide(struct http_req *r)
{
	const struct conf *conf = r->server->conf;
	struct str origin = http_header(r, "origin");

	r->origin = NULL;
	if (origin.p == NULL || !is_origin_allowed(&conf->cors.allow_origins, origin))
		return;
	if (is_any_allowed(&conf->cors.allow_origins) && !conf->cors.allow_credentials)
		r->origin = "*";
	else
		r->origin = h2o_strdup(&r->h2o->pool, origin.p, origin.len).base;
}

static void
add(struct http_req *r, const char *name, const char *value)
{
	h2o_add_header_by_str(
	    &r->h2o->pool, &r->h2o->res.headers, name, strlen(name), 0, NULL, value, strlen(value));
}

void
cors_add_headers(struct http_req *r)
{
	if (r->origin == NULL)
		return;
	add(r, "access-control-allow-origin", r->origin);
	if (strcmp(r->origin, "*") != 0)
		add(r, "vary", "Origin");
	if (r->server->conf->cors.allow_credentials)
		add(r, "access-control-allow-credentials", "true");
	add(r, "access-control-expose-headers",
	    "X-Request-Id, Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, "
	    "X-RateLimit-Reset, "
	    "X-Parley-Provider, X-Parley-Model, X-Parley-Attempts, X-Parley-Turn, "
	    "X-Parley-Connection");
}

/* Of a known path: a preflight, or just the question what is allowed. */
void
cors_answer_options(struct http_req *r)
{
	struct buf methods = BUF_INIT;
	struct str headers = http_header(r, "access-control-request-headers");

	route_methods(r->match.path, &methods);
	http_add_header(r, "allow", methods.data);
	if (r->origin != NULL && http_header(r, "access-control-request-method").p != NULL) {
		http_add_header(r, "access-control-allow-methods", methods.data);
		if (headers.p != NULL)
			http_add_header(r, "access-control-allow-headers",
			    h2o_strdup(&r->h2o->pool, headers.p, headers.len).base);
		http_add_header(r, "access-control-max-age",
		    arena_printf(&r->arena, "%llu",
			(unsigned long long)(r->server->conf->cors.max_age_ms / 1000)));
	}
	buf_fini(&methods);
	http_reply(r, 204, NULL, STR_NONE);
}
